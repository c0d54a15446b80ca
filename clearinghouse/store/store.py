"""The store: transactions, and behind them every query of the server."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import IntegrityError, OperationalError
from sqlmodel import Session, SQLModel

from clearinghouse.blobs import StorageFullError
from clearinghouse.errors import ConflictError, InputError, TryAgainError
from clearinghouse.store import engine
from clearinghouse.store.access import Access
from clearinghouse.store.cohorts import BlobIndex, Cohorts
from clearinghouse.store.ledger import Ledger
from clearinghouse.store.logbook import Logbook
from clearinghouse.store.market import Asks, Orders, Runs
from clearinghouse.store.parties import Guards, Parties
from clearinghouse.store.requests import Requests
from clearinghouse.store.tables import SCHEMA_VERSION, MetaRow
from clearinghouse.store.tasks import Tasks


class Tx:
    """One transaction: every query, by noun. Values read in it fit together."""

    def __init__(self, session: Session) -> None:
        self.access = Access(session)
        self.parties, self.guards = Parties(session), Guards(session)
        self.cohorts, self.blobs = Cohorts(session), BlobIndex(session)
        self.requests, self.tasks = Requests(session), Tasks(session)
        self.asks, self.orders, self.runs = Asks(session), Orders(session), Runs(session)
        self.ledger, self.log = Ledger(session), Logbook(session)
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
    """A database, open for reading and writing.

    Raises:
        InputError: The database was written by another version of this program.
    """

    def __init__(self, url: str) -> None:
        self._writer, self._reader = engine.writer(url), engine.reader(url)
        # Writers of this process queue here, in turn; SQLite itself would let them poll for its
        # lock with growing pauses. Other processes still meet at the database's own lock.
        self._turn = threading.Lock()
        SQLModel.metadata.create_all(self._writer)
        with self.write() as tx:
            found = tx.meta("schema_version")
            if found is None:
                tx.set_meta("schema_version", SCHEMA_VERSION)
            elif found != SCHEMA_VERSION:
                raise InputError(
                    f"the database has schema version {found}, this program needs "
                    f"{SCHEMA_VERSION}; use the program that wrote it, or migrate it first"
                )

    @contextmanager
    def write(self) -> Iterator[Tx]:
        """A transaction that writes; it commits at the end unless an error passes through.

        Never begin one inside another.

        Raises:
            TryAgainError: The database is busy or away.
            StorageFullError: The disk is full.
            ConflictError: A row that must be unique was written by someone else meanwhile.
        """
        try:
            with (
                self._turn,
                Session(self._writer, expire_on_commit=False) as session,
                session.begin(),
            ):
                yield Tx(session)
        except OperationalError as error:
            raise _retryable(error) from error
        except IntegrityError as error:
            raise ConflictError("this collides with something written meanwhile") from error

    @contextmanager
    def read(self) -> Iterator[Tx]:
        """A transaction that sees one state of the database and cannot change it.

        Raises:
            TryAgainError: The database is busy or away.
        """
        try:
            with Session(self._reader) as session, session.begin():
                yield Tx(session)
        except OperationalError as error:
            raise _retryable(error) from error

    def close(self) -> None:
        """Close all connections."""
        self._writer.dispose()
        self._reader.dispose()


def _retryable(error: OperationalError) -> TryAgainError:
    if "full" in str(error.orig):
        return StorageFullError()
    return TryAgainError("the database is busy or away; repeat the same call")
