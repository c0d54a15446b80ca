"""Exact modular arithmetic on arrays of residues below 2^44, in float64 and wrapping int64.

A residue splits into two limbs of 22 bits. A matrix of |entries| < 2^20 times K <= 2^10 limbs stays
below 2^53, so BLAS computes it exactly; the limbs recombine with a quotient estimated in float64.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["centred", "combined", "product"]

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

_LIMB = 22
_MASK = (1 << _LIMB) - 1
_MAX_ENTRY = 1 << 20
_MAX_TERMS = 1 << 10
_CHUNK = 1024
#: rows * terms * columns up to which BLAS stays in its caller's thread
_SINGLE_THREAD = 1 << 18
_TILE_ROWS = 128
_TILE_TERMS = 32


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


def _tiles(total: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, total)) for start in range(0, total, step))


def _product(left: Floats, right: Floats) -> Floats:
    """Return left @ right in tiles too small for BLAS to start threads.

    The matrices are small; threads that wait for each other cost more than they give (measured:
    twice the processor time on a busy machine). All sums are below 2^53, so any order is exact.
    """
    rows, terms = left.shape
    result = np.empty((rows, right.shape[1]))
    tall, deep = min(rows, _TILE_ROWS), min(terms, _TILE_TERMS)
    width = max(1, _SINGLE_THREAD // (tall * deep))
    for columns in _tiles(right.shape[1], width):
        for group in _tiles(rows, tall):
            total = left[group, :deep] @ right[:deep, columns]
            for some in list(_tiles(terms, deep))[1:]:
                total += left[group, some] @ right[some, columns]
            result[group, columns] = total
    return result


def _recombined(low: Floats, high: Floats, prime: int) -> Integers:
    """Return high * 2^22 + low mod prime, overwriting high.

    The exact value wraps in 64 bits; its quotient, estimated in float64 and lowered by a quarter,
    is at most one too small, so a single conditional subtraction remains: as an unsigned number
    the smaller of r and r - prime.
    """
    exact = high.astype(np.int64)
    exact <<= _LIMB
    exact += low.astype(np.int64)
    high *= 1 << _LIMB
    high += low
    high *= 1.0 / prime
    high -= 0.25
    np.floor(high, out=high)
    exact -= high.astype(np.int64) * prime
    once = exact.view(np.uint64)
    np.minimum(once, once - np.uint64(prime), out=once)
    return exact


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
    table = residues.view(np.int64)
    result = np.empty((rows, table.shape[1]), np.int64)
    for some in _tiles(table.shape[1], _CHUNK):
        part = table[:, some]
        low = _product(weights, (part & _MASK).astype(np.float64))
        high = _product(weights, (part >> _LIMB).astype(np.float64))
        result[:, some] = _recombined(low, high, prime)
    return result
