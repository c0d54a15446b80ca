"""Discrete Gaussian noise, sampled exactly: whole numbers only, from the operating system's bits.

Canonne, Kamath, Steinke, "The Discrete Gaussian for Differential Privacy" (NeurIPS 2020),
algorithms 1 to 3. Every coin is `secrets.randbelow` on integers, so no probability is rounded and
no float is near the data. For the zCDP lane of the ledger; no seed argument exists, on purpose.
"""

import secrets
from fractions import Fraction
from math import isqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dp.noise import whole_counts

MOST_SIGMA = 2**40
"""Standard deviations above this are refused: the sum must stay exact in 64 bits."""


def discrete_gaussian(
    counts: ArrayLike, rho: Fraction | int | str, sensitivity_squared: int = 1
) -> NDArray[np.int64]:
    """Add discrete Gaussian noise to integer counts.

    Each count gets independent noise with P(Z = z) proportional to exp(-z^2 / (2 sigma^2)), where
    sigma^2 = sensitivity_squared / (2 rho).

    Guarantee:
        rho-zCDP for the whole array in one release, under adding or removing one unit (one patient,
        one row per patient); hence (`dp.cost.epsilon_of(rho, delta)`, delta)-DP for every delta.
    Assumes:
        Adding or removing one unit changes the counts by integers whose squares sum to at most
        `sensitivity_squared`: 1 for a histogram over disjoint cells, T for T of them in one
        release. The operating system's randomness is uniform.
    Proof:
        Canonne, Kamath, Steinke 2020, theorem 14 (multivariate, corollary 15): shifting the law by
        an integer vector v costs a Renyi divergence of order a of at most a |v|^2 / (2 sigma^2).
        The sampler is exact (proposition 23 there), so no slack is added.

    Args:
        counts: Whole numbers of any shape, below 2**52 in absolute value.
        rho: Above 0, exact.
        sensitivity_squared: Square of the L2 sensitivity, a whole number of at least 1.

    Returns:
        int64 array of the same shape.

    Raises:
        ValueError: A count is not an integer, or rho or the sensitivity is out of range.
    """
    values = whole_counts(counts)
    if isinstance(sensitivity_squared, bool) or not isinstance(sensitivity_squared, int):
        raise ValueError(f"sensitivity_squared must be whole, not {sensitivity_squared!r}")
    try:
        exact = Fraction(rho)
    except (ValueError, OverflowError, ZeroDivisionError):
        exact = Fraction(0)
    if exact <= 0 or sensitivity_squared < 1:
        raise ValueError(
            f"rho and sensitivity_squared must be above 0, not {rho!r}, {sensitivity_squared}"
        )
    variance = sensitivity_squared / (2 * exact)
    if variance > MOST_SIGMA**2:
        raise ValueError(f"rho is too small for noise: {rho!r}")
    noised = [int(value) + _gaussian(variance) for value in values.ravel()]
    return np.array(noised, dtype=np.int64).reshape(values.shape)


def _gaussian(variance: Fraction) -> int:
    """One draw of the discrete Gaussian (algorithm 3): a discrete Laplace draw, often rejected."""
    p, q = variance.numerator, variance.denominator
    t = isqrt(p // q) + 1
    while True:
        candidate = _laplace(t)
        # (|candidate| - variance / t)^2 / (2 variance), as a fraction of whole numbers
        excess = abs(candidate) * q * t - p
        if _bernoulli_exp(excess * excess, 2 * p * q * t * t):
            return candidate


def _laplace(scale: int) -> int:
    """One draw of the discrete Laplace law P(z) ~ exp(-|z| / scale) (algorithm 2)."""
    while True:
        low = secrets.randbelow(scale)
        if not _bernoulli_exp(low, scale):
            continue
        high = 0
        while _bernoulli_exp(1, 1):
            high += 1
        size = low + scale * high
        is_negative = bool(secrets.randbits(1))
        if size or not is_negative:  # zero has one sign
            return -size if is_negative else size


def _bernoulli_exp(numerator: int, denominator: int) -> bool:
    """True with probability exp(-numerator / denominator) (algorithm 1)."""
    whole, rest = divmod(numerator, denominator)
    return all(_unit_exp(1, 1) for _ in range(whole)) and _unit_exp(rest, denominator)


def _unit_exp(numerator: int, denominator: int) -> bool:
    """The same for a fraction of at most 1: the number of successes in a row is even or odd."""
    k = 1
    while secrets.randbelow(denominator * k) < numerator:
        k += 1
    return k % 2 == 1
