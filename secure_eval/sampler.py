"""Encryptions of zero under the public key from named pseudorandom bytes.

pk * u + e with u uniform ternary and e centred binomial of 21 - 21 bits (variance 10.5, SEAL's
default), so that a committed seed reproduces every message bit for bit; SEAL's own encryptor draws
from the system and could not be replayed. SEAL does the ring arithmetic.

Guarantee: fresh names give fresh, independent encryptions, as secret as SEAL's own.
Assumes: ring-LWE with these parameters (homomorphicencryption.org standard); a secret seed; a name
    is used for one ciphertext only.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from secure_eval.params import PARAMETERS
from secure_eval.prg import Prg
from secure_eval.sealio import seal

__all__ = ["ZeroSampler", "centred_binomial", "ternary"]

Integers = NDArray[np.int64]
Name = tuple[bytes | str | int, ...]

_N = PARAMETERS.degree
#: 256 spare bytes: each byte is rejected with probability 1/256, 257 rejections have odds < 2^-500
_TERNARY_BYTES = _N + 256
_BINOMIAL_BYTES = 8
_BINOMIAL_BITS = 21


def ternary(data: bytes) -> Integers:
    """Return N integers uniform in {-1, 0, 1} from N + 256 uniform bytes."""
    raw = np.frombuffer(data, np.uint8)
    kept = raw[raw < 255][:_N].astype(np.int64)
    if len(kept) != _N:
        raise ValueError("sampler: too many rejected bytes; the stream is not random")
    return kept % 3 - 1


def centred_binomial(data: bytes) -> Integers:
    """Return one integer per 8 uniform bytes: the ones of 21 bits minus the ones of 21 others."""
    words = np.frombuffer(data, "<u8").astype(np.uint64)
    mask = np.uint64((1 << _BINOMIAL_BITS) - 1)
    ones = np.bitwise_count(words & mask).astype(np.int64)
    others = np.bitwise_count((words >> np.uint64(_BINOMIAL_BITS)) & mask)
    return np.asarray(ones - others, np.int64)


def _first_coefficient(polynomial: Integers, small: Integers, prime: int) -> int:
    """Return the constant coefficient of polynomial * small mod X^N + 1, small in {-1, 0, 1}."""
    inner = int(polynomial[0] * small[0]) - int(polynomial[1:] @ small[:0:-1])
    return inner % prime


class ZeroSampler:
    """Encryptions of zero for one public key and one generator."""

    def __init__(self, public_key: NDArray[np.uint64], prg: Prg) -> None:
        """Take the public key's residues (2, 5, N) in NTT form."""
        self._key = public_key
        self._prg = prg
        self._levels: dict[int, _KeyAtLevel] = {}

    def under(self, prg: Prg) -> "ZeroSampler":
        """Return a sampler of the same key for another generator; the key's forms are shared."""
        result = ZeroSampler(self._key, prg)
        result._levels = self._levels
        return result

    def _at_level(self, primes: int) -> "_KeyAtLevel":
        if primes not in self._levels:
            self._levels[primes] = _KeyAtLevel(self._key[:, :primes])
        return self._levels[primes]

    def _ternary(self, name: Name) -> Integers:
        return ternary(self._prg.stream(_TERNARY_BYTES, "u", *name))

    def _errors(self, count: int, name: Name) -> Integers:
        return centred_binomial(self._prg.stream(count * _BINOMIAL_BYTES, "e", *name))

    def full(self, primes: int, *name: bytes | str | int) -> Integers:
        """Return one encryption of zero, residues (2, primes, N)."""
        product = self._at_level(primes).times(self._ternary(name))
        error = self._errors(2 * _N, name).reshape(2, 1, _N)[::-1]
        moduli = np.array(PARAMETERS.primes[:primes], np.int64)[None, :, None]
        return np.asarray((product + error) % moduli, np.int64)

    def constants(self, primes: int, names: Sequence[Name]) -> Iterator[tuple[list[int], Integers]]:
        """Yield encryptions of zero of which only the constant coefficient is opened.

        Each is what `full` returns for the name, without the other coefficients of its first
        polynomial, at half the cost.

        Yields:
            The residues of the first polynomial's constant coefficient, one per prime, and the
            second polynomial (primes, N).
        """
        key = self._at_level(primes)
        moduli = np.array(PARAMETERS.primes[:primes], np.int64)[:, None]
        for start in range(0, len(names), 2):
            pair = names[start : start + 2]
            small = [self._ternary(name) for name in pair]
            seconds = key.second_times(small[0], small[-1])
            for name, u, second in zip(pair, small, seconds, strict=False):
                error = self._errors(_N + 1, name)
                first = [
                    (_first_coefficient(row, u, prime) + int(error[_N])) % prime
                    for row, prime in zip(key.first, PARAMETERS.primes, strict=False)
                ]
                yield first, np.asarray((second + error[:_N]) % moduli, np.int64)


class _KeyAtLevel:
    """A public key restricted to some primes, in the forms the sampler multiplies."""

    def __init__(self, residues: NDArray[np.uint64]) -> None:
        tools = seal()
        self._primes = residues.shape[1]
        self._key = tools.ciphertext(residues, ntt=True)
        self._second = tools.plain_residues(residues[1])
        whole = tools.ciphertext(residues, ntt=True)
        tools.evaluator.transform_from_ntt_inplace(whole)
        #: coefficients of the first polynomial (primes, N)
        self.first: Integers = tools.residues(whole)[0].astype(np.int64)

    def times(self, u: Integers) -> Integers:
        """Return pk * u, residues (2, primes, N)."""
        tools = seal()
        factor = tools.plain_ntt(tools.polynomial(u), self._primes)
        product = tools.times_plain(self._key, factor)
        tools.evaluator.transform_from_ntt_inplace(product)
        return np.asarray(tools.residues(product), np.int64)

    def second_times(self, *small: Integers) -> Integers:
        """Return the key's second polynomial times each polynomial (count, primes, N)."""
        tools = seal()
        moduli = np.array(PARAMETERS.primes[: self._primes], np.int64)[None, :, None]
        carrier = np.stack(small)[:, None, :] % moduli
        product = tools.ntt(tools.ciphertext(carrier.astype(np.uint64)))
        product = tools.times_plain(product, self._second)
        tools.evaluator.transform_from_ntt_inplace(product)
        return np.asarray(tools.residues(product), np.int64)
