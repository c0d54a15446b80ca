"""The staging area: a folder of this machine where bytes lie until they are a blob.

`incoming/` holds the bodies of single calls and of jobs' results; a process that dies leaves its
file there, and the next one sweeps it up. `partial/` holds uploads that come in pieces
(`clearinghouse.blobs.partial`). Whoever writes here leaves the reserve of the disk alone: it is for
the database and the log, which must be able to say what happened when there is room for nothing
else.
"""

import hashlib
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from clearinghouse.blobs.faults import StorageFullError, TooLargeError, room
from clearinghouse.blobs.hashes import Hashes
from clearinghouse.blobs.secret_keys import SecretWatch
from clearinghouse.errors import InputError
from clearinghouse.failpoints import reach

CHUNK = 2**20
STALE_S = 3600

Adopt = Callable[[Path, str], None]


class Staging:
    """One staging area.

    Args:
        folder: Made if need be.
        max_bytes: The largest blob.
        reserve_bytes: Free bytes of the disk that are left alone.
    """

    def __init__(self, folder: Path, *, max_bytes: int, reserve_bytes: int = 0) -> None:
        self.folder, self.max_bytes, self.reserve_bytes = folder, max_bytes, reserve_bytes
        self.hashes = Hashes()
        self.incoming, self.partial = folder / "incoming", folder / "partial"
        for made in (self.incoming, self.partial):
            made.mkdir(parents=True, exist_ok=True)

    def free(self) -> int:
        """Bytes that a process without privileges may still write here."""
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize

    def check_room(self, size: int) -> None:
        """Return if so many bytes more leave the reserve alone.

        Raises:
            StorageFullError: They do not.
        """
        with room():
            reach("blob.writing")
        if self.reserve_bytes and self.free() - size < self.reserve_bytes:
            raise StorageFullError(
                f"the server's disk has no room for {size} bytes above its reserve; nothing was "
                "written, try again later"
            )

    def sweep(self, now_s: float) -> None:
        """Remove bodies that a crash left unfinished an hour ago or earlier.

        Younger ones may be another process's.
        """
        for path in self.incoming.iterdir():
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < now_s - STALE_S:
                    path.unlink()


class Upload:
    """A blob that comes in one go; used as a context, which removes what was not finished.

    Raises:
        StorageFullError: So many bytes would touch the reserve.
    """

    def __init__(self, staging: Staging, adopt: Adopt, size: int = 0) -> None:
        staging.check_room(size)
        self._staging, self._adopt = staging, adopt
        self._path = staging.incoming / secrets.token_hex(16)
        self._hash, self._watch = hashlib.sha256(), SecretWatch()
        self.size = 0
        with room():
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._file = os.fdopen(descriptor, "wb")

    def __enter__(self) -> "Upload":
        return self

    def __exit__(self, *_error: object) -> None:
        with suppress(OSError):  # a full disk is told of once, by the write that hit it
            self._file.close()
        self._path.unlink(missing_ok=True)

    def write(self, chunk: bytes) -> None:
        """Take the next bytes.

        Raises:
            TooLargeError: The blob grows too large.
            InputError: It shows a secret key.
            StorageFullError: The disk is full up to its reserve.
        """
        self.size += len(chunk)
        if self.size > self._staging.max_bytes:
            raise TooLargeError(f"a blob may have at most {self._staging.max_bytes} bytes")
        self._watch.see(chunk)
        self._hash.update(chunk)
        self._staging.check_room(len(chunk))
        with room():
            self._file.write(chunk)

    def finish(self, digest: str) -> int:
        """Check the name, make the blob durable and visible, and return its size.

        Raises:
            InputError: The bytes have another SHA-256.
            StorageFullError: The disk is full.
        """
        if self._hash.hexdigest() != digest:
            raise InputError("the bytes that came have another SHA-256 than the blob's name")
        with room():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._adopt(self._path, digest)
        return self.size


def sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
