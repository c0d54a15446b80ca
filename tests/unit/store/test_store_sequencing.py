"""Entries get their positions once, in an order that fits what acts saw, whoever commits when."""

import json
import os
import signal
import threading
from itertools import pairwise

import pytest

from clearinghouse.canonical import canonical_bytes
from clearinghouse.ids import new_id
from clearinghouse.log import merkle
from clearinghouse.store import logbook
from clearinghouse.store.records import Org
from clearinghouse.store.store import Store


@pytest.fixture
def url(ready_postgres):
    return ready_postgres


@pytest.fixture
def outbox(url):
    """A store whose entries wait: nobody takes them, and nobody waits for that."""
    opened = Store(url)
    opened.sequencer, opened.sequencer_wait_s = None, 0.0
    yield opened
    opened.close()


def bodies(store):
    """The whole log, whose tree is the one over it."""
    with store.read() as tx:
        size = tx.log.size()
        found = [body for start in range(0, size, 1000) for body in tx.log.entries(start, 1000)]
        nodes = merkle.MemoryNodes()
        for body in found:
            merkle.append(nodes, body)
        assert tx.log.root(size) == merkle.root(nodes)
        assert len(found) == size
    return found


def test_on_sqlite_an_entry_has_its_position_in_its_own_transaction(server_folder):
    store = Store(f"sqlite:///{server_folder / 'clearinghouse.db'}")
    with store.write() as tx:
        for index in range(3):
            assert tx.log.place(tx.log.append(b"{}")) == index
        assert tx.log.size() == 3
        assert tx.log.waiting() == 0
    assert store.sequence() == 0
    with store.write_for("org_1") as tx:
        tx.log.append(b"[]")
    assert bodies(store) == [b"{}", b"{}", b"{}", b"[]"]
    store.close()


def test_an_entry_waits_in_the_outbox_until_it_is_taken(outbox):
    with outbox.write() as tx:
        ids = [tx.log.append(b'"%d"' % number) for number in range(3)]
        assert [tx.log.place(entry) for entry in ids] == [None] * 3
    with outbox.read() as tx:
        assert (tx.log.size(), tx.log.waiting(), tx.log.first_waiting()) == (0, 3, b'"0"')
    assert outbox.sequence() == 3
    assert outbox.sequence() == 0
    with outbox.read() as tx:
        assert [tx.log.place(entry) for entry in ids] == [0, 1, 2]
        assert (tx.log.waiting(), tx.log.first_waiting()) == (0, None)
    assert bodies(outbox) == [b'"0"', b'"1"', b'"2"']


def test_an_act_that_is_undone_leaves_no_entry_and_no_gap(outbox):
    for number in range(3):
        try:
            with outbox.write() as tx:
                tx.log.append(b'"%d"' % number)
                if number == 1:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            pass
    assert outbox.sequence() == 2
    assert bodies(outbox) == [b'"0"', b'"2"']


def test_more_than_a_batch_is_taken_in_turns_and_in_order(outbox, monkeypatch):
    monkeypatch.setattr(logbook, "BATCH", 4)
    told = [b"%d" % number for number in range(10)]
    with outbox.write() as tx:
        for body in told:
            tx.log.append(body)
    assert [outbox.sequence() for _ in range(4)] == [4, 4, 2, 0]
    assert bodies(outbox) == told


def test_an_act_that_began_earlier_and_commits_later_is_not_passed_over(outbox):
    """Its id is the lower one: whoever took what is above the last id would never see it."""
    with outbox.write_for("slow") as slow:
        late = slow.log.append(b'"late"')
        with outbox.write_for("quick") as quick:
            early = quick.log.append(b'"early"')
        assert late < early
        assert outbox.sequence() == 1
    assert outbox.sequence() == 1
    assert bodies(outbox) == [b'"early"', b'"late"']
    with outbox.read() as tx:
        assert (tx.log.place(early), tx.log.place(late)) == (0, 1)


def test_owners_write_beside_one_another_and_each_of_them_in_turn(url):
    stores = [Store(url) for _ in range(3)]
    meet = threading.Barrier(2)
    order = []

    def act(store, owner, name, *, meets):
        with store.write_for(owner) as tx:
            if meets:
                meet.wait(30)  # both transactions are open
            order.append(name)
            tx.log.append(canonical_bytes({"act": name}))

    threads = [
        threading.Thread(target=act, args=(store, owner, owner), kwargs={"meets": True})
        for store, owner in zip(stores, ("org_a", "org_b"), strict=False)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(order) == ["org_a", "org_b"]

    with stores[0].write_for("org_a") as tx:
        same = threading.Thread(
            target=act, args=(stores[1], "org_a", "second"), kwargs={"meets": False}
        )
        same.start()
        same.join(0.3)
        assert same.is_alive()
        order.append("first")
        tx.log.append(canonical_bytes({"act": "first"}))
    same.join(60)
    assert order[2:] == ["first", "second"]
    assert [json.loads(body)["act"] for body in bodies(stores[2])][2:] == ["first", "second"]
    for store in stores:
        store.close()


@pytest.mark.parametrize("first", ["write", "write_for"])
def test_nobody_writes_beside_a_writer(url, first):
    stores = [Store(url), Store(url)]

    def begin(store, way):
        return store.write() if way == "write" else store.write_for("org_other")

    second = "write_for" if first == "write" else "write"
    order = []

    def act():
        with begin(stores[1], second) as tx:
            tx.log.append(b"{}")
            order.append(second)

    with begin(stores[0], first) as tx:
        tx.log.append(b"{}")
        other = threading.Thread(target=act)
        other.start()
        other.join(0.3)
        assert other.is_alive()
        order.append(first)
    other.join(60)
    assert order == [first, second]
    for store in stores:
        store.close()


OWNERS, ACTS = 6, 25


def test_writers_and_sequencers_at_once_place_every_entry_once_and_in_order(url):
    """Owners beside one another, a writer between them, two sequencers that compete."""
    stop = threading.Event()
    errors = []

    def guarded(act, *args):
        store = Store(url)
        try:
            act(store, *args)
        except Exception as error:
            errors.append(error)
        finally:
            store.close()

    def write(store, owner):
        store.sequencer, store.sequencer_wait_s = None, 0.0
        for number in range(ACTS):
            with store.write_for(owner) as tx:
                tx.log.append(canonical_bytes({"owner": owner, "number": number}))

    def write_alone(store):
        store.sequencer, store.sequencer_wait_s = None, 0.0
        for number in range(ACTS):
            with store.write() as tx:
                tx.log.append(canonical_bytes({"owner": "all", "number": number}))

    def sequence(store):
        while not stop.is_set():
            store.sequence()

    writers = [
        threading.Thread(target=guarded, args=(write, f"org_{number}")) for number in range(OWNERS)
    ]
    writers.append(threading.Thread(target=guarded, args=(write_alone,)))
    sequencers = [threading.Thread(target=guarded, args=(sequence,)) for _ in range(2)]
    for thread in (*writers, *sequencers):
        thread.start()
    for thread in writers:
        thread.join(120)
    stop.set()
    for thread in sequencers:
        thread.join(60)
    assert errors == []
    store = Store(url)
    store.sequence()
    told = [json.loads(body) for body in bodies(store)]
    store.close()
    assert len(told) == (OWNERS + 1) * ACTS
    for owner in {item["owner"] for item in told}:
        numbers = [item["number"] for item in told if item["owner"] == owner]
        assert numbers == list(range(ACTS))


def test_what_an_act_saw_has_a_lower_position(url):
    """Each act names the newest it can see; readers of committed rows come after their writers."""
    errors = []

    def write(owner):
        store = Store(url)
        store.sequencer, store.sequencer_wait_s = None, 0.0
        try:
            for number in range(15):
                with store.write_for(owner) as tx:
                    seen = tx.meta("newest")
                    name = f"{owner}:{number}"
                    tx.log.append(canonical_bytes({"act": name, "saw": seen}))
                    tx.set_meta("newest", name)
                store.sequence()
        except Exception as error:
            errors.append(error)
        finally:
            store.close()

    opened = Store(url)
    with opened.write() as tx:
        tx.set_meta("newest", "none")  # the row is there: nobody collides by inserting it
    threads = [threading.Thread(target=write, args=(f"org_{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert errors == []
    opened.sequence()
    places = {}
    for place, body in enumerate(bodies(opened)):
        told = json.loads(body)
        assert told["saw"] == "none" or places[told["saw"]] < place
        places[told["act"]] = place
    assert len(places) == 60
    opened.close()


def test_what_was_committed_before_a_kill_is_placed_by_the_next(url):
    def child():
        store = Store(url)
        store.sequencer, store.sequencer_wait_s = None, 0.0
        with store.write() as tx:
            tx.log.append(b'"committed"')
        with store.write() as tx:
            tx.log.append(b'"not committed"')
            tx._session.flush()
            os.kill(os.getpid(), signal.SIGKILL)

    pid = os.fork()
    if pid == 0:
        child()
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    store = Store(url)
    with store.read() as tx:
        assert (tx.log.size(), tx.log.waiting()) == (0, 1)
    with store.write() as tx:
        tx.log.append(b'"next"')
    assert bodies(store) == [b'"committed"', b'"next"']
    store.close()


def test_a_sequencer_elsewhere_is_waited_for_and_its_absence_loses_nothing(outbox, url):
    with outbox.write() as tx:
        tx.log.append(b'"alone"')
    assert bodies(outbox) == []
    outbox.sequencer_wait_s = 60.0
    elsewhere, stop = Store(url), threading.Event()

    def take():
        while not stop.wait(0.02):
            elsewhere.sequence()

    thread = threading.Thread(target=take)
    thread.start()
    with outbox.write() as tx:
        tx.log.append(b'"acknowledged"')
    assert bodies(outbox) == [b'"alone"', b'"acknowledged"']  # when `write` returns it is there
    stop.set()
    thread.join(60)
    elsewhere.close()


def test_who_refers_to_an_entry_learns_its_index_when_there_is_one(outbox):
    org = Org(new_id("org"), "p", "provider", new_id("key"), "x", None)
    with outbox.write() as tx:
        tx.parties.add(org)
        tx.parties.date_key(org.key_id, tx.log.append(b"{}"))
    with outbox.read() as tx:
        (key,) = tx.parties.keys(org.id)
        assert (key.added, key.revoked, key.is_revoked) == (None, None, False)
    outbox.sequence()
    with outbox.write() as tx:
        tx.parties.revoke_key(org.key_id, tx.log.append(b"[]"))
    with outbox.read() as tx:
        (key,) = tx.parties.keys(org.id)
        assert (key.added, key.revoked, key.is_revoked) == (0, None, True)
        assert tx.parties.by_key(org.key_id) is None
        assert list(pairwise(sorted(tx.log.places().values()))) == [(0, 1)]
    outbox.sequence()
    with outbox.read() as tx:
        assert tx.parties.keys(org.id)[0].revoked == 1
