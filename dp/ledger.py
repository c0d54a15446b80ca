"""The owner's privacy ledger: every release is paid before it is drawn, on SQLite or PostgreSQL.

The order of steps is the safety argument; each arrow is a durable commit:

    look up the key, take the cost from the budget  ->  mark started  ->  read data, draw noise
    ->  store the answer  ->  send it

A crash at any point leaves the cost spent (or not yet taken and nothing drawn), never an answer
that was free. A repeated request gets the stored bytes, so that noise cannot be averaged away by
asking again.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dp.ledger_books import Books, Lane, LedgerError, State, Unavailable, storage_at

ERASED = b"\x00erased"
"""Stands where an answer was that its owner had to forget."""

__all__ = [
    "Conflict",
    "Damaged",
    "Entry",
    "Interrupted",
    "Lane",
    "Ledger",
    "LedgerError",
    "Refused",
    "State",
    "Unavailable",
]


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
        books are neither restored from a copy nor edited; the database's commits are durable.
    Proof:
        `draw` runs only after this process alone moved the release from charged to started, and
        that row exists only in a commit that raised `spent` by its cost under a conditional update
        and CHECK(spent <= allowed) in one write transaction. Only a charged release can be voided,
        so a cost is given back only when no draw began.
    """

    def __init__(self, where: Path | str, unit: str = "") -> None:
        self.where = where
        self._storage = storage_at(where, unit)

    @classmethod
    def open(
        cls, where: Path | str, *, limit_micro: int, rho_limit_micro: int = 0, unit: str = ""
    ) -> "Ledger":
        """Open or make the ledger; both lanes are fixed when it is made.

        Args:
            where: A file, or a `postgresql://` URL.
            limit_micro: Pure lane: millionths of epsilon that may ever be spent.
            rho_limit_micro: zCDP lane: millionths of rho.
            unit: Names the patients' table in a database that holds several.

        Raises:
            ValueError: A limit is negative, or differs from the one the ledger was made with.
            Unavailable: The database does not answer.
        """
        for limit in (limit_micro, rho_limit_micro):
            if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
                raise ValueError(f"a limit must be a whole number of millionths, not {limit!r}")
        ledger = cls(where, unit)
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
        stored = self._charge(key, body_digest, cost_micro, purpose, lane)
        if stored is not None:
            return stored
        self._start(key)
        answer = draw()
        if not isinstance(answer, bytes):
            raise ValueError(f"a draw must return bytes, not {type(answer).__name__}")
        with self._storage.writing() as books:
            if not books.move(key, "started", "answered", answer):
                raise Damaged(f"release '{key}' was begun here and is not marked as such")
        return answer

    def void(self, key: str) -> None:
        """Give back the cost of a charge whose draw never began (after a crash before the mark).

        Raises:
            Interrupted: The draw had begun, so the cost stays spent; or there is no such charge.
        """
        with self._storage.writing() as books:
            known = books.find(key)
            if known is None or not books.move(key, "charged", "voided"):
                raise Interrupted(f"release '{key}' is no charge that waits for its draw")
            books.give_back(known[2], known[1])

    def erase(self) -> None:
        """Overwrite every stored answer, on the disk too; costs and keys stay.

        For an owner that takes its data back. A repeated request is refused from then on, so no
        second draw replaces what was forgotten.
        """
        self._storage.erase(ERASED)

    def balance(self, lane: Lane = "epsilon") -> tuple[int, int]:
        """(spent, limit) of a lane in millionths.

        Raises:
            Damaged: The entries do not sum to what is spent.
        """
        with self._storage.writing() as books:
            return _balance(books, lane)

    def entries(self) -> tuple[Entry, ...]:
        """Every release in the order of charging."""
        with self._storage.writing() as books:
            rows = books.entries()
        return tuple(
            Entry(number, key, body, purpose, lane, cost, state, _digest(answer))
            for number, key, body, purpose, lane, cost, state, answer in rows
        )

    def _charge(
        self, key: str, body_digest: str, cost: int, purpose: str, lane: Lane
    ) -> bytes | None:
        """Take the cost, or find the key: its stored answer, or None where it may be started."""
        with self._storage.writing() as books:
            known = books.find(key)
            if known is not None:
                return _known_answer(key, known, (body_digest, cost, lane))
            spent, allowed = _balance(books, lane)
            if not books.take(lane, cost):
                raise Refused(
                    f"'{purpose}' costs {cost} millionths of {lane}, and {allowed - spent} of "
                    f"{allowed} are left"
                )
            books.add(key, body_digest, purpose, lane, cost)
        return None

    def _start(self, key: str) -> None:
        """Mark the draw as begun; of several processes one succeeds."""
        with self._storage.writing() as books:
            begun = books.move(key, "charged", "started")
        if not begun:
            raise Interrupted(f"release '{key}' is being drawn by another process")

    def _create(self, limits: dict[Lane, int]) -> None:
        self._storage.create()
        with self._storage.writing() as books:
            made = {lane: books.open_account(lane, limit) for lane, limit in limits.items()}
        if made != limits:
            raise ValueError(
                f"this ledger was made with limits {made}, not {limits}: a budget is fixed for life"
            )


def _digest(answer: bytes | None) -> str | None:
    return None if answer is None else hashlib.sha256(bytes(answer)).hexdigest()


def _known_answer(key: str, known: tuple[Any, ...], wanted: tuple[str, int, str]) -> bytes | None:
    """What a key that is in the ledger gives: its answer, None to go on, or an error."""
    body_digest, cost, lane, state, answer = known
    if (body_digest, cost, lane) != wanted:
        raise Conflict(f"release '{key}' was used for another request")
    if answer is not None and bytes(answer) == ERASED:
        raise Interrupted(f"release '{key}' was erased by its owner and is never drawn again")
    if state == "answered":
        return bytes(answer)
    if state == "charged":
        return None  # it was paid and a crash came before the mark: nothing was drawn
    raise Interrupted(f"release '{key}' is {state} and has no answer; ask again with a new key")


def _balance(books: Books, lane: Lane) -> tuple[int, int]:
    """(spent, allowed), after checking that the entries sum to it."""
    found = books.account(lane)
    if found is None:
        raise ValueError(f"lane must be epsilon or rho, not {lane!r}")
    spent, allowed, total = found
    if spent != total:
        raise Damaged(f"the ledger has spent {spent} and its entries sum to {total}")
    return spent, allowed
