"""Exact modular arithmetic on arrays of residues below 2^44, in float64 and wrapping int64.

A residue splits into two limbs of 22 bits. A matrix of |entries| < 2^20 times K <= 2^10 limbs stays
below 2^53, so BLAS computes it exactly; the limbs recombine with a quotient estimated in float64.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["centred", "combined", "product"]

Integers = NDArray[np.int64]

_LIMB = 22
_MASK = (1 << _LIMB) - 1
_MAX_ENTRY = 1 << 20
_MAX_TERMS = 1 << 10
_CHUNK = 2048
_SINGLE_THREAD = 1 << 18


def centred(values: Integers, modulus: int) -> Integers:
    """Return the representatives of values mod modulus in -(modulus // 2)..modulus // 2."""
    return np.asarray((values + modulus // 2) % modulus - modulus // 2, np.int64)


def _reduced(exact: Integers, estimate: NDArray[np.float64], prime: int) -> Integers:
    """Return exact mod prime, where exact wrapped mod 2^64 and estimate is exact / prime."""
    result = exact - np.floor(estimate).astype(np.int64) * prime
    result += prime * (result < 0)
    result -= prime * (result >= prime)
    return result


def product(left: Integers, right: Integers, prime: int) -> Integers:
    """Return left * right mod prime elementwise, both in 0..prime-1, prime < 2^44."""
    return _reduced(left * right, left.astype(np.float64) * right / prime, prime)


def _product(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return left @ right in pieces too small for BLAS to start threads.

    The matrices are small; threads that wait for each other cost more than they give (measured:
    twice the processor time on a busy machine).
    """
    width = max(1, _SINGLE_THREAD // left.size)
    result = np.empty((len(left), right.shape[1]))
    for start in range(0, right.shape[1], width):
        result[:, start : start + width] = left @ right[:, start : start + width]
    return result


def combined(matrix: Integers, residues: NDArray[np.uint64] | Integers, prime: int) -> Integers:
    """Return matrix @ residues mod prime.

    Args:
        matrix: (R, K) integers below 2^20 in absolute value, K <= 1024.
        residues: (K, n) integers in 0..prime-1, prime < 2^44.
        prime: the modulus.

    Returns:
        (R, n) integers in 0..prime-1.
    """
    rows, terms = matrix.shape
    if terms > _MAX_TERMS or np.abs(matrix).max(initial=0) >= _MAX_ENTRY:
        raise ValueError(f"kernel: a ({rows}, {terms}) matrix would not stay exact")
    weights = matrix.astype(np.float64)
    table = residues.astype(np.int64)
    result = np.empty((rows, table.shape[1]), np.int64)
    for start in range(0, table.shape[1], _CHUNK):
        part = table[:, start : start + _CHUNK]
        low = _product(weights, (part & _MASK).astype(np.float64))
        high = _product(weights, (part >> _LIMB).astype(np.float64))
        estimate = (high * (1 << _LIMB) + low) / prime
        exact = (high.astype(np.int64) << _LIMB) + low.astype(np.int64)
        result[:, start : start + _CHUNK] = _reduced(exact, estimate, prime)
    return result
