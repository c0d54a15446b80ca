"""An upgrade while jobs are in flight: old and new workers beside a newer server."""

import pytest

from clearinghouse.clock import SystemClock
from clearinghouse.rounds import queue
from clearinghouse.rounds.pool import Pool

NEWER = str(int(queue.PROTOCOL) + 1)


@pytest.fixture
def pools(world):
    """An old and a new worker on the server's database."""
    made = []

    def start():
        desk = world.desk
        for protocol in (queue.PROTOCOL, NEWER):
            pool = Pool(
                desk.store,
                desk.settings,
                SystemClock(),
                desk.job_bell,
                done=desk.bell.ring,
                protocol=protocol,
            )
            pool.start()
            made.append(pool)

    yield start
    for pool in made:
        pool.close()


def test_a_market_goes_on_over_an_upgrade(world, pools, monkeypatch):
    """A job of the old server waits when the new one comes: nothing sticks, all is done once."""
    world.gather()
    world.app.state.runner.pool.drain(30)  # the old server's worker ends: the next job waits
    view = world.work(world.everybody, until=lambda view: bool(view.jobs))
    (job,) = view.jobs
    assert (view.state, job.state) == ("running", "queued")
    pools()
    monkeypatch.setattr(queue, "PROTOCOL", NEWER)  # from here on the server is the newer one
    view = world.work(world.everybody)
    assert (view.state, view.reason) == ("done", "")
    with world.desk.store.read() as tx:
        found = tx.jobs.of(world.request_id)
        entries = tx.log.entries(0, 1000)
    assert {item.state for item in found} <= {"done", "cancelled"}
    # The newer server's jobs were all done by the newer worker, whatever became of the old one.
    newer = [item for item in found if item.protocol == NEWER]
    assert newer
    assert {item.state for item in newer} == {"done"}
    (old,) = (item for item in found if item.id == job.id)
    assert old.protocol != NEWER
    assert old.state == "done" or f"protocol {NEWER}" in old.reason
    kinds = [item.kind for item in newer]
    assert "score.card" in kinds
    assert len([body for body in entries if b'"run.released"' in body]) == 1
