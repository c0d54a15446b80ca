"""The public side: scores encrypted rows and opens noised histograms, holding no secret key.

Numbered sections are those of docs/protocol.md.

Everything sent is a function of (public keys, upload, layout, model, seed, run id, nonce, messages
received): an object built again from the same inputs gives the same bytes, so a killed worker
resumes and an auditor replays. Every mask is bound to all messages received before it, so another
digits message under the same seed meets other masks.

Guarantee: each message shows the key holder uniform masked values and re-randomised, flooded
    ciphertexts; the evaluator sees replies that are one-time padded counts plus noise.
Assumes: the key holder's ciphertexts were tested before an answer, as `checked.CheckedScoringRun`
    does, the only class of a run that can be made; a secret seed, one run id per seed.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_eval import framing
from secure_eval.framing import Kind
from secure_eval.histogram_opening import HistogramSums, histogram_sums
from secure_eval.layout import Layout, ReadParts, seeded_parts
from secure_eval.opening import OpeningBatch, flooded_vector
from secure_eval.packing import unpack
from secure_eval.params import PARAMETERS
from secure_eval.prg import Prg
from secure_eval.public_keys import PublicKeys
from secure_eval.run_inputs import BlockStep, Elsewhere, RunInputs, seeded_prg
from secure_eval.scoring import doubled_score, strip_score
from secure_eval.sealio import seal
from secure_eval.sharing import shared_comparison
from secure_eval.strips import folded, strip

__all__ = [
    "BlockStep",
    "Elsewhere",
    "Layout",
    "Opened",
    "PublicKeys",
    "ScoringRun",
    "refusing",
    "seeded_prg",
]

Integers = NDArray[np.int64]

_N = PARAMETERS.degree
_P = PARAMETERS.plain_modulus


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """Noised counts of one run.

    Attributes:
        counts: (L, published bins) rows per label and score bin.
        groups: per attribute (levels, L), rows predicted positive per level and label.
    """

    counts: Integers
    groups: dict[str, Integers]


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Report what SEAL refuses (such as a ciphertext without randomness) as ValueError."""
    try:
        yield
    except RuntimeError as error:
        raise ValueError(f"{what}: refused by the cryptographic library: {error}") from error


def _digest(message: bytes) -> bytes:
    return hashlib.sha256(message).digest()


class ScoringRun(RunInputs):
    """One model on one sealed set: score, shares, openings, release.

    The messages without their tests; `checked.CheckedScoringRun` is the run. The caller burns it
    after a failed test: replies are never tried twice.
    """

    elsewhere: Elsewhere | None = None
    """Blocks that other processes compute, if any."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        """Prepare the run; arguments are those of `RunInputs`.

        Raises:
            ValueError: anything malformed.
            TypeError: the run has no tests.
        """
        if type(self) is ScoringRun:
            raise TypeError("a run without tests shows the model; use CheckedScoringRun")
        super().__init__(*arguments, **named)
        self._prepared: dict[int, Integers] = {}
        self._received: dict[str, bytes] = {}
        self._digit_parts: Sequence[memoryview] = ()
        self._character_parts: Sequence[memoryview] = ()
        self._turns: tuple[bytes, ...] = ()
        self._shared = False
        self._batch: OpeningBatch | None = None

    def _mask(self, block: int) -> Integers:
        return self._prg.residues(_N, "mask", block)

    def _row_mask(self, block: int) -> Integers:
        """Return what masks the rows' scores: of a packed set the sum of its strips' masks."""
        mask = self._mask(block)
        return folded(mask) if self._layout.strips else mask

    def _column(self, block: int, index: int) -> Any:
        return self._upload.shared(block, self._columns[index])

    def _masked_score(self, block: int) -> Any:
        """Return the doubled score of a block plus its mask, at all data primes."""
        if block in self._prepared:
            total = seal().ciphertext(self._prepared[block].astype(np.uint64))
            constant = 2 * self._model.bias
        elif self._layout.strips:
            read = partial(self._upload.stored, block)
            where = self._layout.places
            places = [where[column] for column in self._columns]
            total, constant = strip_score(self._model, places, read), 2 * self._model.bias
        else:
            load = partial(self._column, block)
            total, constant = doubled_score(self._model, load, self._relin_keys)
        if total is None:
            zero = self._zeros.full(len(PARAMETERS.data_primes), "constant model", block)
            total = seal().ciphertext(zero.astype(np.uint64))
        slots = self._mask(block)
        slots[strip(0) if self._layout.strips else slice(None)] += constant % _P
        seal().evaluator.add_plain_inplace(total, seal().encoded(slots))
        return total

    def share_parts(self, kept: ReadParts) -> None:
        """Keep the set's ciphertexts where other runs on it find them; messages are the same."""
        self.upload.kept = kept

    def prepare(self, block: int, residues: Integers) -> None:
        """Take a block's doubled weighted columns, residues (2, 4, N), from `many_models`."""
        self._prepared[block] = residues

    @refusing("score")
    def score(self) -> bytes:
        """Return message 1 (section 1): per block the doubled score plus a uniform mask."""
        parts = [part for block in self._blocks for part in self._bytes_of("score", block)]
        return framing.encode(Kind.SCORE, parts)

    def _score_part(self, block: int) -> list[bytes]:
        masked = self._masked_score(block)
        return [flooded_vector(masked, self._prg, self._zeros, f"score {block}")]

    @refusing("DIGITS")
    def shares(self, digits: bytes) -> bytes:
        """Return message 3 for message 2 (section 4): per block a share of the comparison.

        Raises:
            ValueError: a malformed message, or another one than before.
        """
        self._read_digits(digits)
        parts = [part for block in self._blocks for part in self._bytes_of("shares", block)]
        self._shared = True
        return framing.encode(Kind.SHARES, parts)

    def _read_digits(self, digits: bytes) -> None:
        self._digit_parts = framing.decode(digits, Kind.DIGITS, self._shapes.digits())
        self._only("DIGITS", digits)

    @property
    def _share_prg(self) -> Prg:
        return self._prg.child("shares", self._received["DIGITS"])

    def _shift(self, block: int) -> Integers:
        """Return the uniform g (N,) of a block's share."""
        return self._share_prg.below(self._grid.bins, _N, "shift", block)

    def _proof(self, block: int) -> tuple[Integers, Integers]:
        """Return factors and masks (N,) of a block's authenticator."""
        prg = self._share_prg
        return prg.residues(_N, "factor", block), prg.residues(_N, "proof mask", block)

    def _share_part(self, block: int) -> list[bytes]:
        prg = self._share_prg
        zeros = self._zeros.under(prg.child("zeros"))
        mine = self._grid.split_mask(self._row_mask(block))
        shares = shared_comparison(
            self._digits(block, self._digit_parts),
            self._grid,
            mine,
            self._shift(block),
            self._relin_keys,
            self._proof(block) if self._CHECKED else None,
        )
        return [
            flooded_vector(share, prg, zeros, f"share {block} {index}")
            for index, share in enumerate(shares)
        ]

    # -- blocks, here or in other processes

    @property
    def _blocks(self) -> range:
        return range(self._layout.n_blocks)

    def _made_elsewhere(self, step: BlockStep, block: int) -> list[NDArray[Any]] | None:
        return None if self.elsewhere is None else self.elsewhere(step, block)

    def _bytes_of(self, step: BlockStep, block: int) -> list[bytes]:
        """Return a block's parts of a message, made here unless another process makes them."""
        arrays = self._made_elsewhere(step, block)
        if arrays is not None:
            return [array.tobytes() for array in arrays]
        return self._score_part(block) if step == "score" else self._share_part(block)

    @property
    def units(self) -> int:
        """How many pieces of work a step has that can be done at the same time: its blocks."""
        return self._layout.n_blocks

    def compute_elsewhere(self, elsewhere: Elsewhere | None) -> None:
        """Have some units computed by other processes, or none."""
        self.elsewhere = elsewhere

    def take_messages(
        self, digits: bytes = b"", characters: bytes = b"", nonces: Sequence[bytes] = ()
    ) -> None:
        """Take what was received before a step, to compute units of it for another process.

        Args:
            digits: message 2, for all steps but the first.
            characters: message 4, for the last two.
            nonces: both, for openings.

        Raises:
            ValueError: a malformed message, or another one than before.
        """
        if digits:
            self._read_digits(digits)
        if characters:
            self._read_characters(characters)
        self._turns = tuple(nonces) if self._plan else ()

    def block_arrays(self, step: BlockStep, unit: int) -> list[NDArray[Any]]:
        """Return what a step needs of one block, for the process that leads the run.

        A block's part of a message is a function of the run's inputs and of the messages received,
        so it is the same wherever it is made. Tests are judged by the process that leads.

        Raises:
            ValueError: a malformed ciphertext.
        """
        with refusing(step):
            return self._block_arrays(step, unit)

    def _block_arrays(self, step: BlockStep, block: int) -> list[NDArray[Any]]:
        if step == "openings":
            return self._histogram_sums(block, self._new_batch().weights).arrays()
        made = self._score_part(block) if step == "score" else self._share_part(block)
        return [np.frombuffer(part, np.uint8) for part in made]

    def _digits(self, block: int, parts: Sequence[memoryview]) -> Iterator[Any]:
        """Yield a block's one-hot digits, its flag and its top."""
        per_block = self._shapes.digit_ciphertexts
        start = 1 + block * per_block
        return seeded_parts(parts[start : start + per_block], "digit")

    def _characters(self, block: int, label: int, parts: Sequence[memoryview]) -> Iterator[Any]:
        """Yield the characters of a block and label; character 0 is the uploaded label."""
        per_label = self._grid.bins - 1
        start = self._shapes.first_character + block * self._shapes.character_ciphertexts
        start += label * per_label
        yield self._upload.ciphertext(block, self._layout.label_part(label))
        yield from seeded_parts(parts[start : start + per_label], "character")

    def _only(self, what: str, message: bytes) -> bytes:
        """Return the digest of a message of which a run answers a single one.

        Raises:
            ValueError: another one was answered before. Two answers under one mask would show it.
        """
        digest = _digest(message)
        if self._received.setdefault(what, digest) != digest:
            raise ValueError(f"{what}: this run has already answered another such message")
        return digest

    def _coins(self, parts: Sequence[memoryview]) -> Iterator[Any]:
        """Yield the committed coins of a digits message."""
        return seeded_parts(parts[self._shapes.first_coin :], "coins")

    def _add_noise(
        self, batch: OpeningBatch, characters: memoryview, nonces: Sequence[bytes] | None
    ) -> None:
        """Add the noise: the coins that came with the digits, or the characters' ciphertext."""
        if self._plan is None:
            batch.add_noise(unpack(characters, 2, PARAMETERS.data_primes, "noise"))
        elif nonces is None:
            raise ValueError("coins: the flips need both nonces")
        else:
            flips = self._plan.flips(self._run_id, nonces)
            batch.add_coins(self._coins(self._digit_parts), self._plan, flips)

    @refusing("CHARACTERS")
    def openings(self, characters: bytes, nonces: Sequence[bytes] | None = None) -> bytes:
        """Return message 5 for message 4 (section 7): each cell with its noise, and checks.

        Args:
            characters: message 4.
            nonces: the evaluator's and the developer's; needed for committed coins only, whose
                flips they give.

        Raises:
            ValueError: a malformed message, no nonces for coins, or `shares` has not been called
                on this object.
        """
        self._read_characters(characters)
        if not self._shared:
            raise ValueError("CHARACTERS: expected after the digits message")
        self._turns = tuple(nonces or ()) if self._plan else ()
        batch = self._new_batch()
        self._add_noise(batch, self._character_parts[0], nonces)
        whole: HistogramSums | None = None
        for block in self._blocks:
            arrays = self._made_elsewhere("openings", block)
            if whole is None and arrays is None:
                whole = self._histogram_sums(block, batch.weights)
                continue
            whole = whole or HistogramSums(self._histogram_cells, self.n_cells)
            whole.add_arrays(arrays or self._histogram_sums(block, batch.weights).arrays())
        if whole is not None:
            whole.give(batch)
        self._batch = batch
        return batch.message(self._zeros.under(self._opening_prg.child("zeros")), Kind.OPENINGS)

    def _read_characters(self, characters: bytes) -> None:
        shapes = self._shapes.characters()
        self._character_parts = framing.decode(characters, Kind.CHARACTERS, shapes)
        self._only("CHARACTERS", characters)

    @property
    def _opening_prg(self) -> Prg:
        received = self._received
        return self._prg.child("openings", received["DIGITS"], received["CHARACTERS"], *self._turns)

    def _new_batch(self) -> OpeningBatch:
        return OpeningBatch(self.n_cells, self._opening_prg.child("batch"))

    def _histogram_sums(self, block: int, weights: Integers) -> HistogramSums:
        given = self._block(block, self._character_parts)
        return histogram_sums(weights, self._grid, self._model, given, self._relin_keys)

    def _block(
        self, block: int, parts: Sequence[memoryview]
    ) -> tuple[Integers, list[Iterator[Any]], Iterator[Any]]:
        """Return the evaluator's shift K, characters per label and group masks of a block."""
        labels = range(self._layout.labels)
        characters = [self._characters(block, label, parts) for label in labels]
        indices = [index for group in self._group_parts for index in group]
        masks = (self._upload.ciphertext(block, index) for index in indices)
        shift = self._grid.split_mask(self._row_mask(block)).top + self._shift(block)
        return shift % self._grid.bins, characters, masks

    def release(self, replies: bytes) -> Opened:
        """Return the noised counts for message 6 (section 8).

        Guarantee:
            Exact counts plus the key holder's noise, or an error: private at the sum of the tables'
            epsilons under adding or removing one patient, with 1e-6 of delta a table of coins.
        Assumes:
            What `AgentRun.characters` assumes.
        Proof:
            `AgentRun.characters`; replies are padded but for these sums, and weighted sums of them
            that the field's random weights bind to the counts (`opening`).

        Raises:
            ValueError: a malformed message or a failed check.
        """
        if self._batch is None:
            raise ValueError("REPLIES: expected after the characters message")
        cells = self._batch.release(replies, Kind.REPLIES)
        labels, start = self._layout.labels, self._histogram_cells
        groups = {}
        for name, part in zip(self.groups, self._group_parts, strict=True):
            groups[name] = cells[start : start + len(part)].reshape(-1, labels)
            start += len(part)
        return Opened(cells[: self._histogram_cells].reshape(labels, -1), groups)
