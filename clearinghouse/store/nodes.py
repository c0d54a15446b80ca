"""The log's tree in the database: the nodes that an act needs come in one query."""

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import TypeVar

from sqlalchemy import Select, and_, bindparam, func, insert, or_, select
from sqlmodel import Session, SQLModel

from clearinghouse.log import merkle
from clearinghouse.store.tables import EntryRow, NodeRow

Result = TypeVar("Result")

_ENTRY, _NODE = (SQLModel.metadata.tables[row.__tablename__] for row in (EntryRow, NodeRow))
_UNKNOWN = bytes(merkle.HASH_BYTES)


@cache
def _looking_up(count: int) -> Select[tuple[int, int, bytes]]:
    """The query for so many nodes, made once: making it takes longer than running it.

    One condition a place: SQLite looks each up by its key, and would read the whole table for
    `(level, position) IN (...)`.
    """
    places = [
        and_(_NODE.c.level == bindparam(f"l{n}"), _NODE.c.position == bindparam(f"p{n}"))
        for n in range(count)
    ]
    return select(_NODE.c.level, _NODE.c.position, _NODE.c.hash).where(or_(*places))


class Nodes:
    """A node store over the rows of one transaction, which never change once they are written."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._known: dict[tuple[int, int], bytes] = {}
        self._fresh: list[dict[str, object]] = []
        self._size: int | None = None

    def get(self, level: int, index: int) -> bytes:
        """Return a node."""
        if (level, index) not in self._known:
            self._fetch([(level, index)])
        return self._known[level, index]

    def put(self, level: int, index: int, node: bytes) -> None:
        """Add a node; `write` sends it to the database."""
        self._known[level, index] = node
        self._fresh.append({"level": level, "position": index, "hash": node})

    def size(self) -> int:
        """Return the number of entries, as this transaction sees it."""
        if self._size is None:
            last = self._session.execute(select(func.max(_ENTRY.c.position))).scalar()
            self._size = 0 if last is None else last + 1
        return self._size

    def extend(self, entries: Sequence[bytes]) -> int:
        """Add the nodes of entries, in one statement, and return the index of the first."""
        first = self.size()
        self._fetch(_read_by(first, len(entries)))
        for index, entry in enumerate(entries, first):
            merkle.append(self, entry)
            self._size = index + 1
        if self._fresh:
            self._session.execute(insert(_NODE), self._fresh)
            self._fresh = []
        return first

    def planned(self, act: Callable[[merkle.NodeReader], Result]) -> Result:
        """Do something that only reads; what it will read is found out first and read at once."""
        plan = _Plan(self)
        act(plan)
        self._fetch(plan.wanted)
        return act(self)

    def _fetch(self, places: Iterable[tuple[int, int]]) -> None:
        missing = [place for place in places if place not in self._known]
        if not missing:
            return
        values = {
            f"{name}{n}": v
            for n, at in enumerate(missing)
            for name, v in zip("lp", at, strict=True)
        }
        for level, position, node in self._session.execute(_looking_up(len(missing)), values):
            self._known[level, position] = node


def _read_by(size: int, more: int) -> list[tuple[int, int]]:
    """The nodes of a tree of `size` that appending `more` entries reads, to make parents of them.

    They are among the whole subtrees that the tree consists of, one for each bit of its size; that
    of level l is read once entries have filled the 2**l places to its right.
    """
    return [
        (level, (size >> level) - 1)
        for level in range(size.bit_length())
        if size >> level & 1 and (1 << level) - size % (1 << level) <= more
    ]


class _Plan:
    """Notes which nodes are read; their hashes do not matter to which."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self.wanted: list[tuple[int, int]] = []

    def get(self, level: int, index: int) -> bytes:
        self.wanted.append((level, index))
        return _UNKNOWN

    def size(self) -> int:
        return self._nodes.size()
