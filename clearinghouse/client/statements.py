"""What a hospital checks before it signs a score: nothing is signed that it did not see happen.

The statement names a release by its hash; the released counts are fetched beside it. The hospital
knows its noise, so it knows which exact counts the release claims, and these must be possible: not
negative, with its own class totals, the same in every table. A changed count breaks a total.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clearinghouse.canonical import digest
from clearinghouse.errors import ProtocolError
from clearinghouse.log.claim import Metric, ScoreClaim
from clearinghouse.messages.results import RunView
from secure_eval.noise import noise_variance
from secure_eval.scorecard import METRICS, Scorecard

ROUNDS = (
    "score",
    "digits",
    "early_checks",
    "early_replies",
    "shares",
    "characters",
    "final_checks",
    "final_replies",
    "openings",
    "replies",
)
"""Blobs of a scoring run in the order they travel."""

_STATUS = {"ok": "determined", "undetermined": "undetermined"}

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Known:
    """What the hospital itself knows about a run.

    Attributes:
        ids: Request, run, model, valset and hospital.
        digests: model_sha256, valset_commitment and policy_sha256.
        key_id: The hospital's key.
        developer_ids: Who may have submitted the model.
        epsilon_micro: Agreed cost of the run.
        record: The key agent's private note: tables with noise, and blobs.
        labels: (L,) rows of each label.
        levels: Subgroup table name to (levels, L) rows.
    """

    ids: Mapping[str, str]
    digests: Mapping[str, str]
    key_id: str
    developer_ids: Sequence[str]
    epsilon_micro: int
    record: Mapping[str, Any]
    labels: Integers
    levels: Mapping[str, Integers]


def check_claim(claim: ScoreClaim, view: RunView, known: Known) -> dict[str, list[int]]:
    """Check a score claim and the release behind it.

    Returns:
        The exact counts of each table, row-major: for the hospital's private record only.

    Raises:
        ProtocolError: The claim says something that the hospital did not see or cannot be.
    """
    _check_names(claim, known)
    released = {"run": view.id, "counts": view.counts, "groups": view.groups}
    _need(digest(released) == claim.release_sha256, "the release is not the published one")
    _need(transcript(known.record) == claim.transcript_sha256, "the transcript is another one")
    exact = exact_counts(view, known)
    _check_metrics(claim, view, known)
    return exact


def _check_names(claim: ScoreClaim, known: Known) -> None:
    for name, expected in {**known.ids, **known.digests}.items():
        _need(getattr(claim, name) == expected, f"{name} is not the one of this run")
    _need(claim.developer in known.developer_ids, "the developer is not in the request")
    _need(claim.epsilon_micro == known.epsilon_micro, "epsilon is not what was agreed")
    mine = [s for s in claim.signers if s.role == "hospital"]
    _need([s.key for s in mine] == [known.key_id], "this hospital's key is not the one to sign")
    _need(not claim.facts, "it states further facts that this hospital cannot check")


def transcript(record: Mapping[str, Any]) -> str:
    """SHA-256 over the hashes of the run's blobs in the order they travelled."""
    whole = hashlib.sha256()
    for name in ROUNDS:
        whole.update(bytes.fromhex(record["blobs"][name]))
    return whole.hexdigest()


def exact_counts(view: RunView, known: Known) -> dict[str, list[int]]:
    """Released counts less this hospital's noise, after checking that they are possible.

    Raises:
        ProtocolError: They are not.
    """
    tables = {table["name"]: table for table in known.record["tables"]}
    _need(
        {f"group:{name}" for name in view.groups} | {"histogram"} == set(tables),
        "it releases other tables than were opened",
    )
    histogram = _less_noise(view.counts, tables["histogram"], (len(known.labels), -1))
    _need(bool((histogram >= 0).all()), "an exact count would be negative")
    _need(
        bool((histogram.sum(axis=1) == known.labels).all()),
        "the exact counts of a label do not sum to its rows",
    )
    _need(0 <= view.threshold_edge <= histogram.shape[1], "the threshold is no edge")
    predicted = histogram[:, view.threshold_edge :].sum(axis=1)
    exact = {"histogram": histogram}
    for name, counts in view.groups.items():
        key = f"group:{name}"
        rows = known.levels[key]
        group = _less_noise(counts, tables[key], rows.shape)
        possible = bool(((group >= 0) & (group <= rows)).all())
        _need(possible, f"an exact count of {name} is more or less than its rows")
        _need(
            bool((group.sum(axis=0) == predicted).all()),
            f"the exact counts of {name} do not sum to the histogram's",
        )
        exact[key] = group
    return {name: table.reshape(-1).tolist() for name, table in exact.items()}


def _less_noise(
    counts: Sequence[Sequence[int]], table: Mapping[str, Any], shape: tuple[int, ...]
) -> Integers:
    flat = [value for row in counts for value in row]
    noise = table.get("noise", [])
    _need(len(flat) == len(noise) == table["cells"], "a table has another shape than was opened")
    exact = np.array(flat, np.int64) - np.array(noise, np.int64)
    return exact.reshape(shape)


def _check_metrics(claim: ScoreClaim, view: RunView, known: Known) -> None:
    """The metrics are the public function of the released counts that they should be."""
    epsilon_micro, coins = (known.record["tables"][0][name] for name in ("epsilon_micro", "coins"))
    card = Scorecard.from_counts(
        view.counts,
        epsilon_micro / 1_000_000,
        view.edges,
        view.threshold_edge,
        level=float(claim.confidence),
        noise_variance=noise_variance(epsilon_micro, coins),
    )
    _need(set(claim.metrics) == set(METRICS), f"the metrics must be {', '.join(METRICS)}")
    for name in METRICS:
        low, high = card.intervals[name]
        expected = (float(getattr(card, name)), low, high)
        stated = claim.metrics[name]
        _need(_agree(stated, expected), f"{name} does not follow from the released counts")
    _need(claim.status == _STATUS[card.status], "the status does not follow from the counts")


def _agree(stated: Metric, expected: tuple[float, float, float]) -> bool:
    """Equal up to the sixth decimal, in which two machines' rounding may differ."""
    texts = (stated.value, stated.low, stated.high)
    pairs = zip(texts, expected, strict=True)
    return all(abs(float(text) - value) <= 2e-6 for text, value in pairs)


def _need(holds: bool, problem: str) -> None:
    if not holds:
        raise ProtocolError(f"the statement is not signed: {problem}")
