"""Which blob store a process uses: a value that also travels to the worker's process."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clearinghouse.blobs import BlobStore
from clearinghouse.blobs.disk import DiskStore


@dataclass(frozen=True, slots=True)
class BlobPlace:
    """Where blobs are.

    Attributes:
        folder: Of the staging area, and of the blobs unless `url` names another place.
        max_bytes: The largest blob.
        reserve_bytes: Free bytes of the folder's disk that are left alone.
        url: `s3://bucket/prefix`; empty for the folder.
    """

    folder: Path
    max_bytes: int
    reserve_bytes: int = 0
    url: str = ""

    def open(self) -> BlobStore:
        """The store.

        Raises:
            InputError: The URL cannot be used, or the extra `[s3]` is not installed.
        """
        if self.url:
            from clearinghouse.blobs.s3 import S3Store

            return S3Store(
                self.url,
                self.folder,
                max_bytes=self.max_bytes,
                reserve_bytes=self.reserve_bytes,
            )
        return DiskStore(self.folder, max_bytes=self.max_bytes, reserve_bytes=self.reserve_bytes)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "folder": str(self.folder)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "BlobPlace":
        """From the same."""
        return cls(**{**value, "folder": Path(value["folder"])})
