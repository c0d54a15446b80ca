"""The harness sees the classic mistakes: each broken build is caught, the sound one is not.

Broken are: the log written after the commit; a spend that reads in one transaction and writes in
the next; a sequencer that takes what is newer than the last it saw.
"""

import json
import math
import signal
import subprocess
import sys
import threading
from contextlib import nullcontext
from pathlib import Path

import broken_builds
import pytest
from broken_builds import after_last, read_then_write, register
from consenting import make_app, make_market

from clearinghouse.client.loopback import app_client
from clearinghouse.clock import FixedClock
from clearinghouse.errors import RefusedError
from clearinghouse.log.entries import parse_entry
from clearinghouse.rounds.desk import open_desk
from clearinghouse.settings import Settings
from clearinghouse.store.store import Store
from clearinghouse.world.check import check_world

FATALS = (3, 4, 5, 6, 7, 8)


@pytest.mark.parametrize(("build", "is_sound"), [("sound", True), ("log_after_commit", False)])
def test_a_log_that_is_written_after_the_commit_is_caught_by_kills(tmp_path, build, is_sound):
    command = [sys.executable, broken_builds.__file__, build, str(tmp_path / "server")]
    done = subprocess.run(
        [*command, *map(str, FATALS)], capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    ends = json.loads(done.stdout)
    # A sound child has fewer commits, so its last deaths come never.
    assert ends.count(-signal.SIGKILL) >= 3, done.stderr
    found = check_world(Settings(tmp_path / "server"), 0.0)
    assert found.is_well is is_sound, found.troubles
    if not is_sound:
        unexplained = [
            str(item) for item in found.troubles if "no log entry explains it" in str(item)
        ]
        assert any("table org_key, key key_" in words for words in unexplained)


def overdraw(folder, build):
    """Two payments of a whole escrow at once; how many were made, and what is wrong then."""
    clock = FixedClock()
    app = make_app(folder, "", clock)
    with app_client(app) as client:
        market = make_market(folder, client, app, clock)
        request = market.open()
    settings = market.desk.settings
    with market.desk.store.read() as tx:
        whole = tx.ledger.balance(f"escrow:{request}")
    made = []

    def pay(store, name):
        try:
            with store.write() as tx:
                amounts = {f"escrow:{request}": -whole, f"org:{name}": whole}
                tx.ledger.transfer(f"{request}:{name}", request, amounts)
            made.append(name)
        except RefusedError:
            pass

    stores = [Store(settings.url) for _ in range(2)]
    with build():
        payers = [
            threading.Thread(target=pay, args=(store, f"payer{number}"))
            for number, store in enumerate(stores)
        ]
        for payer in payers:
            payer.start()
        for payer in payers:
            payer.join()
    for store in (*stores, market.desk.store):
        store.close()
    found = check_world(settings, clock.now(), grace_s=math.inf)
    return made, [str(item) for item in found.troubles if "table account" in str(item)]


def test_a_spend_that_reads_before_it_writes_is_caught(tmp_path):
    made, troubles = overdraw(tmp_path / "sound", nullcontext)
    assert len(made) == 1
    assert troubles == []
    meet = threading.Barrier(2)
    made, troubles = overdraw(tmp_path / "broken", lambda: read_then_write(meet.wait))
    assert len(made) == 2
    (words,) = troubles
    assert "table account, key escrow:req_" in words
    assert "the log says 0 or more, the database -" in words


@pytest.mark.parametrize("build", [nullcontext, after_last])
def test_a_sequencer_that_takes_what_is_newer_than_the_last_is_caught(
    ready_postgres, tmp_path, build
):
    """An act that began earlier and commits later has the lower id and is passed over for ever."""
    clock = FixedClock()
    settings = Settings(tmp_path / "server", database_url=ready_postgres)
    desk = open_desk(settings, clock)
    slow, quick = Store(ready_postgres), Store(ready_postgres)
    for store in (slow, quick):
        store.sequencer, store.sequencer_wait_s = None, 0.0
    with build():
        with slow.write_for("slow") as first:
            late = register(first, desk, "slow")
            with quick.write_for("quick") as second:
                early = register(second, desk, "quick")
            assert desk.sequencer.run() == 1
        assert desk.sequencer.run() == (0 if build is after_last else 1)
    with desk.store.read() as tx:
        actors = [parse_entry(body).actor for body in tx.log.entries(0, 9)]
    for store in (slow, quick, desk.store):
        store.close()
    assert actors == [desk.org.id, early.id] + ([] if build is after_last else [late.id])
    clock.advance(600)
    troubles = [str(item) for item in check_world(settings, clock.now()).troubles]
    caught = [words for words in troubles if "1 log entries wait for the sequencer" in words]
    assert (len(caught), len(troubles)) == ((1, 1) if build is after_last else (0, 0))


def test_broken_builds_are_nowhere_in_the_product():
    root = Path(__file__).resolve().parents[3]
    for package in ("clearinghouse", "api", "dp"):
        for path in (root / package).rglob("*.py"):
            assert "broken_builds" not in path.read_text(), path
