"""Residues on the wire: 44 bits each, fixed sizes, every value checked against its prime.

Two residues fill 11 bytes. Headers, parameter ids and polynomial counts never travel: they are
rebuilt from the parameters (`sealio`), so no foreign byte reaches SEAL's parser.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from secure_eval.params import PARAMETERS

__all__ = [
    "FULL_BYTES",
    "OPENING_BYTES",
    "SEEDED_BYTES",
    "SEED_BYTES",
    "VECTOR_BYTES",
    "pack",
    "packed_size",
    "unpack",
]

Residues = NDArray[np.uint64]

_LOW = np.uint64(44)
_MASK = np.uint64((1 << 44) - 1)
_HIGH = np.uint64(20)
SEED_BYTES = 64


def packed_size(polynomials: int, primes: int) -> int:
    """Return the bytes of so many polynomials at so many primes."""
    return polynomials * primes * PARAMETERS.degree * 11 // 2


#: one freshly encrypted ciphertext of the key holder: first polynomial and a public seed
SEEDED_BYTES = packed_size(1, len(PARAMETERS.data_primes)) + SEED_BYTES
#: one whole ciphertext at all data primes
FULL_BYTES = packed_size(2, len(PARAMETERS.data_primes))
#: one flooded vector for the key holder
VECTOR_BYTES = packed_size(2, PARAMETERS.opening_primes)
#: one flooded opening: two words of the constant coefficient, then the second polynomial
OPENING_BYTES = 8 * PARAMETERS.opening_primes + packed_size(1, PARAMETERS.opening_primes)


def pack(residues: NDArray[np.uint64] | NDArray[np.int64]) -> bytes:
    """Return residues of any even count, each below 2^44, as 44-bit little-endian numbers."""
    flat = np.ascontiguousarray(residues).view(np.uint64).reshape(-1)
    even, odd = flat[0::2], flat[1::2]
    out = np.empty((flat.size // 2, 11), np.uint8)
    out[:, :8] = (even | (odd << _LOW)).view(np.uint8).reshape(-1, 8)
    out[:, 8:] = (odd >> _HIGH).view(np.uint8).reshape(-1, 8)[:, :3]
    return out.tobytes()


def unpack(
    data: bytes | memoryview, polynomials: int, primes: Sequence[int], what: str
) -> Residues:
    """Return residues (polynomials, primes, N) from packed bytes.

    Args:
        data: exactly `packed_size(polynomials, len(primes))` bytes.
        polynomials: number of polynomials.
        primes: the prime of each row.
        what: name used in errors.

    Raises:
        ValueError: wrong size, or a residue not below its prime.
    """
    size = packed_size(polynomials, len(primes))
    if len(data) != size:
        raise ValueError(f"{what}: expected {size} bytes, got {len(data)}")
    raw = np.frombuffer(data, np.uint8).reshape(-1, 11)
    low = np.ascontiguousarray(raw[:, :8]).view(np.uint64)[:, 0]
    tail = np.zeros((len(raw), 8), np.uint8)
    tail[:, :3] = raw[:, 8:]
    high = tail.view(np.uint64)[:, 0]
    flat = np.empty(2 * len(raw), np.uint64)
    flat[0::2] = low & _MASK
    flat[1::2] = (low >> _LOW) | (high << _HIGH)
    result = flat.reshape(polynomials, len(primes), PARAMETERS.degree)
    largest = result.max(axis=(0, 2))
    for row, prime in enumerate(primes):
        if int(largest[row]) >= prime:
            raise ValueError(f"{what}: a residue is not below its prime {prime}")
    return result
