"""Models and sealed sets of given sizes for the scoring benchmark."""

import numpy as np
from numpy.typing import NDArray

from secure_eval.integer_model import Column, IntegerModel, IntegerTree
from secure_eval.keyholder import KeyHolder, SealedSet
from secure_eval.params import PARAMETERS

Integers = NDArray[np.int64]

N = PARAMETERS.degree
LEVELS = 512


def linear(columns: int, seed: int, size: int = LEVELS, bins: int = 32) -> IntegerModel:
    """A linear model that fills the bins."""
    raw = np.random.default_rng(seed).normal(size=columns)
    weights = np.trunc(raw * 515_000 / (np.abs(raw).sum() * (size - 1))).astype(np.int64)
    return IntegerModel(
        kind="linear",
        columns=tuple(Column.value_of(i, 0.0, 1.0, size) for i in range(columns)),
        weights=weights,
        bias=-int(weights.sum()) * (size - 1) // 2,
        n_features=columns,
        bins=bins,
    )


def additive(bits: int, seed: int) -> IntegerModel:
    """An additive model of threshold bits."""
    raw = np.random.default_rng(seed).normal(size=bits)
    return IntegerModel(
        kind="additive",
        columns=tuple(Column.bit_of(i, 0.5) for i in range(bits)),
        weights=np.rint(raw * 250_000 / np.abs(raw).sum()).astype(np.int64),
        bias=0,
        n_features=bits,
    )


def forest(trees: int, depth: int, bits: int) -> IntegerModel:
    """Complete trees of the given depth over random bits."""
    rng = np.random.default_rng(1)
    size, inner = 2 ** (depth + 1) - 1, 2**depth - 1
    nodes = np.arange(size)
    built = []
    for _ in range(trees):
        column = np.full(size, -1)
        column[:inner] = [rng.choice(bits, replace=False) for _ in range(inner)]
        left = np.where(nodes < inner, 2 * nodes + 1, -1)
        right = np.where(nodes < inner, 2 * nodes + 2, -1)
        value = rng.integers(-250_000 // trees, 250_000 // trees, size)
        built.append(IntegerTree(column, left, right, value))
    return IntegerModel(
        kind="trees",
        columns=tuple(Column.bit_of(i, 0.5) for i in range(bits)),
        weights=np.zeros(bits, np.int64),
        bias=0,
        n_features=bits,
        trees=tuple(built),
    )


def sealed_set(
    holder: KeyHolder, rows: int, columns: int, size: int = LEVELS, groups: int = 1
) -> tuple[SealedSet, Integers]:
    """Random rows with labels and some attributes of two levels."""
    rng = np.random.default_rng(rows)
    values, labels = rng.integers(0, size, (rows, columns)), rng.integers(0, 2, rows)
    named = {f"g{i}": (rng.integers(0, 2, rows), 2) for i in range(groups)}
    return holder.seal(values, labels, 2, groups=named), labels
