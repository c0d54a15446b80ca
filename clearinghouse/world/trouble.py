"""One thing that is not as it must be."""

from dataclasses import dataclass

PARTS = ("log", "database", "budgets", "blobs", "receipts", "jobs")


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong in which part; a note is lawful and may surprise."""

    part: str
    words: str
    is_note: bool = False

    def __str__(self) -> str:
        return f"{self.part}: {self.words}"
