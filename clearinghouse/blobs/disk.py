"""Blobs in a folder, which several processes and machines may mount."""

import os
from collections.abc import Iterator
from pathlib import Path

from clearinghouse.blobs import BlobStore, Stored, check_name
from clearinghouse.blobs.faults import room
from clearinghouse.blobs.staging import CHUNK, Staging, sync_folder
from clearinghouse.errors import NotFoundError


class DiskStore(BlobStore):
    """Each blob is a file `<first two digits>/<digest>`; a rename makes it visible.

    Args:
        folder: Of the blobs, and of the staging area: one file system, so that a rename does.
        max_bytes: The largest blob.
        reserve_bytes: Free bytes of the disk that are left alone.
    """

    def __init__(self, folder: Path, *, max_bytes: int, reserve_bytes: int = 0) -> None:
        super().__init__(Staging(folder, max_bytes=max_bytes, reserve_bytes=reserve_bytes))
        self.folder = folder

    def path(self, digest: str) -> Path:
        """Where a blob lies or would lie.

        Raises:
            InputError: `digest` is no SHA-256 in lower-case hex.
        """
        return self.folder / check_name(digest)[:2] / digest

    def adopt(self, path: Path, digest: str) -> None:
        """Rename the file to its place."""
        target = self.path(digest)
        with room():
            target.parent.mkdir(exist_ok=True)
            os.replace(path, target)
            sync_folder(target.parent)

    def chunks(self, digest: str) -> Iterator[bytes]:
        """Read the file."""
        try:
            file = self.path(digest).open("rb")
        except FileNotFoundError:
            raise NotFoundError(f"no blob {digest}") from None
        with file:
            while chunk := file.read(CHUNK):
                yield chunk

    def find(self, digest: str) -> Stored | None:
        """Look at the file."""
        try:
            found = self.path(digest).stat()
        except FileNotFoundError:
            return None
        return Stored(digest, found.st_size, found.st_mtime)

    def remove(self, digest: str) -> None:
        """Unlink the file, on the disk when this returns."""
        path = self.path(digest)
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            sync_folder(path.parent)

    def listed(self) -> Iterator[Stored]:
        """Walk through the folder."""
        for shelf in sorted(self.folder.glob("[0-9a-f][0-9a-f]")):
            for path in sorted(shelf.iterdir()):
                found = self.find(path.name)
                if found is not None:
                    yield found
