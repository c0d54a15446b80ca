"""Blobs: bytes named by their SHA-256, written once, never changed.

A blob is streamed to a temporary file, hashed on the way, flushed to the disk and only then renamed
to its name: a reader sees the whole blob or none, and an upload that breaks off leaves nothing.

A blob that looks like a secret key is refused and wiped: a hospital's key file (its frame names its
kind), a raw SEAL object (no message of the protocol is one, a saved secret key is), an age identity
or a PEM private key. This stops a mistake, not a thief: whoever wants to give a key away can encode
it differently.
"""

import errno
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clearinghouse.errors import InputError, NotFoundError, TryAgainError

CHUNK = 2**20
STALE_S = 3600

_NAME = re.compile(r"[0-9a-f]{64}")
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


class TooLargeError(InputError):
    """The bytes are more than this place takes."""

    status = 413


class StorageFullError(TryAgainError):
    """The disk is full; nothing was written."""

    problem_type = "storage-full"
    status = 507

    def __init__(self) -> None:
        super().__init__("the server's disk is full; nothing was written, try again later")


@contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFullError from None
        raise


class BlobStore:
    """A folder of blobs."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        self._incoming = folder / "incoming"
        self._incoming.mkdir(parents=True, exist_ok=True)

    def sweep(self, now_s: float) -> None:
        """Remove uploads that a crash left unfinished an hour ago or earlier.

        Younger ones may be another process's.
        """
        for path in self._incoming.iterdir():
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < now_s - STALE_S:
                    path.unlink()

    def path(self, digest: str) -> Path:
        """Where a blob lies or would lie.

        Raises:
            InputError: `digest` is no SHA-256 in lower-case hex.
        """
        if not _NAME.fullmatch(digest):
            raise InputError("a blob's name is its SHA-256 in 64 lower-case hex digits")
        return self.folder / digest[:2] / digest

    def upload(self) -> "Upload":
        """Begin a blob."""
        return Upload(self, self._incoming / secrets.token_hex(16))

    def put(self, data: bytes) -> str:
        """Store bytes and return their name.

        Raises:
            InputError: They are too many or look like a secret key.
        """
        digest = hashlib.sha256(data).hexdigest()
        with self.upload() as upload:
            upload.write(data)
            upload.finish(digest)
        return digest

    def get(self, digest: str) -> bytes:
        """Return a blob's bytes.

        Raises:
            NotFoundError: There is none, or its bytes have changed on the disk.
        """
        data = b"".join(self.chunks(digest))
        if hashlib.sha256(data).hexdigest() != digest:
            raise NotFoundError(f"blob {digest} is damaged on the server's disk")
        return data

    def size(self, digest: str) -> int:
        """Return a blob's size in bytes.

        Raises:
            NotFoundError: There is none.
        """
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            raise NotFoundError(f"no blob {digest}") from None

    def remove(self, digest: str) -> None:
        """Remove a blob for good; no error if it is gone."""
        path = self.path(digest)
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            _sync_folder(path.parent)

    def chunks(self, digest: str) -> Iterator[bytes]:
        """Yield a blob's bytes piece by piece.

        Raises:
            NotFoundError: There is none.
        """
        try:
            file = self.path(digest).open("rb")
        except FileNotFoundError:
            raise NotFoundError(f"no blob {digest}") from None
        with file:
            while chunk := file.read(CHUNK):
                yield chunk


class Upload:
    """A blob on its way to the disk; used as a context, which removes what was not finished."""

    def __init__(self, store: BlobStore, path: Path) -> None:
        self._store, self._path = store, path
        self._hash, self._head = hashlib.sha256(), b""
        self.size = 0
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
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
            InputError: It looks like a secret key.
            StorageFullError: The disk is full.
        """
        self.size += len(chunk)
        if self.size > self._store.max_bytes:
            raise TooLargeError(f"a blob may have at most {self._store.max_bytes} bytes")
        if len(self._head) < 256:
            self._head += chunk[:256]
            if looks_secret(self._head):
                raise InputError(
                    "this looks like a secret key; it was not stored. Keep keys on your machine "
                    "and send only what `valset seal` or `source deliver` wrote"
                )
        self._hash.update(chunk)
        with _room():
            self._file.write(chunk)

    def finish(self, digest: str) -> int:
        """Check the name, make the blob durable and visible, and return its size.

        Raises:
            InputError: The bytes have another SHA-256.
        """
        if self._hash.hexdigest() != digest:
            raise InputError("the bytes that came have another SHA-256 than the blob's name")
        target = self._store.path(digest)
        with _room():
            target.parent.mkdir(exist_ok=True)
            self._file.flush()
            os.fsync(self._file.fileno())
            os.replace(self._path, target)
            _sync_folder(target.parent)
        return self.size


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
