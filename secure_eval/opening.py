"""Openings: one masked sum each, under a batch check, with noise added before anything is seen.

Protocol section 7 (docs/protocol.md).

The sum over all slots of a plaintext is N times its constant coefficient, so an opening shows the
key holder only that coefficient (and the whole second polynomial, which is re-randomised): masked
by a uniform scalar and flooded. The key holder's noise travels in a polynomial whose coefficient c
belongs to cell c; multiplied by X^-c it lands on the constant coefficient at no cost in noise.
Committed coins are slots instead: times their public signs, then times each cell's indicator.
Two further openings are random linear combinations of all the others: a reply changed by anything
but its own encryption passes with probability at most 1 / p^2.

Guarantee: the key holder learns, beyond what its own plaintexts imply, uniform masked values only;
    the evaluator learns counts plus noise only, and those unchanged (batch check).
Assumes: flooding of `flood_bits` over the ciphertext's own noise (params); a secret seed.
Proof: masks are one-time pads mod p. For the batch check, let d be the vector of reply errors; the
    check demands alpha . d = d' for a uniform alpha that the key holder has seen only through
    one-time pads, so each of two checks fails to notice d != 0 with probability 1 / p.
"""

import struct
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from secure_eval import framing
from secure_eval.coins import CoinPlan
from secure_eval.framing import Kind
from secure_eval.kernel import centred
from secure_eval.layout import MAC_OPENINGS, REPLY_BYTES
from secure_eval.packing import pack
from secure_eval.params import PARAMETERS
from secure_eval.prg import Prg
from secure_eval.sampler import ZeroSampler
from secure_eval.sealio import Ciphertext, seal

__all__ = ["MaskedOpenings", "OpeningBatch", "flooded_vector", "noise_coefficients"]

Integers = NDArray[np.int64]

_P = PARAMETERS.plain_modulus
_N = PARAMETERS.degree
_LEVEL = PARAMETERS.opening_primes
_PRIMES = PARAMETERS.primes[:_LEVEL]
_MODULI = np.array(_PRIMES, np.int64)
_MODULUS = int(np.prod([int(prime) for prime in _PRIMES], dtype=object))


def noise_coefficients(noise: Integers) -> Integers:
    """Return the coefficients mod p (cells,) that add noise (cells,) to the slot sums."""
    return np.asarray(noise % _P * pow(_N, -1, _P) % _P, np.int64)


def flooded_vector(ciphertext: Ciphertext, prg: Prg, sampler: ZeroSampler, name: str) -> bytes:
    """Return a masked ciphertext as bytes for the key holder.

    Switched to two primes, re-randomised by a fresh encryption of zero and flooded on all
    coefficients.

    Args:
        ciphertext: message already masked in every slot.
        prg: named randomness.
        sampler: encryptions of zero.
        name: used once per generator.
    """
    tools = seal()
    residues = tools.residues(tools.switched(ciphertext, _LEVEL)).astype(np.int64)
    residues += sampler.full(_LEVEL, "vector", name)
    residues[0] += prg.centred(PARAMETERS.flood_bits, _N, "flood", name)[None, :] % _MODULI[:, None]
    return pack(residues % _MODULI[None, :, None])


class MaskedOpenings:
    """Some openings, each summed over blocks, masked by a scalar and flooded."""

    def __init__(self, total: int, prg: Prg) -> None:
        """Prepare total openings; prg names the masks, bound to the transcript so far."""
        self._prg = prg
        self._constants = np.zeros((total, _LEVEL), np.int64)
        self._seconds = np.zeros((total, _LEVEL, _N), np.int64)
        self._masks = prg.residues(total, "mask")

    def add(self, index: int, ciphertext: Ciphertext) -> None:
        """Add a ciphertext of two polynomials to an opening."""
        residues = seal().residues(seal().switched(ciphertext, _LEVEL))
        self.add_residues(index, residues[0, :, 0].astype(np.int64), residues[1].astype(np.int64))

    def add_residues(self, index: int, constant: Integers, second: Integers) -> None:
        """Add residues at the opening primes: constant (2,), second polynomial (2, N)."""
        self._constants[index] = (self._constants[index] + constant) % _MODULI
        self._seconds[index] = (self._seconds[index] + second) % _MODULI[:, None]

    def message(self, sampler: ZeroSampler, kind: Kind, quiet: Sequence[int] = ()) -> bytes:
        """Return the openings message; quiet openings hold nothing to hide and are not flooded."""
        total = len(self._constants)
        flood = self._prg.centred(PARAMETERS.flood_bits, total, "flood")
        flood[list(quiet)] = 0
        zeros = sampler.constants(_LEVEL, [("opening", index) for index in range(total)])
        parts = []
        for index, (zero, second) in enumerate(zeros):
            lifted = (_MODULUS * int(self._masks[index]) + _P // 2) // _P + int(flood[index])
            words = [
                (int(self._constants[index, row]) + zero[row] + lifted) % prime
                for row, prime in enumerate(_PRIMES)
            ]
            whole = (second + self._seconds[index]) % _MODULI[:, None]
            parts.append(struct.pack(f"<{_LEVEL}Q", *words) + pack(whole))
        return framing.encode(kind, parts)

    def unmasked(self, message: bytes, kind: Kind) -> Integers:
        """Return the opened coefficients (total,), 0..p-1, from the key holder's replies.

        Raises:
            ValueError: wrong shape, or a reply not below p.
        """
        (part,) = framing.decode(message, kind, [REPLY_BYTES * len(self._masks)])
        replies = np.frombuffer(part, "<u4").astype(np.int64)
        if replies.max() >= _P:
            raise ValueError(f"{kind.name}: a reply is not below {_P}")
        return np.asarray((replies - self._masks) % _P, np.int64)


class OpeningBatch(MaskedOpenings):
    """All openings of one release, summed over blocks, with their two checks."""

    def __init__(self, n_cells: int, prg: Prg) -> None:
        """Prepare n_cells openings; numbers n_cells and n_cells + 1 are the checks."""
        super().__init__(n_cells + MAC_OPENINGS, prg)
        self.n_cells = n_cells
        #: (2, cells) weights of the batch check
        self.weights = np.stack(
            [prg.residues(n_cells, "check", index) for index in range(MAC_OPENINGS)]
        )
        self._offsets = np.zeros(n_cells, np.int64)

    def add_noise(self, residues: NDArray[np.uint64]) -> None:
        """Add the key holder's encrypted noise, residues (2, 4, N), cell c in coefficient c."""
        tools = seal()
        noise = tools.ciphertext(residues)
        low = tools.residues(tools.switched(noise, _LEVEL)).astype(np.int64)
        for cell in range(self.n_cells):
            turned = np.concatenate([low[1, :, cell:], -low[1, :, :cell]], axis=1)
            self.add_residues(cell, low[0, :, cell], turned)
        transformed = tools.ntt(noise)
        for index, weights in enumerate(self.weights):
            polynomial = np.zeros(_N, np.int64)
            polynomial[0] = weights[0]
            polynomial[_N - np.arange(1, self.n_cells)] = -weights[1:]
            factor = tools.plain_ntt(tools.polynomial(polynomial), len(residues[0]))
            total = tools.times_plain(transformed, factor)
            tools.evaluator.transform_from_ntt_inplace(total)
            self.add(self.n_cells + index, total)

    def add_coins(self, coins: Iterable[Ciphertext], plan: CoinPlan, flips: Integers) -> None:
        """Add committed coins, turned by public flips (ciphertexts, N), to every cell."""
        tools = seal()
        turned = []
        for coin, flip in zip(coins, flips, strict=True):
            signs = tools.plain_ntt(tools.encoded(1 - 2 * flip), len(PARAMETERS.data_primes))
            term = tools.times_plain(tools.ntt(coin), signs)
            tools.evaluator.transform_from_ntt_inplace(term)
            turned.append(tools.ntt(tools.switched(term, _LEVEL)))
        for cell, (place, start, stop) in enumerate(plan.spans):
            indicator = np.zeros(_N, np.int64)
            indicator[start:stop] = 1
            self._add_slots(cell, turned[place], indicator)
        for index, weights in enumerate(self.weights):
            for place, term in enumerate(turned):
                self._add_slots(self.n_cells + index, term, plan.weighted(weights, place))
        self._offsets = plan.offsets(flips)

    def _add_slots(self, index: int, term: Ciphertext, slots: Integers) -> None:
        """Add the weighted slots of a ciphertext in NTT form to an opening."""
        tools = seal()
        total = tools.times_plain(term, tools.plain_ntt(tools.encoded(slots), _LEVEL))
        tools.evaluator.transform_from_ntt_inplace(total)
        self.add(index, total)

    def release(self, message: bytes, kind: Kind) -> Integers:
        """Return the slot sums (cells,), with the coins' public part, from the replies.

        Raises:
            ValueError: wrong shape, a reply not below p, or the batch check fails.
        """
        opened = self.unmasked(message, kind)
        cells, checks = opened[: self.n_cells], opened[self.n_cells :]
        for weights, check in zip(self.weights, checks, strict=True):
            if int((weights * cells % _P).sum() % _P) != int(check):
                raise ValueError(f"{kind.name}: the batch check failed; a reply was changed")
        return centred(cells * _N % _P, _P) + self._offsets
