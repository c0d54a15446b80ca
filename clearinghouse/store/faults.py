"""What a database's errors mean to those who call the store."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from clearinghouse.blobs import StorageFullError
from clearinghouse.errors import ClearinghouseError, ConflictError, InputError, TryAgainError

ROLLED_BACK = frozenset({"40001", "40P01", "55P03"})
"""Serialization failure, deadlock, lock not available: surely nothing of it was committed."""

_DISK_FULL = "53100"
_IDLE_TOO_LONG = "25P03"
_READ_ONLY = "25006"


class RolledBackError(TryAgainError):
    """The database undid the transaction because of another one; it may be run again at once."""


@contextmanager
def translated() -> Iterator[None]:
    """Turn the driver's errors into ours.

    Raises:
        TryAgainError: The database is busy or away; what was to be written may have been.
        RolledBackError: It undid the transaction.
        StorageFullError: Its disk is full.
        ConflictError: A row that must be unique was written by someone else meanwhile.
        InputError: A text that no database can hold.
    """
    try:
        yield
    except PoolTimeoutError as error:
        raise TryAgainError("the database is busy or away; repeat the same call") from error
    except DBAPIError as error:
        found = _meaning(error)
        if found is None:
            raise
        raise found from error


def _meaning(error: DBAPIError) -> ClearinghouseError | None:
    state = getattr(error.orig, "sqlstate", None)
    if isinstance(error, IntegrityError):
        return ConflictError("this collides with something written meanwhile")
    if isinstance(error, DataError):
        return InputError("a value holds a character or a number that the database cannot store")
    if isinstance(error, OperationalError) and (state == _DISK_FULL or _is_full(error, state)):
        return StorageFullError()
    if state in ROLLED_BACK:
        return RolledBackError("the database is busy; repeat the same call")
    lost = isinstance(error, InternalError) and state in (_IDLE_TOO_LONG, _READ_ONLY)
    away = isinstance(error, OperationalError) and not str(error.orig).startswith("no such ")
    if away or lost or error.connection_invalidated:
        return TryAgainError("the database is busy or away; repeat the same call")
    return None  # a mistake of ours, such as SQLite's `no such column`


def _is_full(error: OperationalError, state: object) -> bool:
    """SQLite has no codes in this driver's message: `database or disk is full`."""
    return state is None and "is full" in str(error.orig)
