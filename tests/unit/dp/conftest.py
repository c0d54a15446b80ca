"""Ledgers on both databases: a file of its own, or a unit of its own in one PostgreSQL database."""

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import databases
import psycopg
import pytest

from dp.ledger import Ledger
from dp.ledger_books import namespace


@dataclass(frozen=True)
class Place:
    """Where the ledgers of one test are."""

    database: str
    where: Path | str
    unit: str

    def open(self, **limits: int) -> Ledger:
        """Open or make the ledger."""
        return Ledger.open(self.where, unit=self.unit, **limits)

    def run(self, statement: str) -> Any:
        """Someone else at the database, with a statement of theirs."""
        if self.database == "sqlite":
            import sqlite3

            other = sqlite3.connect(self.where, isolation_level=None)
            try:
                return other.execute(statement).fetchall()
            finally:
                other.close()
        with psycopg.connect(self.where, autocommit=True) as connection:
            connection.execute(f"SET search_path TO {namespace(self.unit)}")
            return connection.execute(statement).rowcount


@pytest.fixture(scope="module")
def in_memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in memory where the system has one: for thousands of ledgers that nobody reads.

    The same files and statements; only that a commit waits for no disk. Whether a ledger is durable
    is asked by the tests of kills and faults.
    """
    memory = Path("/dev/shm")  # a new folder of its own, gone afterwards
    if not os.access(memory, os.W_OK):
        yield tmp_path_factory.mktemp("memory")
        return
    with TemporaryDirectory(prefix="clearinghouse-test-", dir=memory) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def ledger_database(postgres: databases.PostgresServer) -> Iterator[str]:
    """URL of one PostgreSQL database for all ledgers of a run."""
    url = postgres.make()
    yield url.replace("+psycopg", "")
    postgres.drop(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A place without a ledger, on SQLite and PostgreSQL in turn."""
    if request.param == "sqlite":
        return Place("sqlite", tmp_path / "ledger.sqlite", "")
    url: str = request.getfixturevalue("ledger_database")
    return Place("postgresql", url, secrets.token_hex(8))
