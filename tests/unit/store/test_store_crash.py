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
from clearinghouse.messages.intake import OpenRequest, RegisterOrg
from clearinghouse.rounds import intake
from clearinghouse.rounds.desk import open_desk
from clearinghouse.settings import Settings
from clearinghouse.signing import SigningKey
from clearinghouse.store.records import Org, Request, SchemaRecord, Valset
from clearinghouse.store.store import Store
from clearinghouse.world.check import check_world

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

    def check(self, store):
        """Payments, log and answers agree, and the log is one whole tree."""
        with store.read() as tx:
            paid = {item.transfer for item in tx.ledger.postings(self.request_id)}
            size = tx.log.size()
            entries = [
                item for start in range(0, size, 1000) for item in tx.log.entries(start, 1000)
            ]
            logged = [json.loads(entry)["paid"] for entry in entries]
            nodes = merkle.MemoryNodes()
            for entry in entries:
                merkle.append(nodes, entry)
            assert merkle.root(nodes) == tx.log.root(size)
            assert tx.ledger.balance("org:b") == len(paid)
            assert tx.ledger.balance("external:a") == -len(paid)
        assert paid == self.acknowledged
        assert sorted(logged) == sorted(paid)

    def finish(self):
        self.stop.set()
        for thread in self.threads:
            thread.join(60)
        assert self.errors == []


class Acts(Load):
    """Writers that register organisations at the server's desk, each under a key of its own."""

    def __init__(self, url, desk):
        self.desk = desk
        super().__init__(url, "")

    def pay(self, store, name):
        """Repeat one registration under its key until it is acknowledged."""
        key = SigningKey.generate()
        message = RegisterOrg(
            name=name, role="provider", public_key=key.verify_key.base64, age_recipient=None
        )
        while True:
            try:
                with store.write() as tx:
                    intake.register_org(tx, self.desk, message)
            except TryAgainError:
                self.troubles += 1
                time.sleep(0.02)
                continue
            self.acknowledged.add(key.key_id)
            return

    def check(self, store):
        """Everybody who got an answer is registered once, and the world is as it must be."""
        with store.read() as tx:
            known = {row["id"] for row in tx.plain.rows("org_key")}
        assert known == self.acknowledged | {self.desk.key.key_id}
        found = check_world(self.desk.settings, time.time())
        assert found.is_well, "\n".join(map(str, found.troubles))
        assert found.entries == len(known)


def crash(server, load, store, times, pause_s):
    try:
        for _ in range(times):
            before = len(load.acknowledged)
            time.sleep(pause_s)
            server.stop(signal.SIGQUIT)
            assert len(load.acknowledged) > before
            server.start()
    finally:
        load.finish()
    assert load.troubles > 0
    load.check(store)


def payments(server, times, pause_s):
    store = Store(url := server.make())
    crash(server, Load(url, add_request(store)), store, times, pause_s)
    store.close()


def registrations(server, folder, times, pause_s):
    desk = open_desk(Settings(folder / "server", database_url=server.make()))
    crash(server, Acts(desk.settings.url, desk), desk.store, times, pause_s)
    desk.store.close()


def test_an_immediate_stop_under_payments_loses_and_doubles_nothing(server):
    payments(server, times=1, pause_s=0.7)


def test_an_immediate_stop_under_logged_acts_leaves_a_sound_world(server, tmp_path):
    registrations(server, tmp_path, times=1, pause_s=0.7)


@pytest.mark.long
def test_six_immediate_stops_under_load_lose_and_double_nothing(server, tmp_path):
    payments(server, times=6, pause_s=5.0)
    registrations(server, tmp_path, times=6, pause_s=5.0)
