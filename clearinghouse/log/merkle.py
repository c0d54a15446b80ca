"""The Merkle tree of RFC 6962 over stored perfect-subtree nodes, and the verifiers of RFC 9162.

Node (level, i) is the hash over leaves [i * 2**level, (i+1) * 2**level), stored once that range is
full. Appending writes a leaf and the subtrees it completes (two nodes on average, all new: stored
nodes never change), so it can be one step of the transaction that records the event itself.
Roots and proofs of any earlier size read at most about 2 * log2(size) nodes.
"""

import hashlib
from collections.abc import Sequence
from typing import Protocol

from clearinghouse.errors import VerificationError

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()


class NodeReader(Protocol):
    """Where nodes are read; reads may be concurrent."""

    def get(self, level: int, index: int) -> bytes:
        """Return a node that was put."""
        ...

    def size(self) -> int:
        """Return the number of leaves (nodes of level 0)."""
        ...


class NodeStore(NodeReader, Protocol):
    """Where nodes are kept. Appends must come one at a time."""

    def put(self, level: int, index: int, node: bytes) -> None:
        """Store a new node; never called twice for the same place."""
        ...


class MemoryNodes:
    """A node store in memory, for verifiers."""

    def __init__(self) -> None:
        self._levels: list[list[bytes]] = [[]]

    def get(self, level: int, index: int) -> bytes:
        """Return a node that was put."""
        return self._levels[level][index]

    def put(self, level: int, index: int, node: bytes) -> None:
        """Store the next node of a level."""
        if level == len(self._levels):
            self._levels.append([])
        if index != len(self._levels[level]):
            raise ValueError(f"node {index} of level {level} is not the next one")
        self._levels[level].append(node)

    def size(self) -> int:
        """Return the number of leaves."""
        return len(self._levels[0])


def leaf_hash(entry: bytes) -> bytes:
    """Return SHA-256(0x00 || entry)."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return SHA-256(0x01 || left || right); the prefix keeps nodes from posing as leaves."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def append(nodes: NodeStore, entry: bytes) -> int:
    """Add an entry and return its index."""
    index = nodes.size()
    level, position, node = 0, index, leaf_hash(entry)
    nodes.put(0, position, node)
    while position & 1:  # this node is a right child: its parent's range is now full
        node = node_hash(nodes.get(level, position - 1), node)
        level, position = level + 1, position >> 1
        nodes.put(level, position, node)
    return index


def root(nodes: NodeReader, size: int | None = None) -> bytes:
    """Return the root over the first `size` entries (all of them if None).

    Raises:
        ValueError: The log is shorter than `size`.
    """
    size = nodes.size() if size is None else size
    _check_range(0, size, nodes.size() + 1)
    return _range_hash(nodes, 0, size) if size else EMPTY_ROOT


def inclusion_proof(nodes: NodeReader, index: int, size: int) -> list[bytes]:
    """Return the audit path of entry `index` in the tree of `size` (RFC 6962 section 2.1.1).

    Raises:
        ValueError: Not 0 <= index < size <= log size.
    """
    _check_range(0, size, nodes.size() + 1)
    _check_range(0, index, size)
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _left_width(end - start)
        if index < middle:
            path.append(_range_hash(nodes, middle, end))
            end = middle
        else:
            path.append(_range_hash(nodes, start, middle))
            start = middle
    return path[::-1]


def consistency_proof(nodes: NodeReader, old_size: int, new_size: int) -> list[bytes]:
    """Return the proof that the tree of `old_size` is a prefix (RFC 6962 section 2.1.2).

    Raises:
        ValueError: Not 0 < old_size <= new_size <= log size.
    """
    _check_range(1, old_size, new_size + 1)
    _check_range(1, new_size, nodes.size() + 1)
    proof: list[bytes] = []
    start, end, whole = 0, new_size, True
    while old_size != end:
        middle = start + _left_width(end - start)
        if old_size <= middle:
            proof.append(_range_hash(nodes, middle, end))
            end = middle
        else:
            proof.append(_range_hash(nodes, start, middle))
            start, whole = middle, False
    if not whole:  # the verifier knows the old root itself, so it is left out when it is a node
        proof.append(_range_hash(nodes, start, end))
    return proof[::-1]


def verify_inclusion(
    leaf: bytes, index: int, size: int, path: Sequence[bytes], tree_root: bytes
) -> None:
    """Check that `leaf` is the hash of entry `index` in the tree (RFC 9162 section 2.1.3.2).

    Raises:
        VerificationError: It is not, or the arguments are no proof at all.
    """
    _check_hashes([leaf, tree_root, *path])
    if not 0 <= index < size:
        raise VerificationError(f"entry {index} cannot be in a tree of {size}")
    position, last, found = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            raise VerificationError("the inclusion path is too long")
        if position & 1 or position == last:
            found = node_hash(sibling, found)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        position, last = position >> 1, last >> 1
    if last:
        raise VerificationError("the inclusion path is too short")
    if found != tree_root:
        raise VerificationError("the inclusion path does not lead to the root")


def verify_consistency(
    old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that the new tree only appended to the old one (RFC 9162 section 2.1.4.2).

    Size 0 is refused: every tree extends the empty one, so its "proof" would say nothing.

    Raises:
        VerificationError: It did more than append, or the arguments are no proof at all.
    """
    _check_hashes([old_root, new_root, *proof])
    if not 0 < old_size <= new_size:
        raise VerificationError(f"a tree of {new_size} cannot extend one of {old_size}")
    if old_size == new_size:
        if proof or old_root != new_root:
            raise VerificationError("two trees of one size must have one root and no proof")
        return
    path = list(proof)
    if old_size & (old_size - 1) == 0:  # the old tree is itself a node of the new one
        path.insert(0, old_root)
    if not path:
        raise VerificationError("the consistency proof is empty")
    position, last = old_size - 1, new_size - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    old_found = new_found = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise VerificationError("the consistency proof is too long")
        if position & 1 or position == last:
            old_found = node_hash(sibling, old_found)
            new_found = node_hash(sibling, new_found)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            new_found = node_hash(new_found, sibling)
        position, last = position >> 1, last >> 1
    if last:
        raise VerificationError("the consistency proof is too short")
    if old_found != old_root:
        raise VerificationError("the consistency proof does not lead to the old root")
    if new_found != new_root:
        raise VerificationError("the consistency proof does not lead to the new root")


def _left_width(width: int) -> int:
    """Leaves in the left subtree: the largest power of two below `width`."""
    return 1 << ((width - 1).bit_length() - 1)


def _range_hash(nodes: NodeReader, start: int, end: int) -> bytes:
    """Hash over leaves [start, end), a range that RFC 6962 splits off; depth at most log2(size)."""
    width = end - start
    if width & (width - 1) == 0:  # such ranges start at a multiple of their width
        return nodes.get(width.bit_length() - 1, start // width)
    middle = start + _left_width(width)
    return node_hash(_range_hash(nodes, start, middle), _range_hash(nodes, middle, end))


def _check_range(low: int, value: int, end: int) -> None:
    if not low <= value < end:
        raise ValueError(f"expected a number from {low} up to {end - 1}, not {value}")


def _check_hashes(hashes: Sequence[bytes]) -> None:
    for item in hashes:
        if len(item) != HASH_BYTES:
            raise VerificationError(f"a hash has {HASH_BYTES} bytes, not {len(item)}")
