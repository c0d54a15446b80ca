"""The must-hold of large uploads: little memory, and five cuts cost five pieces at most."""

import secrets

import pytest
from upload_cuts import KINDS, upload_with_cuts

from clearinghouse.rounds.uploads import PIECE_BYTES

MOST_GROWTH = 64 * 10**6
OVERHEAD = 2 * 2**20
"""Heads of calls, and announcements that are repeated."""


@pytest.mark.parametrize(
    "size", [24_000_000, pytest.param(500_000_000, marks=pytest.mark.long)], ids=["24MB", "500MB"]
)
def test_an_upload_survives_five_cuts_in_little_memory(tmp_path, size):
    """Network, server and client are cut in turn at random points; the bytes arrive all the same.

    Had any cut lost more than the piece at hand, more bytes would have been sent.
    """
    seed = secrets.randbelow(2**31)
    found = upload_with_cuts(tmp_path, size, seed)
    assert [kind for kind, _ in found.cuts] == list(KINDS), f"seed {seed}"
    assert found.is_whole, f"seed {seed}"
    assert found.sent <= size + len(KINDS) * PIECE_BYTES + OVERHEAD, f"seed {seed}"
    assert found.growth < MOST_GROWTH, f"seed {seed}"
