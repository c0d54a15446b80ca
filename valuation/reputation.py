"""Reputation from attested outcomes alone: a Beta posterior that forgets, read at its low end.

An outcome counts only if a receipt proves it, once per receipt, never if subject and attester are
one, and from one attester at most as much as `PER_ATTESTER` fresh outcomes: a friend can attest
often, not endlessly. Nothing else (stars, texts, volume) is looked at.

What is used is the 10% quantile of Beta(1 + good, 1 + bad): few outcomes give little credit. A new
name has 0.1 and no name is worth less, so that taking a new name never pays; who is known to be
worse is told by `low`, not by losing what a newcomer has.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

HALF_LIFE_S = 180 * 86_400
QUANTILE = 0.1
MICRO = 1_000_000
NEWCOMER_MICRO = 100_000
"""The 10% quantile of Beta(1, 1)."""
PER_ATTESTER = 5.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """One attested outcome.

    Attributes:
        receipt: Digest of the receipt that proves it.
        attester_id: Who attests it: the recipient, the customer or a dispute's decision.
        good: Whether the promise was kept.
        at_s: When, in seconds since the epoch.
        owners: Owners behind the attester, where known; an attester of the subject's own counts
            as the subject.
    """

    receipt: str
    attester_id: str
    good: bool
    at_s: int
    owners: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Reputation:
    """What the outcomes say.

    Attributes:
        good: Weight of kept promises, 0 upwards.
        bad: Weight of broken ones.
        low_micro: 10% quantile in millionths, rounded down.
        standing_micro: What rules use: `low_micro`, at least a newcomer's.
        status: new without any outcome that counts, else known.
    """

    good: float
    bad: float
    low_micro: int
    standing_micro: int
    status: Literal["new", "known"]


def reputation(
    subject_id: str,
    outcomes: Iterable[Outcome],
    now_s: int,
    *,
    half_life_s: int = HALF_LIFE_S,
    per_attester: float = PER_ATTESTER,
) -> Reputation:
    """Reputation of one party; the order of the outcomes does not matter.

    Args:
        subject_id: Whose it is.
        outcomes: All attested outcomes about it. Ones from the future count as of now.
        now_s: Seconds since the epoch.
        half_life_s: After this long an outcome counts half, > 0.
        per_attester: Most weight of one attester, > 0.

    Raises:
        ValueError: If a number is out of range or one receipt proves both good and bad.
    """
    from scipy.special import betaincinv  # here: most processes that read this never compute one

    if half_life_s <= 0 or not per_attester > 0:
        raise ValueError(f"expected a half-life and a limit above 0, got {half_life_s}")
    weights: dict[str, list[float]] = {}
    for outcome in _counting(subject_id, outcomes):
        age = max(0, now_s - outcome.at_s)
        pair = weights.setdefault(outcome.attester_id, [0.0, 0.0])
        pair[int(outcome.good)] += 0.5 ** (age / half_life_s)
    good = bad = 0.0
    for attester in sorted(weights):
        broken, kept = weights[attester]
        scale = min(1.0, per_attester / (broken + kept)) if broken + kept else 0.0
        good, bad = good + kept * scale, bad + broken * scale
    low = int(betaincinv(1 + good, 1 + bad, QUANTILE) * MICRO)
    status: Literal["new", "known"] = "known" if weights else "new"
    low = low if weights else NEWCOMER_MICRO
    return Reputation(good, bad, low, max(low, NEWCOMER_MICRO), status)


def _counting(subject_id: str, outcomes: Iterable[Outcome]) -> list[Outcome]:
    """One outcome per receipt, none by the subject itself, in an order that nobody chose."""
    found: dict[str, Outcome] = {}
    for outcome in outcomes:
        known = found.get(outcome.receipt)
        if known is not None and known != outcome:
            raise ValueError("expected one outcome per receipt, got two that differ")
        found[outcome.receipt] = outcome
    counted = [
        outcome
        for outcome in found.values()
        if outcome.attester_id != subject_id and subject_id not in outcome.owners
    ]
    return sorted(counted, key=lambda outcome: (outcome.attester_id, outcome.at_s, outcome.receipt))
