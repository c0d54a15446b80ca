"""Connections: one engine that writes, one that only reads.

SQLite needs care. Left to its defaults the driver begins transactions late, so that read-then-write
spends a budget several times over (measured: 320 of 100) and waits for no lock on an upgrade. So a
writing transaction takes the write lock when it begins, and waits up to ten seconds for it. WAL
lets readers go on; synchronous=FULL makes a commit survive a power cut.
"""

from typing import Any

from sqlalchemy import Engine, create_engine, event

LOCK_WAIT_S = 10
READERS = 40
"""As many as the web framework has threads, so that none waits for a connection."""


def writer(url: str) -> Engine:
    """An engine whose transactions hold the write lock from their first moment."""
    if not url.startswith("sqlite"):
        return create_engine(url, isolation_level="SERIALIZABLE", pool_pre_ping=True)
    engine = create_engine(url, connect_args={"timeout": LOCK_WAIT_S})
    event.listen(engine, "connect", _connect_writer)
    event.listen(engine, "begin", _begin_immediate)
    return engine


def reader(url: str) -> Engine:
    """An engine that cannot write."""
    if not url.startswith("sqlite"):
        return create_engine(
            url,
            isolation_level="REPEATABLE READ",
            pool_pre_ping=True,
            connect_args={"options": "-c default_transaction_read_only=on"},
        )
    engine = create_engine(
        url,
        connect_args={"timeout": LOCK_WAIT_S},
        pool_size=READERS,
        max_overflow=READERS,
    )
    event.listen(engine, "connect", _connect_reader)
    event.listen(engine, "begin", _begin_deferred)
    return engine


def _connect_writer(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")


def _connect_reader(connection: Any, _record: object) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA query_only=ON")


def _begin_immediate(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_deferred(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN")
