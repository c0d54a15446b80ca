"""The ledger's books in a PostgreSQL database: one schema for each table of patients.

For an owner that runs several machines. Two homes with the same patients share the books, so a new
key or campaign does not refresh a budget. A write transaction holds an advisory lock of its schema
for as long as it lasts, as SQLite's holds the file; a client that does not take the lock still
meets the conditional update, the checks and the triggers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from dp.ledger_books import BUSY_SECONDS, Books, Cursor, Row, Unavailable, namespace

_TABLES = """
CREATE TABLE IF NOT EXISTS account (
  lane TEXT PRIMARY KEY CHECK (lane IN ('epsilon', 'rho')),
  spent BIGINT NOT NULL,
  allowed BIGINT NOT NULL CHECK (allowed >= 0),
  CHECK (spent BETWEEN 0 AND allowed));
CREATE TABLE IF NOT EXISTS release (
  sequence BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  key TEXT NOT NULL UNIQUE,
  body_digest TEXT NOT NULL,
  purpose TEXT NOT NULL,
  lane TEXT NOT NULL REFERENCES account,
  cost BIGINT NOT NULL CHECK (cost > 0),
  state TEXT NOT NULL CHECK (state IN ('charged', 'started', 'answered', 'voided')),
  answer BYTEA,
  CHECK ((state = 'answered') = (answer IS NOT NULL)));
CREATE OR REPLACE FUNCTION stays() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN RAISE EXCEPTION 'a budget and its releases are there for life'; END $$;
CREATE OR REPLACE FUNCTION moves_forward() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN
    IF (NEW.sequence, NEW.key, NEW.body_digest, NEW.purpose, NEW.lane, NEW.cost)
       IS DISTINCT FROM (OLD.sequence, OLD.key, OLD.body_digest, OLD.purpose, OLD.lane, OLD.cost)
       OR OLD.state || '>' || NEW.state
          NOT IN ('charged>started', 'charged>voided', 'started>answered') THEN
      RAISE EXCEPTION 'a release only moves forward';
    END IF;
    RETURN NEW;
  END $$;
CREATE OR REPLACE FUNCTION limit_stays() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN
    IF (NEW.lane, NEW.allowed) IS DISTINCT FROM (OLD.lane, OLD.allowed) THEN
      RAISE EXCEPTION 'a budget is fixed for life';
    END IF;
    RETURN NEW;
  END $$;
CREATE OR REPLACE TRIGGER release_moves_forward BEFORE UPDATE ON release
  FOR EACH ROW EXECUTE FUNCTION moves_forward();
CREATE OR REPLACE TRIGGER limit_stays BEFORE UPDATE ON account
  FOR EACH ROW EXECUTE FUNCTION limit_stays();
CREATE OR REPLACE TRIGGER release_stays BEFORE DELETE OR TRUNCATE ON release
  FOR EACH STATEMENT EXECUTE FUNCTION stays();
CREATE OR REPLACE TRIGGER account_stays BEFORE DELETE OR TRUNCATE ON account
  FOR EACH STATEMENT EXECUTE FUNCTION stays();
"""


class PostgreSql:
    """The books of one table of patients in a PostgreSQL database."""

    def __init__(self, url: str, unit: str) -> None:
        """Connect to nothing yet.

        Raises:
            ValueError: The URL is not PostgreSQL's, or no unit names the patients.
        """
        scheme = urlsplit(url).scheme
        if scheme not in ("postgresql", "postgres", "postgresql+psycopg"):
            raise ValueError(f"a ledger is a file or a postgresql:// URL, not {scheme}://")
        if not unit:
            raise ValueError("a ledger in PostgreSQL needs the name of the patients it is about")
        self._url = url.replace("postgresql+psycopg://", "postgresql://", 1)
        try:
            conninfo_to_dict(self._url)
        except psycopg.ProgrammingError:  # its words may hold the password
            raise ValueError("the URL of the ledger is malformed") from None
        self._schema = namespace(unit)

    def create(self) -> None:
        """Make the schema, its tables and triggers unless they are there."""
        with self._transaction() as connection:
            made = connection.execute(
                "SELECT 1 FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid "
                "JOIN pg_namespace n ON n.oid = c.relnamespace "
                "WHERE n.nspname = %s AND t.tgname = 'account_stays'",
                (self._schema,),
            ).fetchone()
            if made is None:
                name = sql.Identifier(self._schema)
                connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(name))
                connection.execute(_TABLES)

    @contextmanager
    def writing(self) -> Iterator[Books]:
        """One write transaction."""
        with self._transaction() as connection:

            def execute(statement: str, values: Row) -> Cursor:
                return connection.execute(statement.replace("?", "%s").encode(), values)

            yield Books(execute)

    def erase(self, marker: bytes) -> None:
        """Replace every answer, and have the table written anew without the old ones."""
        with self._transaction() as connection:
            connection.execute("ALTER TABLE release DISABLE TRIGGER release_moves_forward")
            connection.execute("UPDATE release SET answer = %s WHERE state = 'answered'", (marker,))
            connection.execute("ALTER TABLE release ENABLE TRIGGER release_moves_forward")
        with psycopg.connect(self._url, autocommit=True) as connection:
            table = sql.Identifier(self._schema, "release")
            connection.execute(sql.SQL("VACUUM FULL {}").format(table))

    @contextmanager
    def _transaction(self) -> Iterator["psycopg.Connection[Row]"]:
        """A connection of its own, in one transaction, alone among the writers of this schema."""
        try:
            with psycopg.connect(
                self._url, connect_timeout=int(BUSY_SECONDS), autocommit=True
            ) as connection:
                connection.execute("BEGIN")
                # Durable at COMMIT, whatever the database's own setting.
                connection.execute("SET LOCAL synchronous_commit = on")
                connection.execute(
                    sql.SQL("SET LOCAL search_path TO {}, pg_temp").format(
                        sql.Identifier(self._schema)
                    )
                )
                connection.execute(
                    "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (self._schema,)
                )
                try:
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    if not connection.closed:
                        connection.execute("ROLLBACK")
                    raise
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise Unavailable(f"the ledger's database does not answer: {reason}") from None
