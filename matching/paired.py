"""Intervals of means and of paired differences, Student's t over seeds.

Methods that are compared share everything a seed decides (split, draws, resampled rows), so what a
seed does to all of them alike drops out of the difference.
"""

from collections.abc import Sequence

import numpy as np
from scipy.stats import t as student

LEVEL = 0.9
"""Two-sided level of every interval."""


def mean_interval(values: Sequence[float], seeds: Sequence[int]) -> tuple[float, float, float]:
    """Mean and its interval where every seed is an experiment of its own.

    Runs with one seed share nothing but the seed, yet splits of one small table repeat its rows, so
    the interval speaks of the splits, not of new hospitals.

    Args:
        values: One figure, or paired difference, a run.
        seeds: Seed of each run; runs of one seed count as one by their mean.

    Returns:
        Mean of all values, low end, high end; the ends are NaN with fewer than two seeds.
    """
    by_seed: dict[int, list[float]] = {}
    for value, seed in zip(values, seeds, strict=True):
        by_seed.setdefault(seed, []).append(value)
    means = np.array([np.mean(known) for known in by_seed.values()])
    mean = float(np.mean(values))
    if len(means) < 2:
        return mean, float("nan"), float("nan")
    reach = _reach(means) / np.sqrt(len(means))
    return mean, float(mean - reach), float(mean + reach)


def resampled_interval(value: float, replicates: Sequence[float]) -> tuple[float, float] | None:
    """Interval around a figure whose spread was found by repeating it on resampled rows.

    A replicate drawn from the same rows tells of the spread, never of the middle, and more of them
    make the spread better known, not smaller: there is no division by their number (Efron and
    Tibshirani 1993, section 12).

    Args:
        value: The figure on all rows.
        replicates: The same figure on resampled rows, one a seed.

    Returns:
        Low and high end, or None with fewer than two replicates.
    """
    if len(replicates) < 2:
        return None
    reach = _reach(np.asarray(replicates, np.float64))
    return float(value - reach), float(value + reach)


def _reach(values: np.ndarray) -> float:
    """How far a `LEVEL` of further values lies from the middle, by Student's t."""
    quantile = student.ppf((1 + LEVEL) / 2, len(values) - 1)
    return float(quantile * values.std(ddof=1))
