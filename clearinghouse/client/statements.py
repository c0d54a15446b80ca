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
from clearinghouse.columns import Label
from clearinghouse.errors import ProtocolError
from clearinghouse.log.claim import Metric, ScoreClaim
from clearinghouse.messages.results import RunView
from clearinghouse.score_cards import Released, Task, metrics_of, task_of

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
        facts: What else the statement has to say of the run's privacy.
        record: The key agent's private note: tables with noise, and blobs.
        labels: (L,) rows of each label.
        levels: Subgroup table name to (levels, L) rows.
        label: The schema's label.
    """

    ids: Mapping[str, str]
    digests: Mapping[str, str]
    key_id: str
    developer_ids: Sequence[str]
    epsilon_micro: int
    facts: Mapping[str, str]
    record: Mapping[str, Any]
    labels: Integers
    levels: Mapping[str, Integers]
    label: Label


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
    _need(claim.facts == known.facts, "its facts are not those of this run's privacy")


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
    parts = _parts(view, known)
    _need(
        {f"group:{name}" for name in view.groups} | {part.table for part in parts} == set(tables),
        "it releases other tables than were opened",
    )
    exact: dict[str, Integers] = {}
    for part in parts:
        histogram = _less_noise(part.counts, tables[part.table], (len(part.labels), -1))
        _need(bool((histogram >= 0).all()), "an exact count would be negative")
        _need(
            bool((histogram.sum(axis=1) == part.labels).all()),
            "the exact counts of a label do not sum to its rows",
        )
        _need(0 <= part.threshold_edge <= histogram.shape[1], "the threshold is no edge")
        predicted = histogram[:, part.threshold_edge :].sum(axis=1)
        exact[part.table] = histogram
        for name, rows in part.levels.items():
            key = f"group:{name}"
            _need(name in view.groups, f"the table of {name} is missing")
            group = _less_noise(view.groups[name], tables[key], rows.shape)
            possible = bool(((group >= 0) & (group <= rows)).all())
            _need(possible, f"an exact count of {name} is more or less than its rows")
            _need(
                bool((group.sum(axis=0) == predicted).all()),
                f"the exact counts of {name} do not sum to the histogram's",
            )
            exact[key] = group
    return {name: table.reshape(-1).tolist() for name, table in exact.items()}


@dataclass(frozen=True, slots=True)
class _Part:
    """One histogram of a release, and the rows that it counts.

    Attributes:
        table: Name of the histogram's table.
        counts: (labels, bins) as released.
        threshold_edge: Index of the decision threshold.
        labels: (labels,) rows.
        levels: Name of each group in the release to its (levels, labels) rows.
    """

    table: str
    counts: Sequence[Sequence[int]]
    threshold_edge: int
    labels: Integers
    levels: Mapping[str, Integers]


def _parts(view: RunView, known: Known) -> list[_Part]:
    """The histograms that a release of this label must hold.

    Raises:
        ProtocolError: It holds another number of them.
    """
    levels = {name.removeprefix("group:"): rows for name, rows in known.levels.items()}
    if task_of(known.label) != "classes":
        _need(not view.histograms, "it has histograms of classes, and the label has none")
        return [_Part("histogram", view.counts, view.threshold_edge, known.labels, levels)]
    count = len(known.labels)
    _need(
        len(view.histograms) == count and len(view.counts) == 2 * count,
        "it has not one histogram for each class",
    )
    return [
        _Part(
            f"histogram:{k}",
            view.counts[2 * k : 2 * k + 2],
            histogram.threshold_edge,
            _against_rest(known.labels, k),
            {f"{k}:{name}": _against_rest(rows, k) for name, rows in levels.items()},
        )
        for k, histogram in enumerate(view.histograms)
    ]


def _against_rest(rows: Integers, of_class: int) -> Integers:
    """(..., labels) rows as (..., 2): the rest, then the class."""
    mine = rows[..., of_class]
    return np.stack([rows.sum(axis=-1) - mine, mine], axis=-1)


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
    task = task_of(known.label)
    _need((task == "number") == bool(view.unit), "the release does not fit the label")
    table = known.record["tables"][0]
    card = released(view, task, table, known.label).card(float(claim.confidence))
    expected = metrics_of(card)
    _need(set(claim.metrics) == set(expected), f"the metrics must be {', '.join(expected)}")
    for name, values in expected.items():
        stated = claim.metrics[name]
        _need(_agree(stated, values), f"{name} does not follow from the released counts")
    _need(claim.status == _STATUS[card.status], "the status does not follow from the counts")


def released(view: RunView, task: Task, table: Mapping[str, Any], label: Label) -> Released:
    """A run as its participants see it, with what it takes to read its counts."""
    own = [(part.edges, part.threshold_edge) for part in view.histograms]
    read = own or [(view.edges, view.threshold_edge)]
    return Released(
        task,
        view.counts,
        table["epsilon_micro"],
        [edges for edges, _ in read],
        [threshold for _, threshold in read],
        view.unit,
        label.high - label.low if label.kind == "number" else 0.0,
        table["coins"],
    )


def _agree(stated: Metric, expected: tuple[float, float, float]) -> bool:
    """Equal up to the sixth decimal, in which two machines' rounding may differ."""
    texts = (stated.value, stated.low, stated.high)
    pairs = zip(texts, expected, strict=True)
    return all(abs(float(text) - value) <= 2e-6 + 1e-9 * abs(value) for text, value in pairs)


def _need(holds: bool, problem: str) -> None:
    if not holds:
        raise ProtocolError(f"the statement is not signed: {problem}")
