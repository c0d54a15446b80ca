import hashlib
import json
import secrets

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearinghouse.errors import InputError, VerificationError
from clearinghouse.rows import (
    RowProof,
    commit_rows,
    draw_key,
    read_proofs,
    row_leaf,
    tree_size,
    verify_proofs,
    write_proofs,
)

SEED = bytes(range(32))


def rows(n: int) -> list[dict[str, str | None]]:
    return [{"age": str(20 + i % 50), "sex": None if i % 7 == 0 else "F"} for i in range(n)]


def brute_root(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1 written from its text, for a power of two of leaves."""
    level = [hashlib.sha256(b"\0" + leaf).digest() for leaf in leaves]
    while len(level) > 1:
        level = [
            hashlib.sha256(b"\1" + left + right).digest()
            for left, right in zip(level[::2], level[1::2], strict=True)
        ]
    return level[0]


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(0, 5))
def test_every_row_is_proven_and_the_root_is_rfc_6962(n, extra):
    size = 1 << ((n - 1).bit_length() + extra % 3)
    made = commit_rows(rows(n), SEED, size)
    assert sorted(set(made.positions)) == sorted(made.positions)
    leaves: list[bytes | None] = [None] * size
    for row, record in enumerate(rows(n)):
        body = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
        assert made.leaves[row] == hashlib.sha256(made.salts[row] + body).digest()
        proof = made.proof(row)
        proof.verify(made.root, size)
        leaves[proof.index] = proof.leaf
    assert sum(leaf is not None for leaf in leaves) == n
    if n == size:
        assert brute_root([leaf for leaf in leaves if leaf is not None]) == made.root


def test_the_same_seed_gives_the_same_tree_and_another_seed_nothing_in_common():
    first, again = commit_rows(rows(20), SEED, 64), commit_rows(rows(20), SEED, 64)
    assert (first.root, first.leaves, first.positions) == (
        again.root,
        again.leaves,
        again.positions,
    )
    other = commit_rows(rows(20), bytes(32), 64)
    assert not set(first.leaves) & set(other.leaves)
    assert not set(first.salts) & set(other.salts)
    assert first.root != other.root


def test_rows_lie_anywhere_in_the_tree():
    # 64 rows in 512 places: the chance that a uniform order puts them all in the first half
    # is below 2**-64 for each of 2 seeds, and that they come in table order is 1/64!.
    for seed in (SEED, bytes(32)):
        positions = commit_rows(rows(64), seed, 512).positions
        assert max(positions) >= 256
        assert list(positions) != sorted(positions)


def test_equal_records_have_different_leaves():
    made = commit_rows([{"a": "1"}] * 30, SEED, 32)
    assert len(set(made.leaves)) == 30


@pytest.mark.parametrize(
    ("size_class", "n", "expected"),
    [(1, 1, 2), (256, 303, 512), (256, 256, 512), (64, 500, 512), (64, 513, 1024), (1, 2, 2)],
)
def test_the_tree_depends_on_the_size_class_while_rows_fit(size_class, n, expected):
    assert tree_size(size_class, n) == expected


def test_bad_seeds_and_sizes_are_refused():
    for seed, size in ((b"short", 8), (SEED, 6), (SEED, 0), (SEED, 4)):
        with pytest.raises(ValueError):
            commit_rows(rows(5), seed, size)
    with pytest.raises(ValueError):
        row_leaf(b"x" * 31, {"a": "1"})


def test_proofs_travel_sorted_and_count_distinct_rows():
    made = commit_rows(rows(30), SEED, 64)
    blob = write_proofs([made.proof(row) for row in (7, 3, 19, 0)])
    indices = [proof.index for proof in read_proofs(blob, most=4)]
    assert indices == sorted(indices)
    assert verify_proofs(blob, root=made.root, size=64, most=4) == 4
    assert verify_proofs(write_proofs([]), root=made.root, size=64, most=0) == 0


def test_every_kind_of_false_proof_is_refused():
    made, other = commit_rows(rows(30), SEED, 64), commit_rows(rows(30), bytes(32), 64)
    good = made.proof(5)
    stranger = RowProof(good.index, secrets.token_bytes(32), good.path)
    elsewhere = RowProof((good.index + 1) % 64, good.leaf, good.path)
    short = RowProof(good.index, good.leaf, good.path[:-1])
    long = RowProof(good.index, good.leaf, (*good.path, good.path[0]))
    outside = RowProof(64 + good.index, good.leaf, good.path)
    for false in (stranger, elsewhere, short, long, outside, other.proof(5)):
        with pytest.raises(VerificationError):
            verify_proofs(write_proofs([false]), root=made.root, size=64, most=1)
    with pytest.raises(VerificationError):
        verify_proofs(write_proofs([good, good]), root=made.root, size=64, most=2)
    with pytest.raises(InputError):
        verify_proofs(write_proofs([good, made.proof(6)]), root=made.root, size=64, most=1)


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b'{"leaves":{}}',
        b'{"leaves":[{}]}',
        b'{"leaves":[{"index":0,"hash":"00","proof":[]}]}',
        b'{"leaves":[{"index":true,"hash":"' + b"0" * 64 + b'","proof":[]}]}',
        b'{"leaves":[{"index":0,"hash":"' + b"G" * 64 + b'","proof":[]}]}',
        b'{"leaves":[],"more":1}',
        b'{"leaves":[],"leaves":[]}',
        b"\xff",
    ],
)
def test_malformed_proofs_are_refused(text):
    with pytest.raises(InputError):
        read_proofs(text, most=10)


def test_draw_keys_order_by_seed_and_row():
    assert draw_key(b"a", b"b" * 32) == hashlib.sha256(b"a" + b"b" * 32).digest()
    leaves = [bytes([i]) * 32 for i in range(20)]
    first = sorted(leaves, key=lambda leaf: draw_key(b"s", leaf))
    second = sorted(leaves, key=lambda leaf: draw_key(b"t", leaf))
    assert first != second
