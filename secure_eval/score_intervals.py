"""Points and intervals of accuracy metrics from noised histograms.

Each metric is a ratio of sums of noised cells. An interval holds every value that a normal test of
"numerator - value * denominator = 0" does not reject, with a variance that has both the DP noise of
the cells (known) and the sampling of patients (evaluated at the tested value, as in Wilson's score
interval; for the AUC with the variance of Hanley and McNeil, Radiology 143, 1982). Fieller's form
needs no division by a noised total, so small totals widen the interval instead of breaking it.

Everything here is deterministic post-processing of a DP release.
"""

from statistics import NormalDist
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Interval: TypeAlias = tuple[float, float]

GRID = np.linspace(0.0, 1.0, 2001)
ANYTHING: Interval = (0.0, 1.0)


def two_sided(level: float) -> float:
    """Return the normal quantile of a two-sided level in (0, 1)."""
    return NormalDist().inv_cdf(0.5 + level / 2)


def one_sided(confidence: float) -> float:
    """Return the normal quantile of a one-sided confidence in (0, 1)."""
    return NormalDist().inv_cdf(confidence)


def project(counts: Floats) -> Floats:
    """Return the nearest non-negative counts (k,) with the same total (0 if that is negative).

    Source: Euclidean projection onto the simplex, Held, Wolfe and Crowder, 1974.
    """
    total = max(float(counts.sum()), 0.0)
    ordered = np.sort(counts)[::-1]
    excess = (np.cumsum(ordered) - total) / np.arange(1, len(counts) + 1)
    kept = np.flatnonzero(ordered > excess)
    shift = excess[kept[-1]] if len(kept) else excess[0]
    return np.asarray(np.maximum(counts - shift, 0.0), dtype=np.float64)


def isotonic(counts: Floats) -> Floats:
    """Return the non-decreasing share of label 1 per bin (k,) of non-negative counts (2, k).

    Pool adjacent violators; bins without counts take the share of the bin before them.
    """
    blocks: list[list[float]] = []  # ones, all, bins
    for zeros, ones in counts.T.tolist():
        blocks.append([ones, zeros + ones, 1])
        while len(blocks) > 1 and (
            blocks[-1][1] <= 0.0
            or blocks[-2][1] <= 0.0
            or blocks[-1][0] * blocks[-2][1] <= blocks[-2][0] * blocks[-1][1]
        ):
            last = blocks.pop()
            blocks[-1] = [a + b for a, b in zip(blocks[-1], last, strict=True)]
    shares = [ones / total if total > 0.0 else 0.5 for ones, total, _ in blocks]
    return np.repeat(shares, [int(bins) for _, _, bins in blocks])


def rate_point(hits: float, misses: float) -> float:
    """Return hits / (hits + misses), or 0.5 where the total is below 1."""
    return hits / (hits + misses) if hits + misses >= 1.0 else 0.5


def rate_interval(hits: Floats, misses: Floats, variance: float, quantile: float) -> Interval:
    """Return the interval of a share from noised cells that hit and noised cells that miss.

    Args:
        hits: noised cells (any shape) whose sum is the numerator.
        misses: noised cells of the rest of the denominator.
        variance: DP noise per cell.
        quantile: normal quantile of the test.
    """
    total = float(hits.sum() + misses.sum())
    if total < 1.0:
        return ANYTHING
    good, bad = max(float(hits.sum()), 0.0), max(float(misses.sum()), 0.0)
    statistic = good * (1 - GRID) - bad * GRID
    noise = variance * (hits.size * (1 - GRID) ** 2 + misses.size * GRID**2)
    return _accepted(statistic, total * GRID * (1 - GRID) + noise, quantile)


def part_interval(
    part: float, whole: float, part_variance: float, whole_variance: float, quantile: float
) -> Interval:
    """Return the interval of part / whole where both were noised on their own.

    Args:
        part: noised count of the rows of `whole` that have a property.
        whole: noised count of rows, of another table of the same rows.
        part_variance: DP noise of `part`.
        whole_variance: DP noise of `whole`, summed over its cells.
        quantile: normal quantile of the test.
    """
    if whole < 1.0:
        return ANYTHING
    inside = min(max(part, 0.0), whole)
    noise = part_variance + whole_variance * GRID**2
    return _accepted(inside - GRID * whole, whole * GRID * (1 - GRID) + noise, quantile)


def auc_point(counts: Floats) -> float:
    """Return the AUC of non-negative counts (2, k), ties one half; 0.5 if a class is empty."""
    zeros, ones = counts
    if zeros.sum() < 1.0 or ones.sum() < 1.0:
        return 0.5
    below = np.cumsum(zeros) - zeros / 2
    return float(ones @ below / (zeros.sum() * ones.sum()))


def auc_interval(noised: Floats, projected: Floats, variance: float, quantile: float) -> Interval:
    """Return the interval of the AUC from noised counts (2, k) and their projection.

    The statistic U - a n0 n1 is bilinear in the cells: its noise variance has a part linear in the
    cell variance (slopes taken at the projected counts) and one quadratic in it.
    """
    zeros, ones = noised
    n_zeros, n_ones = float(zeros.sum()), float(ones.sum())
    if n_zeros < 1.0 or n_ones < 1.0:
        return ANYTHING
    bins = len(zeros)
    pairs = n_zeros * n_ones
    wins = float(ones @ (np.cumsum(zeros) - zeros / 2))
    below = np.cumsum(projected[0]) - projected[0] / 2
    above = n_ones - np.cumsum(projected[1]) + projected[1] / 2
    value = GRID[:, None]
    slopes = ((below - value * n_zeros) ** 2).sum(1) + ((above - value * n_ones) ** 2).sum(1)
    halves = bins * (bins - 1) / 2 * ((1 - GRID) ** 2 + GRID**2) + bins * (0.5 - GRID) ** 2
    first, second = GRID / (2 - GRID), 2 * GRID**2 / (1 + GRID)
    sampling = pairs * (
        GRID * (1 - GRID) + (n_ones - 1) * (first - GRID**2) + (n_zeros - 1) * (second - GRID**2)
    )
    total = np.maximum(sampling, 0.0) + variance * slopes + variance**2 * halves
    return _accepted(float(np.clip(wins, 0.0, pairs)) - GRID * pairs, total, quantile)


def brier_point(projected: Floats) -> float:
    """Return the Brier score of isotonic probabilities on non-negative counts (2, k)."""
    total = float(projected.sum())
    if total < 1.0:
        return 0.25
    return float((projected * _losses(isotonic(projected))).sum() / total)


def brier_interval(noised: Floats, projected: Floats, variance: float, quantile: float) -> Interval:
    """Return the interval of the Brier score after isotonic calibration.

    The calibration is fitted on the counts it is judged on, which makes it look better than it is:
    by about twice the variance of a block's total over its size, per block of equal probability.
    The upper end is therefore tested with that optimism added; the lower end without it.
    """
    total = float(noised.sum())
    if total < 1.0:
        return ANYTHING
    probabilities = isotonic(projected)
    losses = _losses(probabilities)
    optimism = 0.0
    for share in np.unique(probabilities).tolist():
        block = probabilities == share
        size = max(float(projected[:, block].sum()), 1.0)
        cells = variance * int(block.sum()) * ((1 - share) ** 2 + share**2)
        optimism += min(2 * (cells / size + share * (1 - share)), size)
    mean = float((projected * losses).sum() / projected.sum())
    spread = float((projected * losses**2).sum() / projected.sum()) - mean**2
    noise = variance * ((losses[None] - GRID[:, None, None]) ** 2).sum((1, 2))
    spread_total = max(total * spread, 0.0) + noise
    loss = float(np.clip((noised * losses).sum(), 0.0, total))
    low = _accepted(loss - GRID * total, spread_total, quantile)[0]
    worse = min(loss + optimism, total)
    return low, _accepted(worse - GRID * total, spread_total, quantile)[1]


def _losses(probabilities: Floats) -> Floats:
    """Return the squared error (2, k) of labels 0 and 1 per bin."""
    return np.stack([probabilities**2, (1 - probabilities) ** 2])


def _accepted(statistic: Floats, variance: Floats, quantile: float) -> Interval:
    """Return the least interval of tested values that holds all accepted ones.

    Widened by one grid step on each side; the value with statistic 0 is always accepted.
    """
    accepted = np.flatnonzero(np.abs(statistic) <= quantile * np.sqrt(variance) + 1e-9)
    if not len(accepted):
        accepted = np.array([int(np.abs(statistic).argmin())])
    low, high = max(int(accepted[0]) - 1, 0), min(int(accepted[-1]) + 1, len(GRID) - 1)
    return float(GRID[low]), float(GRID[high])
