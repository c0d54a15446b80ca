"""Silent workers lose their jobs, by heartbeats that stand still and by no machine's clock."""

import os
import subprocess
import sys
from pathlib import Path

import jobs
import pytest
from databases import fresh_sqlite

from clearinghouse.rounds import here
from clearinghouse.rounds.leases import Watch
from clearinghouse.settings import Settings
from clearinghouse.store.store import Store

NOW = jobs.NOW


class Seconds:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def store(tmp_path):
    opened = Store(fresh_sqlite(tmp_path / "test.db"))
    yield opened
    opened.close()


@pytest.fixture
def seconds():
    return Seconds()


@pytest.fixture
def watch(store, seconds):
    return Watch(store, Settings(Path("unused"), lease_s=20.0), seconds)


@pytest.fixture
def job(store):
    """A job at work on a worker of another machine."""
    jobs.add_worker(store, "wrk_a")
    jobs.add_job(store, jobs.add_request(store), jobs.wanted())
    with store.write() as tx:
        return tx.jobs.claim("wrk_a", "wrk_a/0", jobs.PROTOCOL, NOW)


def look(watch, seconds, times):
    """Look every five seconds; how many jobs were taken at each look."""
    taken = []
    for _ in range(times):
        seconds.now += 5.0
        taken.append(watch.look(NOW))
    return taken


def workers(store):
    with store.read() as tx:
        return [worker.id for worker in tx.workers.all()]


def test_a_heart_that_stands_still_for_a_lease_is_given_up(store, watch, seconds, job):
    assert look(watch, seconds, 6) == [0, 0, 0, 0, 1, 0]
    found = jobs.get_job(store, job.id)
    assert (found.state, found.attempts, found.reason) == ("queued", 1, "its worker fell silent")
    assert workers(store) == []


def test_a_beating_heart_keeps_its_job(store, watch, seconds, job):
    for _ in range(10):
        with store.write() as tx:
            tx.jobs.beat(job)
            tx.workers.beat("wrk_a", "working", NOW)
        assert look(watch, seconds, 3) == [0, 0, 0]
    assert workers(store) == ["wrk_a"]


def test_a_worker_that_lives_but_forgot_a_job_loses_that_job_alone(store, watch, seconds, job):
    for _ in range(5):
        with store.write() as tx:
            tx.workers.beat("wrk_a", "working", NOW)
        look(watch, seconds, 1)
    assert jobs.get_job(store, job.id).state == "queued"
    assert workers(store) == ["wrk_a"]


def test_who_could_not_look_itself_judges_nobody(store, watch, seconds, job):
    """After a pause of the watcher or the database every heart gets a whole lease again."""
    look(watch, seconds, 2)
    seconds.now += 1000.0
    assert look(watch, seconds, 4) == [0, 0, 0, 0]
    assert look(watch, seconds, 2) == [1, 0]


def test_a_beat_in_the_last_moment_counts(store, watch, seconds, job, monkeypatch):
    look(watch, seconds, 4)
    take = Watch._take

    def late(self, silent, gone, now):
        with store.write() as tx:
            tx.jobs.beat(job)
        return take(self, silent, gone, now)

    monkeypatch.setattr(Watch, "_take", late)
    assert look(watch, seconds, 1) == [0]
    assert jobs.get_job(store, job.id).state == "running"


def test_a_process_of_this_machine_that_is_gone_is_not_waited_for(store, watch):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        begun = here.begun(process.pid)
        assert begun
        jobs.add_worker(store, "wrk_b", place=here.place(), pid=process.pid, begun=begun)
        jobs.add_job(store, jobs.add_request(store), jobs.wanted())
        with store.write() as tx:
            job = tx.jobs.claim("wrk_b", "wrk_b/0", jobs.PROTOCOL, NOW)
        assert watch.look(NOW) == 0
        process.kill()
        jobs.wait_for(lambda: not here.begun(process.pid))  # a zombie is gone, too
        assert watch.look(NOW) == 1
    assert jobs.get_job(store, job.id).state == "queued"
    assert workers(store) == []


def test_a_reused_process_id_is_another_process(store, watch):
    jobs.add_worker(store, "wrk_b", place=here.place(), pid=os.getpid(), begun="1")
    watch.look(NOW)
    assert workers(store) == []
