"""Connections: an engine that writes, one that only reads, one that changes tables.

Writers take turns, across threads and processes: a writing transaction holds one lock from its
first moment to its commit. Then what it reads stays true until it commits, and neither deadlocks
nor serialization failures can arise between writers.

SQLite has that lock: BEGIN IMMEDIATE, waited for up to ten seconds. Left to its defaults the driver
begins transactions late, so that read-then-write spends a budget several times over (measured: 320
of 100) and waits for no lock on an upgrade. WAL lets readers go on; synchronous=FULL makes a commit
survive a power cut.

On PostgreSQL it is an advisory lock, which the server drops with the transaction or the connection.
The isolation is READ COMMITTED on purpose: every statement after the lock sees all that earlier
holders committed, whereas SERIALIZABLE would fix its view before the wait for the lock ends
(measured on read-then-write without the lock: 276 of 400 transactions aborted). A frozen process
cannot keep the lock: the server ends transactions that stay idle.

Two kinds of transactions write on PostgreSQL without that turn. Those that touch only what belongs
to one owner (`sharer`) hold the lock shared, so that they run beside one another and never beside a
writer, and one more lock of that owner. The sequencer's (`sequencer`) has a lock of its own: it
touches nothing but the log's tree and what waits for it.
"""

import hashlib
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from clearinghouse.errors import InputError

LOCK_WAIT_S = 10
STATEMENT_S = 30
IDLE_S = 60
WRITER_IDLE_S = 20
"""So long a process that froze in the middle of a transaction keeps all others from writing."""

CONNECT_S = 5
READERS = 40
"""As many as the web framework has threads, so that none waits for a connection."""

IDLE_READERS = 5
"""PostgreSQL connections that a process keeps open for readers between calls."""

WRITE_LOCK = 0x636C656172696E67
"""Key of the advisory lock, one for each database: the ASCII bytes of `clearing`."""

SEQUENCE_LOCK = 0x73657175656E6365
"""Key of the sequencer's advisory lock: the ASCII bytes of `sequence`."""

SHARERS = 8
"""Transactions of `sharer` that a process runs at once."""

ERASED_TABLES = ("summary", "salt", "reply", "ask", "task", "blob_access", "blob")
"""Tables that erasure deletes from or empties columns of."""

_POSTGRESQL = "postgresql+psycopg"


def database_url(text: str) -> str:
    """Return the URL with its driver named.

    Raises:
        InputError: It is neither SQLite nor PostgreSQL. The text is not repeated: it may hold a
            password.
    """
    try:
        url = make_url(text)
    except ArgumentError:
        url = None
    if url is not None and url.drivername in ("postgres", "postgresql", _POSTGRESQL):
        url = url.set(drivername=_POSTGRESQL)
    elif url is None or url.drivername != "sqlite":
        raise InputError(
            "the database URL must be sqlite:///<file> or "
            "postgresql+psycopg://<user>:<password>@<host>:<port>/<database>"
        )
    return url.render_as_string(hide_password=False)


def is_sqlite(url: str) -> bool:
    """Whether a database URL names a SQLite file."""
    return url.startswith("sqlite")


def writer(url: str) -> Engine:
    """An engine whose transactions hold the write lock from their first moment."""
    if not is_sqlite(url):
        return _writing(url, _begin_locked)
    engine = create_engine(url, connect_args={"timeout": LOCK_WAIT_S}, hide_parameters=True)
    event.listen(engine, "connect", _connect_writer)
    event.listen(engine, "begin", _begin_immediate)
    return engine


def sharer(url: str) -> Engine:
    """PostgreSQL: an engine whose transactions run beside one another, and never beside a writer's.

    They begin with the lock held in common; `lock_owner` adds that of whom they write for.
    """
    return _writing(url, _begin_shared, SHARERS)


def lock_owner(connection: Connection, owner: str) -> None:
    """Let no other transaction of `sharer` write for the same owner until this one ends."""
    digest = hashlib.sha256(owner.encode()).digest()
    key = int.from_bytes(digest[:8], "big", signed=True)
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({key})")


def sequencer(url: str) -> Engine:
    """PostgreSQL: an engine whose transactions are the sequencer's, one at a time."""
    return _writing(url, _begin_sequencing, 1)


def reader(url: str) -> Engine:
    """An engine that cannot write; each of its transactions sees one state of the database."""
    if not is_sqlite(url):
        return _postgresql(
            url,
            "REPEATABLE READ",
            statement_s=STATEMENT_S,
            lock_s=LOCK_WAIT_S,
            connections=READERS,
            more="-c default_transaction_read_only=on",
        )
    engine = create_engine(
        url,
        connect_args={"timeout": LOCK_WAIT_S},
        hide_parameters=True,
        pool_size=READERS,
        max_overflow=READERS,
    )
    event.listen(engine, "connect", _connect_reader)
    event.listen(engine, "begin", _begin_deferred)
    return engine


def migrator(url: str) -> Engine:
    """An engine for changes of tables: holds the write lock, may take its time.

    SQLite changes a table by writing it anew, which foreign keys would forbid: they are off here,
    and whoever uses this checks them before the commit.
    """
    if not is_sqlite(url):
        engine = _postgresql(url, "READ COMMITTED", statement_s=0, lock_s=0)
        event.listen(engine, "begin", _begin_locked)
        return engine
    engine = create_engine(url, connect_args={"timeout": LOCK_WAIT_S}, hide_parameters=True)
    event.listen(engine, "connect", _connect_migrator)
    event.listen(engine, "begin", _begin_immediate)
    return engine


def scrub(writer: Engine) -> bool:
    """Remove what deleted rows left behind; whether all of it is gone.

    Outside of any transaction, which neither database would allow this in.
    """
    with writer.connect() as connection:
        raw: Any = connection.connection.dbapi_connection
        if writer.dialect.name == "sqlite":
            busy, _, _ = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return not busy
        raw.rollback()
        raw.autocommit = True
        try:
            for table in ERASED_TABLES:
                raw.execute(f"VACUUM {table}")
        finally:
            raw.autocommit = False
    return True


def _writing(url: str, begin: Callable[[Any], None], connections: int = 2) -> Engine:
    """An engine for PostgreSQL whose short transactions begin by taking a lock."""
    engine = _postgresql(
        url,
        "READ COMMITTED",
        statement_s=STATEMENT_S,
        lock_s=LOCK_WAIT_S,
        idle_s=WRITER_IDLE_S,
        connections=connections,
    )
    event.listen(engine, "begin", begin)
    return engine


def _postgresql(
    url: str,
    isolation: Any,
    *,
    statement_s: int,
    lock_s: int,
    idle_s: int | None = None,
    connections: int = 2,
    more: str = "",
) -> Engine:
    options = (
        f"-c statement_timeout={statement_s}s -c lock_timeout={lock_s}s "
        f"-c idle_in_transaction_session_timeout={idle_s or IDLE_S}s {more}"
    )
    kept = min(connections, IDLE_READERS)
    return create_engine(
        url,
        isolation_level=isolation,
        pool_size=kept,
        max_overflow=connections - kept,
        pool_timeout=LOCK_WAIT_S,
        hide_parameters=True,  # no error of it quotes what was to be written
        pool_pre_ping=True,  # a server that was restarted costs one more round trip, not a call
        connect_args={
            "options": options.strip(),
            "application_name": "clearinghouse",
            "connect_timeout": CONNECT_S,
            "keepalives_idle": IDLE_S,
        },
    )


def _connect_writer(connection: Any, _record: object) -> None:
    _connect_migrator(connection, _record)
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA secure_delete=ON")  # erased means overwritten, not only unlinked


def _connect_migrator(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    # Triggers name several tables: without this a table that is written anew could not be renamed.
    connection.execute("PRAGMA legacy_alter_table=ON")


def _connect_reader(connection: Any, _record: object) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA query_only=ON")


def _begin_immediate(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_deferred(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN")


def _begin_locked(connection: Any) -> None:
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITE_LOCK})")


def _begin_shared(connection: Any) -> None:
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock_shared({WRITE_LOCK})")


def _begin_sequencing(connection: Any) -> None:
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({SEQUENCE_LOCK})")
