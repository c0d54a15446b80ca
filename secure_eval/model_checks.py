"""Structural checks of an integer model; each raises ValueError naming the place."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from secure_eval.integer_model import Column, Group, IntegerTree

MAX_DEPTH = 4
MAX_SIZE = 1 << 20


def check_columns(columns: Sequence["Column"], n_features: int) -> None:
    """Require known kinds, features in range, finite grids and sizes from 2 to 2**20."""
    for index, column in enumerate(columns):
        place = f"columns[{index}]"
        if column.kind not in {"value", "bit"}:
            raise ValueError(f"{place}.kind: expected value or bit")
        if not 0 <= column.feature < n_features:
            raise ValueError(
                f"{place}.feature: expected 0 to {n_features - 1}, got {column.feature}"
            )
        if not all(math.isfinite(x) for x in (column.low, column.step, column.threshold)):
            raise ValueError(f"{place}: low, step and threshold must be finite")
        if column.kind == "bit" and column.size != 2:
            raise ValueError(f"{place}.size: a bit has size 2, got {column.size}")
        if not 2 <= column.size <= MAX_SIZE:
            raise ValueError(f"{place}.size: expected 2 to {MAX_SIZE}, got {column.size}")
        if column.kind == "value" and not column.step > 0:
            raise ValueError(f"{place}.step: expected a positive number, got {column.step}")


def check_groups(groups: Sequence["Group"], columns: Sequence["Column"]) -> None:
    """Require disjoint groups of known kind over columns with two levels."""
    seen: set[int] = set()
    for index, (kind, members) in enumerate(groups):
        place = f"groups[{index}]"
        if kind not in {"one_hot", "monotone"}:
            raise ValueError(f"{place}: expected one_hot or monotone")
        if not members:
            raise ValueError(f"{place}: a group needs at least one column")
        for member in members:
            if not 0 <= member < len(columns):
                raise ValueError(f"{place}: expected 0 to {len(columns) - 1}, got {member}")
            if columns[member].size != 2:
                raise ValueError(f"{place}: column {member} has {columns[member].size} levels")
            if member in seen:
                raise ValueError(f"{place}: column {member} is in a group twice")
            seen.add(member)


def check_edges(bin_edges: Sequence[int], threshold_bin: int, bins: int) -> None:
    """Require published edges that increase from 0 to bins and hold the threshold."""
    pairs = pairwise(bin_edges)
    if bin_edges[0] != 0 or bin_edges[-1] != bins or any(a >= b for a, b in pairs):
        raise ValueError(f"bin_edges: must increase from 0 to {bins}, got {tuple(bin_edges)}")
    if threshold_bin not in bin_edges:
        raise ValueError(f"bin_edges: threshold_bin {threshold_bin} must be a published edge")


def check_tree(tree: "IntegerTree", columns: Sequence["Column"], place: str) -> None:
    """Require a proper tree: each node reached exactly once from node 0, at most four splits."""
    size = len(tree.column)
    if not size:
        raise ValueError(f"{place}: a tree needs at least one node")
    column, left, right = tree.column.tolist(), tree.left.tolist(), tree.right.tolist()
    if max(map(abs, tree.value.tolist())) > MAX_SIZE:
        raise ValueError(f"{place}.value: leaves must be at most {MAX_SIZE} in absolute value")
    reached = [False] * size
    level, depth = [0], 0
    while level:
        below: list[int] = []
        for node in level:
            if not 0 <= node < size:
                raise ValueError(f"{place}: child {node} is not a node (0 to {size - 1})")
            if reached[node]:
                raise ValueError(f"{place}: node {node} is reached twice (a cycle or a merge)")
            reached[node] = True
            if column[node] == -1:
                if left[node] != -1 or right[node] != -1:
                    raise ValueError(f"{place}: leaf {node} must have children -1")
                continue
            if not 0 <= column[node] < len(columns):
                raise ValueError(f"{place}: node {node} reads column {column[node]}")
            if columns[column[node]].size != 2:
                raise ValueError(f"{place}: node {node} must read a column with two levels")
            below += [left[node], right[node]]
        level, depth = below, depth + bool(below)
        if depth > MAX_DEPTH:
            raise ValueError(f"{place}: deeper than {MAX_DEPTH} splits")
    if not all(reached):
        raise ValueError(f"{place}: node {reached.index(False)} is not reached from the root")
