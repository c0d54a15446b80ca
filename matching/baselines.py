"""Honest alternatives to the clearinghouse, for rehearsals that own every table.

Each function returns indices into the pooled source rows. None of them is private: they exist to
show what privacy, asks and cells cost.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from matching.target import round_to

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# The exact assignment of n rows to m validation rows needs a dense n x m matrix.
CANDIDATES = 4000


def draw_random(pool_size: int, rows: int, seed: int) -> Integers:
    """Uniform draw of `rows` rows without replacement (all rows if there are fewer)."""
    rng = np.random.default_rng(seed)
    return np.sort(rng.choice(pool_size, min(rows, pool_size), replace=False)).astype(np.int64)


def use_all(pool_size: int) -> Integers:
    """Every row: no row budget at all."""
    return np.arange(pool_size, dtype=np.int64)


def label_only(pool_labels: ArrayLike, wanted_labels: ArrayLike, rows: int, seed: int) -> Integers:
    """Uniform rows within each label, in the label shares of the customer's validation rows.

    Args:
        pool_labels: (N,) labels of the pooled source rows.
        wanted_labels: (n,) labels of the validation rows, n >= 1.
        rows: Rows wanted.
        seed: Seed of the draw.

    Returns:
        At most `rows` indices: fewer where the pool runs short of a label, and labels that no
        validation row has are left out.

    Raises:
        ValueError: If there is no validation row.
    """
    pool, wanted = np.asarray(pool_labels), np.asarray(wanted_labels)
    if wanted.size == 0:
        raise ValueError("wanted_labels: expected at least one validation row, got none")
    levels, counts = np.unique(wanted, return_counts=True)
    rng = np.random.default_rng(seed)
    picked = [np.zeros(0, np.int64)]
    for level, quota in zip(levels, round_to(counts, rows), strict=True):
        members = np.flatnonzero(pool == level)
        picked.append(rng.choice(members, min(int(quota), len(members)), replace=False))
    return np.sort(np.concatenate(picked)).astype(np.int64)


def points_ot(
    pool: Floats,
    validation: Floats,
    rows: int,
    *,
    pool_labels: ArrayLike | None = None,
    validation_labels: ArrayLike | None = None,
    label_cost: float = 0.0,
    seed: int = 0,
    candidates: int = CANDIDATES,
) -> Integers:
    """Exact optimal transport of single rows to the customer's validation rows.

    Each validation row asks for rows / n source rows (the first ones for one more where that does
    not divide), each source row serves at most one of them, and the sum of Euclidean distances is
    least. Solved by POT's network simplex on integer masses, whose optimum is a selection of rows.

    Args:
        pool: (N, d) embedded source rows.
        validation: (n, d) embedded validation rows, n >= 1.
        rows: Rows wanted; all of the pool if it has no more.
        pool_labels: (N,) labels, needed with a label cost.
        validation_labels: (n,) labels, needed with a label cost.
        label_cost: Added where labels differ, in units of distance.
        seed: Seed of the subsample.
        candidates: Above max(candidates, 2 x rows) pool rows, a uniform subsample of that size
            stands for the pool.

    Returns:
        min(rows, N) sorted indices.

    Raises:
        ValueError: If there is no validation row, or labels are missing.
    """
    if len(validation) == 0:
        raise ValueError("validation: expected at least one row, got none")
    limit = max(candidates, 2 * rows)
    kept = draw_random(len(pool), limit, seed) if len(pool) > limit else use_all(len(pool))
    if rows >= len(kept):
        return kept
    if rows < 1:
        return np.zeros(0, np.int64)
    cost = euclidean(pool[kept], validation)
    if label_cost:
        if pool_labels is None or validation_labels is None:
            raise ValueError("expected labels of pool and validation rows with a label cost")
        ours, theirs = np.asarray(pool_labels)[kept], np.asarray(validation_labels)
        cost += label_cost * (ours[:, None] != theirs[None, :])
    return kept[_assign(cost, rows)]


def euclidean(left: Floats, right: Floats) -> Floats:
    """(n, m) Euclidean distances."""
    return np.asarray(np.sqrt(squared_distances(left, right)), np.float64)


def squared_distances(left: Floats, right: Floats) -> Floats:
    """(n, m) squared Euclidean distances by one matrix product, never negative."""
    total = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1)[None, :]
    total -= 2.0 * (left @ right.T)
    return np.asarray(np.maximum(total, 0.0, out=total), np.float64)


def _assign(cost: Floats, rows: int) -> Integers:
    """Row indices of the cheapest integral transport of `rows` unit masses to all columns."""
    import ot  # heavy, and only a rehearsal's report needs it

    supply, wanted = cost.shape
    demand = np.full(wanted + 1, rows // wanted, np.float64)
    demand[: rows % wanted] += 1
    demand[-1] = supply - rows  # rows that stay where they are, at no cost
    whole = np.hstack([cost, np.zeros((supply, 1))])
    plan = ot.emd(np.ones(supply), demand, whole, numItermax=10_000_000)
    chosen = np.flatnonzero(plan[:, :-1].sum(axis=1) > 0.5)
    if len(chosen) != rows:
        raise ValueError(f"expected the transport to select {rows} rows, got {len(chosen)}")
    return chosen.astype(np.int64)
