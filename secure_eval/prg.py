"""Deterministic bytes from a secret seed: SHAKE-256 over length-prefixed names.

Everything the evaluator draws comes from here, so a committed seed makes a whole run repeatable
bit for bit. A stream is named, never counted, so the order of drawing does not matter; each name is
bound to the messages received before, so two different messages never meet the same mask.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

from secure_eval.params import PARAMETERS

__all__ = ["Prg", "joined"]

Integers = NDArray[np.int64]


def joined(*parts: bytes | str | int) -> bytes:
    """Return an injective encoding of the parts: each with its length before it."""
    result = []
    for part in parts:
        raw = part if isinstance(part, bytes) else str(part).encode()
        result.append(len(raw).to_bytes(8, "little") + raw)
    return b"".join(result)


class Prg:
    """Named streams of pseudorandom bytes from one secret key.

    Guarantee: under SHAKE-256 as a random oracle and a secret key of 32 random bytes, streams of
    different names are independent and uniform.
    """

    def __init__(self, *key: bytes | str | int) -> None:
        self._key = hashlib.shake_256(joined("secure_eval prg 1", *key)).digest(32)

    def __repr__(self) -> str:
        return "Prg(...)"

    def stream(self, n_bytes: int, *name: bytes | str | int) -> bytes:
        """Return n_bytes of the named stream."""
        return hashlib.shake_256(self._key + joined(*name)).digest(n_bytes)

    def child(self, *name: bytes | str | int) -> "Prg":
        """Return an independent generator of the given name."""
        return Prg(self._key, *name)

    def words(self, count: int, *name: bytes | str | int) -> NDArray[np.uint64]:
        """Return uniform 64-bit words (count,)."""
        return np.frombuffer(self.stream(8 * count, *name), np.dtype("<u8")).astype(np.uint64)

    def residues(self, count: int, *name: bytes | str | int) -> Integers:
        """Return integers (count,) uniform in 0..p-1; bias at most p / 2^64 < 2^-44."""
        return self.below(PARAMETERS.plain_modulus, count, *name)

    def below(self, bound: int, count: int, *name: bytes | str | int) -> Integers:
        """Return integers (count,) uniform in 0..bound-1; bias at most bound / 2^64."""
        return (self.words(count, *name) % np.uint64(bound)).astype(np.int64)

    def centred(self, bits: int, count: int, *name: bytes | str | int) -> Integers:
        """Return integers (count,) uniform in -2^bits .. 2^bits - 1, for bits up to 62."""
        top = self.words(count, *name) >> np.uint64(63 - bits)
        return top.astype(np.int64) - (1 << bits)
