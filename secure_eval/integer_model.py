"""Integer models: what a scoring run computes, bit for bit, on encrypted rows.

A model reads *columns*: a feature on a public integer grid ("value"), or a threshold bit of a
feature ("bit"). Its score is an integer z with a range that is proven from the columns alone, so
that no row, whatever its values, can wrap around the plain modulus.

Range law. With p = 1032193, B hidden bins, D = (p - 1) / B and S = -(B / 2) D - 1, hidden edge b is
the least integer z with 2z >= b D + S, that is (b - B / 2) D / 2. Every model holds
edge 0 <= low <= z <= high < edge B, hence |2z| < p / 2.
"""

import hashlib
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from secure_eval import model_json
from secure_eval.model_checks import check_columns, check_edges, check_groups, check_tree
from secure_eval.model_range import PLAIN_MODULUS, hidden_edges, score_range

__all__ = ["PLAIN_MODULUS", "Column", "Group", "IntegerModel", "IntegerTree", "hidden_edges"]

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Group = tuple[Literal["one_hot", "monotone"], tuple[int, ...]]

MAX_FEATURES = 10_000
MAX_COLUMNS = 20_000
MAX_TREES = 1_000
MAX_TREE_NODES = 100_000
HIDDEN_BINS = (8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class Column:
    """One column that a source uploads.

    A "value" column is the integer clip(rint((x - low) / step), 0, size - 1) of feature x;
    a "bit" column is 1 where x >= threshold, else 0, and has size 2.
    """

    feature: int
    kind: Literal["value", "bit"]
    low: float
    step: float
    size: int
    threshold: float

    @classmethod
    def value_of(cls, feature: int, low: float, step: float, size: int) -> "Column":
        """Return the value column of a feature on the grid low, low + step, ..."""
        return cls(feature, "value", low, step, size, 0.0)

    @classmethod
    def bit_of(cls, feature: int, threshold: float) -> "Column":
        """Return the bit x >= threshold of a feature."""
        return cls(feature, "bit", 0.0, 1.0, 2, threshold)

    def encode(self, values: Floats) -> Integers:
        """Return the integers of this column for float feature values of any shape."""
        if self.kind == "bit":
            return (values >= self.threshold).astype(np.int64)
        with np.errstate(over="ignore"):
            level = np.rint((values - self.low) / self.step)
        return np.clip(level, 0, self.size - 1).astype(np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class IntegerTree:
    """A binary tree over columns with two levels, as parallel arrays; node 0 is the root.

    Attributes:
        column: (n_nodes,) index into the model's columns, -1 at a leaf.
        left: (n_nodes,) child where the column is 0, -1 at a leaf.
        right: (n_nodes,) child where the column is 1, -1 at a leaf.
        value: (n_nodes,) the leaf's integer; not read at inner nodes.
    """

    column: Integers
    left: Integers
    right: Integers
    value: Integers

    def __post_init__(self) -> None:
        for item in fields(self):
            object.__setattr__(self, item.name, _frozen(getattr(self, item.name), item.name))
        if not self.column.shape == self.left.shape == self.right.shape == self.value.shape:
            raise ValueError("tree: column, left, right and value must have the same length")

    def score_columns(self, columns: Integers) -> Integers:
        """Return the leaf value (n,) of each row of integer columns (n, C)."""
        node = np.zeros(len(columns), dtype=np.int64)
        inner = self.column[node] >= 0
        while bool(inner.any()):
            rows = np.flatnonzero(inner)
            at = node[rows]
            right = columns[rows, self.column[at]] != 0
            node[rows] = np.where(right, self.right[at], self.left[at])
            inner = self.column[node] >= 0
        return self.value[node]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class IntegerModel:
    """A model in integers with a proven score range; building one checks everything.

    Attributes:
        kind: "linear" (weighted columns), "additive" (weighted 0/1 columns) or "trees".
        columns: what the model reads.
        weights: (C,) integers; in trees only for columns that no tree reads, such as a label's.
        bias: added to every score.
        trees: trees whose leaves are summed; empty unless kind is "trees".
        n_features: width of the rows that `encode` takes.
        groups: column groups that `encode` makes true: at most one 1 in a "one_hot" group (the
            first stays), column i + 1 <= column i in a "monotone" group.
        bins: number of hidden bins.
        bin_edges: published edges as hidden indices, from 0 to bins, threshold_bin among them.
        threshold_bin: the hidden edge from which a row counts as predicted positive.
        scale, offset: informative; integer score ~ scale * float score + offset.
        low, high: the proven range of the score, derived.

    Raises:
        ValueError: any part is malformed or the proven range breaks the range law.
    """

    kind: Literal["linear", "additive", "trees"]
    columns: tuple[Column, ...]
    weights: Integers
    bias: int
    n_features: int
    trees: tuple[IntegerTree, ...] = ()
    groups: tuple[Group, ...] = ()
    bins: int = 32
    bin_edges: tuple[int, ...] = ()
    threshold_bin: int = -1
    scale: float = 1.0
    offset: float = 0.0
    low: int = field(init=False)
    high: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", _frozen(self.weights, "weights"))
        if self.bins not in HIDDEN_BINS:
            raise ValueError(f"bins: expected one of {HIDDEN_BINS}, got {self.bins}")
        if self.threshold_bin == -1:
            object.__setattr__(self, "threshold_bin", self.bins // 2)
        if not self.bin_edges:
            object.__setattr__(self, "bin_edges", tuple(range(self.bins + 1)))
        self._check()
        low, high = score_range(self.columns, self.weights, self.bias, self.trees, self.groups)
        edges = hidden_edges(self.bins)
        if low < edges[0] or high >= edges[-1]:
            raise ValueError(
                f"score range: [{low}, {high}] leaves the bins [{edges[0]}, {edges[-1] - 1}]"
            )
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)

    def _check(self) -> None:
        if self.kind not in {"linear", "additive", "trees"}:
            raise ValueError("kind: expected linear, additive or trees")
        if not 1 <= self.n_features <= MAX_FEATURES:
            raise ValueError(f"n_features: expected 1 to {MAX_FEATURES}, got {self.n_features}")
        if not len(self.columns) <= MAX_COLUMNS:
            raise ValueError(f"columns: at most {MAX_COLUMNS}, got {len(self.columns)}")
        if self.weights.shape != (len(self.columns),):
            raise ValueError(
                f"weights: expected {len(self.columns)} integers, got {self.weights.shape}"
            )
        # not by absolute value: that of the least 64-bit integer is itself
        largest = max(int(self.weights.max(initial=0)), -int(self.weights.min(initial=0)))
        if largest > PLAIN_MODULUS or abs(self.bias) > 1 << 40:
            raise ValueError(f"weights, bias: at most {PLAIN_MODULUS} and 2**40 in absolute value")
        if (self.kind == "trees") != bool(self.trees):
            raise ValueError(f"trees: a {self.kind} model cannot have {len(self.trees)} trees")
        if self.kind == "trees":
            self._check_weights_beside_trees()
        check_columns(self.columns, self.n_features)
        if self.kind == "additive" and any(column.size != 2 for column in self.columns):
            raise ValueError("columns: an additive model reads 0/1 columns only")
        self._check_trees()
        check_groups(self.groups, self.columns)
        check_edges(self.bin_edges, self.threshold_bin, self.bins)
        if not np.isfinite([self.scale, self.offset]).all():
            raise ValueError("scale, offset: expected finite numbers")

    def _check_weights_beside_trees(self) -> None:
        """Weights beside trees are for numbers: weighted bits would be trees of one split."""
        for index in np.flatnonzero(self.weights).tolist():
            if self.columns[index].size == 2:
                raise ValueError(f"weights[{index}]: a trees model weighs no column of two levels")

    def _check_trees(self) -> None:
        nodes = sum(len(tree.column) for tree in self.trees)
        if len(self.trees) > MAX_TREES or nodes > MAX_TREE_NODES:
            raise ValueError(
                f"trees: at most {MAX_TREES} trees and {MAX_TREE_NODES} nodes, "
                f"got {len(self.trees)} and {nodes}"
            )
        for index, tree in enumerate(self.trees):
            check_tree(tree, self.columns, f"trees[{index}]")

    @property
    def edges(self) -> Integers:
        """Published edges (len(bin_edges),) in score units; bin b holds edge b <= z < edge b+1."""
        return hidden_edges(self.bins)[list(self.bin_edges)]

    @property
    def threshold(self) -> int:
        """The least score that counts as predicted positive."""
        return int(hidden_edges(self.bins)[self.threshold_bin])

    def encode(self, rows: ArrayLike) -> Integers:
        """Return the integer columns (n, C) of float rows (n, F).

        Raises:
            ValueError: wrong shape, or a value that is not a number.
        """
        table = np.asarray(rows, dtype=np.float64)
        if table.ndim != 2 or table.shape[1] != self.n_features:
            raise ValueError(f"rows: expected (n, {self.n_features}), got {table.shape}")
        if np.isnan(table).any():
            raise ValueError("rows: a value is missing (NaN); fill missing values first")
        result = np.empty((len(table), len(self.columns)), dtype=np.int64)
        for index, column in enumerate(self.columns):
            result[:, index] = column.encode(table[:, column.feature])
        for kind, members in self.groups:
            part = result[:, list(members)]
            if kind == "monotone":
                part = np.minimum.accumulate(part, axis=1)
            else:
                part = part * (np.cumsum(part, axis=1) == 1)
            result[:, list(members)] = part
        return result

    def score_columns(self, columns: Integers) -> Integers:
        """Return the scores (n,) of integer columns (n, C) as `encode` makes them."""
        table = np.asarray(columns, dtype=np.int64)
        if table.ndim != 2 or table.shape[1] != len(self.columns):
            raise ValueError(f"columns: expected (n, {len(self.columns)}), got {table.shape}")
        total = table @ self.weights + self.bias
        for tree in self.trees:
            total = total + tree.score_columns(table)
        return np.asarray(total, dtype=np.int64)

    def score(self, rows: ArrayLike) -> Integers:
        """Return the integer scores (n,) that an encrypted run on these rows must reproduce."""
        return self.score_columns(self.encode(rows))

    def predict(self, rows: ArrayLike) -> Integers:
        """Return 1 for each row (n,) whose score reaches the decision threshold, else 0."""
        return (self.score(rows) >= self.threshold).astype(np.int64)

    def with_edges(self, indices: ArrayLike) -> "IntegerModel":
        """Return the same model with other published edges (increasing hidden indices)."""
        return self._changed(bin_edges=tuple(int(index) for index in np.asarray(indices).ravel()))

    def with_quantile_edges(self, train_scores: ArrayLike, n_bins: int) -> "IntegerModel":
        """Return the model with hidden edges nearest to the quantiles of given integer scores.

        The decision threshold is always an edge. Fewer than n_bins bins come out where scores
        share hidden bins.

        Args:
            train_scores: integer scores (n,), n >= 1, of rows whose distribution may be published.
            n_bins: wanted number of bins, 2 to `bins`.
        """
        scores = np.sort(np.asarray(train_scores, dtype=np.int64).ravel())
        if not len(scores) or not 2 <= n_bins <= self.bins:
            raise ValueError(
                f"quantile edges: expected scores and 2 to {self.bins} bins, "
                f"got {len(scores)} scores and {n_bins} bins"
            )
        edges = hidden_edges(self.bins)
        wanted = np.quantile(scores, np.arange(1, n_bins) / n_bins)
        nearest = np.abs(wanted[:, None] - edges[None, 1:-1]).argmin(axis=1) + 1
        if 0 < self.threshold_bin < self.bins:
            nearest[np.abs(nearest - self.threshold_bin).argmin()] = self.threshold_bin
        return self.with_edges(np.unique([0, *nearest.tolist(), self.bins]))

    def _changed(self, **changes: Any) -> "IntegerModel":
        return replace(self, **changes)

    def to_json(self) -> str:
        """Return the canonical text: sorted keys, no spaces, integers and float.hex strings."""
        return model_json.dump(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> "IntegerModel":
        """Read a model strictly.

        Raises:
            ValueError: naming the place that is unknown, missing, malformed or out of range.
        """
        return from_plain(model_json.load(text))

    def digest(self) -> str:
        """Return the SHA-256 (hexadecimal) of the canonical text."""
        return hashlib.sha256(self.to_json().encode("ascii")).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IntegerModel) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(self.to_json())


def from_plain(plain: model_json.Plain) -> IntegerModel:
    """Return the model of what `model_json` read."""
    rest = dict(plain)
    columns = tuple(Column(**item) for item in rest.pop("columns"))
    trees = tuple(IntegerTree(**item) for item in rest.pop("trees"))
    return IntegerModel(columns=columns, trees=trees, **rest)


def _frozen(values: ArrayLike, name: str) -> Integers:
    """Return a read-only int64 copy of a vector of integers."""
    given = np.asarray(values)
    if given.size and not np.issubdtype(given.dtype, np.integer):
        raise ValueError(f"{name}: expected integers, got {given.dtype}")
    if given.ndim != 1:
        raise ValueError(f"{name}: expected a vector, got {given.ndim} dimensions")
    try:
        result = given.astype(np.int64, casting="safe" if given.size else "unsafe", copy=True)
    except TypeError as error:
        raise ValueError(f"{name}: expected 64-bit integers, got {given.dtype}") from error
    result.flags.writeable = False
    return result
