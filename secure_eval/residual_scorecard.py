"""The scorecard of a regression model, from noised counts of its residuals.

A residual is prediction less label, in units of the label. One that is larger than the label's
public range counts as that range: the worst error of a prediction that keeps to the range. So every
contribution is bounded by public numbers, whatever a model claims.

A count says which bin a residual is in, not where in it. Points take residuals as uniform within
their bin. Intervals take the bin's best end for the low side and its worst for the high side, so
they hold for every way residuals may lie in their bins: wide bins make wide intervals, and a
developer gains by publishing edges where the residuals are. They hold sampling of patients and DP
noise as `score_intervals` does.
"""

from dataclasses import dataclass
from math import sqrt
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from secure_eval.noise import geometric_variance
from secure_eval.score_intervals import Interval, one_sided, project, two_sided

__all__ = ["LOWER_IS_BETTER", "RESIDUAL_METRICS", "ResidualScorecard"]

Floats: TypeAlias = NDArray[np.float64]
Ends: TypeAlias = tuple[Floats, Floats]

RESIDUAL_METRICS = ("mae", "mse", "rmse", "bias")
LOWER_IS_BETTER = ("mae", "mse", "rmse")
STEPS = 4000


@dataclass(frozen=True, slots=True)
class ResidualScorecard:
    """Errors of a regression model with intervals for the population's values.

    Attributes:
        mae, mse, rmse: mean absolute, mean squared and root mean squared residual; 0 for a perfect
            model. Where the noised total is below 1: the label's range (its square for mse).
        bias: mean residual; above 0 where the model predicts too much.
        intervals: metric to (low, high), holding the point.
        level: coverage of the intervals, at least.
        status: "undetermined" where the noised total is below 1, else "ok".
        counts: (labels, bins) as released.
        edges: (bins + 1,) published edges in units of the label, unclipped.
        width: the label's range, high less low.
        noise_variance: variance of the DP noise of one cell.
    """

    mae: float
    mse: float
    rmse: float
    bias: float
    intervals: dict[str, Interval]
    level: float
    status: Literal["ok", "undetermined"]
    counts: tuple[tuple[int, ...], ...]
    edges: tuple[float, ...]
    width: float
    noise_variance: float

    @classmethod
    def from_counts(
        cls,
        counts: ArrayLike,
        epsilon: float,
        edges: ArrayLike,
        width: float,
        *,
        level: float = 0.9,
        noise_variance: float | None = None,
    ) -> "ResidualScorecard":
        """Make the scorecard of a released histogram of residuals. Deterministic.

        Args:
            counts: (labels, bins) noised integer counts; labels are strata of the label, or one.
            epsilon: of this table; infinity for exact counts.
            edges: (bins + 1,) increasing residual edges in units of the label.
            width: the label's public high less its low, above 0.
            level: coverage of the intervals, in (0, 1).
            noise_variance: variance per cell, for a noise law other than the geometric one.

        Raises:
            ValueError: an argument is malformed.
        """
        table, borders = np.asarray(counts), np.asarray(edges, dtype=np.float64)
        if table.ndim != 2 or not np.issubdtype(table.dtype, np.integer) or not table.size:
            raise ValueError(f"counts: expected (labels, bins) integers, got {table.dtype}")
        if borders.shape != (table.shape[1] + 1,) or not (np.diff(borders) > 0).all():
            raise ValueError(f"edges: expected {table.shape[1] + 1} increasing numbers")
        if not (0.0 < width < np.inf and 0.0 < level < 1.0):
            raise ValueError("width and level: expected a positive width and 0 < level < 1")
        variance = geometric_variance(epsilon) if noise_variance is None else noise_variance
        noised = table.sum(axis=0).astype(np.float64)
        clipped = np.clip(borders, -width, width)
        cells = len(table) * variance
        points = _points(project(noised), clipped, width)
        found = _intervals(noised, clipped, width, cells, two_sided(level))
        return cls(
            **points,
            intervals={
                name: (min(low, points[name]), max(high, points[name]))
                for name, (low, high) in found.items()
            },
            level=level,
            status="ok" if noised.sum() >= 1.0 else "undetermined",
            counts=tuple(tuple(row) for row in table.tolist()),
            edges=tuple(borders.tolist()),
            width=float(width),
            noise_variance=variance,
        )

    def upper_bound(self, metric: str, confidence: float) -> float:
        """Return a value that the population's error stays below with the given confidence.

        Raises:
            ValueError: a metric that is no error, or a confidence outside [0.5, 1).
        """
        if metric not in LOWER_IS_BETTER:
            raise ValueError(f"metric: expected one of {LOWER_IS_BETTER}, got {metric!r}")
        if not 0.5 <= confidence < 1.0:
            raise ValueError(f"confidence: expected 0.5 to below 1, got {confidence}")
        noised = np.array(self.counts, dtype=np.float64).sum(axis=0)
        clipped = np.clip(np.array(self.edges), -self.width, self.width)
        cells = len(self.counts) * self.noise_variance
        found = _intervals(noised, clipped, self.width, cells, one_sided(confidence))
        return max(found[metric][1], float(getattr(self, metric)))

    @property
    def metrics(self) -> dict[str, tuple[float, float, float]]:
        """Metric to (value, low, high)."""
        return {name: (getattr(self, name), *self.intervals[name]) for name in RESIDUAL_METRICS}


def _points(projected: Floats, edges: Floats, width: float) -> dict[str, float]:
    left, right = edges[:-1], edges[1:]
    total = float(projected.sum())
    if total < 1.0:
        return {"mae": width, "mse": width**2, "rmse": width, "bias": 0.0}
    across = (left < 0) & (right > 0)
    middle = np.abs(left + right) / 2
    size = np.where(right > left, right - left, 1.0)
    absolute = np.where(across, (left**2 + right**2) / (2 * size), middle)
    square = (left**2 + left * right + right**2) / 3
    mse = float(projected @ square) / total
    return {
        "mae": float(projected @ absolute) / total,
        "mse": mse,
        "rmse": sqrt(mse),
        "bias": float(projected @ (left + right)) / (2 * total),
    }


def _intervals(
    noised: Floats, edges: Floats, width: float, variance: float, quantile: float
) -> dict[str, Interval]:
    left, right = edges[:-1], edges[1:]
    nearest = np.where((left < 0) & (right > 0), 0.0, np.minimum(np.abs(left), np.abs(right)))
    farthest = np.maximum(np.abs(left), np.abs(right))
    even = np.linspace(0.0, width, STEPS + 1)
    mean = _Mean(noised, variance, quantile)
    mse = mean.interval((nearest**2, farthest**2), even**2)
    return {
        "mae": mean.interval((nearest, farthest), even),
        "mse": mse,
        "rmse": (sqrt(mse[0]), sqrt(mse[1])),
        "bias": mean.interval((left, right), np.linspace(-width, width, STEPS + 1)),
    }


@dataclass(frozen=True, slots=True)
class _Mean:
    """Tests of "sum of counts x values - mean x total = 0" (Fieller, as in `score_intervals`)."""

    noised: Floats
    variance: float
    quantile: float

    def interval(self, values: Ends, grid: Floats) -> Interval:
        """Return the low end under the least and the high end under the greatest values."""
        if self.noised.sum() < 1.0:
            return float(grid[0]), float(grid[-1])
        first, last = self._accepted(values[0], grid), self._accepted(values[1], grid)
        low = max(int(first[0]) - 1, 0)
        high = min(int(last[-1]) + 1, len(grid) - 1)
        return float(grid[low]), float(grid[high])

    def _accepted(self, values: Floats, grid: Floats) -> NDArray[np.intp]:
        total = float(self.noised.sum())
        kept = project(self.noised)
        mean = float(kept @ values) / max(float(kept.sum()), 1.0)
        spread = max(float(kept @ (values - mean) ** 2), 0.0)
        noise = self.variance * ((values[None, :] - grid[:, None]) ** 2).sum(axis=1)
        found = float(np.clip(self.noised @ values, grid[0] * total, grid[-1] * total))
        statistic = found - grid * total
        accepted = np.flatnonzero(np.abs(statistic) <= self.quantile * np.sqrt(spread + noise))
        return accepted if len(accepted) else np.array([int(np.abs(statistic).argmin())])
