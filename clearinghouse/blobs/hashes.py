"""Hashes of unfinished uploads, carried from piece to piece."""

from collections import OrderedDict
from typing import Any

MOST_HASHES = 256


class Hashes:
    """Hashes of unfinished uploads in this process, by id; the least used one makes room."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[int, Any]] = OrderedDict()

    def take(self, upload_id: str, received: int) -> Any:
        """The hash of exactly so many bytes, or None; it is the caller's from now on."""
        size, found = self._kept.pop(upload_id, (-1, None))
        return found if size == received else None

    def keep(self, upload_id: str, received: int, found: Any) -> None:
        """Remember a hash for the next piece."""
        self._kept[upload_id] = (received, found)
        while len(self._kept) > MOST_HASHES:
            self._kept.popitem(last=False)
