"""What only PostgreSQL can do to us: restarts, lost connections, frozen holders of the lock."""

import signal
import time

import databases
import pytest
from sqlalchemy import text

from clearinghouse.blobs import StorageFullError
from clearinghouse.errors import ConflictError, InputError, TryAgainError
from clearinghouse.ids import new_id
from clearinghouse.store import engine
from clearinghouse.store.faults import RolledBackError
from clearinghouse.store.records import Org
from clearinghouse.store.store import Store


@pytest.fixture
def store(ready_postgres):
    opened = Store(ready_postgres)
    yield opened
    opened.close()


def answer(store, statement):
    with store.read() as tx:
        return tx._session.execute(text(statement)).scalar()


def raise_state(tx, state):
    """Let the server itself raise an error of this SQLSTATE."""
    tx._session.execute(text(f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE='{state}'; END $$"))


def test_every_connection_has_limits(store):
    with store.write() as tx:
        found = {
            name: tx._session.execute(text(f"SHOW {name}")).scalar()
            for name in (
                "transaction_isolation",
                "statement_timeout",
                "lock_timeout",
                "idle_in_transaction_session_timeout",
                "synchronous_commit",
            )
        }
    assert found == {
        "transaction_isolation": "read committed",
        "statement_timeout": "30s",
        "lock_timeout": "10s",
        "idle_in_transaction_session_timeout": "20s",
        "synchronous_commit": "off",  # the server's choice, here that of the tests
    }
    assert answer(store, "SHOW transaction_isolation") == "repeatable read"
    assert answer(store, "SHOW transaction_read_only") == "on"


def test_the_short_names_of_the_url_mean_the_same_driver(ready_postgres):
    short = ready_postgres.replace("postgresql+psycopg://", "postgres://")
    opened = Store(short)
    with opened.read() as tx:
        assert tx.log.size() == 0
    opened.close()


def test_a_text_with_a_nul_is_bad_input(store):
    with pytest.raises(InputError, match="cannot store"), store.write() as tx:
        tx.parties.add(Org(new_id("org"), "a\x00b", "provider", new_id("key"), "x", None))


@pytest.mark.parametrize("state", ["40001", "40P01", "55P03"])
def test_what_the_server_undoes_is_repeated(store, state):
    calls = []

    def act(tx):
        calls.append(tx.log.append(b"{}"))
        if len(calls) < 3:
            raise_state(tx, state)

    store.run(act)
    assert len(calls) == 3
    assert answer(store, "SELECT count(*) FROM entry") == 1


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("53100", StorageFullError),
        ("53300", TryAgainError),
        ("57P01", TryAgainError),
        ("57014", TryAgainError),
        ("25P03", TryAgainError),
        ("08006", TryAgainError),
        ("23505", ConflictError),
        ("22021", InputError),
    ],
)
def test_each_error_of_the_server_has_one_meaning(store, state, kind):
    def act(tx):
        tx.log.append(b"{}")
        raise_state(tx, state)

    with pytest.raises(kind) as found:
        store.run(act)
    assert type(found.value) is kind
    assert answer(store, "SELECT count(*) FROM entry") == 0


def test_a_writer_gives_up_waiting_for_another_process(ready_postgres, monkeypatch):
    monkeypatch.setattr(engine, "LOCK_WAIT_S", 1)
    holder, waiter = Store(ready_postgres), Store(ready_postgres)
    with holder.write() as tx:
        tx.log.append(b"{}")
        with waiter.read() as seen:  # readers never wait
            assert seen.log.size() == 0
        started = time.monotonic()
        with pytest.raises(RolledBackError), waiter.write() as other:
            other.log.append(b"[]")
        assert 0.9 < time.monotonic() - started < 8
    with waiter.write() as other:
        other.log.append(b"[]")
    with waiter.read() as seen:
        assert seen.log.entries(0, 9) == (b"{}", b"[]")
    holder.close()
    waiter.close()


def test_a_frozen_holder_of_the_lock_loses_it(ready_postgres, monkeypatch):
    monkeypatch.setattr(engine, "WRITER_IDLE_S", 1)
    frozen, other = Store(ready_postgres), Store(ready_postgres)

    def freeze(tx):
        tx.log.append(b'"frozen"')
        with other.write() as meanwhile:  # waits until the server ends the frozen transaction
            meanwhile.log.append(b'"other"')
        tx.log.append(b'"awake"')

    with pytest.raises(TryAgainError):
        frozen.run(freeze)
    with frozen.write() as tx:  # and the next call works
        tx.log.append(b'"again"')
    with frozen.read() as tx:
        assert tx.log.entries(0, 9) == (b'"other"', b'"again"')
    frozen.close()
    other.close()


def test_a_server_that_is_away_and_comes_back(postgres):
    server = databases.PostgresServer(postgres.programs, fsync="off")
    try:
        url = server.make()
        store = Store(url)
        with store.write() as tx:
            tx.log.append(b"{}")
        with pytest.raises(TryAgainError):
            store.run(lambda tx: (tx.log.append(b"[]"), server.stop(signal.SIGQUIT)))
        for way in (store.read, store.write):
            with pytest.raises(TryAgainError), way() as tx:
                tx.log.size()
        with pytest.raises(TryAgainError):
            Store(url)
        server.start()
        with store.write() as tx:
            assert tx.log.entries(0, 9) == (b"{}",)
            tx.log.append(b"[]")
        with store.read() as tx:
            assert tx.log.entries(0, 9) == (b"{}", b"[]")
        store.close()
    finally:
        server.close()
