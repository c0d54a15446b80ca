"""Hostile counts, lengths and numbers: refused before anything is allocated or wraps."""

import json
import struct

import numpy as np
import pytest
from peak_memory import MEMORY, peak, reset_peak

from secure_eval import framing
from secure_eval.framing import Kind
from secure_eval.integer_model import Column, IntegerModel
from secure_eval.layout import Layout
from secure_eval.packing import SEEDED_BYTES, pack, unpack
from secure_eval.params import PARAMETERS


def test_the_peak_is_measured() -> None:
    start = reset_peak()
    block = np.ones(16 << 20)
    assert peak() - start > MEMORY
    del block


def giant_heads(kind: Kind) -> dict[str, bytes]:
    """Heads that promise more than there is."""
    words = (0, 1, 2**16, 2**16 + 1, 2**31 - 1, 2**31, 2**32 - 1)
    heads = {f"{count} parts": struct.pack("<BBI", 1, kind, count) for count in words}
    for count in (1, 2, 53):
        for length in words:
            body = struct.pack(f"<BBI{count}I", 1, kind, count, *[length] * count)
            heads[f"{count} parts of {length}"] = body
            heads[f"{count} parts of {length} and some"] = body + bytes(64)
    heads["another version"] = struct.pack("<BBI", 2, kind, 1)
    heads["version 0"] = struct.pack("<BBI", 0, kind, 1)
    return heads


@pytest.mark.parametrize("kind", list(Kind))
def test_giant_counts_and_lengths_allocate_nothing(kind: Kind) -> None:
    start = reset_peak()
    for head in giant_heads(kind).values():
        for lengths in ([4], [8, None], [SEEDED_BYTES] * 53, [2**40]):
            with pytest.raises(ValueError, match=kind.name):
                framing.decode(head, kind, lengths)
    assert peak() - start < MEMORY


@pytest.mark.parametrize("polynomials", [1, 2])
def test_residues_at_and_above_the_prime_are_refused_in_every_place(polynomials: int) -> None:
    primes = PARAMETERS.data_primes
    good = np.zeros((polynomials, len(primes), PARAMETERS.degree), np.uint64)
    for polynomial in range(polynomials):
        for row, prime in enumerate(primes):
            for slot in (0, 1, PARAMETERS.degree - 1):
                for value in (prime, prime + 1, 2**44 - 1):
                    bad = good.copy()
                    bad[polynomial, row, slot] = value
                    with pytest.raises(ValueError, match=f"not below its prime {prime}"):
                        unpack(pack(bad), polynomials, primes, "part")


def test_layouts_do_not_allocate_for_their_numbers() -> None:
    base = json.loads(Layout(PARAMETERS.version, 1, 1, 2, 0, ()).to_json())
    start = reset_peak()
    for change in (
        {"columns": 2**62},
        {"cells": 10**30},
        {"n_blocks": -(2**63)},
        {"groups": [["a", 2**60]]},
        {"groups": [[f"g{i}", 20_000] for i in range(2000)]},
        {"groups": [["a" * 10_000, 1]] * 3},
        {"groups": {"a": 1}},
        {"groups": [[["a"], 1]]},
        {"groups": [["a", "1"]]},
        {"version": ["bfv"]},
        {"labels": None},
    ):
        with pytest.raises(ValueError, match=r"layout: "):
            Layout.from_json(json.dumps({**base, **change}))
    assert peak() - start < MEMORY


def test_weights_that_wrap_do_not_pass_as_a_small_range() -> None:
    """-2^63 is its own absolute value, and twice it is 0 mod 2^64."""
    columns = (Column.value_of(0, 0.0, 1.0, 3),)
    for weight in (-(2**63), 2**63 - 1, -(2**62), 2**62):
        with pytest.raises(ValueError, match="weights, bias: at most"):
            IntegerModel(
                kind="linear", columns=columns, weights=np.array([weight]), bias=0, n_features=1
            )
