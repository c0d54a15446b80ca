"""What a clearing needs: arrays checked once, then read-only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

Integers = NDArray[np.int64]
TieKeys = Sequence[bytes] | Sequence[int]
Keys = tuple[bytes, ...] | tuple[int, ...] | None

LARGEST = 1 << 53
LARGEST_TOTAL = 1 << 62


@dataclass(frozen=True, slots=True)
class Inputs:
    """A market in integers: shapes (K, K), (K,), (S, K), (S,), (K,), see `matching.clear`."""

    distances: Integers
    target: Integers
    supplies: Integers
    prices: Integers
    reserve: Integers


def checked(
    distances: ArrayLike,
    target: ArrayLike,
    supplies: ArrayLike,
    prices: ArrayLike,
    reserve: ArrayLike,
) -> Inputs:
    """Copy the arrays as int64 and check types, shapes, signs and sizes.

    Raises:
        ValueError: Naming the array, what was expected and what came.
    """
    wanted = _integers("target", target, low=0)
    if wanted.ndim != 1:
        raise ValueError(f"target: expected shape (K,), got {wanted.shape}")
    asks = _integers("prices", prices, low=-LARGEST)
    cells, sources = len(wanted), len(asks)
    worth = _integers("reserve", reserve, low=-LARGEST)
    worth = np.full(cells, worth, np.int64) if worth.ndim == 0 else worth
    inputs = Inputs(
        _integers("distances", distances, low=0),
        wanted,
        _integers("supplies", supplies, low=0),
        asks,
        worth,
    )
    for name, array, shape in (
        ("prices", inputs.prices, (sources,)),
        ("distances", inputs.distances, (cells, cells)),
        ("supplies", inputs.supplies, (sources, cells)),
        ("reserve", inputs.reserve, (cells,)),
    ):
        if array.shape != shape:
            raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
    _check_totals(inputs)
    for array in (inputs.distances, wanted, inputs.supplies, asks, inputs.reserve):
        array.setflags(write=False)
    return inputs


def _check_totals(inputs: Inputs) -> None:
    """Refuse inputs whose total cost could leave int64."""
    units = sum(int(count) for count in inputs.target)
    dearest = sum(
        max((abs(int(array.max())), abs(int(array.min()))), default=0) if array.size else 0
        for array in (inputs.distances, inputs.prices, inputs.reserve)
    )
    largest = float(inputs.supplies.sum(axis=0, dtype=np.float64).max(initial=0.0))
    if 2 * dearest * max(units, 1) >= LARGEST_TOTAL or largest >= LARGEST_TOTAL:
        raise ValueError(
            f"expected money x units and units per cell below 2^62, "
            f"got up to {dearest} x {units} and {largest:.3g} units"
        )


def _integers(name: str, value: ArrayLike, *, low: int) -> Integers:
    array = np.asarray(value)
    if array.size == 0 and array.dtype.kind == "f":
        array = array.astype(np.int64)  # an empty list has no type of its own
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name}: expected integers (micro-money or units), got {array.dtype}")
    if array.size and (array.max() > LARGEST or array.min() < low):
        raise ValueError(f"{name}: expected {low} to 2^53, got {array.min()} to {array.max()}")
    return np.array(array, np.int64, order="C")


def checked_keys(keys: TieKeys | None, n_sources: int) -> Keys:
    """Keys as a tuple of one type, one per source.

    Raises:
        ValueError: If their number or their types do not fit.
    """
    if keys is None:
        return None
    if len(keys) != n_sources:
        raise ValueError(f"tie_keys: expected {n_sources}, one per source, got {len(keys)}")
    if all(isinstance(key, bytes) for key in keys):
        return cast(tuple[bytes, ...], tuple(keys))
    if all(isinstance(key, int | np.integer) for key in keys):
        return tuple(int(cast(int, key)) for key in keys)
    raise ValueError("tie_keys: expected all bytes or all integers, got a mixture")
