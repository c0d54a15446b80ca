"""What to expect of a purse before it is opened: chances, effort and payments by simulation."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from valuation.contests import PRIZES

Floats = NDArray[np.float64]


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
    margin = confidence_z * np.sqrt(2 * (1 - correlation) * best * (1 - best) / patients)
    scores = _scores(
        np.random.default_rng(seed), patients, developers, best, gap, correlation, contests
    )
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


@dataclass(frozen=True, slots=True)
class Tender:
    """What to expect of a procurement before it is opened.

    Attributes:
        awarded: Chance that anybody reaches the threshold and asks no more than the purse.
        best_wins: Chance that the truly best model wins.
        payment: Expected payment as a share of the purse, nothing where nobody wins.
        accuracy: Expected true accuracy of the model that wins, where one does.
        error: Largest standard error of the chances above.
    """

    awarded: float
    best_wins: float
    payment: float
    accuracy: float
    error: float


def simulate_tender(
    patients: int,
    *,
    developers: int = 20,
    best: float = 0.80,
    gap: float = 0.01,
    threshold: float = 0.70,
    asks: tuple[float, float] = (0.3, 1.0),
    confidence_z: float = 1.282,
    correlation: float = 0.6,
    contests: int = 4000,
    seed: int = 0,
) -> Tender:
    """Payment and winner of a sealed second price among models that reach a threshold.

    Scores as in `simulate`. Asks are costs, as asking one's cost is best, drawn evenly between two
    parts of the purse and independent of accuracy: price picks the winner, not the score.

    Args:
        patients: Validation rows, >= 1.
        developers: Number of models, >= 2.
        best: True accuracy of the best model, between 0.5 and 1.
        gap: By how much each is worse than the one before, >= 0.
        threshold: What the lower bound of a score has to reach, 0 to 1.
        asks: Least and largest ask as parts of the purse, 0 <= least <= largest.
        confidence_z: Standard errors from a score to its lower bound, at least 0.
        correlation: Of the errors of two models on the same rows, 0 to below 1.
        contests: Simulated procurements.
        seed: Of the simulation.

    Raises:
        ValueError: If a number is out of range.
    """
    if patients < 1 or developers < 2 or contests < 2:
        raise ValueError(f"expected patients >= 1, developers >= 2, got {patients}, {developers}")
    if not (0.5 < best < 1 and gap >= 0 and 0 <= correlation < 1 and confidence_z >= 0):
        raise ValueError(f"expected 0.5 < best < 1 and 0 <= correlation < 1, got {best}")
    if not (0 <= threshold <= 1 and 0 <= asks[0] <= asks[1]):
        raise ValueError(f"expected a threshold of 0 to 1 and rising asks, got {threshold}, {asks}")
    rng = np.random.default_rng(seed)
    scores = _scores(rng, patients, developers, best, gap, correlation, contests)
    bounds = scores - confidence_z * np.sqrt(np.maximum(scores * (1 - scores), 0) / patients)
    asked = rng.uniform(*asks, size=scores.shape)
    standing = np.where((bounds >= threshold) & (asked <= 1), asked, np.inf)
    order = np.sort(standing, axis=1)
    awarded = np.isfinite(order[:, 0])
    winner = standing.argmin(axis=1)
    paid = np.where(awarded, np.minimum(order[:, 1], 1.0), 0.0)
    wins = awarded & (winner == 0)
    accuracy = _accuracy(developers, best, gap)[winner[awarded]]
    chances = (float(awarded.mean()), float(wins.mean()))
    return Tender(
        awarded=chances[0],
        best_wins=chances[1],
        payment=float(paid.mean()),
        accuracy=float(accuracy.mean()) if awarded.any() else float("nan"),
        error=float(np.sqrt(max(p * (1 - p) for p in chances) / contests)),
    )


def _accuracy(developers: int, best: float, gap: float) -> Floats:
    result: Floats = np.maximum(best - gap * np.arange(developers), 0.5)
    return result


def _scores(
    rng: np.random.Generator,
    patients: int,
    developers: int,
    best: float,
    gap: float,
    correlation: float,
    contests: int,
) -> Floats:
    """Scores of all models in every contest, (contests, developers)."""
    accuracy = _accuracy(developers, best, gap)
    spread = np.sqrt(accuracy * (1 - accuracy) / patients)
    common = rng.normal(size=(contests, 1)) * np.sqrt(correlation)
    noise = spread * (common + rng.normal(size=(contests, developers)) * np.sqrt(1 - correlation))
    result: Floats = accuracy + noise
    return result


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
