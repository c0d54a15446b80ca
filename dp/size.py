"""A noised number of patients, for an owner that will not declare a size class.

Whoever declares a power of two below its rows tells that much for nothing, and may mind. Then n is
one more count: noised, charged in the ledger, published once. Everything that a size class decides
(levels, bins, leaves) follows from the published number alone.
"""

import math
from fractions import Fraction

from dp.cost import MICRO
from dp.noise import geometric

LEAST_EPSILON_MICRO = 10_000
"""Below a hundredth of epsilon the noise leaves nothing of a hospital's n."""

UNSURE = 0.01
"""Chance that the size class is above the true number of rows: a coarser guess, no harm."""

SPILL = 1e-9
"""Chance that the rows do not fit below `room`, which the owner then has to refuse."""


def noised_size(n: int, epsilon_micro: int) -> int:
    """The number of rows with two-sided geometric noise; may be negative.

    Guarantee:
        epsilon-differential privacy under adding or removing one patient, one row per patient.
    Assumes:
        The cost is debited first and the number is published once (the ledger's part).
    Proof:
        n changes by 1, so its L1 sensitivity is 1: `dp.noise.geometric`.

    Raises:
        ValueError: n is negative or epsilon too small.
    """
    if n < 0 or epsilon_micro < LEAST_EPSILON_MICRO:
        raise ValueError(
            f"a noised size needs rows and at least {LEAST_EPSILON_MICRO} millionths of epsilon, "
            f"not {epsilon_micro}"
        )
    return int(geometric(n, Fraction(epsilon_micro, MICRO)))


def margin(epsilon_micro: int, chance: float) -> int:
    """The smallest k with P(noise > k) = a^(k+1) / (1 + a) <= chance, for a = e^-epsilon."""
    epsilon = epsilon_micro / MICRO
    a = math.exp(-epsilon)
    return max(0, math.ceil(-math.log(chance * (1 + a)) / epsilon) - 1)


def size_class(noised: int, epsilon_micro: int) -> int:
    """The largest power of two that is not above n, but for a chance of 1%; at least 1.

    Post-processing of the released number, so it costs nothing and anyone recomputes it.
    """
    sure = max(1, noised - margin(epsilon_micro, UNSURE))
    return 1 << (sure.bit_length() - 1)


def room(noised: int, epsilon_micro: int) -> int:
    """Leaves that all rows fit below but for a chance of 1e-9: a power of two.

    At least twice the size class. Post-processing of the released number.
    """
    most = max(1, noised + margin(epsilon_micro, SPILL))
    return max(1 << (most - 1).bit_length(), 2 * size_class(noised, epsilon_micro))
