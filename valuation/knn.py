"""Exact Shapley values of records under k nearest neighbours, from distances alone."""

from collections.abc import Sequence
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_BLOCK = 4_000_000


def knn_shapley(
    distances: ArrayLike,
    train_labels: ArrayLike,
    target_labels: ArrayLike,
    k: int,
    *,
    tie_keys: Sequence[bytes] | None = None,
    block: int = _BLOCK,
) -> Floats:
    """Shapley value of every training record for k-nearest-neighbour accuracy.

    The game, for one target: U(A) = (1/k) x how many of the k records of A nearest to the target
    (all of A if it has fewer) carry the target's label; U(empty) = 0. Values are means over
    targets and sum to the accuracy of all records. Jia et al., "Efficient task-specific data
    valuation for nearest neighbor algorithms", VLDB 2019, theorem 1, with the last record's term
    1 / max(k, n) so that it also holds for fewer than k records. O(m n log n).

    The values depend on the order of records at equal distance. Those are ordered by `tie_keys`
    (record hashes), or by position where none are given.

    Args:
        distances: (n, m) finite numbers from n training records to m targets.
        train_labels: (n,) labels.
        target_labels: (m,) labels, comparable with the training labels.
        k: Number of neighbours, >= 1.
        tie_keys: n bytes, e.g. hashes of the records.
        block: Targets are handled so that about this many distances are sorted at once, which
            bounds the memory; the values do not depend on it beyond rounding.

    Returns:
        (n,) float64, each between -1 and 1.

    Raises:
        ValueError: If a shape is wrong, there is no target, a distance is not finite, or k < 1.
    """
    matrix = np.asarray(distances, np.float64)
    train, target = np.asarray(train_labels), np.asarray(target_labels)
    if matrix.ndim != 2 or train.shape != matrix.shape[:1] or target.shape != matrix.shape[1:]:
        raise ValueError(
            "expected distances (n, m) with n training and m target labels, "
            f"got {matrix.shape}, {train.shape} and {target.shape}"
        )
    if matrix.shape[1] == 0 or not np.isfinite(matrix).all() or k < 1:
        raise ValueError(f"expected targets, finite distances and k >= 1, got {matrix.shape}, {k}")
    records = len(matrix)
    if records == 0:
        return np.zeros(0)
    if tie_keys is not None and len(tie_keys) != records:
        raise ValueError(f"tie_keys: expected {records}, one per record, got {len(tie_keys)}")
    rank = range(records) if tie_keys is None else _positions(tie_keys)
    values = _values_in_order(matrix[list(rank)], train[list(rank)], target, k, block)
    result = np.empty(records)
    result[list(rank)] = values / matrix.shape[1]
    return result


def _positions(keys: Sequence[bytes]) -> list[int]:
    return sorted(range(len(keys)), key=lambda i: keys[i])


def _values_in_order(
    matrix: Floats, train: NDArray[np.generic], target: NDArray[np.generic], k: int, block: int
) -> Floats:
    """Sum over targets of each record's value; ties go to the earlier record (stable sort)."""
    records, targets = matrix.shape
    per_rank = 1.0 / np.maximum(k, np.arange(1, records + 1))
    total = np.zeros(records)
    width = max(1, block // records)
    for start in range(0, targets, width):
        rows = np.ascontiguousarray(matrix[:, start : start + width].T)
        order = np.argsort(rows, axis=1, kind="stable")
        match = (train[order] == target[start : start + width, None]).astype(np.float64)
        steps = match
        steps[:, :-1] -= match[:, 1:].copy()
        steps *= per_rank
        values = np.cumsum(steps[:, ::-1], axis=1)[:, ::-1]
        total += np.bincount(order.ravel(), values.ravel(), minlength=records)
    return cast(Floats, total)
