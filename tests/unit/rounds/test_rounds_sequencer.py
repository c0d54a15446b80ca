"""The sequencer as a process of its own: what waits for it, what it does, and what without it."""

import json
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
from consenting import make_market
from log_world import NOW_S, Party, _claim

from api.app import create_app
from api.readiness import Readiness
from clearinghouse.client.loopback import app_client
from clearinghouse.clock import FixedClock
from clearinghouse.errors import InputError, TryAgainError
from clearinghouse.ids import new_id
from clearinghouse.log.receipt import sign_claim
from clearinghouse.log.verify import verify_receipt
from clearinghouse.messages.identity import AddKey, possession_bytes
from clearinghouse.rounds import identity, pipeline, receipts
from clearinghouse.rounds.desk import open_desk
from clearinghouse.rounds.sequencer import Sequencer, open_sequencer, run_sequencer
from clearinghouse.settings import Settings
from clearinghouse.signing import SigningKey, b64encode, countersign
from clearinghouse.store.records import Run
from clearinghouse.store.store import Store
from clearinghouse.world.check import check_world


@pytest.fixture
def clock():
    return FixedClock(NOW_S)


@pytest.fixture
def settings(ready_postgres, tmp_path):
    """Of a server without the log's key, which does not wait for a sequencer that is held back."""
    return Settings(
        tmp_path / "server",
        database_url=ready_postgres,
        in_process=True,
        sequencer=False,
        sequencer_wait_s=0.0,
    )


@pytest.fixture
def central(settings, tmp_path):
    """The sequencer, which works when a test says so; its folder is another one."""
    own = replace(settings, data=tmp_path / "sequencer")
    store = Store(own.url, own.published)
    yield open_sequencer(own, store)
    store.close()


@pytest.fixture
def desk(settings, central, clock):
    opened = open_desk(settings, clock)
    yield opened
    opened.store.close()


@pytest.fixture
def market(settings, central, clock, tmp_path):
    """A gathered market whose entries are placed, behind a server without the log's key."""
    app = create_app(settings, clock)
    app.state.runner.pool.start()
    stop = threading.Event()
    thread = threading.Thread(target=_take, args=(central, stop))
    thread.start()
    with app_client(app) as client:
        made = make_market(tmp_path, client, app, clock)
        stop.set()
        thread.join(60)
        central.run(sign=True)
        yield made
    app.state.runner.pool.close()
    app.state.desk.store.close()


def _take(central, stop):
    while not stop.wait(0.01):
        central.run()


def test_a_server_without_the_logs_key_records_acts_and_signs_no_head(desk, central, settings):
    assert not (settings.data / "log.key").exists()
    assert desk.sequencer is None
    with pytest.raises(TryAgainError, match="has signed no head"):
        desk.head()
    with desk.store.read() as tx:
        assert (tx.log.size(), tx.log.waiting()) == (0, 1)
    assert central.run(sign=True) == 1
    assert desk.head().startswith("clearinghouse.local\n1\n")
    assert desk.head() == central.head()
    assert desk.note_key == central.note_key
    assert central.run(sign=True) == 0


def test_a_server_waits_for_the_first_sequencer_and_says_so(settings, clock):
    with pytest.raises(TryAgainError, match="run clearinghouse sequencer beside this"):
        open_desk(settings, clock)


def test_a_log_has_one_key(settings, central, clock, tmp_path):
    without = replace(settings, data=tmp_path / "new", sequencer=True)
    with pytest.raises(InputError, match=r"log\.key is not there, and the database's log is"):
        open_desk(without, clock)
    assert not (without.data / "log.key").exists()
    SigningKey.generate().save(without.data / "log.key")
    with pytest.raises(InputError, match="restore that key, and CLEARINGHOUSE_ORIGIN"):
        open_desk(without, clock)
    with pytest.raises(InputError, match=r"and the log's name is clearinghouse\.local"):
        open_desk(replace(settings, origin="another.example/log"), clock)


def test_on_sqlite_there_is_nothing_for_a_sequencer(server_folder, clock):
    with pytest.raises(InputError, match="a sequencer is for PostgreSQL"):
        run_sequencer(Settings(server_folder), threading.Event(), print)
    with pytest.raises(InputError, match="leave out --no-sequencer"):
        open_desk(Settings(server_folder, sequencer=False), clock)
    desk = open_desk(Settings(server_folder), clock)
    assert desk.head().startswith("clearinghouse.local\n1\n")
    assert not desk.sequencer.has_work()
    desk.store.close()


def test_a_key_is_shown_when_its_entry_has_its_index(desk, central):
    key, other = SigningKey.generate(), SigningKey.generate()
    org = desk.org

    def add(made):
        public = made.verify_key.base64
        proof = b64encode(made.sign(possession_bytes(org.id, public)))
        with desk.store.write() as tx:
            identity.add_key(tx, desk, org, AddKey(public_key=public, possession=proof))

    def shown(name):
        with desk.store.read() as tx:
            return identity.own_key(tx, org, name)

    add(key)
    with pytest.raises(TryAgainError, match=f"about {key.key_id} gets its number"):
        shown(key.key_id)
    central.run()
    assert (shown(key.key_id).added, shown(key.key_id).revoked) == (1, None)
    add(other)
    with desk.store.write() as tx:
        acting = replace(org, key_id=other.key_id, public_key=other.verify_key.base64)
        identity.revoke_key(tx, desk, acting, key.key_id)
    with desk.store.read() as tx:
        assert tx.parties.by_key(key.key_id) is None  # at once, whatever its index will be
    with pytest.raises(TryAgainError):
        shown(key.key_id)
    central.run()
    assert (shown(other.key_id).added, shown(key.key_id).revoked) == (2, 3)


def drafted(market):
    """Issue a receipt of a run, as the score step does."""
    desk = market.desk
    keystore, _ = market.connect("hospital")
    hospital = Party(market.hospital.id, keystore.signing_key)
    claim = replace(_claim(Party(desk.org.id, desk.key), hospital), request=market.request_id)
    run = Run(claim.run, market.request_id, "score", 9, "released", "", "", "", claim.model, {}, {})
    half = sign_claim(claim, [desk.key])
    whole = countersign(half, {desk.key.key_id: desk.key.verify_key}, hospital.key)
    with desk.store.write() as tx:
        tx.runs.add(run)
        receipts.issue(tx, desk, tx.requests.get(market.request_id), run, whole)
    return claim.receipt


def test_a_receipt_is_written_when_its_entry_has_its_place(market, central):
    market.open()
    name = drafted(market)
    store = market.desk.store
    with store.write() as tx:
        tx.requests.rest(tx.requests.get(market.request_id))
        assert tx.requests.due() == ()
    with store.read() as tx:
        assert tx.runs.receipt(name).body == ""
        with pytest.raises(TryAgainError, match="is written when its log entry"):
            tx.access.receipt(name, market.hospital.id)
    assert central.run() == 2
    with store.read() as tx:
        text = tx.access.receipt(name, market.hospital.id).body
        assert tx.runs.drafts() == ()
        assert tx.requests.due() == (market.request_id,)  # who waited for it goes on
    found = verify_receipt(text.encode(), trusted_log_key=central.note_key.vkey)
    assert found.claim.receipt == name


def test_a_damaged_draft_holds_nobody_up(market, central):
    market.open()
    bad, good = drafted(market), None
    with market.desk.store.write() as tx:
        damaged = tx.runs.receipt(bad)
        tx._session.connection().exec_driver_sql(
            "UPDATE receipt SET draft = '{}' WHERE id = %s", (damaged.id,)
        )
    good = drafted(market)
    central.run()
    with market.desk.store.read() as tx:
        assert tx.access.receipt(good, market.hospital.id).body
        with pytest.raises(TryAgainError):
            tx.access.receipt(bad, market.hospital.id)


def test_a_request_ends_when_the_log_has_all_of_it(market, central):
    market.to("confirmed")
    desk = market.desk
    with desk.store.write() as tx:
        tx.requests.enter(market.request_id, "settle", market.clock.now())
    for _ in range(10):
        if not pipeline.advance(desk, market.request_id):
            break
    assert market.step() == "audit"
    with desk.store.read() as tx:
        assert tx.tasks.of(market.request_id, "log.cosign") == ()
        assert tx.log.waiting() > 0
        assert tx.requests.due() == ()
    assert check_world(desk.settings, market.clock.now(), key=central.note_key).is_well
    central.run()
    with desk.store.read() as tx:
        assert tx.requests.due() == (market.request_id,)
    while pipeline.advance(desk, market.request_id):
        pass
    everybody = (*market.providers.values(), *market.developers.values())
    assert market.answer(*everybody, kinds=("log.cosign",))
    while pipeline.advance(desk, market.request_id):
        pass
    assert market.state() == ("done", "")
    market.check_log()


def test_readiness_and_the_world_say_that_no_sequencer_is_at_work(desk, central, clock, settings):
    def state():
        return Readiness(desk, lambda: True).look()["checks"]["sequencer"]

    assert state()["state"] == "ok"
    clock.advance(11)
    assert state() == {
        "state": "degraded",
        "detail": "1 log entries wait for their position, the oldest for 11 s",
    }
    clock.advance(200)
    found = check_world(settings, clock.now(), key=central.note_key)
    assert [str(item) for item in found.troubles] == [
        "jobs: 1 log entries wait for the sequencer, one for 211 s"
    ]
    central.run(sign=True)
    assert state()["detail"] == "no log entry waits for its position"
    assert check_world(settings, clock.now(), key=central.note_key).is_well


def test_the_program_takes_entries_until_it_is_told_to_stop(settings, tmp_path, monkeypatch):
    monkeypatch.setenv("CLEARINGHOUSE_DATABASE_URL", settings.url)
    command = [sys.executable, "-m", "clearinghouse.cli.main", "sequencer", "--json"]
    command += ["--data", str(tmp_path / "sequencer")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            told = json.loads(process.stdout.readline())
            assert told["event"] == "sequencing"
            desk = open_desk(replace(settings, sequencer_wait_s=60.0))
            assert desk.vkey == told["vkey"]
            with desk.store.read() as tx:
                assert tx.log.size() == 1  # it was waited for
            until = time.monotonic() + 30
            while True:  # the head is signed in the transaction that places, or the one after
                try:
                    assert desk.head().startswith("clearinghouse.local\n1\n")
                    break
                except TryAgainError:
                    assert time.monotonic() < until
            desk.store.sequencer = desk.store.sequence  # no more waiting for the other
            desk.store.close()
        finally:
            process.terminate()
        assert process.wait(60) == 0
    store = Store(settings.url)
    store.sequencer, store.sequencer_wait_s = None, 0.0
    with store.write() as tx:
        tx.log.append(b'{"left":"behind"}')
    done = subprocess.run([*command, "--once"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"placed": 1}
    with store.read() as tx:
        assert tx.log.size() == 2
    store.close()


def test_every_server_process_can_sequence_and_leftovers_are_caught_up(settings, clock, tmp_path):
    own = replace(settings, sequencer=True)
    desk = open_desk(own, clock)
    assert isinstance(desk.sequencer, Sequencer)
    with desk.store.read() as tx:
        assert tx.log.size() == 1
    other = Store(settings.url)
    other.sequencer, other.sequencer_wait_s = (
        None,
        0.0,
    )  # a process that died between its commit and what follows
    with other.write() as tx:
        tx.parties.get(desk.org.id)
        tx.log.append(json.dumps({"id": new_id("org")}).encode())
    desk.sequencer.catch_up()
    with desk.store.read() as tx:
        assert (tx.log.size(), tx.log.waiting()) == (2, 0)
    other.close()
    desk.store.close()
