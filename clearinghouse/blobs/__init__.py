"""Blobs: bytes named by their SHA-256, written once, never changed.

Whatever comes is first a file in the staging area of this machine, hashed on the way and flushed to
the disk. Only when its hash is the one it was announced with does it become a blob: a reader sees
the whole blob or none, and what breaks off leaves nothing.

A blob that looks like a secret key is refused and wiped: a hospital's key file (its frame names its
kind), a raw SEAL object (no message of the protocol is one, a saved secret key is), an age identity
or a PEM private key. This stops a mistake, not a thief: whoever wants to give a key away can encode
it differently.

`clearinghouse.blobs.disk` keeps blobs in a folder, `clearinghouse.blobs.s3` in a bucket; both pass
one suite of tests. `clearinghouse.blobs.place` chooses.
"""

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clearinghouse.blobs.faults import StorageFullError, TooLargeError
from clearinghouse.blobs.secret_keys import looks_secret
from clearinghouse.blobs.staging import CHUNK, Staging, Upload
from clearinghouse.errors import InputError, NotFoundError

__all__ = [
    "CHUNK",
    "BlobStore",
    "Staging",
    "StorageFullError",
    "Stored",
    "TooLargeError",
    "Upload",
    "check_name",
    "looks_secret",
]

_NAME = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Stored:
    """A blob as its store lists it.

    Attributes:
        digest: Its name.
        size: In bytes.
        written: When it was last written, by the store's clock, in seconds since 1970.
    """

    digest: str
    size: int
    written: float


def check_name(digest: str) -> str:
    """Return a blob's name.

    Raises:
        InputError: It is no SHA-256 in lower-case hex.
    """
    if not _NAME.fullmatch(digest):
        raise InputError("a blob's name is its SHA-256 in 64 lower-case hex digits")
    return digest


class BlobStore(ABC):
    """Where blobs lie; five acts, and what follows from them.

    Args:
        staging: Where bytes lie until they are a blob.
    """

    def __init__(self, staging: Staging) -> None:
        self.staging = staging

    @property
    def max_bytes(self) -> int:
        """The largest blob."""
        return self.staging.max_bytes

    # ---------------------------------------------------------------- what each store does

    @abstractmethod
    def adopt(self, path: Path, digest: str) -> None:
        """Make a flushed file, whose hash was checked, the blob; the file is gone afterwards.

        Doing it again for the same bytes does no harm.

        Raises:
            StorageFullError: There is no room.
            TryAgainError: The store is away.
        """

    @abstractmethod
    def chunks(self, digest: str) -> Iterator[bytes]:
        """Yield a blob's bytes piece by piece.

        Raises:
            NotFoundError: There is none.
        """

    @abstractmethod
    def find(self, digest: str) -> Stored | None:
        """Return a blob's size and time, or None."""

    @abstractmethod
    def remove(self, digest: str) -> None:
        """Remove a blob for good; no error if it is gone."""

    @abstractmethod
    def listed(self) -> Iterator[Stored]:
        """Yield all blobs, in no order; those written meanwhile may be missing."""

    # ---------------------------------------------------------------- what follows

    def upload(self, size: int = 0) -> Upload:
        """Begin a blob of at least `size` bytes.

        Raises:
            StorageFullError: It would touch the reserve.
        """
        return Upload(self.staging, self.adopt, size)

    def put(self, data: bytes) -> str:
        """Store bytes and return their name.

        Raises:
            InputError: They are too many or look like a secret key.
            StorageFullError: There is no room for them.
        """
        digest = hashlib.sha256(data).hexdigest()
        with self.upload(len(data)) as upload:
            upload.write(data)
            upload.finish(digest)
        return digest

    def get(self, digest: str) -> bytes:
        """Return a blob's bytes.

        Raises:
            NotFoundError: There is none, or its bytes have changed where they lie.
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
        found = self.find(digest)
        if found is None:
            raise NotFoundError(f"no blob {digest}")
        return found.size
