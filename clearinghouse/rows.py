"""Commitments to a source's rows: made before anything is matched or priced, opened row by row.

A row's commitment is SHA-256(salt || record) with a 32-byte salt, a leaf of an RFC 6962 tree. The
tree is filled with random leaves to a size that depends on the size class, in a secret order, so
root, size and positions tell nothing about the rows or their number.

Provider, recipient and server share this module; only the provider can make a commitment.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from clearinghouse.canonical import canonical_bytes, parse_strict
from clearinghouse.errors import InputError, VerificationError
from clearinghouse.log import merkle

SALT_BYTES = 32
MAX_PROOFS_BYTES = 2**30
SPOT_ROWS = 5
"""Rows that a source which sold nothing opens for a share of the pot."""
_HEX = frozenset("0123456789abcdef")


def record_bytes(record: Mapping[str, str | None]) -> bytes:
    """The bytes of a record that are committed to: its canonical JSON."""
    return canonical_bytes(dict(record))


def row_leaf(salt: bytes, record: Mapping[str, str | None]) -> bytes:
    """The commitment SHA-256(salt || record bytes) of one row, 32 bytes.

    Raises:
        ValueError: The salt is not 32 bytes (bytes could move between salt and record).
    """
    if len(salt) != SALT_BYTES:
        raise ValueError(f"a row's salt has {SALT_BYTES} bytes, not {len(salt)}")
    return hashlib.sha256(salt + record_bytes(record)).digest()


def tree_size(size_class: int, n_rows: int) -> int:
    """Leaves of a source's tree: twice its size class, doubled only while the rows do not fit."""
    size = 2 * size_class
    while size < n_rows:
        size *= 2
    return size


def row_hash(record: Mapping[str, str | None]) -> bytes:
    """SHA-256 of a record's canonical bytes: equal for equal rows, whoever holds them."""
    return hashlib.sha256(record_bytes(record)).digest()


def draw_key(draw_seed: bytes, row: bytes) -> bytes:
    """By what the rows of a cell are sorted before the first ones are delivered.

    Args:
        draw_seed: Public, fixed by the clearing.
        row: `row_hash` of the row, not its salted commitment: so copies of one table deliver the
            same rows, and are found.

    Neither side can aim it: rows are committed before the seed exists, and the seed hangs on every
    ask commitment.
    """
    return hashlib.sha256(draw_seed + row).digest()


@dataclass(frozen=True, slots=True)
class RowProof:
    """One row commitment with its place in the tree.

    Attributes:
        index: Position, 0 to size - 1.
        leaf: The salted commitment, 32 bytes.
        path: RFC 6962 audit path from the leaf's hash to the root.
    """

    index: int
    leaf: bytes
    path: tuple[bytes, ...]

    def verify(self, root: bytes, size: int) -> None:
        """Return if the commitment is in the tree.

        Raises:
            VerificationError: It is not.
        """
        merkle.verify_inclusion(merkle.leaf_hash(self.leaf), self.index, size, self.path, root)

    def to_dict(self) -> dict[str, object]:
        """JSON values: index, hash and proof."""
        return {
            "index": self.index,
            "hash": self.leaf.hex(),
            "proof": [item.hex() for item in self.path],
        }

    @classmethod
    def from_dict(cls, value: object) -> "RowProof":
        """Read what `to_dict` wrote.

        Raises:
            InputError: It has another form.
        """
        if not isinstance(value, dict) or set(value) != {"index", "hash", "proof"}:
            raise InputError("a row proof must hold index, hash and proof, nothing else")
        index, path = value["index"], value["proof"]
        if type(index) is not int or not isinstance(path, list) or len(path) > 64:
            raise InputError("a row proof needs an integer index and at most 64 proof hashes")
        return cls(index, _hash(value["hash"]), tuple(_hash(item) for item in path))


def _hash(text: object) -> bytes:
    if not isinstance(text, str) or len(text) != 64 or not set(text) <= _HEX:
        raise InputError("a hash must be 64 lower-case hexadecimal digits")
    return bytes.fromhex(text)


@dataclass(frozen=True, slots=True)
class RowCommitments:
    """All commitments of a table, with what opens them; the provider's secret.

    Attributes:
        salts: Salt of each row.
        leaves: Commitment of each row.
        positions: Place of each row in the tree.
        size: Leaves of the tree, padding included.
        root: RFC 6962 root, 32 bytes.
    """

    salts: tuple[bytes, ...] = field(repr=False)
    leaves: tuple[bytes, ...] = field(repr=False)
    positions: tuple[int, ...] = field(repr=False)
    size: int
    root: bytes
    _nodes: merkle.MemoryNodes = field(repr=False)

    def proof(self, row: int) -> RowProof:
        """The proof that a row's commitment is in the tree."""
        index = self.positions[row]
        path = merkle.inclusion_proof(self._nodes, index, self.size)
        return RowProof(index, self.leaves[row], tuple(path))


def commit_rows(
    records: Sequence[Mapping[str, str | None]], seed: bytes, size: int
) -> RowCommitments:
    """Commit to every record.

    Guarantee: root, size, and any opened rows tell nothing about the other rows, nor how many
    leaves are rows.
    Assumes: the seed is 32 secret random bytes; HMAC-SHA-256 is a pseudorandom function and
    SHA-256 hides a message behind a 32-byte random salt.
    Proof: salts, padding and order are outputs of the function at distinct points, so they may be
    replaced by fresh random bytes; a salted leaf is then distributed like padding.

    Args:
        records: Rows in the table's order.
        seed: The source's secret; the same seed and rows give the same tree again, and
            destroying it makes every unopened commitment meaningless.
        size: Leaves of the tree, a power of two (`tree_size`).

    Raises:
        ValueError: The seed is not 32 bytes, the size no power of two, or there are more records.
    """
    if len(seed) != SALT_BYTES:
        raise ValueError(f"the seed of row commitments has {SALT_BYTES} bytes, not {len(seed)}")
    if size < 1 or size & (size - 1) or len(records) > size:
        raise ValueError(f"{len(records)} rows need a tree of a power of two, got {size} leaves")
    salts = tuple(_derive(seed, b"salt", row) for row in range(len(records)))
    rows = [row_leaf(salt, record) for salt, record in zip(salts, records, strict=True)]
    fill = [_derive(seed, b"fill", row) for row in range(len(records), size)]
    everything = rows + fill
    order = sorted(range(size), key=lambda item: _derive(seed, b"order", item))
    positions = [0] * size
    nodes = merkle.MemoryNodes()
    for place, item in enumerate(order):
        positions[item] = place
        merkle.append(nodes, everything[item])
    return RowCommitments(
        salts, tuple(rows), tuple(positions[: len(rows)]), size, merkle.root(nodes), nodes
    )


def _derive(seed: bytes, purpose: bytes, index: int) -> bytes:
    message = b"clearinghouse rows v1|" + purpose + b"|" + str(index).encode()
    return hmac.digest(seed, message, "sha256")


def write_proofs(proofs: Sequence[RowProof]) -> bytes:
    """The proofs of one delivery as canonical JSON, in tree order (which hides their cells)."""
    ordered = sorted(proofs, key=lambda proof: proof.index)
    return canonical_bytes({"leaves": [proof.to_dict() for proof in ordered]})


def read_proofs(data: bytes, *, most: int) -> tuple[RowProof, ...]:
    """Read what `write_proofs` wrote, without checking any proof.

    Args:
        data: The blob.
        most: Largest number of proofs expected; more is an error.

    Raises:
        InputError: It is no such document.
    """
    document = parse_strict(data, max_bytes=MAX_PROOFS_BYTES, max_depth=8)
    if not isinstance(document, dict) or set(document) != {"leaves"}:
        raise InputError("a proofs document must hold leaves and nothing else")
    found = document["leaves"]
    if not isinstance(found, list) or len(found) > most:
        raise InputError(f"a proofs document must list at most {most} leaves")
    return tuple(RowProof.from_dict(item) for item in found)


def verify_proofs(data: bytes, *, root: bytes, size: int, most: int) -> int:
    """Check a proofs blob and return how many distinct rows it proves.

    Args:
        data: The blob.
        root: The source's logged root, 32 bytes.
        size: The source's logged number of leaves.
        most: The units ordered.

    Raises:
        InputError: The blob is malformed or lists more than `most` leaves.
        VerificationError: A leaf is not in the tree or comes twice.
    """
    proofs = read_proofs(data, most=most)
    if len({proof.index for proof in proofs}) < len(proofs):
        raise VerificationError("a row is proven twice; each delivered row counts once")
    for proof in proofs:
        proof.verify(root, size)
    return len(proofs)
