"""Integer mathematics of the exact histogram by share conversion; no cryptography.

The score is doubled: Z = 2z. With p - 1 = B D and the odd shift S = -(B / 2) D - 1, hidden bin b of
a score is floor((2z - S) / D). The key holder sees u = 2z + r mod p, uniform; the evaluator knows
r. Let r' = r + S mod p, and write u' = min(u, p - 2). Since 2z - S is odd and below p - 1,

    bin = floor(u' / D) - floor(r' / D) - [u' mod D < r' mod D]   (mod B),

where floor(r' / D) counts as 0 for r' = p - 1. Proof: w = 2z - S is odd, 0 < w < p - 1, and
u = w + r' mod p. D is even, so w is no multiple of D and floor((w - 1) / D) = floor(w / D).
No wrap, u < p - 1: w = u' - r', the schoolbook quotient of a difference. No wrap, u = p - 1:
w - 1 = u' - r', the same. Wrap: u = w + r' - p < p - 2, so u' = u and w - 1 = u' - r' + B D, the
same mod B; r' = p - 1 = B D occurs only here and has quotient B = 0 mod B and remainder 0.

The evaluator turns the comparison bit L into a share of Z_B: it shows (L - g) mod B for a uniform
g, so the key holder has a = floor(u' / D) - (L - g), the evaluator K = floor(r' / D) + g, and
bin = a - K mod B.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from secure_eval.params import PARAMETERS

__all__ = ["RADICES", "EvaluatorShare", "Grid", "KeyHolderShare", "grid", "hidden_edges"]

Integers = NDArray[np.int64]

#: mixed radix of the low part, lowest digit first; the product is D = (p - 1) / bins
RADICES: dict[int, tuple[int, ...]] = {
    8: (16, 16, 18, 28),
    16: (16, 16, 18, 14),
    32: (16, 16, 14, 9),
    64: (16, 16, 9, 7),
}


def hidden_edges(bins: int) -> Integers:
    """Return the hidden edges (bins + 1,): the least z with 2z >= b D + S, for b = 0..bins.

    Scores must satisfy edges[0] <= z < edges[bins].
    """
    return grid(bins).edges()


@dataclass(frozen=True, slots=True)
class KeyHolderShare:
    """What the key holder reads off its masked scores.

    Attributes:
        top: (n,) floor(u' / D), in 0..bins-1.
        digits: one (n,) array per radix, lowest first.
        flag: (n,) 1 where u = p - 1, else 0.
    """

    top: Integers
    digits: tuple[Integers, ...]
    flag: Integers


@dataclass(frozen=True, slots=True)
class EvaluatorShare:
    """What the evaluator derives from its mask.

    Attributes:
        top: (n,) floor(r' / D) with 0 for r' = p - 1.
        digits: one (n,) array per radix of r' mod D, lowest first.
    """

    top: Integers
    digits: tuple[Integers, ...]


@dataclass(frozen=True, slots=True)
class Grid:
    """Equal hidden bins over all residues mod p.

    Attributes:
        bins: number B of hidden bins, dividing p - 1.
        width: D = (p - 1) / B.
        shift: S = -(B / 2) D - 1.
        radices: mixed radix of 0..D-1, lowest first.
        powers: (B,) powers of a primitive B-th root of unity mod p.
    """

    bins: int
    width: int
    shift: int
    radices: tuple[int, ...]
    powers: Integers

    def edges(self) -> Integers:
        """Return the hidden edges (bins + 1,) in score units."""
        doubled = np.arange(self.bins + 1, dtype=np.int64) * self.width + self.shift
        return -((-doubled) // 2)

    def hidden_bin(self, scores: Integers) -> Integers:
        """Return the hidden bin of integer scores within the edges."""
        return np.asarray((2 * scores - self.shift) // self.width, np.int64)

    def _digits(self, low: Integers) -> tuple[Integers, ...]:
        digits = []
        for radix in self.radices:
            digits.append(low % radix)
            low = low // radix
        return tuple(digits)

    def split_masked(self, masked: Integers) -> KeyHolderShare:
        """Return the key holder's parts of u (n,), values in 0..p-1."""
        flag = (masked == PARAMETERS.plain_modulus - 1).astype(np.int64)
        canonical = masked - flag
        return KeyHolderShare(canonical // self.width, self._digits(canonical % self.width), flag)

    def split_mask(self, mask: Integers) -> EvaluatorShare:
        """Return the evaluator's parts of its mask r (n,), values in 0..p-1."""
        shifted = (mask + self.shift) % PARAMETERS.plain_modulus
        top = shifted // self.width
        top[top == self.bins] = 0
        return EvaluatorShare(top, self._digits(shifted % self.width))

    def characters(self, residues: Integers) -> Integers:
        """Return w^(j a) mod p, shape (B, n), for a (n,) mod B and j = 0..B-1."""
        j = np.arange(self.bins, dtype=np.int64)[:, None]
        return np.asarray(self.powers[j * (residues % self.bins) % self.bins], np.int64)

    def indicator(self, first: int, last: int) -> Integers:
        """Return c (B,) with sum_j c_j w^(j x) = 1 for x mod B in first..last-1, else 0."""
        p = PARAMETERS.plain_modulus
        j = np.arange(self.bins, dtype=np.int64)[:, None]
        members = np.arange(first, last, dtype=np.int64)[None, :]
        sums = self.powers[-j * members % self.bins].sum(axis=1)
        return np.asarray(sums % p * pow(self.bins, -1, p) % p, np.int64)

    def merging(self, bin_edges: Sequence[int]) -> Integers:
        """Return the indicators (published bins, B) of merged bins."""
        return np.stack([self.indicator(first, last) for first, last in pairwise(bin_edges)])


@cache
def grid(bins: int) -> Grid:
    """Return the grid of 8, 16, 32 or 64 hidden bins.

    Raises:
        ValueError: any other number.
    """
    if bins not in RADICES:
        raise ValueError(f"bins: expected one of {sorted(RADICES)}, got {bins}")
    p = PARAMETERS.plain_modulus
    root = next(
        power
        for base in range(2, p)
        if pow(power := pow(base, (p - 1) // bins, p), bins // 2, p) == p - 1
    )
    width = (p - 1) // bins
    powers = np.array([pow(root, j, p) for j in range(bins)], np.int64)
    powers.flags.writeable = False
    return Grid(bins, width, -(bins // 2) * width - 1, RADICES[bins], powers)
