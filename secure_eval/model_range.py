"""The proven score range of an integer model and the hidden bin edges it must fit."""

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from secure_eval.integer_model import Column, Group, IntegerTree

PLAIN_MODULUS = 1_032_193
Integers = NDArray[np.int64]
Bounds = dict[int, tuple[float, float]]


def hidden_edges(bins: int) -> Integers:
    """Return the hidden edges (bins + 1,): the least z with 2z >= b D + S, for b = 0..bins."""
    width = (PLAIN_MODULUS - 1) // bins
    shift = -(bins // 2) * width - 1
    return -((-(np.arange(bins + 1, dtype=np.int64) * width + shift)) // 2)


def score_range(
    columns: Sequence["Column"],
    weights: Integers,
    bias: int,
    trees: Sequence["IntegerTree"],
    groups: Sequence["Group"],
) -> tuple[int, int]:
    """Return integers low, high with low <= score <= high for every row whatever its values.

    Proof: the score is bias + a weighted sum of columns + a sum of leaves. A tree of one split is
    a weighted bit. Weighted columns are bounded per group or per feature by the extremes over
    every joint state those columns can take (a superset of the true ones); deeper trees by their
    reachable leaves; sums of bounds bound sums.
    """
    weights = weights.copy()
    low = high = bias
    for tree in trees:
        if len(tree.column) == 3:
            zero, one = tree.value[tree.left[0]], tree.value[tree.right[0]]
            weights[tree.column[0]] += one - zero
            low, high = low + int(zero), high + int(zero)
        else:
            leaves = reachable_leaves(tree, columns)
            low, high = low + min(leaves), high + max(leaves)
    grouped: set[int] = set()
    for kind, members in groups:
        part = weights[list(members)]
        states = np.cumsum(part) if kind == "monotone" else part
        low, high = low + min(0, int(states.min())), high + max(0, int(states.max()))
        grouped.update(members)
    by_feature: dict[int, list[int]] = defaultdict(list)
    for index in np.flatnonzero(weights).tolist():
        if index not in grouped:
            by_feature[columns[index].feature].append(index)
    for indices in by_feature.values():
        least, most = _feature_range([columns[i] for i in indices], weights[indices])
        low, high = low + least, high + most
    return int(low), int(high)


def _feature_range(columns: list["Column"], weights: Integers) -> tuple[int, int]:
    """Bound the weighted sum of the columns of one feature.

    Bits of one feature are a ladder: x lies between two neighbouring thresholds, which fixes every
    bit; a value column is monotone in x, so it lies between its values at those two thresholds.
    """
    bits = [i for i, column in enumerate(columns) if column.kind == "bit"]
    cuts = np.array([columns[i].threshold for i in bits])
    order = np.argsort(cuts, kind="stable")
    cuts, steps = cuts[order], weights[bits][order]
    fixed = np.concatenate([[0], np.cumsum(steps)])
    # Equal cuts turn on together: only the state after the last of them exists.
    exists = np.concatenate([[True], np.append(cuts[1:] != cuts[:-1], True)[: len(cuts)]])
    least, most = fixed.copy(), fixed.copy()
    for column, weight in zip(columns, weights, strict=True):
        if column.kind == "value":
            level = column.encode(cuts)
            ends = weight * np.stack([np.append(0, level), np.append(level, column.size - 1)])
            least, most = least + ends.min(axis=0), most + ends.max(axis=0)
    return int(least[exists].min()), int(most[exists].max())


def reachable_leaves(tree: "IntegerTree", columns: Sequence["Column"]) -> list[int]:
    """Return the values of the leaves that some row reaches (or that cannot be ruled out)."""
    leaves: list[int] = []
    stack: list[tuple[int, Bounds]] = [(0, {})]
    while stack:
        node, bounds = stack.pop()
        index = int(tree.column[node])
        if index < 0:
            leaves.append(int(tree.value[node]))
            continue
        column = columns[index]
        # Value columns with two levels get a key of their own: their bit is "level >= 1".
        key, cut = (column.feature, column.threshold) if column.kind == "bit" else (~index, 1.0)
        low, high = bounds.get(key, (-np.inf, np.inf))
        if low < cut:
            stack.append((int(tree.left[node]), {**bounds, key: (low, min(high, cut))}))
        if cut < high:
            stack.append((int(tree.right[node]), {**bounds, key: (max(low, cut), high)}))
    return leaves
