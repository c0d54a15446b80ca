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
from broken_builds import OUTBOX, Sequencer, outbox, read_then_write, register
from consenting import make_app, make_market
from sqlalchemy import text

from clearinghouse.client.loopback import app_client
from clearinghouse.clock import FixedClock
from clearinghouse.errors import RefusedError
from clearinghouse.rounds.desk import open_desk
from clearinghouse.settings import Settings
from clearinghouse.store.logbook import Logbook
from clearinghouse.store.store import Store
from clearinghouse.world import compare, heads
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


@pytest.mark.parametrize("after_last", [False, True])
def test_a_sequencer_that_takes_what_is_newer_than_the_last_is_caught(
    ready_postgres, tmp_path, after_last
):
    """A transaction that began earlier and commits later is passed over for ever."""
    desk = open_desk(Settings(tmp_path / "server", database_url=ready_postgres), FixedClock())
    append = Logbook.append
    with desk.store.write() as tx:
        tx._session.execute(text(OUTBOX))
    with outbox():
        slow, quick, central = (Store(ready_postgres) for _ in range(3))
        sequencer = Sequencer(central, after_last=after_last, append=append)
        with slow.write() as first:
            late = register(first, desk, "slow")
            with quick.write() as second:
                early = register(second, desk, "quick")
            assert sequencer.run() == 1
        assert sequencer.run() == (0 if after_last else 1)
        for store in (slow, quick, central):
            store.close()
    with desk.store.read() as tx:
        log = heads.read_log(tx)
        found = compare.differences(tx, log.entries)
    desk.store.close()
    actors = [entry.actor for entry in log.entries]
    assert actors == [desk.org.id, early.id] + ([] if after_last else [late.id])
    lost = {item.key for item in found if item.index is None and item.table == "org"}
    assert lost == ({late.id} if after_last else set())


def test_broken_builds_are_nowhere_in_the_product():
    root = Path(__file__).resolve().parents[3]
    for package in ("clearinghouse", "api", "dp"):
        for path in (root / package).rglob("*.py"):
            assert "broken_builds" not in path.read_text(), path
