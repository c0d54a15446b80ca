"""Rows as a log implies them, rows as a database holds them, and the differences by name."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

Key = str
Values = Mapping[str, object]

MISSING = "no such row"
UNLOGGED = "nothing"
LONGEST = 80
"""So much of a value is quoted; only logged or public values are compared."""


@dataclass(slots=True)
class Told:
    """A row that the log implies.

    Attributes:
        index: The entry that made it; `changed` has those that set single fields later.
        values: What it must hold; fields that are not named may hold anything.
    """

    index: int
    values: dict[str, object]
    changed: dict[str, int] = field(default_factory=dict)

    def set(self, index: int, **values: object) -> None:
        """Take a later entry's word for some fields."""
        self.values |= values
        self.changed |= dict.fromkeys(values, index)

    def index_of(self, name: str) -> int:
        """The entry that a field's value comes from."""
        return self.changed.get(name, self.index)


@dataclass(frozen=True, slots=True)
class Difference:
    """One place where the database is not what the log says.

    Attributes:
        table: The table.
        key: The row's key; parts joined by a blank.
        field: The column, or "" for the row itself.
        index: The log entry that says otherwise; None where no entry explains the row.
        told: What the log says.
        found: What the database holds.
    """

    table: str
    key: Key
    field: str
    index: int | None
    told: str
    found: str

    def __str__(self) -> str:
        place = f"table {self.table}, key {self.key}" + (f", field {self.field}" * bool(self.field))
        entry = "no log entry explains it" if self.index is None else f"log entry {self.index}"
        return f"{place} ({entry}): the log says {self.told}, the database {self.found}"


def compare(
    table: str, told: Mapping[Key, Told], found: Mapping[Key, Values], *, closed: bool = True
) -> Iterator[Difference]:
    """Yield what differs in one table.

    Args:
        table: Its name.
        told: By key what the log implies.
        found: By key what the database holds.
        closed: Whether a row that the log does not imply is a difference.
    """
    for key, row in told.items():
        if key not in found:
            yield Difference(table, key, "", row.index, "it is there", MISSING)
            continue
        for name, value in row.values.items():
            other = found[key].get(name)
            if other != value:
                yield Difference(table, key, name, row.index_of(name), _word(value), _word(other))
    if closed:
        for key in found:
            if key not in told:
                yield Difference(table, key, "", None, UNLOGGED, "holds it")


def _word(value: object) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}... ({len(text)} characters)"
