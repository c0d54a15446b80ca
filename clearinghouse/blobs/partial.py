"""The file of an upload that comes in pieces.

A piece counts when it is whole, has the hash that its call was signed with, is flushed to the disk,
and the upload's row says so; what came of a piece that broke off is cut away. So the bytes that
count were sent by the upload's owner, also after a crash or a power cut. The hash of the whole is
carried from piece to piece in memory, and computed anew from the file where another process goes
on.
"""

import fcntl
import hashlib
import os
from typing import Any

from clearinghouse.blobs.faults import TooLargeError, room
from clearinghouse.blobs.hashes import Hashes
from clearinghouse.blobs.secret_keys import HEAD_BYTES, OVERLAP, check_bytes, check_head
from clearinghouse.blobs.staging import CHUNK, Staging
from clearinghouse.errors import ConflictError

_BUSY = "another call is sending to this upload; ask how far it is, then go on"


class LostError(ConflictError):
    """Bytes that count are not there: the disk was replaced, or the file was moved already."""


class Piece:
    """The file of an upload while its next piece comes; one call at a time has it.

    Args:
        staging: Where the file is.
        hashes: Of this process.
        upload_id: Names the file.

    Raises:
        ConflictError: Another call has it.
    """

    def __init__(self, staging: Staging, hashes: Hashes, upload_id: str) -> None:
        self.path = staging.partial / upload_id
        self._staging, self._hashes, self._id = staging, hashes, upload_id
        self._piece = hashlib.sha256()
        self._whole: Any = hashlib.sha256()
        self._before = self._whole.copy()
        self._counted = self._received = self._size = 0
        self.is_moved = False
        with room():
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._lock()
        except BaseException:
            os.close(self._file)
            raise

    def _lock(self) -> None:
        """Take the file, and make sure that it is still the upload's: it may be a blob by now."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = os.path.samestat(os.fstat(self._file), os.stat(self.path))
        except (BlockingIOError, FileNotFoundError):
            is_ours = False
        if not is_ours:
            raise ConflictError(_BUSY)

    def begin(self, received: int, size: int) -> None:
        """Go on after the bytes that count.

        Args:
            received: As the upload's row says since the file is ours.
            size: Of the whole.

        Raises:
            LostError: They are not there.
        """
        if os.fstat(self._file).st_size < received:
            raise LostError("bytes of this upload are lost; begin it again at offset 0")
        os.ftruncate(self._file, received)
        self._counted, self._received, self._size = received, received, size
        known = self._hashes.take(self._id, received)
        self._whole = self._read() if known is None else known
        self._before = self._whole.copy()

    def moved(self, size: int) -> None:
        """The file is in its place already: only the rows are missing."""
        self.is_moved = True
        self._counted = self._received = self._size = size
        self.path.unlink(missing_ok=True)  # the empty one that opening it has made

    def _read(self) -> Any:
        found, at = hashlib.sha256(), 0
        while chunk := os.pread(self._file, CHUNK, at):
            found.update(chunk)
            at += len(chunk)
        return found

    @property
    def received(self) -> int:
        """Bytes in the file."""
        return self._received

    @property
    def is_last(self) -> bool:
        """Whether nothing is missing any more."""
        return self._received == self._size

    @property
    def sha256(self) -> bytes:
        """The SHA-256 of this piece."""
        return bytes(self._piece.digest())

    @property
    def digest(self) -> str:
        """The SHA-256 of everything so far, in hex."""
        return str(self._whole.hexdigest())

    def write(self, chunk: bytes) -> None:
        """Take the next bytes.

        Raises:
            TooLargeError: They are more than the upload announced.
            InputError: It shows a secret key.
            StorageFullError: The disk is full up to its reserve.
        """
        before, self._received = self._received, self._received + len(chunk)
        if self._received > self._size:
            raise TooLargeError(f"this upload was announced with {self._size} bytes")
        self._staging.check_room(len(chunk))
        with room():
            done = 0
            while done < len(chunk):
                done += os.pwrite(self._file, memoryview(chunk)[done:], before + done)
        self._piece.update(chunk)
        self._whole.update(chunk)
        if before < HEAD_BYTES:
            check_head(os.pread(self._file, HEAD_BYTES, 0))
        start = max(0, before - OVERLAP)
        check_bytes(os.pread(self._file, before - start, start) + chunk)

    def flush(self) -> None:
        """Have the piece on the disk when this returns.

        Raises:
            StorageFullError: The disk is full.
        """
        with room():
            os.fsync(self._file)

    def count(self) -> None:
        """The row says so now: from here on nothing of the file is cut away."""
        self._counted, self._before = self._received, self._whole

    def close(self, *, keep: bool = True) -> None:
        """Cut away what does not count, and let go of the file.

        Args:
            keep: Whether the upload goes on; else its file is removed.
        """
        if self._received != self._counted:  # so it was not moved to its place
            os.ftruncate(self._file, self._counted)
        if keep and self._size:
            self._hashes.keep(self._id, self._counted, self._before)
        if not keep:
            self.path.unlink(missing_ok=True)
        os.close(self._file)
