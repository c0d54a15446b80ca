"""Distances between two sets of embedded rows: W2 and the unbiased MMD^2."""

from dataclasses import dataclass, field
from math import sqrt
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from matching.baselines import draw_random, euclidean, squared_distances

Floats = NDArray[np.float64]

_BANDWIDTH_SAMPLE = 400


def wasserstein2(
    left: Floats,
    right: Floats,
    weights: tuple[ArrayLike, ArrayLike] | None = None,
) -> float:
    """Exact 2-Wasserstein distance between two weighted sets of points.

    Args:
        left: (n, d) points, n >= 1.
        right: (m, d) points, m >= 1.
        weights: (n,) and (m,) non-negative weights, each scaled to sum to 1; uniform by default.

    Raises:
        ValueError: If a set is empty or its weights are not positive in sum.
    """
    import ot  # heavy, and only a rehearsal's report needs it

    sides = []
    for points, given in zip((left, right), weights or (None, None), strict=True):
        mass = np.ones(len(points)) if given is None else np.asarray(given, np.float64)
        if mass.shape != (len(points),) or (mass < 0).any() or not mass.sum() > 0:
            raise ValueError(f"expected points with weights >= 0, got {points.shape}, {mass.shape}")
        sides.append(mass / mass.sum())
    cost = squared_distances(left, right)
    return sqrt(max(float(ot.emd2(sides[0], sides[1], cost, numItermax=10_000_000)), 0.0))


def bandwidth(left: Floats, right: Floats, seed: int = 5) -> float:
    """Median distance within a fixed sample of the union: the length scale of the kernel."""
    union = np.vstack([left, right])
    sample = union[draw_random(len(union), _BANDWIDTH_SAMPLE, seed)]
    apart = euclidean(sample, sample)[np.triu_indices(len(sample), 1)]
    positive = apart[apart > 1e-9]
    if len(positive) == 0:
        return 1.0  # all rows alike: any scale gives the same answer
    median = float(np.median(apart))
    return median if median > 1e-9 else float(positive.min())


def mmd_squared(left: Floats, right: Floats, width: float) -> float:
    """Unbiased squared maximum mean discrepancy (Gretton et al., JMLR 13, 2012, lemma 6).

    Kernel exp(-d^2 / (2 width^2)). May be negative.

    Raises:
        ValueError: If a side has fewer than two rows or the width is not positive.
    """
    return Yardstick(right, width).mmd_squared(left)


@dataclass(frozen=True, slots=True)
class Yardstick:
    """Hold-out rows and a kernel, with what every comparison with them shares."""

    holdout: Floats
    width: float
    _own: float = field(init=False)

    def __post_init__(self) -> None:
        if not self.width > 0:
            raise ValueError(f"width: expected > 0, got {self.width}")
        object.__setattr__(self, "_own", _mean_off_diagonal(self._kernel(self.holdout)))

    def mmd_squared(self, rows: Floats) -> float:
        """Unbiased MMD^2 of some rows to the hold-out rows."""
        within = _mean_off_diagonal(self._kernel(rows))
        return within + self._own - 2 * float(self._cross(rows).mean())

    def jackknife_error(self, rows: Floats) -> float:
        """Standard error of `mmd_squared(rows)` over the rows; infinite for fewer than three."""
        n = len(rows)
        if n < 3:
            return float("inf")
        kernel, cross = self._kernel(rows), self._cross(rows)
        each = kernel.sum(axis=1) - np.diag(kernel)
        within = (each.sum() - 2 * each) / ((n - 1) * (n - 2))
        left_out = within - 2 * (cross.sum() - cross) / (n - 1)
        return sqrt((n - 1) / n * float(((left_out - left_out.mean()) ** 2).sum()))

    def _kernel(self, rows: Floats) -> Floats:
        return cast(Floats, np.exp(squared_distances(rows, rows) / (-2 * self.width**2)))

    def _cross(self, rows: Floats) -> Floats:
        """(n,) mean kernel of each row with the hold-out rows."""
        kernel = np.exp(squared_distances(rows, self.holdout) / (-2 * self.width**2))
        return cast(Floats, kernel.mean(axis=1))


def _mean_off_diagonal(kernel: Floats) -> float:
    n = len(kernel)
    if n < 2:
        raise ValueError(f"expected at least two rows for an unbiased estimate, got {n}")
    return float((kernel.sum() - np.trace(kernel)) / (n * (n - 1)))
