"""The hospital's part: publish a twin, look at a job, approve a copy of it, run it, release counts.

What is approved is the bytes that were looked at: they are copied into the hospital's home with
their hashes, and only this copy is ever run. Nothing but noised, signed counts goes back.
"""

import csv
import hashlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from clearinghouse.canonical import canonical_bytes, digest, parse_canonical
from clearinghouse.client.budget import Budget, unit_of
from clearinghouse.client.keystore import Keystore
from clearinghouse.errors import (
    BudgetExceededError,
    ConflictError,
    InputError,
    NotFoundError,
    RefusedError,
    VerificationError,
)
from clearinghouse.failpoints import reach
from clearinghouse.features import encode
from clearinghouse.money import format_money
from clearinghouse.onsite.box import RULES, Box, Submission
from clearinghouse.onsite.counting import exact_counts, noised, tables_of
from clearinghouse.onsite.jail import Evaluated, evaluate
from clearinghouse.onsite.papers import (
    JOB_FILE,
    MODEL_FILE,
    NOT_A_PROGRAM,
    OFFER_FILE,
    RELEASE_FILE,
    Job,
    Offer,
    check_email,
    check_word,
    read_job,
    read_offer,
    to_bytes,
)
from clearinghouse.onsite.releases import sign_release
from clearinghouse.schema import Schema
from clearinghouse.score_bins import published_bins
from clearinghouse.signing import b64decode_strict
from clearinghouse.tables import Table, read_table

MOCK_FILE = "mock.csv"
NOTE = (
    "The rows are not here. They stay in the owner's own table, which no SyftBox folder holds: a\n"
    "folder that is synced, shared or mounted by mistake gives nobody a patient.\n"
)
PARTS = frozenset({"config.yaml", "run.sh", f"code/{JOB_FILE}", f"code/{MODEL_FILE}"})
"""All that a job may hold."""


@dataclass(frozen=True, slots=True)
class Review:
    """What a person sees before approving.

    Attributes:
        submission: Where it lies.
        job: What it asks.
        files: Name and SHA-256 of every file.
        found: The graph, and its scores on the mock rows.
        is_approved: Whether exactly this was approved before.
        is_charged: Whether this release was paid before: sharing it again costs nothing.
        left_micro: Epsilon that these patients have left.
    """

    submission: Submission
    job: Job
    files: Mapping[str, str]
    found: Evaluated
    is_approved: bool
    is_charged: bool
    left_micro: int


def mock_rows(folder: Path, schema: Schema) -> Table:
    """The made-up rows of a dataset; they carry no patient's id."""
    return read_table(folder / MOCK_FILE, replace(schema, patient_id=None))


def label_levels(schema: Schema) -> tuple[str, ...]:
    """Levels of the label in order; none of a number."""
    return schema.label.levels if schema.label.kind == "category" else ()


class Hospital:
    """A hospital with one table of patients and a SyftBox folder."""

    def __init__(
        self, name: str, keystore: Keystore, box: Box, read: Callable[[], Table], budget: Budget
    ) -> None:
        """Take the parts; `read` reads the patients' table, only when it is needed."""
        self.name, self.keystore, self.box, self.budget = name, keystore, box, budget
        self._read = read

    # ---------------------------------------------------------------- publish

    def publish(
        self, dataset: str, mock: Table, developer: str, size_class: int, epsilon_micro: int
    ) -> Offer:
        """Make a dataset whose mock is made-up rows, once, and let a developer see it.

        Raises:
            ConflictError: The dataset was published on other terms.
        """
        check_word(dataset, "--dataset")
        check_email(developer, "--to")
        schema = mock.schema
        offer = Offer(
            dataset=dataset,
            hospital=self.name,
            email=self.box.email,
            key=self.keystore.signing_key.verify_key.base64,
            schema=schema.to_dict(),
            size_class=size_class,
            bins=published_bins(size_class),
            epsilon_micro=epsilon_micro,
        )
        known = self.keystore.recall(f"onsite/datasets/{dataset}")
        if known is None:
            self._make(offer, mock)
            terms = {"offer": to_bytes(offer).decode(), "rows": unit_of(self._read())}
            self.keystore.remember(f"onsite/datasets/{dataset}", terms)
        elif known["offer"] != to_bytes(offer).decode():
            raise ConflictError(
                f"the dataset '{dataset}' was published on other terms. Give another --dataset"
            )
        self.box.allow(dataset, developer)
        return offer

    def _make(self, offer: Offer, mock: Table) -> None:
        with tempfile.TemporaryDirectory() as place:
            public, private = Path(place) / "mock", Path(place) / "README.txt"
            public.mkdir()
            (public / OFFER_FILE).write_bytes(to_bytes(offer))
            records = mock.records()
            with (public / MOCK_FILE).open("w", encoding="utf-8", newline="") as stream:
                writer = csv.DictWriter(stream, list(records[0]))
                writer.writeheader()
                writer.writerows(records)
            private.write_text(NOTE)
            summary = f"{offer.hospital}: made-up rows of schema '{mock.schema.name}'"
            self.box.publish(offer.dataset, public, private, summary)

    def _offer(self, dataset: str) -> tuple[Offer, Schema, str]:
        """An offer of this home, its schema, and the digest of the rows it was made for."""
        known = self.keystore.recall(f"onsite/datasets/{check_word(dataset, 'dataset')}")
        if known is None:
            raise NotFoundError(f"this home published no dataset '{dataset}'")
        return *read_offer(known["offer"].encode()), str(known["rows"])

    # ---------------------------------------------------------------- review

    def waiting(self) -> tuple[Submission, ...]:
        """Every job in the inbox."""
        return self.box.submissions(self.box.email)

    def _find(self, name: str, developer: str | None) -> Submission:
        found = [j for j in self.waiting() if j.name == name and developer in (None, j.developer)]
        if len(found) != 1:
            many = "several developers have a job" if found else "there is no job"
            raise NotFoundError(f"{many} '{name}' in the inbox; see clearinghouse onsite review")
        return found[0]

    def _open(self, submission: Submission) -> tuple[Job, bytes, dict[str, str]]:
        """Read a job once, and check it; what it asks, its model, and the hash of every file.

        Raises:
            InputError: It is refused; the message says why.
        """
        name, files = submission.name, self.box.read(submission)
        check_word(name, "the job's name")
        foreign = sorted(set(files) - PARTS - {RULES})
        if foreign or PARTS - set(files):
            odd = f"holds {foreign[0]!r}" if foreign else f"lacks {sorted(PARTS - set(files))[0]!r}"
            raise InputError(
                f"job '{name}' {odd}: a job is a manifest and a model, nothing that could be run"
            )
        if files["run.sh"] != NOT_A_PROGRAM:
            raise InputError(
                f"job '{name}' brings a run.sh of its own: no code of a submitter is ever run here"
            )
        try:
            model = b64decode_strict(files[f"code/{MODEL_FILE}"].decode("ascii"))
        except (UnicodeDecodeError, VerificationError):
            raise InputError(f"job '{name}': {MODEL_FILE} is not base64") from None
        raw = files[f"code/{JOB_FILE}"]
        stated = parse_canonical(raw)
        dataset = stated.get("dataset") if isinstance(stated, dict) else None
        offer, schema, _ = self._offer(str(dataset))
        job = read_job(raw, offer, schema)
        if job.developer != submission.developer:
            raise InputError(f"job '{name}' names another developer than whose inbox it lies in")
        if (hashlib.sha256(model).hexdigest(), len(model)) != (job.model_sha256, job.model_bytes):
            raise InputError(f"job '{name}': the model is not the one that its manifest names")
        hashes = {place: hashlib.sha256(data).hexdigest() for place, data in files.items()}
        return job, model, hashes

    def review(self, name: str, developer: str | None = None) -> Review:
        """Check a job, scan its graph, and try it on the mock rows; nothing is approved.

        Raises:
            InputError: The job or its graph is refused; the message says why.
        """
        return self._review(self._find(name, developer))[0]

    def _review(self, submission: Submission) -> tuple[Review, bytes]:
        job, model, files = self._open(submission)
        _, schema, _ = self._offer(job.dataset)
        mock = mock_rows(self.box.dataset(self.box.email, job.dataset), schema)
        found = evaluate(model, encode(schema, mock), label_levels(schema))
        known = self.keystore.recall(_place(submission))
        review = Review(
            submission,
            job,
            files,
            found,
            known is not None and known["manifest"] == to_bytes(job).decode(),
            self.budget.has(job.key),
            self.budget.limit - self.budget.spent,
        )
        return review, model

    def approve(self, name: str, developer: str | None = None) -> Review:
        """Review a job and keep a copy of it: only this copy will ever be run under its name.

        Raises:
            InputError: It is refused.
            ConflictError: Other bytes were approved under this name.
        """
        submission = self._find(name, developer)
        review, model = self._review(submission)
        place, manifest = _place(submission), to_bytes(review.job).decode()
        known = self.keystore.recall(place)
        if known is not None and known["manifest"] != manifest:
            raise ConflictError(
                f"job '{name}' was approved with another model or manifest, and that is what will "
                "be run. The developer can submit this one under another name"
            )
        self.keystore.write(f"{place}.onnx", model)
        self.keystore.remember(place, {"manifest": manifest, "files": dict(review.files)})
        self.box.record(submission, "pending", "approved; it runs on site")
        return replace(review, is_approved=True)

    def reject(self, name: str, reason: str, developer: str | None = None) -> None:
        """Tell the developer that a job is not run."""
        self.box.record(self._find(name, developer), "rejected", reason)

    # ---------------------------------------------------------------- run and share

    def _approved(self, submission: Submission) -> Job:
        known = self.keystore.recall(_place(submission))
        if known is None:
            raise RefusedError(
                f"job '{submission.name}' is not approved. "
                f"Run: clearinghouse onsite approve {submission.name}"
            )
        manifest = known["manifest"].encode()
        offer, schema, _ = self._offer(str(parse_canonical(manifest)["dataset"]))
        return read_job(manifest, offer, schema)

    def run(self, name: str, developer: str | None = None) -> Job:
        """Run the approved copy on the patients' rows; exact counts stay in this home.

        Raises:
            RefusedError: It is not approved, the process died, or the rows are other ones.
        """
        submission = self._find(name, developer)
        job = self._approved(submission)
        model = self.keystore.read(f"{_place(submission)}.onnx") or b""
        if hashlib.sha256(model).hexdigest() != job.model_sha256:
            raise RefusedError(f"the approved copy of job '{name}' was changed. Approve it again")
        _, schema, rows = self._offer(job.dataset)
        table = self._read()
        if unit_of(table) != rows:
            raise RefusedError(
                f"the table is not the one that '{job.dataset}' was published for. Put it back, or "
                "publish the new one as another dataset"
            )
        found = evaluate(model, encode(schema, table), label_levels(schema))
        counts = exact_counts(table, found.scores, job.edges, job.threshold_edge)
        self.keystore.remember(f"private/onsite/exact/{job.key}", {"counts": counts, "rows": rows})
        return job

    def share(self, name: str, developer: str | None = None) -> tuple[Job, Path]:
        """Pay, draw the noise, sign the counts and put them into the developer's outputs.

        A release that was paid before is replayed from the ledger, whoever asks for it.

        Raises:
            BudgetExceededError: The budget does not hold it; nothing was charged or drawn.
            RefusedError: The job was not run yet.
        """
        submission = self._find(name, developer)
        job = self._approved(submission)
        offer, schema, rows = self._offer(job.dataset)
        tables = tables_of(schema, len(job.edges) - 1, job.epsilon_micro)
        ran = self.keystore.recall(f"private/onsite/exact/{job.key}")
        if not self.budget.has(job.key):
            if ran is None or ran["rows"] != rows:
                raise RefusedError(
                    f"job '{name}' was not run yet. Run: clearinghouse onsite run {name}"
                )
            self._check_budget(job)
        costs = [{"name": cells.name, "epsilon_micro": cells.epsilon_micro} for cells in tables]
        self.keystore.remember(
            f"private/onsite/tables/{job.key}", {"kind": "score", "tables": costs}
        )

        def draw() -> bytes:
            if ran is None:
                raise RefusedError(f"the exact counts of job '{name}' are gone; run it again")
            return canonical_bytes(noised(ran["counts"], tables))

        purpose = f"on-site evaluation of model {job.model_sha256[:12]}"
        body = {**job.asked, "rows": rows}
        try:
            stored = self.budget.release(job.key, body, job.epsilon_micro, draw, purpose)
        except (BudgetExceededError, ConflictError):
            raise
        except RefusedError as error:  # paid, and broken off before an answer was stored
            raise RefusedError(
                f"{error}: the developer can submit the model with --repeat {job.repeat + 1}"
            ) from None
        reach("onsite.released")
        counts = parse_canonical(stored)
        release = sign_release(offer, job, name, tables, counts, self.keystore.signing_key)
        path = self.box.deposit(submission, RELEASE_FILE, release)
        self.box.record(submission, "done", "noised counts are in outputs")
        self.keystore.forget(f"private/onsite/exact/{job.key}.json")
        return job, path

    def _check_budget(self, job: Job) -> None:
        """Say in words what the ledger would refuse."""
        left = self.budget.limit - self.budget.spent
        if job.epsilon_micro > left:
            raise BudgetExceededError(
                f"this evaluation costs epsilon {format_money(job.epsilon_micro)}, and "
                f"{format_money(left)} of {format_money(self.budget.limit)} is left for these "
                "patients, for life. Nothing was charged and nothing is released"
            )


def _place(submission: Submission) -> str:
    """Where the approved copy is kept: foreign names are no file names."""
    return f"private/onsite/jobs/{digest([submission.developer, submission.name])[:32]}"


def review_values(review: Review) -> dict[str, Any]:
    """A review as JSON values."""
    scores = review.found.scores
    return {
        "job": review.submission.name,
        "developer": review.submission.developer,
        "status": review.submission.status,
        "manifest": {key: v for key, v in asdict(review.job).items() if key != "columns"},
        "manifest_sha256": review.job.sha256,
        "files": dict(review.files),
        "operators": review.found.operators,
        "weights": review.found.weights,
        "mock_rows": len(scores),
        "mock_rows_failed": int(np.isnan(scores).any(axis=1).sum()),
        "approved": review.is_approved,
        "epsilon": format_money(0 if review.is_charged else review.job.epsilon_micro),
        "epsilon_left": format_money(review.left_micro),
    }
