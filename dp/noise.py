"""Integer noise on the owner's machine. No seed argument exists here, on purpose."""

import math
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

EXACT_LIMIT = 2**52
"""Counts must be smaller: the mechanism adds in floats, which are exact on integers below it."""


def geometric(
    counts: ArrayLike, epsilon: Fraction | float | str, sensitivity: int = 1
) -> NDArray[np.int64]:
    """Add two-sided geometric (discrete Laplace) noise to integer counts.

    Each count gets independent noise: P(Z = z) is proportional to exp(-epsilon |z| / sensitivity).

    Guarantee:
        epsilon-differential privacy (pure) for the whole array in one release, under adding or
        removing one unit (one patient, one row per patient).
    Assumes:
        Adding or removing one unit changes the counts by at most `sensitivity` in L1 (the sum of
        absolute changes): 1 for a histogram over disjoint cells. The operating system's randomness
        is uniform. The sampler inverts the distribution in floats, so probabilities hold to about
        2**-53 and noise beyond about 36 sensitivity / epsilon never occurs; the output is an
        integer and carries no low bits of the input.
    Proof:
        For neighbours c and c', P(c + Z = y) / P(c' + Z = y) is a product over the counts of
        exp(epsilon (|y - c'| - |y - c|) / sensitivity), at most
        exp(epsilon ||c - c'||_1 / sensitivity) <= exp(epsilon) (Ghosh, Roughgarden, Sundararajan
        2009; Dwork et al. 2006).

    Args:
        counts: Whole numbers of any shape, below 2**52 in absolute value.
        epsilon: Above 0; exact where it is a Fraction or a decimal text.
        sensitivity: L1 sensitivity, a whole number of at least 1.

    Returns:
        int64 array of the same shape.

    Raises:
        ValueError: A count is not an integer, or epsilon or sensitivity is not positive.
    """
    values = whole_counts(counts)
    if isinstance(sensitivity, bool) or not isinstance(sensitivity, int) or sensitivity < 1:
        raise ValueError(f"sensitivity must be a whole number of at least 1, not {sensitivity!r}")
    # Imported here: it loads scikit-learn, which a reader of costs and ledgers does not need.
    from diffprivlib.mechanisms import Geometric

    # Without a random_state it draws from secrets.SystemRandom.
    mechanism = Geometric(epsilon=float_below(epsilon), sensitivity=sensitivity)
    noised = [int(mechanism.randomise(int(value))) for value in values.ravel()]
    return np.array(noised, dtype=np.int64).reshape(values.shape)


def whole_counts(counts: ArrayLike) -> NDArray[np.generic]:
    """The counts as an array, all of them whole and small enough to add noise to.

    Raises:
        ValueError: They are not.
    """
    values = np.asarray(counts)
    if values.dtype.kind not in "iuf" or (values != np.floor(values)).any():
        raise ValueError(f"counts must be integers, not {values.dtype} with fractions")
    if values.size and not (values.min() > -EXACT_LIMIT and values.max() < EXACT_LIMIT):
        raise ValueError("counts must be below 2**52 in absolute value")
    return values


def float_below(epsilon: Fraction | float | str) -> float:
    """The largest float not above an exact epsilon, so that no noise is a hair too small.

    Raises:
        ValueError: Epsilon is not a positive finite number.
    """
    try:
        exact = Fraction(epsilon)
    except (ValueError, OverflowError, ZeroDivisionError):
        exact = Fraction(0)
    if exact <= 0:
        raise ValueError(f"epsilon must be a positive number, not {epsilon!r}")
    nearest = float(exact)
    if Fraction(nearest) > exact:
        nearest = math.nextafter(nearest, 0.0)
    if nearest <= 0:
        raise ValueError(f"epsilon is too small for noise: {epsilon!r}")
    return nearest
