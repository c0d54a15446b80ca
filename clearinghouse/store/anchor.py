"""The last published checkpoint, kept outside the database.

A database that is restored from an old backup would sign a second history over what it forgot. So
the newest checkpoint it ever gave out lies in a file of its own, beside the data folder and not in
it, and a database whose log does not extend it is not opened.
"""

import errno
import fcntl
import os
from pathlib import Path

from clearinghouse.blobs import StorageFullError
from clearinghouse.errors import InputError, VerificationError
from clearinghouse.log.checkpoint import Checkpoint, parse_note
from clearinghouse.store.logbook import Logbook


class Anchor:
    """A file with the newest published checkpoint."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def keep(self, note: str) -> None:
        """Replace the file by a newer checkpoint, on the disk when this returns.

        Raises:
            StorageFullError: The disk is full; the older checkpoint is still there.
        """
        offered = parse_note(note.encode()).checkpoint
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)  # other processes keep theirs in turn
            known = self._read()
            if known is None or known.size < offered.size:
                self._write(note)
                os.fsync(folder)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise StorageFullError from None
            raise
        finally:
            os.close(folder)

    def _write(self, note: str) -> None:
        fresh = self._path.with_name(f"{self._path.name}.new")
        with fresh.open("w", encoding="utf-8", newline="") as handle:
            handle.write(note)
            handle.flush()
            os.fsync(handle.fileno())
        fresh.replace(self._path)

    def check(self, log: Logbook) -> None:
        """Check that the log extends the kept checkpoint; keep its own newest one if it is newer.

        Raises:
            InputError: It does not: the database is older than what was published, or another.
        """
        known, size = self._read(), log.size()
        if known is not None and size < known.size:
            raise InputError(
                f"the database's log has {size} entries, but a checkpoint of {known.size} was "
                f"published: it was restored from a backup that is too old. Restore one with at "
                f"least {known.size} entries ({self._path} holds the checkpoint)"
            )
        if known is not None and log.root(known.size) != known.root:
            raise InputError(
                f"the database's log has {size} entries, but its first {known.size} are not those "
                f"of the checkpoint of {known.size} that was published ({self._path}): this is "
                "another log"
            )
        newest = log.last_checkpoint()
        if newest is not None:
            self.keep(newest)

    def _read(self) -> Checkpoint | None:
        try:
            return parse_note(self._path.read_bytes()).checkpoint
        except FileNotFoundError:
            return None
        except VerificationError as error:
            raise InputError(f"{self._path} is not a checkpoint: {error}. Restore it") from None
