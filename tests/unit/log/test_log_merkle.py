"""The tree against the Certificate Transparency reference roots, the definition, and attackers."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearinghouse.errors import VerificationError
from clearinghouse.log.merkle import (
    EMPTY_ROOT,
    MemoryNodes,
    append,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root,
    verify_consistency,
    verify_inclusion,
)

REFERENCE_ENTRIES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
REFERENCE_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
LIMIT = 64


def tree_of(entries: list[bytes]) -> MemoryNodes:
    nodes = MemoryNodes()
    for entry in entries:
        append(nodes, entry)
    return nodes


def split_at(n: int) -> int:
    k = 1
    while 2 * k < n:
        k *= 2
    return k


def defined_root(entries: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, word for word."""
    if not entries:
        return hashlib.sha256(b"").digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    k = split_at(len(entries))
    left, right = defined_root(entries[:k]), defined_root(entries[k:])
    return hashlib.sha256(b"\x01" + left + right).digest()


def defined_path(index: int, entries: list[bytes]) -> list[bytes]:
    """RFC 6962 section 2.1.1, word for word."""
    if len(entries) == 1:
        return []
    k = split_at(len(entries))
    if index < k:
        return [*defined_path(index, entries[:k]), defined_root(entries[k:])]
    return [*defined_path(index - k, entries[k:]), defined_root(entries[:k])]


def defined_consistency(old: int, entries: list[bytes], whole: bool = True) -> list[bytes]:
    """RFC 6962 section 2.1.2 (SUBPROOF), word for word."""
    if old == len(entries):
        return [] if whole else [defined_root(entries)]
    k = split_at(len(entries))
    if old <= k:
        return [*defined_consistency(old, entries[:k], whole), defined_root(entries[k:])]
    return [*defined_consistency(old - k, entries[k:], False), defined_root(entries[:k])]


ENTRIES = [b"entry %d" % index for index in range(LIMIT)]
NODES = tree_of(ENTRIES)


@pytest.mark.parametrize("size", range(1, 9))
def test_log_merkle_reference_roots_of_certificate_transparency(size: int) -> None:
    assert root(tree_of(REFERENCE_ENTRIES[:size])).hex() == REFERENCE_ROOTS[size - 1]
    assert root(tree_of(REFERENCE_ENTRIES), size).hex() == REFERENCE_ROOTS[size - 1]


def test_log_merkle_empty_root_is_the_hash_of_nothing() -> None:
    assert root(MemoryNodes()) == EMPTY_ROOT == hashlib.sha256(b"").digest()
    assert root(NODES, 0) == EMPTY_ROOT


def test_log_merkle_proofs_are_those_of_the_definition_for_all_sizes() -> None:
    for size in range(1, LIMIT + 1):
        entries = ENTRIES[:size]
        head = root(NODES, size)
        assert head == defined_root(entries)
        for index in range(size):
            path = inclusion_proof(NODES, index, size)
            assert path == defined_path(index, entries)
            verify_inclusion(leaf_hash(ENTRIES[index]), index, size, path, head)


def test_log_merkle_consistency_is_that_of_the_definition_for_all_pairs() -> None:
    for new in range(1, LIMIT + 1):
        for old in range(1, new + 1):
            proof = consistency_proof(NODES, old, new)
            assert proof == defined_consistency(old, ENTRIES[:new])
            verify_consistency(old, new, root(NODES, old), root(NODES, new), proof)


def test_log_merkle_inclusion_holds_for_one_index_and_size_only() -> None:
    size = 13
    head = root(NODES, size)
    for index in range(size):
        leaf, path = leaf_hash(ENTRIES[index]), inclusion_proof(NODES, index, size)
        for other in range(size + 4):
            if other != index:
                with pytest.raises(VerificationError):
                    verify_inclusion(leaf, other, size, path, head)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_log_merkle_changed_inclusion_proofs_are_refused(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, LIMIT))
    index = data.draw(st.integers(0, size - 1))
    path, head = inclusion_proof(NODES, index, size), root(NODES, size)
    leaf = leaf_hash(ENTRIES[index])
    changed = [bytes([node[0] ^ 1]) + node[1:] for node in path]
    for place in range(len(path)):
        broken = [*path[:place], changed[place], *path[place + 1 :]]
        with pytest.raises(VerificationError):
            verify_inclusion(leaf, index, size, broken, head)
        with pytest.raises(VerificationError):
            verify_inclusion(leaf, index, size, path[:place] + path[place + 1 :], head)
    for broken in ([*path, head], [head, *path]):
        with pytest.raises(VerificationError):
            verify_inclusion(leaf, index, size, broken, head)
    with pytest.raises(VerificationError):
        verify_inclusion(leaf_hash(b"another"), index, size, path, head)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_log_merkle_changed_consistency_proofs_are_refused(data: st.DataObject) -> None:
    new = data.draw(st.integers(1, LIMIT))
    old = data.draw(st.integers(1, new))
    proof = consistency_proof(NODES, old, new)
    old_root, new_root = root(NODES, old), root(NODES, new)
    flipped = bytes([new_root[0] ^ 1]) + new_root[1:]
    with pytest.raises(VerificationError):
        verify_consistency(old, new, old_root, flipped, proof)
    with pytest.raises(VerificationError):
        verify_consistency(old, new, flipped, new_root, proof)
    with pytest.raises(VerificationError):
        verify_consistency(old, new, old_root, new_root, [*proof, new_root])
    for place in range(len(proof)):
        with pytest.raises(VerificationError):
            verify_consistency(old, new, old_root, new_root, proof[:place] + proof[place + 1 :])
        broken = [*proof[:place], flipped, *proof[place + 1 :]]
        with pytest.raises(VerificationError):
            verify_consistency(old, new, old_root, new_root, broken)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, LIMIT), st.data())
def test_log_merkle_a_rewritten_past_has_no_consistency_proof(
    new: int, data: st.DataObject
) -> None:
    changed = data.draw(st.integers(0, new - 1))
    old = data.draw(st.integers(changed + 1, new))
    entries = [*ENTRIES[:changed], b"rewritten", *ENTRIES[changed + 1 : new]]
    forged = tree_of(entries)
    with pytest.raises(VerificationError):
        verify_consistency(
            old, new, root(NODES, old), root(forged), consistency_proof(forged, old, new)
        )


def test_log_merkle_size_zero_and_short_hashes_prove_nothing() -> None:
    head, leaf = root(NODES, 1), leaf_hash(ENTRIES[0])
    bad_inclusions = [
        (leaf, 0, 0, [], head),
        (leaf, 1, 1, [], head),
        (leaf, -1, 1, [], head),
        (leaf[:31], 0, 1, [], leaf[:31]),
        (b"", 0, 1, [], b""),
        (leaf, 0, 2, [b""], head),
    ]
    for arguments in bad_inclusions:
        with pytest.raises(VerificationError):
            verify_inclusion(*arguments)
    two = root(NODES, 2)
    bad_consistencies = [
        (0, 1, EMPTY_ROOT, head, []),
        (0, 0, EMPTY_ROOT, EMPTY_ROOT, []),
        (2, 1, two, head, []),
        (1, 1, head, two, []),
        (1, 2, head, two, []),
        (1, 2, b"", two, [leaf_hash(ENTRIES[1])]),
        (3, 5, root(NODES, 3), root(NODES, 5), []),
    ]
    for arguments in bad_consistencies:
        with pytest.raises(VerificationError):
            verify_consistency(*arguments)


def test_log_merkle_bytes_cannot_move_between_two_hashes() -> None:
    """A node hashes its children side by side: 31 and 33 bytes would hash like 32 and 32."""
    left, right, head = leaf_hash(ENTRIES[0]), leaf_hash(ENTRIES[1]), root(NODES, 2)
    with pytest.raises(VerificationError, match="32 bytes"):
        verify_inclusion(left[:31], 0, 2, [left[31:] + right], head)
    with pytest.raises(VerificationError, match="32 bytes"):
        verify_consistency(1, 2, left[:31], head, [left[31:] + right])


def test_log_merkle_proofs_of_one_size_do_not_pass_for_another() -> None:
    """True proofs and roots under a smaller or larger claimed size: too long, or too short."""
    leaves = [leaf_hash(entry) for entry in ENTRIES]
    with pytest.raises(VerificationError, match="too long"):
        verify_inclusion(leaves[1], 0, 1, [leaves[0]], root(NODES, 2))
    with pytest.raises(VerificationError, match="too short"):
        verify_inclusion(leaves[0], 0, 4, [leaves[1]], root(NODES, 2))
    for (old, new), (claimed_old, claimed_new), message in (
        ((7, 8), (3, 4), "too long"),
        ((3, 4), (7, 8), "too short"),
    ):
        proof = consistency_proof(NODES, old, new)
        roots = root(NODES, old), root(NODES, new)
        verify_consistency(old, new, *roots, proof)
        with pytest.raises(VerificationError, match=message):
            verify_consistency(claimed_old, claimed_new, *roots, proof)


def test_log_merkle_builders_refuse_what_the_log_does_not_hold() -> None:
    with pytest.raises(ValueError, match="expected a number"):
        root(NODES, LIMIT + 1)
    for index, size in ((0, 0), (5, 5), (-1, 3), (0, LIMIT + 1)):
        with pytest.raises(ValueError, match="expected a number"):
            inclusion_proof(NODES, index, size)
    for old, new in ((0, 5), (6, 5), (1, LIMIT + 1)):
        with pytest.raises(ValueError, match="expected a number"):
            consistency_proof(NODES, old, new)


def test_log_merkle_appending_writes_each_node_once_and_two_per_entry_on_average() -> None:
    class Counting(MemoryNodes):
        places: list[tuple[int, int]]

        def put(self, level: int, index: int, node: bytes) -> None:
            self.places.append((level, index))
            super().put(level, index, node)

    nodes = Counting()
    nodes.places = []
    for entry in ENTRIES:
        append(nodes, entry)
    assert len(nodes.places) == len(set(nodes.places)) == 2 * LIMIT - 1
    with pytest.raises(ValueError, match="not the next one"):
        nodes.put(0, 3, b"\x00" * 32)
