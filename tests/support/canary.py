"""Canaries: values planted in private tables, and the search for them where they must not be.

A number canary has 17 significant digits, so its decimal text and its float64 bytes are unique; a
text canary has 24 random letters. The search reads another process's memory through /proc.
"""

import secrets
import string
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

CHUNK = 16 * 2**20
SKIPPED = ("[vvar]", "[vsyscall]", "[vdso]")


@dataclass(frozen=True)
class Canary:
    """A planted value under a name, with every byte form it may take."""

    name: str
    forms: tuple[bytes, ...]


def number_canary(name: str, low: float, high: float) -> tuple[str, Canary]:
    """A decimal of 17 significant digits strictly inside the bounds, and its canary."""
    while True:
        share = (secrets.randbelow(10**15) + 1) / (10**15 + 2)
        value = low + (high - low) * share
        text = repr(value)
        if low < value < high and len(text.replace(".", "").replace("-", "").lstrip("0")) >= 16:
            forms = (text.encode(), struct.pack("<d", value), struct.pack(">d", value))
            return text, Canary(name, forms)


def text_canary(name: str) -> tuple[str, Canary]:
    """Twenty-four random letters, and their canary (UTF-8 and UTF-16)."""
    text = "".join(secrets.choice(string.ascii_letters) for _ in range(24))
    return text, Canary(name, (text.encode(), text.encode("utf-16-le"), text.encode("utf-32-le")))


def _chunks_of_memory(pid: int) -> Iterator[bytes]:
    """Readable memory of a process, in overlapping chunks."""
    regions = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        span, access, *_rest = line.split()
        if "r" in access and not line.endswith(SKIPPED):
            start, end = (int(part, 16) for part in span.split("-"))
            regions.append((start, end))
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for start, end in regions:
            position = start
            while position < end:
                size = min(CHUNK, end - position)
                try:
                    memory.seek(position)
                    chunk = memory.read(size + 128 if position + size < end else size)
                except (OSError, ValueError, OverflowError):
                    break  # the region went away, or is not readable after all
                if not chunk:
                    break
                yield chunk
                position += size


def _chunks_of_file(path: Path) -> Iterator[bytes]:
    overlap = b""
    with path.open("rb") as handle:
        while chunk := handle.read(CHUNK):
            yield overlap + chunk
            overlap = chunk[-128:]


def _found(chunks: Iterable[bytes], canaries: Iterable[Canary]) -> set[str]:
    wanted = list(canaries)
    found: set[str] = set()
    for chunk in chunks:
        for canary in wanted:
            if canary.name not in found and any(form in chunk for form in canary.forms):
                found.add(canary.name)
    return found


def in_process(pid: int, canaries: Iterable[Canary]) -> set[str]:
    """Names of the canaries in the memory of a process."""
    return _found(_chunks_of_memory(pid), canaries)


def in_tree(directory: Path, canaries: Iterable[Canary]) -> set[str]:
    """Names of the canaries in any file below a directory."""
    wanted = list(canaries)
    found: set[str] = set()
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            found |= _found(_chunks_of_file(path), wanted)
    return found


def descendants(pid: int) -> list[int]:
    """A process and all its descendants."""
    family = [pid]
    for member in family:
        for task in Path(f"/proc/{member}/task").glob("*/children"):
            family.extend(int(child) for child in task.read_text().split())
    return family
