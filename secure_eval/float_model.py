"""The common form between an importer and the quantiser: a model over expressions, in floats."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from secure_eval.expressions import Expression

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Decision:
    """A row counts as predicted positive where score > threshold (strict) or >= threshold."""

    threshold: float
    strict: bool


@dataclass(frozen=True, slots=True)
class FloatLinear:
    """intercept + coefficients (E,) times the expressions."""

    expressions: tuple[Expression, ...]
    coefficients: Floats
    intercept: float
    decision: Decision


@dataclass(frozen=True, slots=True)
class FloatTree:
    """A binary tree as parallel arrays (n_nodes,); node 0 is the root.

    Attributes:
        name: where the tree is in its file, for error messages.
        test: index of the tested expression, -1 at a leaf.
        threshold: a row goes right where expression > threshold (closed) or >= threshold.
        closed: whether the left side holds the threshold itself.
        left, right: children.
        value: a leaf's share of the score.
    """

    name: str
    test: Integers
    threshold: Floats
    closed: NDArray[np.bool_]
    left: Integers
    right: Integers
    value: Floats


@dataclass(frozen=True, slots=True)
class FloatTrees:
    """base + the sum of one leaf per tree."""

    expressions: tuple[Expression, ...]
    trees: tuple[FloatTree, ...]
    base: float
    decision: Decision


FloatModel: TypeAlias = FloatLinear | FloatTrees
