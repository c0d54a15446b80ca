"""One class against the rest: a view of a sealed set with two labels, and names of its runs.

No new ciphertext is uploaded: rows of the other classes are the sum of the other labels' one-hots,
which anyone can form, and so is each subgroup level's.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from secure_eval import framing
from secure_eval.framing import Kind
from secure_eval.layout import Layout, Upload
from secure_eval.sealio import seal

__all__ = ["OneClassUpload", "class_run_id", "joined_parts", "one_class_layout", "split_parts"]


def class_run_id(run_id: str, of_class: int) -> str:
    """Return the name of a class's own run within a run."""
    return f"{run_id}/{of_class}"


def one_class_layout(layout: Layout) -> Layout:
    """Return the layout with two labels, the rest and the class, and without matching cells."""
    return replace(layout, labels=2, cells=0)


def joined_parts(messages: Sequence[bytes]) -> bytes:
    """Return the messages of all classes as one."""
    return framing.encode(Kind.CLASSES, messages)


def split_parts(message: bytes, classes: int) -> list[bytes]:
    """Return each class's message; their own shapes are checked by who reads them.

    Raises:
        ValueError: not a message of so many classes.
    """
    return [bytes(part) for part in framing.decode(message, Kind.CLASSES, [None] * classes)]


class OneClassUpload:
    """Reads the parts of `one_class_layout` out of a sealed set."""

    def __init__(self, upload: Upload, of_class: int) -> None:
        """Take a sealed set.

        Raises:
            ValueError: the set has no such label.
        """
        if not 0 <= of_class < upload.layout.labels:
            raise ValueError(f"class: expected 0 to {upload.layout.labels - 1}, got {of_class}")
        self._upload, self._class = upload, of_class
        self._real = upload.layout
        self.layout = one_class_layout(upload.layout)

    @property
    def digest(self) -> bytes:
        """SHA-256 of the sealed set and the class."""
        return hashlib.sha256(self._upload.digest + bytes([self._class])).digest()

    def shared(self, block: int, part: int) -> Any:
        """Return one part's ciphertext to read only; see `Upload.shared`."""
        if part < self.layout.columns:
            return self._upload.shared(block, part)
        return self.ciphertext(block, part)

    def stored(self, block: int, number: int) -> Any:
        """Return a layer of a packed set; see `Upload.stored`."""
        return self._upload.stored(block, number)

    def ciphertext(self, block: int, part: int) -> Any:
        """Return one part's ciphertext at all data primes; see `Upload.ciphertext`."""
        real, own = self._real, self.layout
        if part < own.columns:
            return self._upload.ciphertext(block, part)
        if part == own.valid_part:
            return self._upload.ciphertext(block, real.valid_part)
        if part < own.valid_part:
            start, label = real.label_part(0), part - own.label_part(0)
        else:
            level, label = divmod(part - own.cell_part(0, 0), 2)
            start = real.cell_part(real.cells, 0) + level * real.labels
        if label:
            return self._upload.ciphertext(block, start + self._class)
        # not the valid rows less the class: the tests would meet a difference without randomness
        total = None  # the first one's own copy, added to in place
        for other in range(real.labels):
            if other != self._class:
                total = seal().accumulate(total, self._upload.ciphertext(block, start + other))
        return total
