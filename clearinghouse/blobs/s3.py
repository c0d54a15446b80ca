"""Blobs in a bucket of any S3-compatible service.

Bytes are staged and hashed on this machine's disk as always, then sent in parts; the service shows
an object only when it is whole. Address, region and credentials come from the environment as for
every other client of S3 (`AWS_ENDPOINT`, `AWS_REGION`, `AWS_ACCESS_KEY_ID`,
`AWS_SECRET_ACCESS_KEY`, `AWS_ALLOW_HTTP`), so no secret is a setting of ours.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from clearinghouse.blobs import BlobStore, StorageFullError, Stored, check_name
from clearinghouse.blobs.staging import CHUNK, Staging
from clearinghouse.errors import InputError, NotFoundError, TryAgainError

if TYPE_CHECKING:
    from obstore.store import S3Store as Bucket

PART_BYTES = 8 * CHUNK
PARTS_AT_ONCE = 2
"""Parts in memory while a blob is sent."""

_NO_ROOM = ("QuotaExceeded", "InsufficientStorage", "507 Insufficient Storage")


@contextmanager
def _answers() -> Iterator[None]:
    """Turn the client's errors into ours; the service's own words stay here: they name the bucket.

    A missing object is a FileNotFoundError, which passes.

    Raises:
        StorageFullError: The service is full.
        TryAgainError: It is away or refuses us.
    """
    from obstore.exceptions import BaseError

    try:
        yield
    except BaseError as error:
        if any(word in str(error) for word in _NO_ROOM):
            raise StorageFullError("the blob store is full; try again later") from None
        raise TryAgainError(
            f"the blob store does not answer ({type(error).__name__}); repeat the same call later"
        ) from None


class S3Store(BlobStore):
    """Each blob is an object `<prefix>/<first two digits>/<digest>`.

    Args:
        url: `s3://bucket/prefix`.
        staging: Folder of this machine where bytes lie until they are sent.
        max_bytes: The largest blob.
        reserve_bytes: Free bytes of the staging area's disk that are left alone.

    Raises:
        InputError: The URL is no such, or the extra `[s3]` is not installed.
    """

    def __init__(self, url: str, staging: Path, *, max_bytes: int, reserve_bytes: int = 0) -> None:
        super().__init__(Staging(staging, max_bytes=max_bytes, reserve_bytes=reserve_bytes))
        self._bucket = _bucket(url)

    def adopt(self, path: Path, digest: str) -> None:
        """Send the file in parts, then remove it."""
        import obstore

        name = _path(digest)
        if path.exists() or self.find(digest) is None:  # else it was adopted before
            with _answers():
                obstore.put(
                    self._bucket,
                    name,
                    path,
                    chunk_size=PART_BYTES,
                    max_concurrency=PARTS_AT_ONCE,
                )
        path.unlink(missing_ok=True)

    def chunks(self, digest: str) -> Iterator[bytes]:
        """Stream the object."""
        import obstore

        name = _path(digest)
        try:
            with _answers():
                for chunk in obstore.get(self._bucket, name).stream(min_chunk_size=CHUNK):
                    yield bytes(chunk)
        except FileNotFoundError:
            raise NotFoundError(f"no blob {digest}") from None

    def find(self, digest: str) -> Stored | None:
        """Ask for the object's head."""
        import obstore

        name = _path(digest)
        try:
            with _answers():
                found = obstore.head(self._bucket, name)
        except FileNotFoundError:
            return None
        return Stored(digest, found["size"], found["last_modified"].timestamp())

    def remove(self, digest: str) -> None:
        """Delete the object; a bucket that keeps versions keeps this one (docs/operate.md)."""
        import obstore

        name = _path(digest)
        try:
            with _answers():
                obstore.delete(self._bucket, name)
        except FileNotFoundError:
            return

    def listed(self) -> Iterator[Stored]:
        """List the bucket below the prefix, page by page."""
        import obstore

        with _answers():
            for page in obstore.list(self._bucket):
                for found in page:
                    digest = found["path"].rpartition("/")[2]
                    if found["path"] == f"{digest[:2]}/{digest}" and len(digest) == 64:
                        yield Stored(digest, found["size"], found["last_modified"].timestamp())


def _path(digest: str) -> str:
    return f"{check_name(digest)[:2]}/{digest}"


def _bucket(url: str) -> "Bucket":
    try:
        from obstore.exceptions import BaseError
        from obstore.store import S3Store as Bucket
    except ImportError:
        raise InputError(
            "blobs in a bucket need the extra [s3]: pip install 'eval-clearinghouse[s3]'"
        ) from None
    if not url.startswith("s3://"):
        raise InputError("CLEARINGHOUSE_BLOB_URL must be s3://<bucket>/<prefix>, or empty")
    try:
        return Bucket.from_url(
            url,
            client_options={
                "timeout": "120s",
                "connect_timeout": "10s",
                # Options given here hide those of the environment.
                "allow_http": os.environ.get("AWS_ALLOW_HTTP", "").lower() == "true",
            },
            retry_config={"max_retries": 4, "retry_timeout": timedelta(seconds=30)},
        )
    except (BaseError, ValueError) as error:
        raise InputError(f"CLEARINGHOUSE_BLOB_URL: {type(error).__name__}") from None
