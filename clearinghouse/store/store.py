"""The store: transactions, and behind them every query of the server."""

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from sqlmodel import Session

from clearinghouse.errors import InputError
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
        self._anchor = None if published is None else Anchor(published)
        # Writers of this process queue here, in turn; the database itself would let them poll for
        # its lock, or keep a connection each. Other processes meet at the database's own lock.
        self._turn = threading.Lock()
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
            if tx.log.signed is not None and self._anchor is not None:
                self._anchor.keep(tx.log.signed)

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
        self._writer.dispose()
        self._reader.dispose()
