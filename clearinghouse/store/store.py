"""The store: transactions, and behind them every query of the server."""

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from sqlmodel import Session

from clearinghouse.errors import ClearinghouseError, InputError
from clearinghouse.failpoints import reach
from clearinghouse.store import engine
from clearinghouse.store.access import Access
from clearinghouse.store.anchor import Anchor
from clearinghouse.store.cohorts import BlobIndex, Cohorts
from clearinghouse.store.disputes import Disputes, Outcomes, Prices
from clearinghouse.store.erasure import Erasure
from clearinghouse.store.faults import RolledBackError, translated
from clearinghouse.store.grants import Grants
from clearinghouse.store.jobs import Jobs
from clearinghouse.store.ledger import Ledger
from clearinghouse.store.logbook import Logbook
from clearinghouse.store.market import Asks, Orders, Runs
from clearinghouse.store.partials import Partials
from clearinghouse.store.parties import Guards, Parties
from clearinghouse.store.plain import Plain
from clearinghouse.store.quotas import Quotas
from clearinghouse.store.readers import ApiKeys, People
from clearinghouse.store.references import References
from clearinghouse.store.releases import Releases
from clearinghouse.store.requests import Requests
from clearinghouse.store.tables import SCHEMA_VERSION, MetaRow
from clearinghouse.store.tasks import Tasks
from clearinghouse.store.versions import found_version
from clearinghouse.store.workers import Workers

Result = TypeVar("Result")

MOST_TRIES = 6
"""So often `run` repeats a transaction that the database undid."""

_LOOK_S = 0.005


class Tx:
    """One transaction: every query, by noun. Values read in it fit together."""

    def __init__(self, session: Session) -> None:
        self.access = Access(session)
        self.parties, self.guards = Parties(session), Guards(session)
        self.apikeys, self.people = ApiKeys(session), People(session)
        self.quotas = Quotas(session)
        self.cohorts, self.blobs = Cohorts(session), BlobIndex(session)
        self.partials, self.references = Partials(session), References(session)
        self.requests, self.tasks = Requests(session), Tasks(session)
        self.jobs, self.workers = Jobs(session), Workers(session)
        self.asks, self.orders, self.runs = Asks(session), Orders(session), Runs(session)
        self.grants, self.erasure = Grants(session), Erasure(session)
        self.ledger, self.log = Ledger(session), Logbook(session)
        self.disputes, self.outcomes = Disputes(session), Outcomes(session)
        self.prices = Prices(session)
        self.releases = Releases(session)
        self.plain = Plain(session)
        self._session = session

    def meta(self, name: str) -> str | None:
        """Return a fact about the database."""
        row = self._session.get(MetaRow, name)
        return None if row is None else row.value

    def set_meta(self, name: str, value: str) -> None:
        """Store a fact about the database."""
        self._session.merge(MetaRow(name=name, value=value))
        self._session.flush()


class Store:
    """A database, open for reading and writing; a fresh one gets its tables.

    Attributes:
        sequencer: What gives entries their positions after the commit, where that is not part of
            the transaction (PostgreSQL); None if another process does, which is then waited for.
        sequencer_wait_s: So many seconds at most.

    Args:
        url: SQLite or PostgreSQL.
        published: File of the last published checkpoint, which the log must extend.

    Raises:
        InputError: The database has another schema version, or its log does not extend what was
            published.
        TryAgainError: The database is busy or away.
    """

    def __init__(self, url: str, published: Path | None = None) -> None:
        url = engine.database_url(url)
        self._writer, self._reader = engine.writer(url), engine.reader(url)
        self._sharer = self._sequencer = self._writer
        if not engine.is_sqlite(url):
            self._sharer, self._sequencer = engine.sharer(url), engine.sequencer(url)
        self._anchor = None if published is None else Anchor(published)
        # Writers of this process queue here, in turn; the database itself would let them poll for
        # its lock, or keep a connection each. Other processes meet at the database's own lock.
        self._turn = threading.Lock()
        self._sequencing = threading.Lock()
        self.sequencer: Callable[[], object] | None = self.sequence
        self.sequencer_wait_s = 2.0
        try:
            self._check_version(url)
            if self._anchor is not None:
                with self.read() as tx:
                    self._anchor.check(tx.log)
        except BaseException:
            self.close()
            raise

    def _check_version(self, url: str) -> None:
        with translated(), self._writer.connect() as connection:
            found = found_version(connection)
        if found is None:
            from clearinghouse.store import migrate

            with translated():
                migrate.upgrade(url)
        elif found != SCHEMA_VERSION:
            raise InputError(
                f"the database has schema version {found}, this program needs "
                f"{SCHEMA_VERSION}: if that is older, back the database up and migrate it; "
                "if not, use the program that wrote it"
            )

    @contextmanager
    def write(self) -> Iterator[Tx]:
        """A transaction that writes; it commits at the end unless an error passes through.

        Never begin one inside another.

        Raises:
            TryAgainError: The database is busy or away. Was the connection lost at the very end,
                nobody knows whether it was committed: repeat the same call, which finds out.
            StorageFullError: The disk is full.
            ConflictError: A row that must be unique was written by someone else meanwhile.
            InputError: A text that no database can hold.
        """
        with self._turn:
            with (
                translated(),
                Session(self._writer, expire_on_commit=False) as session,
                session.begin(),
            ):
                tx = Tx(session)
                yield tx
            self._publish(tx)
        self._settle(tx)

    @contextmanager
    def write_for(self, owner: str) -> Iterator[Tx]:
        """A transaction that writes only what belongs to one owner; errors as `write`.

        On PostgreSQL those of different owners run beside one another. What they read of others may
        change before they commit, so they may rest on nothing that is not the owner's, unless it
        never changes or a constraint of the database guards it. Never beside `write`.

        Args:
            owner: An id; transactions for the same one take turns.
        """
        if self._sharer is self._writer:
            with self.write() as tx:
                yield tx
            return
        with (
            translated(),
            Session(self._sharer, expire_on_commit=False) as session,
            session.begin(),
        ):
            engine.lock_owner(session.connection(), owner)
            tx = Tx(session)
            yield tx
        self._settle(tx)

    def sequence(self, finish: Callable[[Tx, tuple[int, ...]], None] | None = None) -> int:
        """Give positions to entries that wait; there are none on SQLite.

        Args:
            finish: What belongs to the same transaction, given the ids of the entries; called also
                if there were none.

        Returns:
            How many entries were placed; if `logbook.BATCH`, there may be more.

        Raises:
            TryAgainError: The database is busy or away; all that waited still waits.
        """
        if self._sequencer is self._writer:
            return 0
        with self._sequencing:
            with (
                translated(),
                Session(self._sequencer, expire_on_commit=False) as session,
                session.begin(),
            ):
                tx = Tx(session)
                placed = tx.log.sequence()
                if finish is not None:
                    finish(tx, placed)
            self._publish(tx)
        return len(placed)

    def _publish(self, tx: Tx) -> None:
        if tx.log.signed is not None and self._anchor is not None:
            self._anchor.keep(tx.log.signed)

    def _settle(self, tx: Tx) -> None:
        """See to it that the entries of a committed transaction get their positions.

        They will in any case: if that fails now, the next who sequences takes them, too.
        """
        last = tx.log.last_waiting
        if last is None:
            return
        reach("log.waiting")
        with suppress(ClearinghouseError):
            if self.sequencer is not None:
                self.sequencer()
                return
            until, pause_s = time.monotonic() + self.sequencer_wait_s, _LOOK_S
            while not self._is_placed(last) and time.monotonic() < until:
                time.sleep(pause_s)
                pause_s *= 1.5

    def _is_placed(self, entry_id: int) -> bool:
        with self.read() as tx:
            return tx.log.place(entry_id) is not None

    def run(self, act: Callable[[Tx], Result]) -> Result:
        """Do something in one writing transaction, again while the database undoes it.

        Args:
            act: Reads and writes through the transaction alone, so that it can be run again.

        Raises:
            RolledBackError: It was undone `MOST_TRIES` times.
        """
        for attempt in range(1, MOST_TRIES):
            try:
                with self.write() as tx:
                    return act(tx)
            except RolledBackError:
                time.sleep(secrets.randbelow(10 * 2**attempt) / 1000)  # 20 ms, then twice that...
        with self.write() as tx:
            return act(tx)

    @contextmanager
    def read(self) -> Iterator[Tx]:
        """A transaction that sees one state of the database and cannot change it.

        Raises:
            TryAgainError: The database is busy or away.
        """
        with translated(), Session(self._reader) as session, session.begin():
            yield Tx(session)

    def scrub(self) -> bool:
        """Overwrite what deleted rows left on the disk; False if readers kept some of it alive.

        Call it again later in that case. SQLite zeroes deleted content as it goes, so what is left
        is the journal; PostgreSQL gets its dead rows vacuumed.
        """
        with self._turn, translated():
            return engine.scrub(self._writer)

    def close(self) -> None:
        """Close all connections."""
        for opened in {self._writer, self._reader, self._sharer, self._sequencer}:
            opened.dispose()
