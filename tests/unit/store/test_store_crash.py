"""PostgreSQL stops at once under four writers: nothing acknowledged is lost, nothing is doubled."""

import json
import signal
import threading
import time

import databases
import pytest

from clearinghouse.canonical import canonical_bytes
from clearinghouse.errors import RefusedError, TryAgainError
from clearinghouse.ids import new_id
from clearinghouse.log import merkle
from clearinghouse.messages.intake import OpenRequest
from clearinghouse.store.records import Org, Request, SchemaRecord, Valset
from clearinghouse.store.store import Store

WRITERS = 4


@pytest.fixture
def server(postgres):
    """A server of its own that keeps every promise of durability."""
    made = databases.PostgresServer(postgres.programs)
    yield made
    made.close()


def add_request(store):
    org = Org(new_id("org"), "h", "hospital", new_id("key"), "x", None)
    terms = OpenRequest.model_construct(valset_id=new_id("val"))
    made = Request(new_id("req"), org.id, terms.valset_id, terms, "0", "match", "running", "", 0)
    with store.write() as tx:
        tx.parties.add(org)
        tx.cohorts.add_schema(SchemaRecord("sch_1", "d", "{}"))
        tx.cohorts.add_valset(Valset(terms.valset_id, org.id, "sch_1", "{}"))
        tx.requests.add(made, [], 0.0)
    return made.id


class Load:
    """Writers that pay one unit again and again, each payment under its own name."""

    def __init__(self, url, request_id):
        self.request_id, self.stop = request_id, threading.Event()
        self.acknowledged, self.troubles, self.errors = set(), 0, []
        self.threads = [
            threading.Thread(target=self.write, args=(Store(url), worker), daemon=True)
            for worker in range(WRITERS)  # each with connections of its own, as in processes
        ]
        for thread in self.threads:
            thread.start()

    def write(self, store, worker):
        turn = 0
        try:
            while not self.stop.is_set():
                self.pay(store, f"pay:{worker}:{turn}")
                turn += 1
        except Exception as error:
            self.errors.append(error)
        finally:
            store.close()

    def pay(self, store, name):
        """Repeat one payment until it is acknowledged, as a caller with its key does."""
        while True:
            try:
                with store.write() as tx:
                    tx.ledger.transfer(name, self.request_id, {"external:a": -1, "org:b": 1})
                    tx.log.append(canonical_bytes({"paid": name}))
            except TryAgainError:
                self.troubles += 1
                time.sleep(0.02)
                continue
            except RefusedError as error:
                if "posted before" not in str(error):  # it was committed, the answer was lost
                    raise
            self.acknowledged.add(name)
            return

    def finish(self):
        self.stop.set()
        for thread in self.threads:
            thread.join(60)
        assert self.errors == []


def crash(server, times, pause_s):
    url = server.make()
    store = Store(url)
    load = Load(url, add_request(store))
    try:
        for _ in range(times):
            before = len(load.acknowledged)
            time.sleep(pause_s)
            server.stop(signal.SIGQUIT)
            assert len(load.acknowledged) > before
            server.start()
    finally:
        load.finish()
    check(store, load)
    store.close()


def check(store, load):
    """Payments, log and answers agree, and the log is one whole tree."""
    with store.read() as tx:
        paid = {item.transfer for item in tx.ledger.postings(load.request_id)}
        size = tx.log.size()
        entries = [item for start in range(0, size, 1000) for item in tx.log.entries(start, 1000)]
        logged = [json.loads(entry)["paid"] for entry in entries]
        nodes = merkle.MemoryNodes()
        for entry in entries:
            merkle.append(nodes, entry)
        assert merkle.root(nodes) == tx.log.root(size)
        assert tx.ledger.balance("org:b") == len(paid)
        assert tx.ledger.balance("external:a") == -len(paid)
    assert load.troubles > 0
    assert paid == load.acknowledged
    assert sorted(logged) == sorted(paid)


def test_an_immediate_stop_under_load_loses_and_doubles_nothing(server):
    crash(server, times=2, pause_s=0.7)


@pytest.mark.long
def test_six_immediate_stops_under_load_lose_and_double_nothing(server):
    crash(server, times=6, pause_s=5.0)
