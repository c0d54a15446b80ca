"""One transaction, one log entry: both or neither; writers queue; readers cannot write.

Every test here runs on SQLite and on PostgreSQL.
"""

import threading

import pytest

from clearinghouse.canonical import canonical_bytes
from clearinghouse.errors import ConflictError, InputError, RefusedError, TryAgainError
from clearinghouse.ids import new_id
from clearinghouse.log import merkle
from clearinghouse.store.faults import RolledBackError
from clearinghouse.store.records import Org
from clearinghouse.store.store import Store


def org():
    return Org(new_id("org"), "a", "provider", new_id("key"), "x", None)


class CrashError(Exception):
    pass


def write_and_crash(store, *entries, org=None):
    with store.write() as tx:
        if org is not None:
            tx.parties.add(org)
        for entry in entries:
            tx.log.append(entry)
        raise CrashError


def test_an_entry_is_there_exactly_if_what_it_records_is(store):
    kept, lost = org(), org()
    with store.write() as tx:
        tx.parties.add(kept)
        tx.log.append(b'{"kept":1}')
    with pytest.raises(CrashError):
        write_and_crash(store, b'{"lost":1}', org=lost)
    with store.read() as tx:
        assert tx.parties.by_key(kept.key_id) == kept
        assert tx.parties.by_key(lost.key_id) is None
        assert tx.log.entries(0, 10) == (b'{"kept":1}',)
        assert tx.log.size() == 1


def test_a_crash_between_two_entries_leaves_a_whole_tree(store):
    for turn in range(5):
        with store.write() as tx:
            tx.log.append(canonical_bytes({"turn": turn}))
        with pytest.raises(CrashError):
            write_and_crash(store, b"{}", b"[]")
    with store.read() as tx:
        nodes = merkle.MemoryNodes()
        for entry in tx.log.entries(0, 10):
            merkle.append(nodes, entry)
        root = merkle.root(nodes)
        assert nodes.size() == 5
        for index, entry in enumerate(tx.log.entries(0, 10)):
            path = tx.log.proof(index, 5)
            merkle.verify_inclusion(merkle.leaf_hash(entry), index, 5, path, root)
        old = merkle.root(nodes, 3)
        merkle.verify_consistency(3, 5, old, root, tx.log.consistency(3, 5))
        with pytest.raises(InputError):
            tx.log.proof(5, 5)


def test_writers_queue_and_spend_a_budget_once(store, request_id):
    """Eight threads each try 20 times to take 1 of an escrow of 100: exactly 100 succeed."""
    with store.write() as tx:
        tx.ledger.transfer("fund", request_id, {"external:a": -100, "escrow:r": 100})
    done, refused, errors = [], [], []

    def spend(worker):
        for turn in range(20):
            name = f"spend:{worker}:{turn}"
            try:
                with store.write() as tx:
                    tx.ledger.transfer(name, request_id, {"escrow:r": -1, "org:b": 1})
                    tx.log.append(canonical_bytes({"spend": name}))
                done.append(name)
            except RefusedError:
                refused.append(name)
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=spend, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert (len(done), len(refused)) == (100, 60)
    with store.read() as tx:
        assert tx.ledger.balance("escrow:r") == 0
        assert tx.ledger.balance("org:b") == 100
        assert tx.log.size() == 100


def test_a_reader_cannot_write(store):
    with pytest.raises(TryAgainError), store.read() as tx:
        tx.parties.add(org())
    with store.read() as tx:
        assert tx.log.size() == 0


def test_a_reader_sees_one_state(store):
    with store.read() as before:
        assert before.log.size() == 0
        with store.write() as tx:
            tx.log.append(b"{}")
        assert before.log.size() == 0
    with store.read() as after:
        assert after.log.size() == 1


def test_of_two_movers_of_a_request_one_wins(store, request_id):
    with store.read() as tx:
        seen = tx.requests.get(request_id)

    def move(entry):
        with store.write() as tx:
            tx.log.append(entry)
            tx.requests.claim(seen)

    move(b'{"first":1}')
    with pytest.raises(TryAgainError):
        move(b'{"second":1}')
    with store.read() as tx:
        assert tx.log.entries(0, 9) == (b'{"first":1}',)
        assert tx.requests.get(request_id).version == seen.version + 1


def test_a_closed_request_cannot_be_moved(store, request_id):
    with store.read() as tx:
        seen = tx.requests.get(request_id)
    with store.write() as tx:
        tx.requests.close(request_id, "failed", "why", 2000.0)
    with pytest.raises(TryAgainError), store.write() as tx:
        tx.requests.claim(seen)
    with store.read() as tx:
        assert tx.requests.due() == ()
        assert tx.requests.get(request_id).reason == "why"


def test_nonces_and_replies_count_once(store):
    with store.write() as tx:
        assert tx.guards.remember_nonce("k", "n", expires=100, now=50.0)
        assert not tx.guards.remember_nonce("k", "n", expires=100, now=60.0)
        assert tx.guards.remember_nonce("other", "n", expires=100, now=60.0)
        assert tx.guards.remember_nonce("k", "n", expires=300, now=150.0)  # the old one lapsed
        assert tx.guards.reply("org", "key", "body") is None
        tx.guards.keep_reply("org", "key", "body", "answer")
        assert tx.guards.reply("org", "key", "body") == "answer"
        assert tx.guards.reply("other", "key", "body") is None
        with pytest.raises(ConflictError):
            tx.guards.reply("org", "key", "another body")


def test_an_unknown_foreign_key_is_a_conflict_not_a_row(store):
    with pytest.raises(ConflictError), store.write() as tx:
        tx.blobs.allow("0" * 64, new_id("org"))


def test_an_url_of_another_kind_is_refused_without_its_password():
    for url in ("mysql://me:hush@host/x", "hush", "", "postgresql+asyncpg://me:hush@host/x"):
        with pytest.raises(InputError, match=r"sqlite:///<file> or postgresql") as refused:
            Store(url)
        assert "hush" not in str(refused.value)


def test_a_repeated_transaction_runs_until_it_is_not_undone(store):
    calls = []

    def act(tx):
        calls.append(tx.log.append(b"{}"))
        if len(calls) < 4:
            raise RolledBackError("undone")
        return "done"

    assert store.run(act) == "done"
    assert len(calls) == 4
    with pytest.raises(RolledBackError):
        store.run(lambda tx: _undone())
    with store.read() as tx:
        assert tx.log.size() == 1


def _undone():
    raise RolledBackError("undone")


def test_what_was_not_undone_is_not_repeated(store):
    calls = []

    def act(tx):
        calls.append(1)
        raise TryAgainError("the connection was lost at the end, perhaps after the commit")

    with pytest.raises(TryAgainError):
        store.run(act)
    assert calls == [1]
