"""The scorecard of a model: everything shown to a developer, made from one DP release.

All of it is post-processing of noised counts (label x score bin): no new privacy cost. Points are
taken from the counts projected to non-negative ones with the same class totals, so that they agree
with the ROC curve shown; projection pulls points towards chance when counts are few (measured: an
AUC of 0.92 from 100 rows at epsilon 0.4 reads 0.86 on average), and the intervals allow for it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from secure_eval.noise import geometric_variance
from secure_eval.score_intervals import (
    Interval,
    auc_interval,
    auc_point,
    brier_interval,
    brier_point,
    isotonic,
    one_sided,
    project,
    rate_interval,
    rate_point,
    two_sided,
)

Floats: TypeAlias = NDArray[np.float64]
METRICS = ("auc", "accuracy", "sensitivity", "specificity", "ppv", "npv", "brier")
MAX_BINS = 64


@dataclass(frozen=True, slots=True)
class Scorecard:
    """Metrics of one scoring run with intervals for the population's values.

    Attributes:
        auc, accuracy, sensitivity, specificity, ppv, npv: shares from 0 to 1; 0.5 with interval
            (0, 1) where a denominator's noised total is below 1.
        brier: mean squared error of the isotonic probabilities of the bins (after calibration).
        probabilities: (bins,) calibrated probability of label 1 per bin, non-decreasing.
        roc: (false positive rate, true positive rate) at each edge, from (0, 0) to (1, 1).
        intervals: metric to (low, high), holding the point, within [0, 1].
        level: coverage of the intervals, over noise and sampling of patients.
        status: "undetermined" where the noised total of a class is below 1, else "ok".
        counts: the noised counts as released, (2, bins).
        edges: (bins + 1,) published edges in score units.
        threshold_edge: index of the edge from which rows count as predicted positive.
        noise_variance: variance of the DP noise of one cell.
    """

    auc: float
    accuracy: float
    sensitivity: float
    specificity: float
    ppv: float
    npv: float
    brier: float
    probabilities: tuple[float, ...]
    roc: tuple[tuple[float, float], ...]
    intervals: Mapping[str, Interval]
    level: float
    status: Literal["ok", "undetermined"]
    counts: tuple[tuple[int, ...], tuple[int, ...]]
    edges: tuple[int, ...]
    threshold_edge: int
    noise_variance: float

    @classmethod
    def from_counts(
        cls,
        counts: ArrayLike,
        epsilon: float,
        edges: ArrayLike,
        threshold_edge: int,
        *,
        level: float = 0.9,
        noise_variance: float | None = None,
    ) -> "Scorecard":
        """Make the scorecard of a released histogram. Deterministic.

        Args:
            counts: (2, bins) noised integer counts; row 0 label 0, row 1 label 1.
            epsilon: of this table: each cell holds two-sided geometric noise exp(-epsilon |k|);
                infinity for exact counts.
            edges: (bins + 1,) increasing score edges.
            threshold_edge: 0 to bins; rows in bins from there on are predicted positive.
            level: coverage of the intervals, in (0, 1).
            noise_variance: variance per cell, for a noise law other than the geometric one.

        Raises:
            ValueError: an argument is malformed.
        """
        table = _checked_counts(counts)
        published = _checked_edges(edges, table.shape[1])
        if not 0 <= threshold_edge <= table.shape[1]:
            raise ValueError(
                f"threshold_edge: expected 0 to {table.shape[1]}, got {threshold_edge}"
            )
        if not 0.0 < level < 1.0:
            raise ValueError(f"level: expected a number between 0 and 1, got {level}")
        variance = geometric_variance(epsilon) if noise_variance is None else noise_variance
        if not (math.isfinite(variance) and variance >= 0.0):
            raise ValueError(f"noise_variance: expected a number from 0, got {variance}")
        noised = table.astype(np.float64)
        projected = np.stack([project(row) for row in noised])
        points = _points(projected, threshold_edge)
        found = _intervals(noised, projected, threshold_edge, variance, two_sided(level))
        return cls(
            **points,
            probabilities=tuple(isotonic(projected).tolist()),
            roc=_roc(projected),
            intervals={
                name: (min(low, points[name]), max(high, points[name]))
                for name, (low, high) in found.items()
            },
            level=level,
            status="undetermined" if noised.sum(axis=1).min() < 1.0 else "ok",
            counts=(tuple(table[0].tolist()), tuple(table[1].tolist())),
            edges=published,
            threshold_edge=int(threshold_edge),
            noise_variance=float(variance),
        )

    def lower_bound(self, metric: str, confidence: float) -> float:
        """Return a value that the population's metric exceeds with the given confidence.

        Args:
            metric: one of METRICS.
            confidence: one-sided, in [0.5, 1).

        Raises:
            ValueError: unknown metric, or confidence out of range.
        """
        if metric not in METRICS:
            raise ValueError(f"metric: expected one of {METRICS}, got {metric!r}")
        if not 0.5 <= confidence < 1.0:
            raise ValueError(f"confidence: expected 0.5 to below 1, got {confidence}")
        noised = np.array(self.counts, dtype=np.float64)
        projected = np.stack([project(row) for row in noised])
        found = _intervals(
            noised, projected, self.threshold_edge, self.noise_variance, one_sided(confidence)
        )
        return min(found[metric][0], float(getattr(self, metric)))


def _checked_counts(counts: ArrayLike) -> NDArray[np.int64]:
    table = np.asarray(counts)
    if table.ndim != 2 or table.shape[0] != 2 or not 1 <= table.shape[1] <= MAX_BINS:
        raise ValueError(f"counts: expected (2, 1 to {MAX_BINS}), got {table.shape}")
    if not np.issubdtype(table.dtype, np.integer):
        raise ValueError(f"counts: expected integers, got {table.dtype}")
    return table.astype(np.int64)


def _checked_edges(edges: ArrayLike, bins: int) -> tuple[int, ...]:
    given = np.asarray(edges)
    if given.shape != (bins + 1,) or not np.issubdtype(given.dtype, np.integer):
        raise ValueError(f"edges: expected {bins + 1} integers, got {given.dtype} {given.shape}")
    if (np.diff(given) <= 0).any():
        raise ValueError("edges: must increase")
    return tuple(given.tolist())


def _points(projected: Floats, edge: int) -> dict[str, float]:
    negatives, positives = projected
    true_negative, false_positive = float(negatives[:edge].sum()), float(negatives[edge:].sum())
    false_negative, true_positive = float(positives[:edge].sum()), float(positives[edge:].sum())
    return {
        "auc": auc_point(projected),
        "accuracy": rate_point(true_positive + true_negative, false_positive + false_negative),
        "sensitivity": rate_point(true_positive, false_negative),
        "specificity": rate_point(true_negative, false_positive),
        "ppv": rate_point(true_positive, false_positive),
        "npv": rate_point(true_negative, false_negative),
        "brier": brier_point(projected),
    }


def _intervals(
    noised: Floats, projected: Floats, edge: int, variance: float, quantile: float
) -> dict[str, Interval]:
    negatives, positives = noised
    true_negative, false_positive = negatives[:edge], negatives[edge:]
    false_negative, true_positive = positives[:edge], positives[edge:]
    shares = {
        "accuracy": (
            np.concatenate([true_negative, true_positive]),
            np.concatenate([false_positive, false_negative]),
        ),
        "sensitivity": (true_positive, false_negative),
        "specificity": (true_negative, false_positive),
        "ppv": (true_positive, false_positive),
        "npv": (true_negative, false_negative),
    }
    result = {
        name: rate_interval(hits, misses, variance, quantile)
        for name, (hits, misses) in shares.items()
    }
    result["auc"] = auc_interval(noised, projected, variance, quantile)
    result["brier"] = brier_interval(noised, projected, variance, quantile)
    return {name: result[name] for name in METRICS}


def _roc(projected: Floats) -> tuple[tuple[float, float], ...]:
    """Return (false, true) positive rates from the highest edge to the lowest."""
    totals = projected.sum(axis=1, keepdims=True)
    shares = np.divide(projected, totals, out=np.zeros_like(projected), where=totals >= 1.0)
    rates = np.minimum(np.cumsum(shares[:, ::-1], axis=1), 1.0)
    rates[:, -1] = 1.0
    points = [(0.0, 0.0), *zip(rates[0].tolist(), rates[1].tolist(), strict=True)]
    return tuple((float(x), float(y)) for x, y in points)


@dataclass(frozen=True, slots=True)
class GroupRate:
    """Sensitivity and specificity of one subgroup level; None with a reason if unknown."""

    sensitivity: float | None
    specificity: float | None
    reason: str | None


def group_rates(predicted: ArrayLike, totals: ArrayLike | None) -> tuple[GroupRate, ...]:
    """Return the rates of each subgroup level from noised counts.

    Args:
        predicted: (G, 2) noised counts of predicted positives with label 0 and with label 1.
        totals: (G, 2) noised counts of all rows with label 0 and with label 1, or None if they
            were not released.

    Raises:
        ValueError: shapes differ from (G, 2).
    """
    positives = np.asarray(predicted, dtype=np.float64)
    if positives.ndim != 2 or positives.shape[1] != 2:
        raise ValueError(f"predicted: expected (levels, 2), got {positives.shape}")
    if totals is None:
        missing = GroupRate(None, None, "the group totals were not released")
        return (missing,) * len(positives)
    all_rows = np.asarray(totals, dtype=np.float64)
    if all_rows.shape != positives.shape:
        raise ValueError(f"totals: expected {positives.shape}, got {all_rows.shape}")
    return tuple(_group_rate(*row) for row in np.hstack([positives, all_rows]).tolist())


def _group_rate(
    false_positive: float, true_positive: float, negatives: float, positives: float
) -> GroupRate:
    sensitivity = min(max(true_positive / positives, 0.0), 1.0) if positives >= 1.0 else None
    specificity = min(max(1 - false_positive / negatives, 0.0), 1.0) if negatives >= 1.0 else None
    lacking = [
        f"label {label}" for label, rate in ((0, specificity), (1, sensitivity)) if rate is None
    ]
    reason = f"the noised total of {' and '.join(lacking)} is below 1" if lacking else None
    return GroupRate(sensitivity, specificity, reason)
