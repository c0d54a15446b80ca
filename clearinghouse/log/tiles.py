"""Tiles of the log: paths and bundles in the form of c2sp.org/tlog-tiles."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from clearinghouse.errors import InputError

TILE = 256
_PATH = re.compile(r"((?:x[0-9]{3}/){0,4}[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")
_MOST_BYTES = 2**16 - 1


@dataclass(frozen=True, slots=True)
class TilePath:
    """Which tile of a level, and how many of its 256 places are wanted."""

    index: int
    width: int


def parse_tile_path(path: str) -> TilePath:
    """Read `<N>[.p/<W>]`: N in groups of three digits, all but the last with an x before them.

    Raises:
        InputError: It is not in that one form.
    """
    found = _PATH.fullmatch(path)
    if found is None:
        raise InputError("a tile has a path such as 000, x001/234 or 000.p/17")
    index = int(found[1].replace("x", "").replace("/", ""))
    width = TILE if found[2] is None else int(found[2])
    if tile_path(index) != found[1] or width > TILE or (found[2] is not None and width == TILE):
        raise InputError("a tile has a path such as 000, x001/234 or 000.p/17")
    return TilePath(index, width)


def tile_path(index: int, width: int = TILE) -> str:
    """The one path of a tile."""
    digits = f"{index:03d}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[i : i + 3] for i in range(0, len(digits), 3)]
    path = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
    return path if width == TILE else f"{path}.p/{width}"


def bundle(entries: Sequence[bytes]) -> bytes:
    """Entries, each behind its length in two bytes.

    Raises:
        InputError: One is longer than that form allows.
    """
    if any(len(entry) > _MOST_BYTES for entry in entries):
        raise InputError("an entry here is longer than that form allows; read /v1/log/entries")
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)
