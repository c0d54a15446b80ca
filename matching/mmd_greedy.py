"""Greedy choice of rows by the kernel mean: the non-private selection closest to this market's aim.

Kernel herding with a fixed step (Chen, Welling, Smola 2010), the unweighted form of ProtoDash
(Gurumoorthy et al. 2019): each step takes the row that lowers the MMD^2 between the chosen rows and
the customer's validation rows the most.
"""

import numpy as np
from numpy.typing import NDArray

from matching.baselines import CANDIDATES, draw_random, squared_distances, use_all
from matching.discrepancy import bandwidth

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def greedy_mmd(
    pool: Floats,
    validation: Floats,
    rows: int,
    *,
    width: float | None = None,
    seed: int = 0,
    candidates: int = CANDIDATES,
) -> Integers:
    """Rows chosen one after the other, each the best addition to those before.

    With c rows chosen, the next one is the x that makes the MMD^2 of the c + 1 rows least:
    (c + 1) m(x) - s(x) - k(x, x) / 2 greatest, where m is the mean kernel with the validation rows
    and s the sum of kernels with the rows chosen so far. k(x, x) is 1 for all x.

    Args:
        pool: (N, d) embedded source rows.
        validation: (n, d) embedded validation rows, n >= 1.
        rows: Rows wanted; all of the pool if it has no more.
        width: Length scale of the kernel; the median distance by default.
        seed: Seed of the subsample.
        candidates: Above max(candidates, 2 x rows) pool rows, a uniform subsample of that size
            stands for the pool.

    Returns:
        min(rows, N) sorted indices, without repeats; ties go to the earlier row.

    Raises:
        ValueError: If there is no validation row or the width is not positive.
    """
    if len(validation) == 0:
        raise ValueError("validation: expected at least one row, got none")
    limit = max(candidates, 2 * rows)
    kept = draw_random(len(pool), limit, seed) if len(pool) > limit else use_all(len(pool))
    if rows >= len(kept):
        return kept
    scale = bandwidth(pool[kept], validation) if width is None else width
    if not scale > 0:
        raise ValueError(f"width: expected > 0, got {scale}")
    points = pool[kept]
    wanted = _kernel(points, validation, scale).mean(axis=1)
    crowd = np.zeros(len(points))
    chosen: list[int] = []
    free = np.ones(len(points), np.bool_)
    for step in range(1, rows + 1):
        gain = np.where(free, step * wanted - crowd, -np.inf)
        best = int(np.argmax(gain))
        chosen.append(best)
        free[best] = False
        crowd += _kernel(points, points[best : best + 1], scale)[:, 0]
    return np.sort(kept[chosen]).astype(np.int64)


def _kernel(left: Floats, right: Floats, width: float) -> Floats:
    return np.asarray(np.exp(squared_distances(left, right) / (-2 * width**2)), np.float64)
