"""Framing and packing: what is not exactly right is refused before anything else happens."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_eval import framing
from secure_eval.framing import Kind
from secure_eval.packing import pack, packed_size, unpack
from secure_eval.params import PARAMETERS
from secure_eval.prg import Prg, joined

N = PARAMETERS.degree
PRIMES = PARAMETERS.data_primes


@given(st.lists(st.binary(max_size=40), max_size=6), st.sampled_from(list(Kind)))
def test_a_message_comes_back(parts: list[bytes], kind: Kind) -> None:
    message = framing.encode(kind, parts)
    lengths = [len(part) for part in parts]
    assert len(message) == framing.frame_size(lengths)
    assert [bytes(part) for part in framing.decode(message, kind, lengths)] == parts
    assert [bytes(p) for p in framing.decode(message, kind, [None] * len(parts))] == parts


@settings(max_examples=200)
@given(st.data())
def test_any_other_bytes_are_refused(data: st.DataObject) -> None:
    parts = [b"abc", b"", b"defgh"]
    message = framing.encode(Kind.SCORE, parts)
    position = data.draw(st.integers(0, framing.frame_size([0, 0, 0]) - 1))
    value = data.draw(st.integers(0, 255).filter(lambda v: v != message[position]))
    changed = message[:position] + bytes([value]) + message[position + 1 :]
    with pytest.raises(ValueError, match="SCORE"):
        framing.decode(changed, Kind.SCORE, [3, 0, 5])


def test_every_truncation_and_extension_is_refused() -> None:
    message = framing.encode(Kind.DIGITS, [b"abc", b"defgh"])
    for size in range(len(message)):
        with pytest.raises(ValueError, match="DIGITS"):
            framing.decode(message[:size], Kind.DIGITS, [3, 5])
    for extra in (b"\0", b"abc", message):
        with pytest.raises(ValueError, match="DIGITS: expected"):
            framing.decode(message + extra, Kind.DIGITS, [3, 5])


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "at least 6 bytes"),
        (struct.pack("<BBI", 2, 3, 0), "format version 1, got 2"),
        (struct.pack("<BBI", 1, 9, 0), "kind 3, got 9"),
        (struct.pack("<BBI", 1, 3, 2**32 - 1), "expected 1 parts"),
        (struct.pack("<BBII", 1, 3, 1, 2**32 - 1), "part 0 should hold 4 bytes"),
        (struct.pack("<BBII", 1, 3, 1, 4) + b"abc", "expected 14 bytes, got 13"),
    ],
)
def test_errors_say_what_is_wrong(message: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        framing.decode(message, Kind.SCORE, [4])


def test_residues_come_back_and_out_of_range_ones_are_refused() -> None:
    rng = np.random.default_rng(0)
    residues = np.stack([rng.integers(0, q, N) for q in PRIMES]).astype(np.uint64)
    residues[:, 0] = np.array(PRIMES, np.uint64) - np.uint64(1)
    residues[:, -1] = 0
    data = pack(residues)
    assert len(data) == packed_size(1, len(PRIMES))
    assert np.array_equal(unpack(data, 1, PRIMES, "x")[0], residues)
    for row, prime in enumerate(PRIMES):
        for value in (prime, 2**44 - 1):
            bad = residues.copy()
            bad[row, 77] = value
            with pytest.raises(ValueError, match=f"x: a residue is not below its prime {prime}"):
                unpack(pack(bad), 1, PRIMES, "x")


@pytest.mark.parametrize("change", [-11, -1, 1, 11])
def test_packed_sizes_are_exact(change: int) -> None:
    size = packed_size(2, 2)
    with pytest.raises(ValueError, match=f"expected {size} bytes, got {size + change}"):
        unpack(bytes(size + change), 2, PRIMES[:2], "vector")


@given(st.lists(st.binary(max_size=4), max_size=4), st.lists(st.binary(max_size=4), max_size=4))
def test_names_are_joined_injectively(left: list[bytes], right: list[bytes]) -> None:
    assert (joined(*left) == joined(*right)) == (left == right)


def test_streams_depend_on_key_and_name_only() -> None:
    prg = Prg(b"key", "context")
    assert prg.stream(64, "a", 1) == Prg(b"key", "context").stream(64, "a", 1)
    others = [prg.stream(64, "a", 2), prg.stream(64, "a"), prg.child("a", 1).stream(64)]
    others.append(Prg(b"key", "contexT").stream(64, "a", 1))
    assert len({prg.stream(64, "a", 1), *others}) == 5
    assert "key" not in repr(prg)
    values = prg.residues(100_000, "r")
    assert 0 <= values.min() <= values.max() < PARAMETERS.plain_modulus
    # mean of 100,000 uniform values: 6 standard deviations, false alarm 2e-9 (and a fixed key)
    spread = PARAMETERS.plain_modulus / np.sqrt(12 * 100_000)
    assert abs(values.mean() - (PARAMETERS.plain_modulus - 1) / 2) < 6 * spread
    flood = prg.centred(58, 100_000, "f")
    assert -(2**58) <= flood.min() < -(2**57.9) < 2**57.9 < flood.max() < 2**58
