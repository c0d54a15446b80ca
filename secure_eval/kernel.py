"""Exact modular arithmetic on arrays of residues below 2^44, in float64 and wrapping int64.

A residue splits into two limbs of 22 bits. A matrix of |entries| < 2^20 times K <= 2^10 limbs stays
below 2^53, so BLAS computes it exactly; the limbs recombine with a quotient estimated in float64.
"""

import os
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
_CHUNK = 512
#: rows * terms * columns up to which BLAS stays in its caller's thread
_SINGLE_THREAD = 1 << 18
_TILE_ROWS = 128
_TILE_TERMS = 32
#: as BLAS itself reads it when it is loaded; a worker's processes are started so
_ONE_THREAD = os.environ.get("OPENBLAS_NUM_THREADS") == "1"


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


def _product(left: Floats, right: Floats, out: Floats) -> None:
    """Write left @ right; all sums are below 2^53, so any order is exact.

    Where BLAS has several threads, in tiles too small for it to start them: the matrices are small,
    and threads that wait for each other cost more than they give (measured: twice the processor
    time on a busy machine). One thread of its own takes them whole, at twice the speed.
    """
    if _ONE_THREAD:
        np.matmul(left, right, out=out)
        return
    rows, terms = left.shape
    tall, deep = min(rows, _TILE_ROWS), min(terms, _TILE_TERMS)
    width = max(1, _SINGLE_THREAD // (tall * deep))
    for columns in _tiles(right.shape[1], width):
        for group in _tiles(rows, tall):
            total = left[group, :deep] @ right[:deep, columns]
            for some in list(_tiles(terms, deep))[1:]:
                total += left[group, some] @ right[some, columns]
            out[group, columns] = total


def _recombine(low: Floats, high: Floats, prime: int, spare: Integers, out: Integers) -> None:
    """Write high * 2^22 + low mod prime, overwriting high and spare.

    The exact value wraps in 64 bits; its quotient, estimated in float64 and lowered by a quarter,
    is at most one too small, so a single conditional subtraction remains: as an unsigned number
    the smaller of r and r - prime.
    """
    np.copyto(out, high, casting="unsafe")
    out <<= _LIMB
    np.copyto(spare, low, casting="unsafe")
    out += spare
    high *= 1 << _LIMB
    high += low
    high *= 1.0 / prime
    high -= 0.25
    np.floor(high, out=high)
    np.copyto(spare, high, casting="unsafe")
    spare *= prime
    out -= spare
    once, less = out.view(np.uint64), spare.view(np.uint64)
    np.subtract(once, np.uint64(prime), out=less)
    np.minimum(once, less, out=once)


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
    # one chunk's memory serves all of them: fresh pages would cost as much as the arithmetic
    width = min(_CHUNK, table.shape[1])
    limbs, floats = np.empty((terms, width), np.int64), np.empty((terms, width))
    low, high = np.empty((rows, width)), np.empty((rows, width))
    spare = np.empty((rows, width), np.int64)
    for some in _tiles(table.shape[1], _CHUNK):
        part = table[:, some]
        mine = slice(0, part.shape[1])
        np.bitwise_and(part, _MASK, out=limbs[:, mine])
        np.copyto(floats[:, mine], limbs[:, mine])
        _product(weights, floats[:, mine], low[:, mine])
        np.right_shift(part, _LIMB, out=limbs[:, mine])
        np.copyto(floats[:, mine], limbs[:, mine])
        _product(weights, floats[:, mine], high[:, mine])
        _recombine(low[:, mine], high[:, mine], prime, spare[:, mine], result[:, some])
    return result
