"""The owner's privacy ledger: an SQLite file in which every release is paid before it is drawn.

The order of steps is the safety argument; each arrow is a durable commit:

    look up the key, take the cost from the budget  ->  mark started  ->  read data, draw noise
    ->  store the answer  ->  send it

A crash at any point leaves the cost spent (or not yet taken and nothing drawn), never an answer
that was free. A repeated request gets the stored bytes, so that noise cannot be averaged away by
asking again.
"""

import hashlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Lane = Literal["epsilon", "rho"]
State = Literal["charged", "started", "answered", "voided"]

BUSY_SECONDS = 30.0

ERASED = b"\x00erased"
"""Stands where an answer was that its owner had to forget."""

_FORWARD = """
CREATE TRIGGER IF NOT EXISTS release_moves_forward BEFORE UPDATE ON release
  WHEN NEW.key IS NOT OLD.key OR NEW.body_digest IS NOT OLD.body_digest
    OR NEW.purpose IS NOT OLD.purpose OR NEW.lane IS NOT OLD.lane OR NEW.cost IS NOT OLD.cost
    OR OLD.state || '>' || NEW.state
       NOT IN ('charged>started', 'charged>voided', 'started>answered')
  BEGIN SELECT RAISE(ABORT, 'a release only moves forward'); END;
"""

_SCHEMA = (
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


class LedgerError(Exception):
    """Root of the ledger's errors."""


class Refused(LedgerError):  # noqa: N818 - the word of the protocol
    """The budget does not hold this cost; nothing was spent and nothing drawn."""


class Conflict(LedgerError):  # noqa: N818
    """The key was used for another body, cost or lane; nothing was spent and nothing drawn."""


class Interrupted(LedgerError):  # noqa: N818
    """The key was charged and no answer is stored: its cost is lost. Ask again with a new key."""


class Damaged(LedgerError):  # noqa: N818
    """The ledger's totals do not agree with its entries; no release is possible."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One release as the ledger shows it.

    Attributes:
        sequence: Order of charging, from 1.
        key: Idempotency key.
        body_digest: Digest of the request that was answered.
        purpose: What it was for.
        lane: "epsilon" (pure) or "rho" (zCDP).
        cost_micro: Millionths taken from the lane.
        state: charged, started, answered or voided (never started and given back).
        answer_digest: SHA-256 of the stored answer in hex, or None.
    """

    sequence: int
    key: str
    body_digest: str
    purpose: str
    lane: Lane
    cost_micro: int
    state: State
    answer_digest: str | None


class Ledger:
    """One owner's budget and releases, shared safely by threads and processes.

    Guarantee:
        The sum of the costs of all started draws never exceeds the limit of its lane, whatever
        crashes, races and repeats happen; by sequential composition one unit's total pure loss
        stays at most limit_micro / 10**6 (and the total zCDP at most rho_limit_micro / 10**6).
    Assumes:
        Each `draw` is as private as its stated cost and is called for data of this owner only; the
        file is neither restored from a copy nor edited; SQLite's commits are durable on this disk.
    Proof:
        `draw` runs only after this process alone moved the release from charged to started, and
        that row exists only in a commit that raised `spent` by its cost under a conditional update
        and CHECK(spent <= allowed) in one write transaction. Only a charged release can be voided,
        so a cost is given back only when no draw began.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def open(cls, path: Path | str, *, limit_micro: int, rho_limit_micro: int = 0) -> "Ledger":
        """Open or make the ledger; both lanes are fixed when it is made.

        Raises:
            ValueError: A limit is negative, or differs from the one the ledger was made with.
        """
        for limit in (limit_micro, rho_limit_micro):
            if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
                raise ValueError(f"a limit must be a whole number of millionths, not {limit!r}")
        ledger = cls(Path(path))
        ledger._create({"epsilon": limit_micro, "rho": rho_limit_micro})
        return ledger

    def release(
        self,
        key: str,
        body_digest: str,
        cost_micro: int,
        draw: Callable[[], bytes],
        purpose: str,
        *,
        lane: Lane = "epsilon",
    ) -> bytes:
        """Pay for one release, draw it, store it and return its bytes; or replay a stored one.

        Args:
            key: Idempotency key: at most one draw ever happens under it.
            body_digest: Digest of the request; a repeat must have the same.
            cost_micro: Millionths of the lane, above 0.
            draw: Reads the data and draws the noise. Called at most once, after payment.
            purpose: What the release is for, for people who read the ledger.
            lane: The lane that pays.

        Raises:
            Refused: The budget does not hold the cost.
            Conflict: The key was used for another body, cost or lane.
            Interrupted: The key was charged and has no answer (a crash, or another process is at
                it); its cost is lost.
            ValueError: The cost is not above 0 or the key is empty.
        """
        if isinstance(cost_micro, bool) or not isinstance(cost_micro, int) or cost_micro <= 0:
            raise ValueError(f"a cost must be a whole number above 0, not {cost_micro!r}")
        if not key or not body_digest:
            raise ValueError("a release needs a key and a digest of its body")
        with self._connection() as connection:
            stored = self._charge(connection, key, body_digest, cost_micro, purpose, lane)
            if stored is not None:
                return stored
            self._start(connection, key)
            answer = draw()
            if not isinstance(answer, bytes):
                raise ValueError(f"a draw must return bytes, not {type(answer).__name__}")
            with _transaction(connection):
                connection.execute(
                    "UPDATE release SET state = 'answered', answer = ? WHERE key = ?", (answer, key)
                )
        return answer

    def void(self, key: str) -> None:
        """Give back the cost of a charge whose draw never began (after a crash before the mark).

        Raises:
            Interrupted: The draw had begun, so the cost stays spent; or there is no such charge.
        """
        with self._connection() as connection, _transaction(connection):
            row = connection.execute(
                "SELECT lane, cost FROM release WHERE key = ? AND state = 'charged'", (key,)
            ).fetchone()
            if row is None:
                raise Interrupted(f"release '{key}' is no charge that waits for its draw")
            lane, cost = row
            connection.execute("UPDATE release SET state = 'voided' WHERE key = ?", (key,))
            connection.execute("UPDATE account SET spent = spent - ? WHERE lane = ?", (cost, lane))

    def erase(self) -> None:
        """Overwrite every stored answer, on the disk too; costs and keys stay.

        For an owner that takes its data back. A repeated request is refused from then on, so no
        second draw replaces what was forgotten.
        """
        with self._connection() as connection:
            connection.execute("PRAGMA secure_delete = ON")
            with _transaction(connection):
                connection.execute("DROP TRIGGER release_moves_forward")
                connection.execute(
                    "UPDATE release SET answer = ? WHERE state = 'answered'", (ERASED,)
                )
                connection.execute(_FORWARD)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def balance(self, lane: Lane = "epsilon") -> tuple[int, int]:
        """(spent, limit) of a lane in millionths.

        Raises:
            Damaged: The entries do not sum to what is spent.
        """
        with self._connection() as connection, _transaction(connection):
            return _balance(connection, lane)

    def entries(self) -> tuple[Entry, ...]:
        """Every release in the order of charging."""
        with self._connection() as connection:
            rows = connection.execute(
                "SELECT sequence, key, body_digest, purpose, lane, cost, state, answer "
                "FROM release ORDER BY sequence"
            ).fetchall()
        return tuple(
            Entry(number, key, body, purpose, lane, cost, state, _digest(answer))
            for number, key, body, purpose, lane, cost, state, answer in rows
        )

    def _charge(
        self,
        connection: sqlite3.Connection,
        key: str,
        body_digest: str,
        cost: int,
        purpose: str,
        lane: Lane,
    ) -> bytes | None:
        """Take the cost, or find the key: its stored answer, or None where it may be started."""
        with _transaction(connection):
            known = connection.execute(
                "SELECT body_digest, cost, lane, state, answer FROM release WHERE key = ?", (key,)
            ).fetchone()
            if known is not None:
                return _known_answer(key, known, (body_digest, cost, lane))
            spent, allowed = _balance(connection, lane)
            paid = connection.execute(
                "UPDATE account SET spent = spent + ? WHERE lane = ? AND spent + ? <= allowed",
                (cost, lane, cost),
            ).rowcount
            if paid != 1:
                raise Refused(
                    f"'{purpose}' costs {cost} millionths of {lane}, and {allowed - spent} of "
                    f"{allowed} are left"
                )
            connection.execute(
                "INSERT INTO release (key, body_digest, purpose, lane, cost, state) "
                "VALUES (?, ?, ?, ?, ?, 'charged')",
                (key, body_digest, purpose, lane, cost),
            )
        return None

    def _start(self, connection: sqlite3.Connection, key: str) -> None:
        """Mark the draw as begun; of several processes one succeeds."""
        with _transaction(connection):
            begun = connection.execute(
                "UPDATE release SET state = 'started' WHERE key = ? AND state = 'charged'", (key,)
            ).rowcount
        if begun != 1:
            raise Interrupted(f"release '{key}' is being drawn by another process")

    def _create(self, limits: dict[str, int]) -> None:
        # Stored answers are private to their owner until sent.
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        with self._connection() as connection:
            _enter_wal(connection)
            connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
            with _transaction(connection):
                for lane, limit in limits.items():
                    connection.execute(
                        "INSERT OR IGNORE INTO account (lane, spent, allowed) VALUES (?, 0, ?)",
                        (lane, limit),
                    )
                made = dict(connection.execute("SELECT lane, allowed FROM account").fetchall())
        if made != limits:
            raise ValueError(
                f"{self.path} was made with limits {made}, not {limits}: a budget is fixed for life"
            )

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """A connection for one call: nothing is shared between threads or over a fork."""
        connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            yield connection
        finally:
            connection.close()


def _digest(answer: bytes | None) -> str | None:
    return None if answer is None else hashlib.sha256(answer).hexdigest()


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """One write transaction: committed at the end, rolled back on any exception."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


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


def _known_answer(
    key: str, known: tuple[str, int, str, State, bytes | None], wanted: tuple[str, int, str]
) -> bytes | None:
    """What a key that is in the ledger gives: its answer, None to go on, or an error."""
    body_digest, cost, lane, state, answer = known
    if (body_digest, cost, lane) != wanted:
        raise Conflict(f"release '{key}' was used for another request")
    if answer == ERASED:
        raise Interrupted(f"release '{key}' was erased by its owner and is never drawn again")
    if state == "answered":
        return answer
    if state == "charged":
        return None  # it was paid and a crash came before the mark: nothing was drawn
    raise Interrupted(f"release '{key}' is {state} and has no answer; ask again with a new key")


def _balance(connection: sqlite3.Connection, lane: Lane) -> tuple[int, int]:
    """(spent, allowed), after checking that the entries sum to it."""
    row = connection.execute(
        "SELECT spent, allowed, (SELECT coalesce(sum(cost), 0) FROM release "
        "WHERE release.lane = account.lane AND state <> 'voided') FROM account WHERE lane = ?",
        (lane,),
    ).fetchone()
    if row is None:
        raise ValueError(f"lane must be epsilon or rho, not {lane!r}")
    spent, allowed, total = row
    if spent != total:
        raise Damaged(f"the ledger has spent {spent} and its entries sum to {total}")
    return int(spent), int(allowed)
