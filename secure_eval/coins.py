"""Committed coins: noise that is tested in every run, so that it needs no arbiter (section 5).

The key holder encrypts fresh bits v with its digits; the tests of section 3 show that they are 0 or
1. Then both nonces are opened, and with the public flips f that follow from them slot i counts
v_i xor f_i = f_i + (1 - 2 f_i) v_i: linear in v, so the evaluator adds it to the openings itself.
A cell takes a fixed number of slots of its own; half that number is taken off in clear.

Guarantee: whatever bits the key holder committed to, each cell's noise is Binomial(m, 1/2) - m / 2
    for m coins as long as one nonce is random and unknown at the commitment; (epsilon, delta) is
    `dp.coins`. Who does not know v learns nothing of the noise from the flips.
Assumes: SHAKE-256 as a random function; the key holder's own bits are random, which only itself
    needs: they are what hides its rows.
Proof: a bit that is fixed before an independent uniform one is drawn gives, by exclusive or, a
    uniform bit: so each of the m slots is one fair coin whichever of the two sides is honest. The
    sum of m of them is Binomial(m, 1/2); what that is worth is computed exactly in `dp.coins`
    (Dwork, Kenthapadi, McSherry, Mironov, Naor, "Our data, ourselves", EUROCRYPT 2006).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from secure_eval.params import PARAMETERS
from secure_eval.prg import Prg

__all__ = ["MOST_COINS", "CoinPlan"]

Integers = NDArray[np.int64]

_N = PARAMETERS.degree
MOST_COINS = PARAMETERS.degree
"""Coins of a cell lie in one ciphertext."""


@dataclass(frozen=True)
class CoinPlan:
    """Which slots of which coin ciphertext count for which cell.

    Attributes:
        tables: (cells, coins per cell) of each table, in the order of the openings.
    """

    tables: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        for cells, coins in self.tables:
            if cells < 1 or not 2 <= coins <= MOST_COINS or coins % 2:
                raise ValueError(f"coins: expected an even number of 2 to {MOST_COINS} in a cell")

    @cached_property
    def spans(self) -> tuple[tuple[int, int, int], ...]:
        """(ciphertext, first slot, slot after the last) of each cell."""
        found, ciphertext, start = [], 0, 0
        for cells, coins in self.tables:
            for _ in range(cells):
                if start + coins > _N:
                    ciphertext, start = ciphertext + 1, 0
                found.append((ciphertext, start, start + coins))
                start += coins
        return tuple(found)

    @property
    def ciphertexts(self) -> int:
        """How many ciphertexts hold the coins."""
        return self.spans[-1][0] + 1

    def drawn(self, key: bytes, run_id: str) -> Integers:
        """Return the key holder's bits (ciphertexts, N) from its committed noise key."""
        return _bits(Prg("coins", key, run_id), self.ciphertexts)

    def flips(self, run_id: str, nonces: Sequence[bytes]) -> Integers:
        """Return the public flips (ciphertexts, N) that follow from both nonces."""
        return _bits(Prg("coin flips", run_id, *nonces), self.ciphertexts)

    def offsets(self, flips: Integers) -> Integers:
        """Return the public part of each cell's noise (cells,): the flips less half the coins."""
        return self._sums(flips) - self._halves()

    def noise(self, coins: Integers, flips: Integers) -> Integers:
        """Return each cell's noise (cells,), for those who know the coins."""
        return self._sums(coins ^ flips) - self._halves()

    def weighted(self, weights: Integers, ciphertext: int) -> Integers:
        """Return slots (N,) that hold the weight of the cell that each slot counts for."""
        slots = np.zeros(_N, np.int64)
        for weight, (place, start, stop) in zip(weights.tolist(), self.spans, strict=True):
            if place == ciphertext:
                slots[start:stop] = weight
        return slots

    def _sums(self, bits: Integers) -> Integers:
        sums = [int(bits[place, start:stop].sum()) for place, start, stop in self.spans]
        return np.array(sums, np.int64)

    def _halves(self) -> Integers:
        return np.array([(stop - start) // 2 for _, start, stop in self.spans], np.int64)


def _bits(prg: Prg, ciphertexts: int) -> Integers:
    data = b"".join(prg.stream(_N // 8, index) for index in range(ciphertexts))
    return np.unpackbits(np.frombuffer(data, np.uint8)).astype(np.int64).reshape(-1, _N)
