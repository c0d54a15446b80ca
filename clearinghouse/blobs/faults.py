"""What is wrong with bytes that should become a blob, or with the place they should go."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from clearinghouse.errors import InputError, TryAgainError

HEAD_BYTES = 256
"""So many first bytes decide whether a blob looks like a secret key."""

_FRAME_VERSION = 1
_SECRET_FRAMES = frozenset({12, 13, 14})  # key file, and the two states that stay on one machine
_SEAL_MAGIC = b"\x5e\xa1"
_SECRET_TEXTS = (b"AGE-SECRET-KEY-1", b"PRIVATE KEY-----")


def looks_secret(head: bytes) -> bool:
    """Whether the first bytes of a blob are those of a secret key."""
    framed = head[:1] == bytes([_FRAME_VERSION]) and head[1:2] != b""
    if framed and head[1] in _SECRET_FRAMES and head[2:3] != b"":
        return True
    return head.startswith(_SEAL_MAGIC) or any(text in head for text in _SECRET_TEXTS)


def check_head(head: bytes) -> None:
    """Refuse the first bytes of a secret key.

    Raises:
        InputError: They look like one.
    """
    if looks_secret(head):
        raise InputError(
            "this looks like a secret key; it was not stored. Keep keys on your machine "
            "and send only what `valset seal` or `source deliver` wrote"
        )


class TooLargeError(InputError):
    """The bytes are more than this place takes."""

    status = 413


class StorageFullError(TryAgainError):
    """There is no room but the reserve; nothing was written, and later there may be room again."""

    problem_type = "storage-full"
    status = 507

    def __init__(self, message: str = "") -> None:
        super().__init__(
            message or "the server's disk is full; nothing was written, try again later"
        )


@contextmanager
def room() -> Iterator[None]:
    """Say that the disk is full in our words.

    Raises:
        StorageFullError: It is.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StorageFullError from None
        raise
