"""A scoring run that answers only well-formed messages.

Order: score, digits, **early checks**, shares, characters, **final checks**, openings, release. An
agent that sends constants instead of one-hot digits reads a linear model out of the shares, so
nothing is answered before the early checks passed; the histogram is opened last.

Early: digits are one-hot or all zero (the last value), the flag is 0/1 and 1 only where u = p - 1,
low digits, flag and top give the masked score back in every slot, u = low + flag + D top; committed
coins are 0/1.
Final: characters are those of one residue per slot or all zero, with sum over labels equal to the
uploaded valid mask and each label's part equal to the uploaded label times the whole; the residue
a, the returned share e and the top agree, a + e = top or top + B in valid rows; the share is the
one that was sent (per-slot authenticator). What is left: a row within half a score unit of a hidden
edge can be moved by one bin (a non-canonical code moves u by 1).

The masked score of a tree already has two products behind it and bears no third under the flooding.
So it enters one linear test only; everything else is said of the key holder's own ciphertexts.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_eval.checks import SCORE_TESTS, ZERO_TESTS, Checks, Terms, combination
from secure_eval.evaluator import BlockStep, ScoringRun, refusing
from secure_eval.framing import Kind
from secure_eval.layout import seeded_parts
from secure_eval.packing import unpack
from secure_eval.params import PARAMETERS
from secure_eval.sealio import Ciphertext, seal
from secure_eval.target import FINAL_NOISE_BITS
from secure_eval.upload_checks import UploadChecks, noise_bits

__all__ = ["CheckedScoringRun", "UploadChecks"]

Integers = NDArray[np.int64]

_P = PARAMETERS.plain_modulus
_N = PARAMETERS.degree
#: ciphertexts of messages are kept in memory, 60 MB a block, for so many blocks of a process
_KEPT_BLOCKS = 4


class CheckedScoringRun(ScoringRun):
    """A `ScoringRun` with early and final checks; the agent must be a `CheckedAgentRun`."""

    _early: Checks | None = None
    _final: Checks | None = None
    _passed_early = False
    _passed_final = False

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._kept: dict[int, dict[tuple[object, ...], Any]] = {}

    def _keep(self, block: int, name: tuple[object, ...], make: Callable[[], Any]) -> Any:
        """Return what make returns, remembered for some blocks: each is read two or three times."""
        if block not in self._kept and len(self._kept) >= _KEPT_BLOCKS:
            return make()
        kept = self._kept.setdefault(block, {})
        if name not in kept:
            kept[name] = make()
        return kept[name]

    def _masked_score(self, block: int) -> Ciphertext:
        kept = self._keep(block, ("score",), partial(super()._masked_score, block))
        return seal().copied(kept)

    def _digits(self, block: int, parts: Sequence[memoryview]) -> Iterator[Ciphertext]:
        digest = self._received["DIGITS"]
        read = partial(super()._digits, block, parts)
        return iter(self._keep(block, ("digits", digest), lambda: list(read())))

    def _characters(
        self, block: int, label: int, parts: Sequence[memoryview]
    ) -> Iterator[Ciphertext]:
        digest = self._received["CHARACTERS"]
        read = partial(super()._characters, block, label, parts)
        return iter(self._keep(block, ("characters", digest, label), lambda: list(read())))

    def _digit_rows(
        self, block: int, parts: Sequence[memoryview]
    ) -> tuple[list[list[Ciphertext]], Ciphertext, Ciphertext]:
        """Return a block's one-hot digits by place, its flag and its top."""
        loaded = self._digits(block, parts)
        rows = [[next(loaded) for _ in range(radix - 1)] for radix in self._grid.radices]
        return rows, next(loaded), next(loaded)

    @refusing("DIGITS")
    def early_checks(self, digits: bytes) -> bytes:
        """Return the early checks for message 2 (section 3).

        Raises:
            ValueError: a malformed message, or another one than before.
        """
        self._read_digits(digits)
        checks = self._new_early()
        for block in self._blocks:
            terms = checks.terms("block", block)
            arrays = self._made_elsewhere("early", block)
            checks.add(self._early_terms(terms, block) if arrays is None else terms.take(arrays))
        terms = checks.terms("coins")
        for coin in self._coins(self._digit_parts):
            for test in range(ZERO_TESTS):
                terms.product_equals(test, coin, coin, [coin], np.ones(1, np.int64))
            terms.noise([coin])
        checks.add(terms)
        self._early = checks
        return checks.message(Kind.EARLY_CHECKS)

    def _new_early(self) -> Checks:
        prg = self._prg.child("early checks", self._received["DIGITS"])
        count = self._shapes.first_coin - 1 + self._shapes.coins
        return Checks(self._keys, prg, noise_bits(count), SCORE_TESTS)

    def _early_terms(self, terms: Terms, block: int) -> Terms:
        rows, flag, top = self._digit_rows(block, self._digit_parts)
        coded = self._coded(rows, flag, top)
        self._tie_score(terms, block, coded)
        seal().evaluator.add_plain_inplace(coded, seal().constant(1))
        for test in range(ZERO_TESTS):
            for row in rows:
                terms.one_hot(test, row)
            # the flag times u + 1 vanishes, and s times its square minus itself
            weight = max(1, int(terms.scalars(1)[0]))
            factor = seal().copied(coded)
            factor = seal().add_scaled(factor, flag, weight)
            terms.product_equals(test, flag, factor, [flag], np.array([weight]))
        terms.noise([*(ciphertext for row in rows for ciphertext in row), flag, top])
        return terms

    def _tie_score(self, terms: Terms, block: int, coded: Ciphertext) -> None:
        """Add: what the digits code is the masked score, or of a packed set its strips' sum."""
        score = self._masked_score(block)
        if self._layout.strips:  # no product is behind this score: it bears weights of any size
            for test in range(SCORE_TESTS):
                terms.folded(test, score, coded)
            return
        difference = seal().minus(score, coded)
        for test in range(SCORE_TESTS):
            terms.small(test, difference)

    def _coded(
        self, rows: Sequence[Sequence[Ciphertext]], flag: Ciphertext, top: Ciphertext
    ) -> Ciphertext:
        """Return low + flag + D top, which is u in every slot."""
        tools = seal()
        total, constant, weight = tools.copied(flag), 0, 1
        for row, radix in zip(rows, self._grid.radices, strict=True):
            # the last value is the default; each other value is so much less
            for value, ciphertext in enumerate(row):
                total = tools.add_scaled(total, ciphertext, (value + 1 - radix) * weight)
            constant += (radix - 1) * weight
            weight *= radix
        total = tools.add_scaled(total, top, self._grid.width)
        tools.evaluator.add_plain_inplace(total, tools.constant(constant))
        return total

    def accept_early(self, replies: bytes) -> None:
        """Accept the replies to the early checks.

        Raises:
            ValueError: malformed, or a check failed: the run is burnt.
        """
        if self._early is None:
            raise ValueError("EARLY_REPLIES: expected after the digits message")
        self._early.accept(replies, Kind.EARLY_REPLIES)
        self._passed_early = True

    def shares(self, digits: bytes) -> bytes:
        """Return message 3; see `ScoringRun.shares`.

        Raises:
            ValueError: malformed, another message than checked, or not yet accepted.
        """
        if not self._passed_early:
            raise ValueError("DIGITS: no answer before the early checks are accepted")
        return super().shares(digits)

    @refusing("CHARACTERS")
    def final_checks(self, characters: bytes) -> bytes:
        """Return the final checks for message 4.

        Raises:
            ValueError: a malformed message, or another one than before.
        """
        self._read_characters(characters)
        if not self._shared:
            raise ValueError("CHARACTERS: expected after the digits message")
        checks = self._new_final()
        if self._plan is None:
            terms = checks.terms("noise")
            noise = unpack(self._character_parts[0], 2, PARAMETERS.data_primes, "noise")
            terms.noise([seal().ciphertext(noise)])
            checks.add(terms)
        for block in self._blocks:
            terms = checks.terms("block", block)
            arrays = self._made_elsewhere("final", block)
            checks.add(self._final_terms(terms, block) if arrays is None else terms.take(arrays))
        self._final = checks
        return checks.message(Kind.FINAL_CHECKS)

    def _new_final(self) -> Checks:
        received = self._received
        prg = self._prg.child("final checks", received["DIGITS"], received["CHARACTERS"])
        count = self._layout.n_blocks * self._shapes.character_ciphertexts
        return Checks(self._keys, prg, min(FINAL_NOISE_BITS, noise_bits(count)))

    def _block_arrays(self, step: BlockStep, block: int) -> list[NDArray[Any]]:
        if step == "early":
            return self._early_terms(self._new_early().terms("block", block), block).arrays()
        if step == "final":
            return self._final_terms(self._new_final().terms("block", block), block).arrays()
        return super()._block_arrays(step, block)

    def _final_terms(self, terms: Terms, block: int) -> Terms:
        tools, parts = seal(), self._character_parts
        _, characters, _ = self._block(block, parts)
        labels = [list(label) for label in characters]
        shapes = self._shapes
        stop = shapes.first_character + (block + 1) * shapes.character_ciphertexts
        share, proof = seeded_parts(parts[stop - 2 : stop], "share")
        whole = [combination(column, [1] * len(labels)) for column in zip(*labels, strict=True)]
        valid = self._upload.ciphertext(block, self._layout.valid_part)
        wrapped = self._wrapped(block, share, whole)
        factor, mask = self._proof(block)
        sent = tools.times_plain(share, tools.encoded(factor))
        tools.evaluator.add_plain_inplace(sent, tools.encoded(mask))
        tools.evaluator.sub_inplace(sent, proof)
        present = tools.minus(whole[0], valid)
        for test in range(ZERO_TESTS):
            weighted = tools.times_plain(valid, tools.encoded(terms.scalars(_N)))
            terms.zero_product(test, wrapped, weighted)
            self._check_characters(terms, test, block, labels, whole)
            terms.zero(test, sent)
            terms.zero(test, present)
        for label in labels:
            terms.noise(label[1:])
        terms.noise([share, proof])
        return terms

    def _wrapped(self, block: int, share: Ciphertext, whole: Sequence[Ciphertext]) -> Ciphertext:
        """Return Y (Y - B) for Y = a + e - top, 0 in every valid slot."""
        tools, bins = seal(), self._grid.bins
        _, _, top = self._digit_rows(block, self._digit_parts)
        total = tools.minus(share, top)
        for ciphertext, value in zip(whole, self._transform(np.arange(bins)), strict=True):
            total = tools.add_scaled(total, ciphertext, int(value))
        other = tools.copied(total)
        tools.evaluator.sub_plain_inplace(other, tools.constant(bins))
        return tools.relinearised(tools.times(total, other), self._relin_keys)

    def _transform(self, values: Integers) -> Integers:
        """Return weights of the characters that give sum over m of values[m] [a = m]."""
        grid = self._grid
        residues = np.arange(grid.bins)
        powers = grid.characters(-residues)
        scaled = powers @ (values % _P) % _P
        return np.asarray(scaled * pow(grid.bins, -1, _P) % _P, np.int64)

    def _check_characters(
        self,
        terms: Terms,
        test: int,
        block: int,
        labels: Sequence[Sequence[Ciphertext]],
        whole: Sequence[Ciphertext],
    ) -> None:
        """One residue a slot; a label's characters are the uploaded label times the whole."""
        left, right = terms.scalars(self._grid.bins), terms.scalars(self._grid.bins)
        first = combination(whole, self._transform(left))
        second = combination(whole, self._transform(right))
        both = self._transform(left * right % _P)
        terms.product_equals(test, first, second, whole, both)
        scalars = terms.scalars(len(labels))
        weights = self._transform(left)
        uploaded = [
            self._upload.ciphertext(block, self._layout.label_part(label))
            for label in range(len(labels))
        ]
        row = [ciphertext for label in labels for ciphertext in label]
        folded = (scalars[:, None] * weights[None, :] % _P).reshape(-1)
        terms.product_equals(test, first, combination(uploaded, scalars), row, folded)

    def accept_final(self, replies: bytes) -> None:
        """Accept the replies to the final terms.

        Raises:
            ValueError: malformed, or a check failed: the run is burnt.
        """
        if self._final is None:
            raise ValueError("FINAL_REPLIES: expected after the characters message")
        self._final.accept(replies, Kind.FINAL_REPLIES)
        self._passed_final = True

    def openings(self, characters: bytes, nonces: Sequence[bytes] | None = None) -> bytes:
        """Return message 5; see `ScoringRun.openings`.

        Raises:
            ValueError: malformed, another message than checked, or not yet accepted.
        """
        if not self._passed_final:
            raise ValueError("CHARACTERS: no opening before the final checks are accepted")
        return super().openings(characters, nonces)
