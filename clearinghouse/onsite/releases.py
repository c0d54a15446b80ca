"""What a hospital releases: noised counts, signed; and how a developer reads them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clearinghouse.canonical import canonical_bytes, parse_canonical
from clearinghouse.documents import decimal_text
from clearinghouse.errors import InputError, VerificationError
from clearinghouse.money import MICRO
from clearinghouse.onsite.counting import Cells, Counts, tables_of
from clearinghouse.onsite.papers import ATTESTED, RELEASE_PREDICATE, Job, Offer
from clearinghouse.schema import Schema
from clearinghouse.score_cards import Card, Released, task_of
from clearinghouse.signing import SigningKey, VerifyKey, sign_statement, verify_statement
from secure_eval.noise import geometric_variance
from secure_eval.score_intervals import Interval, rate_interval, rate_point, two_sided

LEVEL = 0.9
"""Coverage of the intervals that are shown."""

MOST_COUNT = 2**40


def sign_release(
    offer: Offer, job: Job, name: str, tables: Sequence[Cells], counts: Counts, key: SigningKey
) -> bytes:
    """The hospital's statement: which model, asked how, gave which noised counts."""
    predicate = _predicate(offer, job, name, tables, counts)
    subjects = {"manifest": job.sha256, "model": job.model_sha256}
    return canonical_bytes(sign_statement(RELEASE_PREDICATE, subjects, predicate, [key]))


def _predicate(
    offer: Offer, job: Job, name: str, tables: Sequence[Cells], counts: Counts
) -> dict[str, Any]:
    task = task_of(Schema.from_dict(offer.schema).label)
    return {
        "kind": "onsite-release",
        "attested": ATTESTED,
        "hospital": offer.hospital,
        "email": offer.email,
        "dataset": offer.dataset,
        "developer": job.developer,
        "job": name,
        "task": task,
        "law": "geometric",
        "epsilon_micro": job.epsilon_micro,
        "edges": list(job.edges),
        "threshold_edge": job.threshold_edge,
        "tables": [
            {
                "name": cells.name,
                "shape": list(cells.shape),
                "epsilon_micro": cells.epsilon_micro,
                "counts": counts[cells.name],
            }
            for cells in tables
        ],
    }


@dataclass(frozen=True, slots=True)
class GroupRates:
    """Of one level of a subgroup attribute: rates with intervals, over noise and sampling."""

    attribute: str
    level: str
    sensitivity: tuple[float, Interval]
    specificity: tuple[float, Interval]


@dataclass(frozen=True, slots=True)
class Result:
    """A release that was verified.

    Attributes:
        card: The scorecard, as of a blind run.
        groups: Of two levels: rates of each level of each subgroup.
        counts: Table name to noised counts.
        key_id: Who signed.
        epsilon_micro: What it cost these patients.
    """

    card: Card
    groups: tuple[GroupRates, ...]
    counts: Counts
    key_id: str
    epsilon_micro: int


def read_release(data: bytes, offer: Offer, job: Job, name: str) -> Result:
    """Verify a release against the job that was submitted, and make its scorecard.

    Raises:
        VerificationError: It is not signed by the offer's key, or not the answer to this job.
    """
    key = VerifyKey.from_base64(offer.key)
    try:
        envelope = parse_canonical(data)
    except InputError as error:
        raise VerificationError(f"the release is malformed: {error}") from None
    statement = verify_statement(envelope, {key.key_id: key}, frozenset({key.key_id}))
    schema = Schema.from_dict(offer.schema)
    tables = tables_of(schema, len(job.edges) - 1, job.epsilon_micro)
    counts = _counts(statement.predicate, tables)
    expected = _predicate(offer, job, name, tables, counts)
    if (
        statement.predicate_type != RELEASE_PREDICATE
        or statement.subjects != {"manifest": job.sha256, "model": job.model_sha256}
        or dict(statement.predicate) != expected
    ):
        raise VerificationError("the release is not the answer to this job")
    return Result(
        _card(schema, job, tables, counts),
        _group_rates(schema, tables, counts),
        counts,
        key.key_id,
        job.epsilon_micro,
    )


def _counts(predicate: Mapping[str, Any], tables: Sequence[Cells]) -> Counts:
    """The counts of the tables that must be there.

    Raises:
        VerificationError: There are others, or something in them is no count.
    """
    found = predicate.get("tables")
    if not isinstance(found, list) or len(found) != len(tables):
        raise VerificationError("the release holds other tables than this job asked for")
    counts: Counts = {}
    for table, cells in zip(found, tables, strict=True):
        values = table.get("counts") if isinstance(table, dict) else None
        if not isinstance(values, list) or len(values) != cells.size:
            raise VerificationError(f"the release's table {cells.name} has another shape")
        if any(type(value) is not int or abs(value) > MOST_COUNT for value in values):
            raise VerificationError(f"the release's table {cells.name} holds what is no count")
        counts[cells.name] = values
    return counts


def _card(schema: Schema, job: Job, tables: Sequence[Cells], counts: Counts) -> Card:
    histograms = [cells for cells in tables if cells.name.startswith("histogram")]
    rows = [
        row
        for cells in histograms
        for row in np.array(counts[cells.name]).reshape(cells.shape).tolist()
    ]
    label = schema.label
    width = label.high - label.low if label.kind == "number" else 0.0
    return Released(
        task_of(label),
        rows,
        min(cells.epsilon_micro for cells in histograms),
        [list(job.edges)] * len(histograms),
        [job.threshold_edge] * len(histograms),
        decimal_text(width / MICRO) if width else "",
        width,
    ).card(LEVEL)


def _group_rates(schema: Schema, tables: Sequence[Cells], counts: Counts) -> tuple[GroupRates, ...]:
    """Sensitivity and specificity of each level, of two label levels only."""
    if task_of(schema.label) != "binary":
        return ()
    found = []
    for cells in tables:
        kind, _, attribute = cells.name.partition(":")
        if kind != "group":
            continue
        variance = geometric_variance(cells.epsilon_micro / MICRO)
        by_level = np.array(counts[cells.name], dtype=np.float64).reshape(cells.shape)
        for level, (negatives, positives) in zip(
            schema.stratum_names(attribute), by_level, strict=True
        ):
            found.append(
                GroupRates(
                    attribute,
                    level,
                    _rate(positives[1:], positives[:1], variance),
                    _rate(negatives[:1], negatives[1:], variance),
                )
            )
    return tuple(found)


def _rate(
    hits: NDArray[np.float64], misses: NDArray[np.float64], variance: float
) -> tuple[float, Interval]:
    low, high = rate_interval(hits, misses, variance, two_sided(LEVEL))
    point = rate_point(max(float(hits.sum()), 0.0), max(float(misses.sum()), 0.0))
    return point, (min(low, point), max(high, point))
