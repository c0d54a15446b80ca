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
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_eval import framing
from secure_eval.coins import CoinPlan
from secure_eval.comparison import Grid, grid
from secure_eval.framing import Kind
from secure_eval.histogram_opening import open_histogram
from secure_eval.integer_model import IntegerModel
from secure_eval.layout import MAX_CELLS, Layout, ReadParts, Shapes, Upload, seeded_parts
from secure_eval.opening import OpeningBatch, flooded_vector
from secure_eval.packing import unpack
from secure_eval.params import PARAMETERS
from secure_eval.prg import Prg
from secure_eval.public_keys import PublicKeys
from secure_eval.sampler import ZeroSampler
from secure_eval.scoring import doubled_score
from secure_eval.sealio import seal
from secure_eval.sharing import shared_comparison

__all__ = [
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
_SEED_BYTES = 32


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """Noised counts of one run.

    Attributes:
        counts: (L, published bins) rows per label and score bin.
        groups: per attribute (levels, L), rows predicted positive per level and label.
    """

    counts: Integers
    groups: dict[str, Integers]


def _checked_map(column_map: Sequence[int], wanted: int, uploaded: int) -> list[int]:
    columns = [int(index) for index in column_map]
    if len(columns) != wanted:
        raise ValueError(f"column_map: expected {wanted} indices, got {len(columns)}")
    if len(set(columns)) != wanted or any(not 0 <= index < uploaded for index in columns):
        raise ValueError(f"column_map: expected distinct indices below {uploaded}")
    return columns


def seeded_prg(seed: bytes, *context: bytes | str) -> Prg:
    """Return the generator of a 32-byte secret seed and public context.

    Raises:
        ValueError: a seed of another length.
    """
    if len(seed) != _SEED_BYTES:
        raise ValueError(f"seed: expected {_SEED_BYTES} bytes, got {len(seed)}")
    return Prg("evaluator", seed, *context)


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Report what SEAL refuses (such as a ciphertext without randomness) as ValueError."""
    try:
        yield
    except RuntimeError as error:
        raise ValueError(f"{what}: refused by the cryptographic library: {error}") from error


def _digest(message: bytes) -> bytes:
    return hashlib.sha256(message).digest()


class ScoringRun:
    """One model on one sealed set: score, shares, openings, release.

    The messages without their tests; `checked.CheckedScoringRun` is the run. The caller burns it
    after a failed test: replies are never tried twice.
    """

    _CHECKED = True

    def __init__(
        self,
        keys: bytes,
        layout: Layout,
        upload: Sequence[bytes],
        model: IntegerModel,
        column_map: Sequence[int],
        seed: bytes,
        run_id: str,
        server_nonce: bytes,
        *,
        groups: Sequence[str] | None = None,
        coins: Sequence[int] = (),
    ) -> None:
        """Check all shapes and prepare the run; no ciphertext is touched yet.

        Args:
            keys: the public keys' message.
            layout: shape of the sealed set.
            upload: one blob per block.
            model: what to evaluate.
            column_map: for each model column, its index among the uploaded columns; distinct.
            seed: 32 secret bytes from the operating system.
            run_id: unique name of the run.
            server_nonce: goes into the noise; bound into the masks here.
            groups: attributes to open, by default all of the layout.
            coins: committed coins per cell of each table; none under the geometric law.

        Raises:
            ValueError: anything malformed.
            TypeError: the run has no tests.
        """
        if type(self) is ScoringRun:
            raise TypeError("a run without tests shows the model; use CheckedScoringRun")
        self._keys = PublicKeys.from_bytes(keys)
        self._upload = self.upload = Upload(layout, upload)
        self._layout = layout
        self._model = self.model = model
        self._columns = self.columns = _checked_map(column_map, len(model.columns), layout.columns)
        self.groups = tuple(dict(layout.groups)) if groups is None else tuple(groups)
        self._group_parts = [layout.group_parts(name) for name in self.groups]
        self._grid: Grid = grid(model.bins)
        self.n_cells = self._histogram_cells + sum(map(len, self._group_parts))
        if self.n_cells > MAX_CELLS:
            raise ValueError(f"tables: at most {MAX_CELLS} cells, got {self.n_cells}")
        self._plan = self._coin_plan(coins)
        self._run_id = run_id
        self._shapes = Shapes(
            layout.n_blocks,
            layout.labels,
            model.bins,
            self.n_cells,
            self._CHECKED,
            self._plan.ciphertexts if self._plan else 0,
        )
        context: list[bytes | str] = [
            _digest(keys),
            layout.to_json(),
            self._upload.digest,
            model.digest(),
            ",".join(map(str, self._columns)),
            run_id,
            server_nonce,
            ",".join(map(str, coins)),
            *self.groups,
        ]
        self._prg = seeded_prg(seed, "scoring run", *context)
        self._zeros = ZeroSampler(self._keys.public_key, self._prg.child("zeros"))
        self._prepared: dict[int, Integers] = {}
        self._received: dict[str, bytes] = {}
        self._digit_parts: Sequence[memoryview] = ()
        self._shifts: list[Integers] = []
        self._proofs: list[tuple[Integers, Integers]] = []
        self._batch: OpeningBatch | None = None

    @property
    def _histogram_cells(self) -> int:
        return self._layout.labels * (len(self._model.bin_edges) - 1)

    def _coin_plan(self, coins: Sequence[int]) -> CoinPlan | None:
        cells = [count for _, count in self.table_cells]
        if not coins:
            return None
        if len(coins) != len(cells):
            raise ValueError(f"coins: expected a number for each of {len(cells)} tables")
        return CoinPlan(tuple(zip(cells, coins, strict=True)))

    @property
    def table_cells(self) -> list[tuple[str, int]]:
        """(name, cells) of the tables in the order of the openings; the first is the histogram."""
        sizes = zip(self.groups, map(len, self._group_parts), strict=True)
        return [("histogram", self._histogram_cells), *((f"group:{n}", c) for n, c in sizes)]

    @cached_property
    def _relin_keys(self) -> Any:
        return self._keys.seal_relin_keys()

    def _mask(self, block: int) -> Integers:
        return self._prg.residues(_N, "mask", block)

    def _column(self, block: int, index: int) -> Any:
        return self._upload.ciphertext(block, self._columns[index])

    def _masked_score(self, block: int) -> Any:
        """Return the doubled score of a block plus its mask, at all data primes."""
        if block in self._prepared:
            total = seal().ciphertext(self._prepared[block].astype(np.uint64))
            constant = 2 * self._model.bias
        else:
            load = partial(self._column, block)
            total, constant = doubled_score(self._model, load, self._relin_keys)
        if total is None:
            zero = self._zeros.full(len(PARAMETERS.data_primes), "constant model", block)
            total = seal().ciphertext(zero.astype(np.uint64))
        slots = self._mask(block) + constant % _P
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
        parts = [
            flooded_vector(self._masked_score(block), self._prg, self._zeros, f"score {block}")
            for block in range(self._layout.n_blocks)
        ]
        return framing.encode(Kind.SCORE, parts)

    @refusing("DIGITS")
    def shares(self, digits: bytes) -> bytes:
        """Return message 3 for message 2 (section 4): per block a share of the comparison.

        Raises:
            ValueError: a malformed message, or another one than before.
        """
        parts = framing.decode(digits, Kind.DIGITS, self._shapes.digits())
        prg = self._prg.child("shares", self._only("DIGITS", digits))
        zeros = ZeroSampler(self._keys.public_key, prg.child("zeros"))
        answer, shifts, proofs = [], [], []
        for block in range(self._layout.n_blocks):
            one_hot = self._digits(block, parts)
            mine = self._grid.split_mask(self._mask(block))
            shift = prg.below(self._grid.bins, _N, "shift", block)
            proof = None
            if self._CHECKED:
                proof = prg.residues(_N, "factor", block), prg.residues(_N, "proof mask", block)
                proofs.append(proof)
            shares = shared_comparison(one_hot, self._grid, mine, shift, self._relin_keys, proof)
            for index, share in enumerate(shares):
                name = f"share {block} {index}"
                answer.append(flooded_vector(share, prg, zeros, name))
            shifts.append((mine.top + shift) % self._grid.bins)
        self._shifts, self._proofs, self._digit_parts = shifts, proofs, parts
        return framing.encode(Kind.SHARES, answer)

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
        parts = framing.decode(characters, Kind.CHARACTERS, self._shapes.characters())
        if not self._shifts:
            raise ValueError("CHARACTERS: expected after the digits message")
        digest = self._only("CHARACTERS", characters)
        turns = nonces or () if self._plan else ()
        prg = self._prg.child("openings", self._received["DIGITS"], digest, *turns)
        batch = OpeningBatch(self.n_cells, prg.child("batch"))
        self._add_noise(batch, parts[0], nonces)
        open_histogram(
            batch,
            self._grid,
            self._model,
            (self._block(block, parts) for block in range(self._layout.n_blocks)),
            self._relin_keys,
        )
        self._batch = batch
        zeros = ZeroSampler(self._keys.public_key, prg.child("zeros"))
        return batch.message(zeros, Kind.OPENINGS)

    def _block(
        self, block: int, parts: Sequence[memoryview]
    ) -> tuple[Integers, list[Iterator[Any]], Iterator[Any]]:
        """Return the evaluator's shift K, characters per label and group masks of a block."""
        labels = range(self._layout.labels)
        characters = [self._characters(block, label, parts) for label in labels]
        indices = [index for group in self._group_parts for index in group]
        masks = (self._upload.ciphertext(block, index) for index in indices)
        return self._shifts[block], characters, masks

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
