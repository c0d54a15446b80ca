"""How many records an honest source may lack: the law of the noise that was added to its counts.

A source may sell what its noised summary promises, so it falls short where noise promised too much.
How much that can be is known: the noise is public in law. What goes beyond it is not noise.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from matching.target import noise_variance

Floats = NDArray[np.float64]

QUANTILE = 0.999
_TAIL = 1e-13


def allowed_shortfall(
    epsilon: float, quota: Sequence[int], entries: Sequence[int], level: float = QUANTILE
) -> int:
    """Units that an honest source falls short by at most, with probability `level` or more.

    A projected count is not above the noised one where that is positive, and rounding it up does
    not pass that integer. So a place lacks at most its own positive noise, and never more than was
    ordered of it; places are independent. The distribution of the sum is computed, not simulated.

    Args:
        epsilon: Of the summary, > 0.
        quota: Units ordered of each place, >= 0; places without an order count nothing.
        entries: Released counts, each with noise of its own, that each place is the sum of, >= 1.
        level: Between 0 and 1.

    Returns:
        Whole units, at most the units ordered.

    Raises:
        ValueError: If the shapes do not fit or a number is out of range.
    """
    if len(quota) != len(entries) or not epsilon > 0 or not 0 < level < 1:
        raise ValueError(f"expected as many entries as places, got {len(entries)}, {len(quota)}")
    if min(quota, default=0) < 0 or min(entries, default=1) < 1:
        raise ValueError("expected units >= 0 and at least one count in each place")
    total = np.ones(1)
    for units, count in zip(quota, entries, strict=True):
        if units:
            total = np.convolve(total, _lacking(epsilon, units, count))
    reached = np.flatnonzero(np.cumsum(total) >= level)
    return int(reached[0]) if len(reached) else len(total) - 1


def _lacking(epsilon: float, units: int, count: int) -> Floats:
    """Distribution of min(units, positive noise) of one place."""
    mass = _noise(epsilon, count)
    middle = len(mass) // 2
    above = mass[middle + 1 :]
    result = np.zeros(units + 1)
    result[0] = mass[: middle + 1].sum()
    for value, chance in enumerate(above.tolist(), start=1):
        result[min(units, value)] += chance
    shares: Floats = result / result.sum()
    return shares


@lru_cache(maxsize=256)
def _noise(epsilon: float, count: int) -> Floats:
    """Distribution of the sum of `count` two-sided geometric noises, centred, odd length."""
    decay = float(np.exp(-epsilon))
    reach = 4 + int(np.ceil(-np.log(_TAIL) / epsilon))
    values = np.abs(np.arange(-reach, reach + 1))
    single = (1 - decay) / (1 + decay) * decay**values
    result: Floats = single
    width = int(np.ceil(9 * np.sqrt(count * noise_variance(epsilon)))) + reach
    for _ in range(count - 1):
        result = np.convolve(result, single)
        middle = len(result) // 2
        keep = min(middle, width)
        result = result[middle - keep : middle + keep + 1]
    return result
