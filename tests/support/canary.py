"""Canaries: values planted in private tables, and the search for them where they must not be.

Numbers have 17 significant digits, texts 24 random letters. The search reads another process's
memory through /proc.
"""

import hashlib
import secrets
import string
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

CHUNK = 2**17
SKIPPED = ("[vvar]", "[vsyscall]", "[vdso]")


@dataclass(frozen=True)
class Canary:
    """A family of planted values under a name, with every byte form it may take.

    All values of a family begin alike, so one short search finds any of them: decimals share their
    first 14 digits, float64 seven high bytes, texts their first twelve letters. Random bytes such
    as ciphertexts hold a given seven bytes by chance once in 7e16 places: for a few gigabytes and
    eight such forms that is below 1e-6 for a whole test run.
    """

    name: str
    forms: tuple[bytes, ...]


class NumberFamily:
    """Decimals of 17 significant digits that share the first 14."""

    def __init__(self, name: str, whole: int) -> None:
        """`whole`: the two digits before the point, 32 or more: below, floats lie too densely."""
        head = b""
        while len(head) < 7:  # a border between two high bytes is drawn again
            self._stem = f"{whole}." + "".join(str(secrets.randbelow(9) + 1) for _ in range(12))
            low, high = (struct.pack(">d", float(self._stem + end)) for end in ("000", "999"))
            head = bytes(a for i, a in enumerate(low) if low[: i + 1] == high[: i + 1])
        self.canary = Canary(name, (self._stem.encode(), head, head[::-1]))

    def draw(self) -> float:
        """Another value of the family."""
        return float(self._stem + "".join(str(secrets.randbelow(9) + 1) for _ in range(3)))


class TextFamily:
    """Words of 24 random letters that share the first twelve."""

    def __init__(self, name: str) -> None:
        self._stem = "".join(secrets.choice(string.ascii_letters) for _ in range(12))
        forms = (self._stem.encode(enc) for enc in ("utf-8", "utf-16-le", "utf-32-le"))
        self.canary = Canary(name, tuple(forms))

    def draw(self) -> str:
        """Another value of the family."""
        return self._stem + "".join(secrets.choice(string.ascii_letters) for _ in range(12))


def _chunks_of_memory(pid: int) -> Iterator[bytes]:
    """Readable memory of a process that it may have written, in overlapping chunks."""
    regions = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        span, access, _offset, _device, inode, *_rest = line.split()
        written = inode == "0" or "w" in access or "/shm/" in line or "(deleted)" in line
        if "r" in access and written and not line.endswith(SKIPPED):
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


class Search:
    """Looks for canaries in memory and files; a piece that it saw clean it does not read twice."""

    def __init__(self, canaries: Iterable[Canary]) -> None:
        self._clean: set[bytes] = set()
        # Whatever a form begins with, at every offset, in two passes: one pass for each of two
        # dozen forms takes ten times as long.
        self._begins = np.zeros(2**16, np.bool_)
        self._forms: dict[int, list[tuple[bytes, str]]] = {}
        for canary in canaries:
            for form in canary.forms:
                pair = int.from_bytes(form[:2], "little")
                self._begins[pair] = True
                self._forms.setdefault(pair, []).append((form, canary.name))

    def in_process(self, pid: int) -> set[str]:
        """Names of the canaries in the memory of a process."""
        return self._found(_chunks_of_memory(pid))

    def in_tree(self, directory: Path) -> set[str]:
        """Names of the canaries in any file below a directory."""
        found: set[str] = set()
        for path in [directory, *sorted(directory.rglob("*"))]:
            if path.is_file():
                found |= self._found(_chunks_of_file(path))
        return found

    def _found(self, chunks: Iterable[bytes]) -> set[str]:
        found: set[str] = set()
        for chunk in chunks:
            digest = hashlib.sha256(chunk).digest()
            if digest in self._clean:
                continue
            here = self._names_in(chunk)
            found |= here
            if not here:
                self._clean.add(digest)
        return found

    def _names_in(self, chunk: bytes) -> set[str]:
        found: set[str] = set()
        for start in (0, 1):
            pairs = np.frombuffer(chunk, "<u2", (len(chunk) - start) // 2, start)
            for place in np.flatnonzero(self._begins.take(pairs)).tolist():
                for form, name in self._forms[int(pairs[place])]:
                    if chunk.startswith(form, start + 2 * place):
                        found.add(name)
        return found


def descendants(pid: int) -> list[int]:
    """A process and all its descendants."""
    family = [pid]
    for member in family:
        for task in Path(f"/proc/{member}/task").glob("*/children"):
            family.extend(int(child) for child in task.read_text().split())
    return family
