"""Where the columns of a small set lie: fourteen to a ciphertext. Protocol section 8c.

The slots of a ciphertext are 14 strips of 585 and two that stay empty. A column takes one strip of
one ciphertext, a layer; the rows have the same order in every strip. Columns that a test of the
upload multiplies by each other (the bits of one number, the levels of one category) form a group
and take the same strip of consecutive layers, so that a row's values meet slot by slot as they do
without strips. No group meets another one: nothing rotates.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from secure_eval.params import PARAMETERS

__all__ = ["STRIPS", "STRIP_ROWS", "folded", "layers", "places", "repeated", "strip"]

Integers = NDArray[np.int64]

_N = PARAMETERS.degree
_P = PARAMETERS.plain_modulus
STRIPS = 14
#: most rows of a packed set
STRIP_ROWS = _N // STRIPS


@lru_cache(maxsize=64)
def places(sizes: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Return the layer and the strip of each column.

    The largest group first, each on the strip that is filled least, the first of equals: at most
    one group more than an even share, and the same wherever it is computed.

    Args:
        sizes: how many consecutive columns each form a group.
    """
    heights = [0] * STRIPS
    starts: dict[int, tuple[int, int]] = {}
    for group in sorted(range(len(sizes)), key=lambda group: -sizes[group]):
        lowest = min(range(STRIPS), key=heights.__getitem__)
        starts[group] = (heights[lowest], lowest)
        heights[lowest] += sizes[group]
    return tuple(
        (starts[group][0] + step, starts[group][1])
        for group, size in enumerate(sizes)
        for step in range(size)
    )


def layers(sizes: tuple[int, ...]) -> int:
    """Return how many ciphertexts hold all columns."""
    return 1 + max((layer for layer, _ in places(sizes)), default=-1)


def strip(number: int) -> slice:
    """Return the slots of a strip."""
    return slice(number * STRIP_ROWS, (number + 1) * STRIP_ROWS)


def repeated(rows: ArrayLike) -> Integers:
    """Return slots (N,) with the same values (up to 585,) in every strip."""
    values = np.zeros(STRIP_ROWS, np.int64)
    given = np.asarray(rows, np.int64)
    values[: len(given)] = given
    slots = np.zeros(_N, np.int64)
    slots[: STRIPS * STRIP_ROWS] = np.tile(values, STRIPS)
    return slots


def folded(slots: Integers) -> Integers:
    """Return the sum mod p over the strips of slots (N,): (N,), 0 behind the first strip."""
    result = np.zeros(_N, np.int64)
    table = slots[: STRIPS * STRIP_ROWS].reshape(STRIPS, STRIP_ROWS)
    result[:STRIP_ROWS] = table.sum(axis=0) % _P
    return result


def weighted_layers(
    columns: Sequence[tuple[int, int]], weights: Sequence[int]
) -> dict[int, Integers]:
    """Return for each layer that is read the weights of its slots (N,).

    Args:
        columns: layer and strip of each column, distinct.
        weights: of each column, any integers.
    """
    found: dict[int, Integers] = {}
    for (layer, number), weight in zip(columns, weights, strict=True):
        if weight % _P:
            found.setdefault(layer, np.zeros(_N, np.int64))[strip(number)] = weight % _P
    return found
