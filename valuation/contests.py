"""What a purse pays for models: acceptance, contest, procurement as rules without state.

All amounts are integer micro-money and all scores integer millionths, so a rule gives the same
bytes everywhere. Whatever a rule does not pay goes back to the customer: amounts + refund = purse.
A model below the threshold is never paid. One scored submission per owner: scoring ten lets a
model that is two points worse win 65% of the time (measured, 500 patients).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PRIZES = (50, 30, 20)


@dataclass(frozen=True, slots=True)
class Entry:
    """One scored model.

    Attributes:
        run_id: Its scoring run.
        owner_id: Whose it is; one entry per owner.
        point_micro: The released score in millionths.
        bound_micro: Its one-sided lower bound at the purse's confidence, at most the point.
        determined: Whether the score could be determined at all.
        ask_micro: For procurement: the least the owner takes, from a sealed bid.
        tie_key: Public bytes that nobody chose, such as a hash of the run; settles exact ties.
    """

    run_id: str
    owner_id: str
    point_micro: int
    bound_micro: int
    determined: bool = True
    ask_micro: int | None = None
    tie_key: bytes = b""


@dataclass(frozen=True, slots=True)
class Award:
    """Who gets what of a purse.

    Attributes:
        amounts: Run id to micro-money, payouts above zero only.
        refund: What goes back to the customer; amounts and refund sum to the purse.
        bands: Run ids by rank, those that tie in one band; what a contest reveals instead of ranks.
        reason: The outcome in words.
    """

    amounts: Mapping[str, int]
    refund: int
    bands: tuple[tuple[str, ...], ...]
    reason: str


class Rule(Protocol):
    """A purse's rule."""

    def decide(self, entries: Sequence[Entry]) -> Award:
        """Divide the purse among the entries, in any order."""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The best point among models whose bound reaches the threshold takes the purse.

    Exact ties share it, the odd micro-unit by tie key.
    """

    amount_micro: int
    threshold_micro: int

    def decide(self, entries: Sequence[Entry]) -> Award:
        """The award. Raises ValueError if an owner has two entries or an entry is malformed."""
        ranked = _qualified(entries, self.amount_micro, self.threshold_micro)
        if not ranked:
            return _nobody(self.amount_micro)
        best = [entry for entry in ranked if entry.point_micro == ranked[0].point_micro]
        amounts = _shared(self.amount_micro, best)
        words = "the best accepted model" if len(best) == 1 else "the best accepted models, tied"
        return Award(amounts, 0, (_ids(best),), words)


@dataclass(frozen=True, slots=True)
class Contest:
    """Fixed prizes by rank; those that tie statistically pool the prizes of their ranks.

    Ranks go by point. An entry ties with the best of its band if their points differ by no more
    than the root of the summed squares of their bounds' widths (two independent errors at the
    purse's confidence; errors on the same patients correlate, so ties are called rather too often).
    Prizes of ranks that nobody holds are spread over the others in proportion.
    """

    amount_micro: int
    threshold_micro: int
    prizes: tuple[int, ...] = PRIZES

    def decide(self, entries: Sequence[Entry]) -> Award:
        """The award. Raises ValueError if an owner has two entries or an entry is malformed."""
        prizes = self.prizes
        if not prizes or min(prizes) <= 0 or list(prizes) != sorted(prizes, reverse=True):
            raise ValueError(f"prizes: expected falling numbers above 0, got {prizes}")
        ranked = _qualified(entries, self.amount_micro, self.threshold_micro)
        if not ranked:
            return _nobody(self.amount_micro)
        held = prizes[: len(ranked)]
        pots = _split(self.amount_micro, held)
        amounts: dict[str, int] = {}
        bands = []
        rank = 0
        while rank < len(ranked):
            band = _band(ranked[rank:])
            bands.append(_ids(band))
            pooled = sum(pots[rank : rank + len(band)])
            amounts |= _shared(pooled, band)
            rank += len(band)
        return Award(amounts, 0, tuple(bands), f"{len(amounts)} of {len(ranked)} models share")


@dataclass(frozen=True, slots=True)
class Procurement:
    """Sealed second price among models that clear the threshold.

    The lowest ask wins and gets the second lowest, at most the purse: asking one's cost is best
    whatever the others ask (Vickrey, 1961). Of two equal asks the smaller tie key wins; neither
    gains anything then.
    """

    amount_micro: int
    threshold_micro: int

    def decide(self, entries: Sequence[Entry]) -> Award:
        """The award. Raises ValueError if an owner has two entries or an entry is malformed."""
        ranked = _qualified(entries, self.amount_micro, self.threshold_micro)
        bids = sorted(
            (entry.ask_micro, entry.tie_key, entry.run_id)
            for entry in ranked
            if entry.ask_micro is not None and entry.ask_micro <= self.amount_micro
        )
        if not bids:
            return _nobody(self.amount_micro)
        price = bids[1][0] if len(bids) > 1 else self.amount_micro
        winner = bids[0][2]
        rest = tuple(name for _, _, name in bids[1:])
        words = "the lowest ask that clears the threshold, paid the next one"
        if len(bids) == 1:
            words = "the only ask that clears the threshold, paid the purse"
        bands = ((winner,), rest) if rest else ((winner,),)
        return Award({winner: price} if price else {}, self.amount_micro - price, bands, words)


RULES: Mapping[str, Callable[[int, int], Rule]] = {
    "acceptance": Acceptance,
    "contest": Contest,
    "procurement": Procurement,
}
"""By the purse's kind: a rule from (amount_micro, threshold_micro)."""


def _qualified(entries: Sequence[Entry], amount: int, threshold: int) -> list[Entry]:
    """Entries whose bound reaches the threshold, best point first, exact ties by tie key."""
    if amount < 0:
        raise ValueError(f"amount_micro: expected at least 0, got {amount}")
    owners = {entry.owner_id for entry in entries}
    names = {entry.run_id for entry in entries}
    if len(owners) < len(entries) or len(names) < len(entries):
        raise ValueError(f"expected one entry per owner, got {len(entries)} of {len(owners)}")
    if any(e.bound_micro > e.point_micro or (e.ask_micro or 0) < 0 for e in entries):
        raise ValueError("expected bounds at most the point and asks >= 0")
    passed = [entry for entry in entries if entry.determined and entry.bound_micro >= threshold]
    return sorted(passed, key=lambda e: (-e.point_micro, e.tie_key, e.run_id))


def _band(ranked: Sequence[Entry]) -> list[Entry]:
    """The first entry and those right after it that tie with it."""
    first = ranked[0]
    band = [first]
    for entry in ranked[1:]:
        widths = (first.point_micro - first.bound_micro, entry.point_micro - entry.bound_micro)
        if first.point_micro - entry.point_micro > isqrt(widths[0] ** 2 + widths[1] ** 2):
            break
        band.append(entry)
    return band


def _shared(amount: int, band: Sequence[Entry]) -> dict[str, int]:
    """Equal parts above zero; the odd micro-units go by tie key."""
    each, odd = divmod(amount, len(band))
    order = sorted(band, key=lambda e: (e.tie_key, e.run_id))
    parts = {entry.run_id: each + (place < odd) for place, entry in enumerate(order)}
    return {name: part for name, part in parts.items() if part}


def _split(amount: int, weights: Sequence[int]) -> list[int]:
    """In proportion to the weights, largest remainder, ties to the earlier rank."""
    total = sum(weights)
    parts = [amount * weight // total for weight in weights]
    order = sorted(range(len(weights)), key=lambda i: (-(amount * weights[i] % total), i))
    for i in order[: amount - sum(parts)]:
        parts[i] += 1
    return parts


def _ids(band: Sequence[Entry]) -> tuple[str, ...]:
    return tuple(sorted(entry.run_id for entry in band))


def _nobody(amount: int) -> Award:
    return Award({}, amount, (), "no model reaches the threshold with that confidence")


# ---------------------------------------------------------------- simulation


@dataclass(frozen=True, slots=True)
class Simulation:
    """What to expect of a contest before it is opened.

    Attributes:
        best_wins: Chance that the truly best model scores best.
        best_in_prizes: Chance that it is among as many as there are prizes.
        best_in_top_band: Chance that it is in the band that ties for the first rank.
        top_band_size: Expected number of models in that band.
        payouts: (developers,) expected share of the purse by true rank.
        effort: (developers,) points of accuracy worth working for, at the given cost.
        error: Largest standard error of the chances above.
    """

    best_wins: float
    best_in_prizes: float
    best_in_top_band: float
    top_band_size: float
    payouts: Floats
    effort: Floats
    error: float


def simulate(
    patients: int,
    *,
    developers: int = 20,
    best: float = 0.80,
    gap: float = 0.01,
    correlation: float = 0.6,
    prizes: Sequence[int] = PRIZES,
    confidence_z: float = 1.645,
    cost_share: float = 0.05,
    contests: int = 4000,
    seed: int = 0,
) -> Simulation:
    """Chances and effort in a contest among models of known true accuracy.

    Scores are normal around the truth with the binomial spread of `patients` rows, partly common
    to all models as they are scored on the same patients. Effort is what a developer would spend
    if another point of accuracy is worth `marginal expected payout` and e points cost
    `cost_share` x purse x e^2 / 2: e = marginal / cost (Lazear and Rosen, 1981), the others given.

    Args:
        patients: Validation rows, >= 1.
        developers: Number of models, >= 2, each `gap` worse than the one before, never below 0.5.
        best: True accuracy of the best model, between 0.5 and 1.
        gap: >= 0.
        correlation: Of the errors of two models on the same rows, 0 to below 1.
        prizes: Shares of the purse by rank.
        confidence_z: Two models tie if their scores differ by less than this many standard errors.
        cost_share: Cost of the first point as a part of the purse, > 0.
        contests: Simulated contests.
        seed: Of the simulation.

    Raises:
        ValueError: If a number is out of range.
    """
    if patients < 1 or developers < 2 or contests < 2 or not prizes or min(prizes) <= 0:
        raise ValueError(f"expected patients >= 1, developers >= 2, got {patients}, {developers}")
    if not (0.5 < best < 1 and gap >= 0 and 0 <= correlation < 1 and cost_share > 0):
        raise ValueError(f"expected 0.5 < best < 1 and 0 <= correlation < 1, got {best}")
    accuracy = np.maximum(best - gap * np.arange(developers), 0.5)
    spread = np.sqrt(accuracy * (1 - accuracy) / patients)
    margin = confidence_z * np.sqrt(2 * (1 - correlation) * best * (1 - best) / patients)
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(contests, 1)) * np.sqrt(correlation)
    noise = spread * (common + rng.normal(size=(contests, developers)) * np.sqrt(1 - correlation))
    scores = accuracy + noise
    shares, band = payouts(scores, margin, prizes)
    rank = (scores > scores[:, :1]).sum(axis=1)
    wins, prized, banded = (float(x.mean()) for x in (rank == 0, rank < len(prizes), band[:, 0]))
    return Simulation(
        best_wins=wins,
        best_in_prizes=prized,
        best_in_top_band=banded,
        top_band_size=float(band.sum(axis=1).mean()),
        payouts=shares.mean(axis=0),
        effort=_effort(scores, margin, prizes) / cost_share,
        error=float(np.sqrt(max(p * (1 - p) for p in (wins, prized, banded)) / contests)),
    )


def payouts(
    scores: Floats, margin: float, prizes: Sequence[int]
) -> tuple[Floats, NDArray[np.bool_]]:
    """Shares of the purse in many contests at once, and who is in the first band.

    The rule of `Contest` for equal errors: entries within `margin` of the best of a band are in it.

    Args:
        scores: (contests, models).
        margin: >= 0.
        prizes: Falling numbers; those beyond the number of models are spread in proportion.

    Returns:
        (contests, models) shares that sum to 1 in every contest, and flags of the same shape.
    """
    n_contests, models = scores.shape
    held = np.asarray(prizes[:models], np.float64)
    ladder = np.concatenate([[0.0], np.cumsum(held / held.sum()), np.ones(models - len(held))])
    order = np.argsort(-scores, axis=1, kind="stable")
    falling = np.take_along_axis(scores, order, axis=1)
    place = np.arange(models)
    given = np.zeros_like(scores)
    top = np.zeros(scores.shape, bool)
    start = np.zeros(n_contests, np.int64)
    while (start < len(held)).any():
        leader = falling[np.arange(n_contests), np.minimum(start, models - 1)]
        end = (falling >= (leader - margin)[:, None]).sum(axis=1)
        inside = (place >= start[:, None]) & (place < end[:, None])
        each = (ladder[end] - ladder[start]) / np.maximum(end - start, 1)
        given += inside * each[:, None]
        if not top.any():
            top = inside
        start = np.maximum(end, start)
    shares = np.empty_like(scores)
    flags = np.empty_like(top)
    np.put_along_axis(shares, order, given, axis=1)
    np.put_along_axis(flags, order, top, axis=1)
    return shares, flags


def _effort(scores: Floats, margin: float, prizes: Sequence[int]) -> Floats:
    """Expected payout that one more point of accuracy would bring each model, as a share."""
    step = 0.01
    gained = np.zeros(scores.shape[1])
    for model in range(scores.shape[1]):
        for sign in (1, -1):  # the same draws on both sides: only the step differs
            moved = scores.copy()
            moved[:, model] += sign * step / 2
            gained[model] += sign * float(payouts(moved, margin, prizes)[0][:, model].mean())
    return np.maximum(gained, 0.0)
