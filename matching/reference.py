"""Codewords from a public reference: k-means in the embedding that the market measures with."""

from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

DECIMALS = 6
_STARTS = 8
_SEED = 0


def codewords(points: ArrayLike, n_cells: int) -> Floats:
    """Centres of `n_cells` groups of like points, the same for everybody who computes them.

    Lloyd's algorithm from eight k-means++ starts with a fixed seed (Arthur and Vassilvitskii 2007),
    rounded to six decimals and sorted. It reads public points only, so it costs no privacy; on
    private ones it would tell rows away, and a private k-means needs far more epsilon than counts
    do.

    Args:
        points: (n, d) finite embedded rows of a public table.
        n_cells: Number of codewords, 2 to the number of different points.

    Returns:
        (n_cells, d) float64, all different.

    Raises:
        ValueError: The points do not fit, or there are too few different ones.
    """
    from sklearn.cluster import KMeans  # here: slow to load, and only whoever fits needs it

    rows = np.asarray(points, np.float64)
    if rows.ndim != 2 or not np.isfinite(rows).all():
        raise ValueError(f"points: expected finite rows (n, d), got shape {rows.shape}")
    different = len(np.unique(rows.round(DECIMALS), axis=0))
    if not 2 <= n_cells <= different:
        raise ValueError(f"cells: expected 2 to {different} (different rows), got {n_cells}")
    found = KMeans(n_cells, n_init=_STARTS, random_state=_SEED).fit(rows).cluster_centers_
    centres = np.unique(found.round(DECIMALS) + 0.0, axis=0)  # sorted; + 0.0 makes -0.0 plain
    if len(centres) < n_cells:
        raise ValueError(f"cells: only {len(centres)} groups differ, {n_cells} were wanted")
    return cast(Floats, centres)


def nearest(points: ArrayLike, centres: ArrayLike) -> NDArray[np.int64]:
    """(n,) index of the codeword nearest to each point; the first of equally near ones.

    Raises:
        ValueError: The dimensions differ.
    """
    rows, words = np.asarray(points, np.float64), np.asarray(centres, np.float64)
    if rows.ndim != 2 or words.ndim != 2 or rows.shape[1] != words.shape[1] or not len(words):
        raise ValueError(
            f"expected (n, d) points and (k, d) centres, got {rows.shape}, {words.shape}"
        )
    result = np.empty(len(rows), np.int64)
    step = max(1, 2**20 // max(1, words.size))
    for start in range(0, len(rows), step):
        part = rows[start : start + step, None, :]
        result[start : start + step] = ((part - words) ** 2).sum(axis=2).round(12).argmin(axis=1)
    return result
