"""What a sealed set and each message look like: public shapes, never the number of rows."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from secure_eval import framing
from secure_eval.comparison import RADICES, grid
from secure_eval.framing import Kind
from secure_eval.packing import (
    FULL_BYTES,
    OPENING_BYTES,
    SEED_BYTES,
    SEEDED_BYTES,
    VECTOR_BYTES,
    unpack,
)
from secure_eval.params import PARAMETERS
from secure_eval.sealio import seal
from secure_eval.strips import STRIP_ROWS, layers, places

__all__ = [
    "MAC_OPENINGS",
    "MAX_CELLS",
    "REPLY_BYTES",
    "Layout",
    "ReadParts",
    "Shapes",
    "Upload",
    "seeded_parts",
]

#: counts must stay below p / 2 with room for noise
MAX_BLOCKS = 60
MAX_LABELS = 16
MAX_PARTS = 20_000
#: 268 MB
MAX_READ_PARTS = 512
MAX_JSON_BYTES = 1 << 16
#: openings that check the others
MAC_OPENINGS = 2
#: cells of one release
MAX_CELLS = PARAMETERS.degree - MAC_OPENINGS
REPLY_BYTES = 4
COMMITMENT_BYTES = 32

_KEYS = ("version", "n_blocks", "columns", "labels", "cells", "groups")
#: named by packed sets only: the JSON of others, to which seeds are bound, is what it was
_STRIPS = "strips"


@dataclass(frozen=True, slots=True)
class Layout:
    """Public shape of a sealed set; says nothing about the number of rows but the blocks.

    Each block holds, in this order: columns, label one-hots, valid, cell x label one-hots, and for
    each subgroup attribute level x label one-hots. These are its parts, a ciphertext each.

    In a packed set (protocol section 8c) the columns lie in strips, so that few ciphertexts, the
    layers, hold them all; the other parts follow, and at the end the valid mask in every strip.

    Attributes:
        version: the parameters' version.
        n_blocks: blocks of up to N rows, 1..60.
        columns: integer columns.
        labels: number of label classes L, 1..16; 1 where the label is a number without cuts.
        cells: matching cells K, 0 where there are none.
        groups: (name, number of levels) of each subgroup attribute.
        strips: how many consecutive columns each share a strip; empty where the set is not packed.
            A packed set says that it has at most 585 rows.
    """

    version: str
    n_blocks: int
    columns: int
    labels: int
    cells: int
    groups: tuple[tuple[str, int], ...]
    strips: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.version != PARAMETERS.version:
            raise ValueError(
                f"layout: expected version {PARAMETERS.version!r}, got {self.version!r}"
            )
        bounds = {
            "n_blocks": (self.n_blocks, 1, MAX_BLOCKS),
            "columns": (self.columns, 0, MAX_PARTS),
            "labels": (self.labels, 1, MAX_LABELS),
            "cells": (self.cells, 0, MAX_PARTS),
            **{f"levels of {name}": (levels, 1, MAX_PARTS) for name, levels in self.groups},
        }
        for what, (value, low, high) in bounds.items():
            if type(value) is not int or not low <= value <= high:
                raise ValueError(f"layout: expected {what} in {low}..{high}, got {value!r}")
        names = [name for name, _ in self.groups]
        if any(type(name) is not str for name in names) or len(set(names)) != len(names):
            raise ValueError("layout: group names must be distinct texts")
        if self.parts > MAX_PARTS:
            raise ValueError(f"layout: at most {MAX_PARTS} parts a block, got {self.parts}")
        if self.strips:
            self._check_strips()

    def _check_strips(self) -> None:
        if any(type(size) is not int or size < 1 for size in self.strips):
            raise ValueError("layout: strips must hold one column or more each")
        if sum(self.strips) != self.columns:
            raise ValueError(f"layout: strips must hold all of {self.columns} columns")
        if self.n_blocks != 1:
            raise ValueError(f"layout: a packed set has one block, of up to {STRIP_ROWS} rows")

    @property
    def parts(self) -> int:
        """Parts of a block: a ciphertext each, but the columns of a packed set."""
        levels = sum(levels for _, levels in self.groups)
        return self.columns + 1 + self.labels * (1 + self.cells + levels)

    @property
    def layers(self) -> int:
        """Ciphertexts of a block that hold columns."""
        return layers(self.strips) if self.strips else self.columns

    @property
    def ciphertexts(self) -> int:
        """Ciphertexts in a block."""
        return self.layers + self.parts - self.columns + bool(self.strips)

    @property
    def valid_in_strips(self) -> int:
        """Number of the ciphertext with the valid mask in every strip, of a packed set."""
        return self.ciphertexts - 1

    def ciphertext_of(self, part: int) -> int:
        """Return the number of the ciphertext that is a part, and no other.

        Raises:
            ValueError: a column of a packed set; it has one of `places`.
        """
        if self.strips and part < self.columns:
            raise ValueError("layout: a column of a packed set is no ciphertext of its own")
        return part - self.columns + self.layers

    @property
    def places(self) -> tuple[tuple[int, int], ...]:
        """Layer and strip of each column of a packed set."""
        return places(self.strips)

    def label_part(self, label: int) -> int:
        """Index of a label's one-hot."""
        return self.columns + label

    @property
    def valid_part(self) -> int:
        """Index of the mask of real rows."""
        return self.columns + self.labels

    def cell_part(self, cell: int, label: int) -> int:
        """Index of a cell x label one-hot."""
        return self.valid_part + 1 + cell * self.labels + label

    def group_parts(self, name: str) -> range:
        """Indices of an attribute's level x label one-hots, level-major.

        Raises:
            ValueError: no such attribute.
        """
        start = self.cell_part(self.cells, 0)
        for other, levels in self.groups:
            stop = start + levels * self.labels
            if other == name:
                return range(start, stop)
            start = stop
        raise ValueError(f"layout: no subgroup attribute named {name!r}")

    def to_json(self) -> str:
        """Return canonical JSON."""
        plain = {key: getattr(self, key) for key in (*_KEYS, *([_STRIPS] if self.strips else []))}
        return json.dumps(plain, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> "Layout":
        """Read JSON strictly.

        Raises:
            ValueError: not JSON, unknown or missing keys, or values out of range.
        """
        if len(text) > MAX_JSON_BYTES:
            raise ValueError(f"layout: at most {MAX_JSON_BYTES} bytes, got {len(text)}")
        try:
            plain: Any = json.loads(text)
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"layout: not JSON text ({type(error).__name__})") from error
        if not isinstance(plain, dict) or sorted({*plain} - {_STRIPS}) != sorted(_KEYS):
            raise ValueError(f"layout: expected the keys {', '.join(_KEYS)}")
        strips = plain.setdefault(_STRIPS, [])
        if not isinstance(strips, list):
            raise ValueError("layout: strips must be a list of numbers of columns")
        groups = plain["groups"]
        if not isinstance(groups, list) or any(
            not isinstance(item, list) or len(item) != 2 for item in groups
        ):
            raise ValueError("layout: groups must be [name, levels] pairs")
        pairs = tuple((name, levels) for name, levels in groups)
        return cls(**{**plain, "groups": pairs, _STRIPS: tuple(strips)})


class ReadParts:
    """Ciphertexts of one sealed set that stay in memory for the next model on it.

    Expanding a seeded ciphertext costs more than using it. Those of the set that was read last are
    kept, up to a number; reading another set forgets them.
    """

    def __init__(self, most: int = MAX_READ_PARTS) -> None:
        self._most = most
        self._digest = b""
        self._parts: dict[tuple[int, int], Any] = {}

    def get(self, digest: bytes, place: tuple[int, int], read: Callable[[], Any]) -> Any:
        """Return the kept ciphertext at (block, part) of a set, which `read` gives.

        Nobody may change it in place; who wants to takes a copy.
        """
        if digest != self._digest:
            self._digest, self._parts = digest, {}
        if place in self._parts:
            return self._parts[place]
        found = read()
        if len(self._parts) < self._most:
            self._parts[place] = found
        return found


class Upload:
    """A sealed set's blocks, checked for shape at once and for residues on use.

    Attributes:
        kept: where read ciphertexts are kept for other runs on the same set, if anywhere.
    """

    kept: ReadParts | None = None

    def __init__(self, layout: Layout, blobs: Sequence[bytes]) -> None:
        """Take one blob per block.

        Raises:
            ValueError: another number of blocks, or a blob of the wrong shape.
        """
        if len(blobs) != layout.n_blocks:
            raise ValueError(f"upload: expected {layout.n_blocks} blocks, got {len(blobs)}")
        lengths = [SEEDED_BYTES] * layout.ciphertexts
        self.layout = layout
        self._parts = [framing.decode(blob, Kind.UPLOAD_BLOCK, lengths) for blob in blobs]
        self._digests = [hashlib.sha256(blob).digest() for blob in blobs]

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 over the blocks' digests."""
        return hashlib.sha256(b"".join(self._digests)).digest()

    def ciphertext(self, block: int, part: int) -> Any:
        """Return one part's ciphertext at all data primes, the caller's own.

        Raises:
            ValueError: a residue is not below its prime, or a column of a packed set.
        """
        found = self.shared(block, part)
        return found if self.kept is None else seal().copied(found)

    def shared(self, block: int, part: int) -> Any:
        """Return the same to read only: it may be kept for others, so nothing changes it in place.

        A copy costs as much as a scalar product.
        """
        return self.stored(block, self.layout.ciphertext_of(part))

    def stored(self, block: int, number: int) -> Any:
        """Return a block's ciphertext by its number, to read only: a layer, or another part."""

        def read() -> Any:
            what = f"upload block {block}, part {number}"
            return seeded_ciphertext(self._parts[block][number], what)

        if self.kept is None:
            return read()
        return self.kept.get(self.digest, (block, number), read)

    def check(self) -> None:
        """Check every residue of every part, without SEAL.

        Raises:
            ValueError: naming the block and part.
        """
        for block, parts in enumerate(self._parts):
            for index, part in enumerate(parts):
                body = part[: SEEDED_BYTES - SEED_BYTES]
                unpack(body, 1, PARAMETERS.data_primes, f"upload block {block}, part {index}")


def seeded_ciphertext(part: memoryview, what: str) -> Any:
    """Return the ciphertext of a key holder's packed encryption (SEEDED_BYTES)."""
    body = part[: SEEDED_BYTES - SEED_BYTES]
    residues = unpack(body, 1, PARAMETERS.data_primes, what)
    return seal().seeded_ciphertext(residues[0], bytes(part[-SEED_BYTES:]))


def seeded_parts(parts: Sequence[memoryview], what: str) -> Iterator[Any]:
    """Yield the ciphertexts of packed encryptions, one at a time."""
    for index, part in enumerate(parts):
        yield seeded_ciphertext(part, f"{what} {index}")


@dataclass(frozen=True, slots=True)
class Shapes:
    """Part lengths of the messages of one scoring run.

    Attributes:
        n_blocks: blocks of the sealed set.
        labels: label classes.
        bins: hidden bins.
        n_cells: cells opened, all tables together.
        checked: whether the key holder's ciphertexts are tested (`checked`): shares then come with
            a per-slot authenticator, and the key holder returns both, encrypted.
        coins: ciphertexts of committed coins; 0 under the geometric law, where the noise is one
            ciphertext of the characters message instead.
    """

    n_blocks: int
    labels: int
    bins: int
    n_cells: int
    checked: bool = True
    coins: int = 0

    @property
    def digit_ciphertexts(self) -> int:
        """Ciphertexts of a block in the digits message: one-hot digits, the flag, the top."""
        return sum(radix - 1 for radix in RADICES[grid(self.bins).bins]) + 2

    @property
    def character_ciphertexts(self) -> int:
        """Ciphertexts of a block in the characters message.

        Characters 1..B-1 of each label (character 0 is the uploaded label), then, in a checked
        run, the share and its authenticator.
        """
        return self.labels * (self.bins - 1) + 2 * self.checked

    @property
    def vectors_per_share(self) -> int:
        """Vectors of a block in the shares message."""
        return 1 + self.checked

    def score(self) -> list[int]:
        """Return the lengths of the score message."""
        return [VECTOR_BYTES] * self.n_blocks

    def shares(self) -> list[int]:
        """Return the lengths of the shares message."""
        return [VECTOR_BYTES] * (self.n_blocks * self.vectors_per_share)

    def digits(self) -> list[int]:
        """Return the lengths of the digits message: noise commitment, blocks, coins."""
        return [COMMITMENT_BYTES, *[SEEDED_BYTES] * (self.first_coin - 1 + self.coins)]

    @property
    def first_coin(self) -> int:
        """Index of the first coin ciphertext in the digits message."""
        return 1 + self.n_blocks * self.digit_ciphertexts

    @property
    def first_character(self) -> int:
        """Index of the first block in the characters message, after the noise if it is there."""
        return 0 if self.coins else 1

    def characters(self) -> list[int]:
        """Return the lengths of the characters message: encrypted noise, if any, then blocks."""
        noise = [FULL_BYTES] * self.first_character
        return [*noise, *[SEEDED_BYTES] * (self.n_blocks * self.character_ciphertexts)]

    def openings(self) -> list[int]:
        """Return the lengths of the openings message."""
        return [OPENING_BYTES] * (self.n_cells + MAC_OPENINGS)

    def replies(self) -> list[int]:
        """Return the length of the replies message."""
        return [REPLY_BYTES * (self.n_cells + MAC_OPENINGS)]
