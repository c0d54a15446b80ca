"""Shares of a noised table, with intervals: what part of the patients is in each stratum.

Post-processing of counts that were released with noise; costs nothing more.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from matching.target import noise_variance

__all__ = ["share_intervals"]

Z90 = 1.6449
_STEPS = 1000


def share_intervals(noised: ArrayLike, entries: int, epsilon: float) -> NDArray[np.float64]:
    """90% intervals (strata, 2) of the strata's shares of all patients that were counted.

    They hold the noise alone: how the counted patients are a sample of others is not in them.

    Guarantee:
        The true share of a stratum is in its interval in 9 of 10 releases, near enough: the noise
        of few cells has about the normal 90% width (two-sided geometric: 90.2% and more).
    Assumes:
        Every noised cell is in one stratum, and all have two-sided geometric noise of `epsilon`.
    Proof:
        For the true share p of a stratum with noised sum A among a noised total A + B, the number
        A - p (A + B) is noise of mean 0 and variance ((1-p)^2 + p^2 (strata - 1)) `entries` v, so
        the interval is the set of p that it does not refute (Fieller 1954), by thousandths.

    Args:
        noised: (strata,) sums of noised counts; may be negative.
        entries: Cells that each sum has.
        epsilon: Of the release, above 0.

    Raises:
        ValueError: No stratum, or no entry.
    """
    sums = np.asarray(noised, np.float64)
    if sums.ndim != 1 or not sums.size or entries < 1:
        raise ValueError("expected the sums of one stratum or more, of one cell or more each")
    shares = np.linspace(0.0, 1.0, _STEPS + 1)
    spread = (1 - shares) ** 2 + shares**2 * (len(sums) - 1)
    width = Z90 * np.sqrt(spread * entries * noise_variance(epsilon))
    found = np.empty((len(sums), 2))
    for index, own in enumerate(sums.tolist()):
        held = shares[np.abs(own - shares * sums.sum()) <= width]
        found[index] = (held[0], held[-1]) if held.size else (0.0, 1.0)
    if len(sums) == 1:
        found[0] = (1.0, 1.0)  # all patients are in the one stratum there is
    return found
