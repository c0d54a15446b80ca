"""The ledger's books: the same statements on SQLite and on PostgreSQL.

A book is opened for one transaction at a time and holds back every other writer meanwhile. What a
release may do is written down twice, in `dp.ledger` and in the database itself: checks and triggers
refuse a spent amount above the limit, a release that moves backwards, and any deletion, whoever
connects.
"""

import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, Protocol

Lane = Literal["epsilon", "rho"]
State = Literal["charged", "started", "answered", "voided"]

BUSY_SECONDS = 30.0
"""How long a writer waits for the others."""

Row = tuple[Any, ...]


class LedgerError(Exception):
    """Root of the ledger's errors."""


class Unavailable(LedgerError):  # noqa: N818 - the word of the protocol
    """The ledger's database does not answer; ask again later under the same key.

    What was paid and not begun goes on, what was answered is replayed, what was begun is lost.
    """


class Cursor(Protocol):
    """What both drivers' cursors have in common."""

    @property
    def rowcount(self) -> int:
        """Rows that the last statement changed."""
        ...

    def fetchone(self) -> Any:
        """The next row, or None."""
        ...

    def fetchall(self) -> list[Any]:
        """All rows."""
        ...


class Books:
    """Accounts and releases, inside one transaction."""

    def __init__(self, execute: Callable[[str, Row], Cursor]) -> None:
        """Take a function that runs a statement with `?` for each value."""
        self._execute = execute

    def open_account(self, lane: Lane, limit: int) -> int:
        """Make an account unless it is there; its limit."""
        self._execute(
            "INSERT INTO account (lane, spent, allowed) VALUES (?, 0, ?) ON CONFLICT DO NOTHING",
            (lane, limit),
        )
        found = self._execute("SELECT allowed FROM account WHERE lane = ?", (lane,)).fetchone()
        return int(found[0])

    def account(self, lane: Lane) -> tuple[int, int, int] | None:
        """(spent, allowed, sum of the entries) of a lane, if there is one."""
        row = self._execute(
            "SELECT spent, allowed, (SELECT coalesce(sum(cost), 0) FROM release "
            "WHERE release.lane = account.lane AND state <> 'voided') FROM account WHERE lane = ?",
            (lane,),
        ).fetchone()
        return None if row is None else (int(row[0]), int(row[1]), int(row[2]))

    def take(self, lane: Lane, cost: int) -> bool:
        """Spend where the limit allows it."""
        paid = self._execute(
            "UPDATE account SET spent = spent + ? WHERE lane = ? AND spent + ? <= allowed",
            (cost, lane, cost),
        )
        return paid.rowcount == 1

    def give_back(self, lane: Lane, cost: int) -> None:
        """Undo a spending whose draw never began."""
        self._execute("UPDATE account SET spent = spent - ? WHERE lane = ?", (cost, lane))

    def find(self, key: str) -> Row | None:
        """(body digest, cost, lane, state, answer) of a release, if there is one."""
        row = self._execute(
            "SELECT body_digest, cost, lane, state, answer FROM release WHERE key = ?", (key,)
        ).fetchone()
        return None if row is None else tuple(row)

    def add(self, key: str, body_digest: str, purpose: str, lane: Lane, cost: int) -> None:
        """Enter a charge."""
        self._execute(
            "INSERT INTO release (key, body_digest, purpose, lane, cost, state) "
            "VALUES (?, ?, ?, ?, ?, 'charged')",
            (key, body_digest, purpose, lane, cost),
        )

    def move(self, key: str, before: State, after: State, answer: bytes | None = None) -> bool:
        """Move a release from one state to the next; False where it is not in the first."""
        moved = self._execute(
            "UPDATE release SET state = ?, answer = ? WHERE key = ? AND state = ?",
            (after, answer, key, before),
        )
        return moved.rowcount == 1

    def entries(self) -> list[Row]:
        """Every release in the order of charging."""
        return [
            tuple(row)
            for row in self._execute(
                "SELECT sequence, key, body_digest, purpose, lane, cost, state, answer "
                "FROM release ORDER BY sequence",
                (),
            ).fetchall()
        ]


class Storage(Protocol):
    """Where a ledger's books are."""

    def create(self) -> None:
        """Make tables and triggers unless they are there."""
        ...

    def writing(self) -> Any:
        """A context with `Books` in one write transaction that is durable at its end.

        Rolled back on any exception; nothing is shared between threads or over a fork.
        """
        ...

    def erase(self, marker: bytes) -> None:
        """Put a marker in the place of every answer, and overwrite the old ones on the disk."""
        ...


def storage_at(where: Path | str, unit: str = "") -> Storage:
    """The books at a file, or at a PostgreSQL URL under the name of the patients' table.

    Raises:
        ValueError: It is a URL of another kind, or a PostgreSQL one without a unit.
    """
    text = str(where)
    if not re.match(r"[a-z+]+://", text):
        return Sqlite(Path(where))
    from dp.ledger_postgresql import PostgreSql  # its driver is an extra

    return PostgreSql(text, unit)


# ---------------------------------------------------------------- SQLite

_FORWARD = """
CREATE TRIGGER IF NOT EXISTS release_moves_forward BEFORE UPDATE ON release
  WHEN NEW.key IS NOT OLD.key OR NEW.body_digest IS NOT OLD.body_digest
    OR NEW.purpose IS NOT OLD.purpose OR NEW.lane IS NOT OLD.lane OR NEW.cost IS NOT OLD.cost
    OR OLD.state || '>' || NEW.state
       NOT IN ('charged>started', 'charged>voided', 'started>answered')
  BEGIN SELECT RAISE(ABORT, 'a release only moves forward'); END;
"""

_SQLITE = (
    """
CREATE TABLE IF NOT EXISTS account (
  lane TEXT PRIMARY KEY CHECK (lane IN ('epsilon', 'rho')),
  spent INTEGER NOT NULL CHECK (typeof(spent) = 'integer'),
  allowed INTEGER NOT NULL CHECK (typeof(allowed) = 'integer' AND allowed >= 0),
  CHECK (spent BETWEEN 0 AND allowed));
CREATE TABLE IF NOT EXISTS release (
  sequence INTEGER PRIMARY KEY AUTOINCREMENT,
  key TEXT NOT NULL UNIQUE,
  body_digest TEXT NOT NULL,
  purpose TEXT NOT NULL,
  lane TEXT NOT NULL REFERENCES account,
  cost INTEGER NOT NULL CHECK (typeof(cost) = 'integer' AND cost > 0),
  state TEXT NOT NULL CHECK (state IN ('charged', 'started', 'answered', 'voided')),
  answer BLOB,
  CHECK ((state = 'answered') = (answer IS NOT NULL)));
CREATE TRIGGER IF NOT EXISTS release_stays BEFORE DELETE ON release
  BEGIN SELECT RAISE(ABORT, 'releases are never deleted'); END;
CREATE TRIGGER IF NOT EXISTS limit_stays BEFORE UPDATE ON account
  WHEN NEW.allowed IS NOT OLD.allowed OR NEW.lane IS NOT OLD.lane
  BEGIN SELECT RAISE(ABORT, 'a budget is fixed for life'); END;
CREATE TRIGGER IF NOT EXISTS account_stays BEFORE DELETE ON account
  BEGIN SELECT RAISE(ABORT, 'a budget is fixed for life'); END;
"""
    + _FORWARD
)


class Sqlite:
    """A file of its own on the owner's disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self) -> None:
        """Make the file, for its owner's eyes only, and its tables."""
        # Stored answers are private to their owner until sent.
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        with self._connection() as connection:
            _enter_wal(connection)
            connection.executescript(f"BEGIN IMMEDIATE; {_SQLITE} COMMIT;")

    @contextmanager
    def writing(self) -> Iterator[Books]:
        """One write transaction."""
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield Books(connection.execute)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def erase(self, marker: bytes) -> None:
        """Replace every answer; the trigger that guards releases is away for one transaction."""
        with self._connection() as connection:
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("DROP TRIGGER release_moves_forward")
            connection.execute("UPDATE release SET answer = ? WHERE state = 'answered'", (marker,))
            connection.execute(_FORWARD)
            connection.execute("COMMIT")
            for command in ("PRAGMA wal_checkpoint(TRUNCATE)", "VACUUM"):
                connection.execute(command)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            yield connection
        finally:
            connection.close()


def _enter_wal(connection: sqlite3.Connection) -> None:
    """Switch to the write-ahead log; SQLite does not wait for others here, so wait ourselves."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def namespace(unit: str) -> str:
    """The PostgreSQL schema of a unit's books: a name that tells nothing of the unit."""
    return f"ledger_{sha256(b'ledger unit' + unit.encode()).hexdigest()[:32]}"
