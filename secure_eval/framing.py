"""Messages as bytes: version, kind, count, lengths, parts. Nothing else is ever parsed.

Layout: one byte version, one byte kind, the number of parts and then each part's length as
little-endian 32-bit integers, then the parts. The receiver always knows the count and every length
beforehand (they follow from public shapes), so decoding is one comparison and cannot be led astray.
"""

import struct
from collections.abc import Sequence
from enum import IntEnum

__all__ = ["Kind", "decode", "encode", "frame_size"]

VERSION = 1
_HEAD = struct.Struct("<BBI")
_MAX_PARTS = 1 << 16
_MAX_BYTES = 1 << 32


class Kind(IntEnum):
    """What a message is; a message of one kind is never read as another."""

    PUBLIC_KEYS = 1
    UPLOAD_BLOCK = 2
    SCORE = 3
    DIGITS = 4
    SHARES = 5
    CHARACTERS = 6
    OPENINGS = 7
    REPLIES = 8
    TARGET_NOISE = 9
    TARGET_OPENINGS = 10
    TARGET_REPLIES = 11
    KEY_FILE = 12
    RUN_STATE = 13
    TARGET_STATE = 14
    UPLOAD_CHECKS = 15
    UPLOAD_REPLIES = 16
    EARLY_CHECKS = 17
    EARLY_REPLIES = 18
    FINAL_CHECKS = 19
    FINAL_REPLIES = 20
    UPLOAD_STATE = 21
    TARGET_CHECKS = 22
    TARGET_CHECK_REPLIES = 23
    CLASSES = 40
    CLASSES_STATE = 41


def frame_size(lengths: Sequence[int]) -> int:
    """Return the bytes of a message with parts of these lengths."""
    return _HEAD.size + 4 * len(lengths) + sum(lengths)


def encode(kind: Kind, parts: Sequence[bytes | memoryview]) -> bytes:
    """Return the message of the given kind and parts.

    Raises:
        ValueError: more than 65,536 parts or more than 4 GiB.
    """
    lengths = [len(part) for part in parts]
    if len(parts) > _MAX_PARTS or sum(lengths) >= _MAX_BYTES:
        raise ValueError(f"{kind.name}: {len(parts)} parts of {sum(lengths)} bytes do not fit")
    head = _HEAD.pack(VERSION, kind, len(parts)) + struct.pack(f"<{len(parts)}I", *lengths)
    return b"".join([head, *parts])


def decode(data: bytes | memoryview, kind: Kind, lengths: Sequence[int | None]) -> list[memoryview]:
    """Return the parts of a message whose shape is known.

    Args:
        data: the message.
        kind: the kind it must be.
        lengths: the exact length of every part; None where any length is right (key holder's own
            files only).

    Raises:
        ValueError: wrong version, kind, count, length, or bytes missing or left over.
    """
    view = memoryview(data)
    name = kind.name
    if len(view) < _HEAD.size:
        raise ValueError(f"{name}: expected at least {_HEAD.size} bytes, got {len(view)}")
    version, got_kind, count = _HEAD.unpack_from(view)
    if version != VERSION:
        raise ValueError(f"{name}: expected format version {VERSION}, got {version}")
    if got_kind != kind:
        raise ValueError(f"{name}: expected message kind {int(kind)}, got {got_kind}")
    if count != len(lengths):
        raise ValueError(f"{name}: expected {len(lengths)} parts, got {count}")
    start = _HEAD.size + 4 * count
    if len(view) < start:
        raise ValueError(f"{name}: expected {start} bytes of header, got {len(view)}")
    given = struct.unpack_from(f"<{count}I", view, _HEAD.size)
    for index, (wanted, length) in enumerate(zip(lengths, given, strict=True)):
        if wanted is not None and wanted != length:
            raise ValueError(f"{name}: part {index} should hold {wanted} bytes, says {length}")
    if len(view) != start + sum(given):
        raise ValueError(f"{name}: expected {start + sum(given)} bytes, got {len(view)}")
    parts = []
    for length in given:
        parts.append(view[start : start + length])
        start += length
    return parts
