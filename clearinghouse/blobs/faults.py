"""What is wrong with bytes that should become a blob, or with the place they should go."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from clearinghouse.errors import InputError, TryAgainError


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
