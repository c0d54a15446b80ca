"""Tests that a key holder's ciphertexts are well formed, as openings that must show zero.

Protocol sections 0, 3 and 6 (docs/protocol.md).

Zero test: a sum over all slots of ciphertexts that vanish for an honest key holder, each weighted
by fresh random slots. A nonzero slot makes the sum uniform, so it is zero with probability 1 / p;
the key holder sees it only under a one-time pad, so guessing a passing reply has odds 1 / p too.
Two independent tests are opened.

Small test: a sum over the coefficients of one ciphertext weighted by small random numbers, for what
must vanish in every slot but already carries the noise of two products, the masked score. A slot
that does not vanish leaves some coefficient that does not; given all other weights, at most one of
its 2^8 weights gives any one value. So a lie passes with odds of 2^-8, a guess included, and five
are opened: 2^-40. Uniform slots would amplify the noise by 25 bits, to which flooding has no
answer after a tree's two products; these amplify it by 13.

Noise test: p B W(X) sum s_i c_i over the key holder's own ciphertexts c_i, with random scalars s_i,
a random polynomial W and a random integer B. Its message is 0 whatever they hold, its noise is
theirs amplified by about 2^(64 + bits of B), so ciphertexts with correct messages but noise large
enough to drown the flooding are noticed: their noise would carry the evaluator's secrets back. B is
random because noise at multiples of q / (p B) would vanish under a known B. Nothing of the
evaluator's is in it, so it is not flooded.

Measured in digits: an honest error is 36 standard deviations from refusal. The loudest shape that
passes is one coefficient of one ciphertext: refusals begin at 2^16, 2^20 passes 1 time in 12, 2^22
never; over all coefficients of one it is 2^16, of all 2^12. A digit with noise of 2^20 leaves a
share with noise of 2^18 at the opening primes, 40 bits under the flood. In characters 2^23 is where
refusals begin; in coins 2^16 in one coefficient, and from 2^24 every one of 24 was refused.

Guarantee: soundness (2 / p)^2 about 4e-12 per group of zero tests, 2^-40 about 1e-12 for small
    tests.
Assumes: masks and weights unknown to the key holder beforehand (a secret, committed seed).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from secure_eval.framing import Kind
from secure_eval.kernel import product
from secure_eval.opening import MaskedOpenings
from secure_eval.params import PARAMETERS
from secure_eval.prg import Prg
from secure_eval.public_keys import PublicKeys
from secure_eval.sampler import ZeroSampler
from secure_eval.sealio import Ciphertext, seal
from secure_eval.strips import STRIP_ROWS, repeated

__all__ = ["CHECK_OPENINGS", "EARLY_OPENINGS", "SCORE_TESTS", "ZERO_TESTS", "Checks", "Terms"]

Integers = NDArray[np.int64]

_P = PARAMETERS.plain_modulus
_N = PARAMETERS.degree
ZERO_TESTS = 2
#: two zero tests and a noise test
CHECK_OPENINGS = ZERO_TESTS + 1
#: tests of a digits message: the zero tests hold the first two of these small ones
SCORE_TESTS = 5
_SMALL_BITS = 8
EARLY_OPENINGS = SCORE_TESTS + 1


class Terms:
    """What must vanish in one part of a set, such as a block: one sum for each test.

    Weights follow from the part's own name, so parts may be computed in any order, and in other
    processes.
    """

    def __init__(self, prg: Prg, zero_tests: int) -> None:
        """Start with nothing; prg is this part's own."""
        self._prg = prg
        self._drawn = 0
        self.zeros: list[Ciphertext | None] = [None] * zero_tests
        self.noises: Ciphertext | None = None

    def scalars(self, count: int) -> Integers:
        """Return fresh random weights (count,) mod p."""
        self._drawn += 1
        return self._prg.residues(count, "scalars", self._drawn)

    def zero(self, test: int, term: Ciphertext) -> None:
        """Add a ciphertext of two or three polynomials that must vanish to a test."""
        weights = seal().encoded(self.scalars(_N))
        weighted = seal().times_plain(term, weights)
        self.zeros[test] = seal().accumulate(self.zeros[test], weighted)

    def small(self, test: int, term: Ciphertext) -> None:
        """Add a ciphertext of two polynomials that must vanish, coefficients weighted by 8 bits.

        The noise grows by 13 bits instead of 25; such a test alone is sound to 2^-8.
        """
        self._drawn += 1
        weights = self._prg.centred(_SMALL_BITS - 1, _N, "small", self._drawn)
        weighted = seal().times_plain(term, seal().polynomial(weights))
        self.zeros[test] = seal().accumulate(self.zeros[test], weighted)

    def fixed(self, test: int, term: Ciphertext) -> None:
        """Add a ciphertext of two polynomials whose slots, weighted already, must add up to 0."""
        self.zeros[test] = seal().accumulate(self.zeros[test], term)

    def folded(self, test: int, strips: Ciphertext, rows: Ciphertext) -> None:
        """Add: the sum over the strips of one ciphertext is the other one, which ends with a strip.

        The random weights of the rows are the same in every strip.
        """
        weights = self.scalars(_N)
        left = repeated(weights[:STRIP_ROWS])
        self.fixed(test, seal().times_plain(strips, seal().encoded(left)))
        self.fixed(test, seal().times_plain(rows, seal().encoded(-weights)))

    def one_hot(self, test: int, row: Sequence[Ciphertext]) -> None:
        """Add: in every slot at most one of a row is not 0, and that one is 1.

        (sum b_i o_i)(sum c_i o_i) - sum b_i c_i o_i for random b, c.
        """
        left, right = self.scalars(len(row)), self.scalars(len(row))
        self.product_equals(
            test, combination(row, left), combination(row, right), row, left * right % _P
        )

    def product_equals(
        self,
        test: int,
        left: Ciphertext,
        right: Ciphertext,
        row: Sequence[Ciphertext],
        weights: Integers,
    ) -> None:
        """Add: left times right equals the weighted sum of a row."""
        difference = seal().times(left, right)
        seal().evaluator.sub_inplace(difference, combination(row, weights))
        self.zero(test, difference)

    def zero_product(self, test: int, left: Ciphertext, weighted: Ciphertext) -> None:
        """Add: left times a randomly weighted ciphertext vanishes."""
        self.zeros[test] = seal().accumulate(self.zeros[test], seal().times(left, weighted))

    def noise(self, ciphertexts: Sequence[Ciphertext]) -> None:
        """Add ciphertexts of the key holder's to the noise test."""
        for ciphertext, weight in zip(ciphertexts, self.scalars(len(ciphertexts)), strict=True):
            self.noises = seal().add_scaled(self.noises, ciphertext, int(weight))

    def arrays(self) -> list[NDArray[np.uint64]]:
        """Return the residues of all sums, the noise test's last, for another process."""
        return [seal().residues(total) for total in (*self.zeros, self.noises)]

    def take(self, arrays: Sequence[NDArray[np.uint64]]) -> "Terms":
        """Take the sums that `arrays` of the same terms gave elsewhere; return these terms."""
        *zeros, noises = (seal().ciphertext(array) for array in arrays)
        self.zeros, self.noises = zeros, noises
        return self


class Checks:
    """Adds up the terms of all parts, then opens the tests."""

    def __init__(
        self, keys: PublicKeys, prg: Prg, noise_bits: int, zero_tests: int = ZERO_TESTS
    ) -> None:
        """Start.

        Args:
            keys: public keys.
            prg: weights and masks, bound to all messages received so far.
            noise_bits: size of B (up to 127).
            zero_tests: how many, before the noise test; 0 where any message is right.
        """
        self._keys = keys
        self._prg = prg
        self._noise_bits = noise_bits
        self._zeros: list[Ciphertext | None] = [None] * zero_tests
        self._noise: Ciphertext | None = None
        self._openings: MaskedOpenings | None = None

    def terms(self, *part: str | int) -> Terms:
        """Return empty terms of a part; the name is used once."""
        return Terms(self._prg.child("terms", *part), len(self._zeros))

    def add(self, terms: Terms) -> None:
        """Add a part's terms, and use them up. Sums mod q: the order is no matter."""
        tools = seal()
        for test, total in enumerate(terms.zeros):
            if total is not None:
                self._zeros[test] = tools.accumulate(self._zeros[test], total)
        if terms.noises is not None:
            self._noise = tools.accumulate(self._noise, terms.noises)

    def _amplified(self) -> Ciphertext:
        tools = seal()
        spread = tools.encoded(self._prg.residues(_N, "spread"))
        low, high = (int(word) for word in self._prg.words(2, "amplifier"))
        bits = self._noise_bits
        amplifier = (1 << (bits - 1)) | ((high << 64 | low) >> (129 - bits))
        residues = tools.residues(tools.times_plain(self._noise, spread)).astype(np.int64)
        for row, prime in enumerate(PARAMETERS.data_primes):
            factor = np.array(_P * amplifier % prime, np.int64)
            residues[:, row] = product(residues[:, row], factor, prime)
        return tools.ciphertext(residues.astype(np.uint64))

    def message(self, kind: Kind) -> bytes:
        """Return the openings of the tests."""
        last = len(self._zeros)
        openings = MaskedOpenings(last + 1, self._prg.child("openings"))
        for index, total in enumerate(self._zeros):
            openings.add(index, seal().relinearised(total, self._keys.seal_relin_keys()))
        openings.add(last, self._amplified())
        self._openings = openings
        zeros = ZeroSampler(self._keys.public_key, self._prg.child("zeros"))
        return openings.message(zeros, kind, quiet=[last])

    def accept(self, message: bytes, kind: Kind) -> None:
        """Accept the key holder's replies.

        Raises:
            ValueError: malformed, or a test shows something but zero.
        """
        if self._openings is None:
            raise ValueError(f"{kind.name}: expected after the checks were sent")
        if self._openings.unmasked(message, kind).any():
            raise ValueError(f"{kind.name}: a test failed; the run is burnt")


def combination(row: Sequence[Ciphertext], weights: Sequence[int] | Integers) -> Ciphertext:
    """Return sum of weights * row (not all weights 0 mod p)."""
    total = None
    for ciphertext, weight in zip(row, weights, strict=True):
        total = seal().add_scaled(total, ciphertext, int(weight))
    if total is None:
        raise ValueError("checks: all weights are zero")
    return total
