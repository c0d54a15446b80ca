"""Workers as processes of their own, killed, frozen, drained and replaced: each job ends once."""

import json
import os
import signal
from pathlib import Path

import jobs
import psutil
import pytest
from jobs import WorkerCommand, wait_for

from clearinghouse.blobs.disk import DiskStore
from clearinghouse.store.store import Store

QUICK = [("job.finishing", "postgresql")]
"""The other points are in the market of forty kills, and here in the long run."""

POINTS = (
    "job.claiming",
    "job.claimed",
    "he.ended",
    "job.computed",
    "job.finishing",
    "job.finished",
)
THOROUGH = [(p, db) for p in POINTS for db in ("sqlite", "postgresql") if (p, db) not in QUICK]


@pytest.fixture
def store(store_url):
    opened = Store(store_url)
    yield opened
    opened.close()


@pytest.fixture
def job(store, tmp_path):
    """A queued job with a known answer."""
    blobs = DiskStore(tmp_path / "blobs", max_bytes=2**24)
    return jobs.add_job(store, jobs.add_request(store), jobs.proofs(blobs), now=0.0)


@pytest.fixture
def start(tmp_path, store_url):
    """Starts workers; all are ended with the test."""
    started = []

    def make(fail="", **settings):
        command = WorkerCommand(tmp_path, store_url, fail, job_deadline_s=10**10, **settings)
        started.append(command)
        return command

    yield make
    for command in started:
        command.__exit__()


@pytest.fixture(autouse=True)
def lasting(monkeypatch):
    """Jobs of these tests were queued in 1970, so that nothing depends on this machine's clock."""
    wanted = jobs.wanted
    monkeypatch.setattr(
        jobs, "wanted", lambda number=0, **more: wanted(number, **{"deadline_s": 10**10, **more})
    )


def state(store, job):
    return jobs.get_job(store, job.id).state


def check_done(store, job, attempts):
    found = jobs.get_job(store, job.id)
    assert (found.state, found.result, found.owner) == ("done", '{"real":5}', "")
    assert found.attempts == attempts
    with store.read() as tx:
        assert tx.requests.due() == (job.request_id,)
        assert len(tx.jobs.of(job.request_id)) == 1


@pytest.mark.parametrize(
    ("point", "store_url"),
    [*QUICK, *(pytest.param(*case, marks=pytest.mark.long) for case in THOROUGH)],
    indirect=["store_url"],
)
def test_a_worker_killed_at_any_point_costs_an_attempt_at_most(store, job, start, point):
    """kill -9 of the worker (or of its capped process), then another worker comes."""
    first = start(f"{point}=kill")
    # A capped process that dies is replaced by its own worker, which knows of the failure too.
    is_capped = point.startswith("he.")
    if is_capped:
        wait_for(
            lambda: jobs.get_job(store, job.id).attempts >= 1 and state(store, job) == "queued"
        )
        first.process.kill()
    assert first.process.wait(timeout=90) == -signal.SIGKILL
    wait_for(lambda: not capped(first.process.pid))
    second = start()
    second.ready()
    wait_for(lambda: state(store, job) == "done")
    check_done(store, job, 1 if point in ("job.claiming", "job.finished") else 2)


def capped(pid):
    """The capped processes of a worker."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if "clearinghouse.worker_process" in (process.info["cmdline"] or ())
        and str(pid) in process.info["cmdline"]
        and process.status() != psutil.STATUS_ZOMBIE
    ]


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_a_job_that_kills_its_process_again_and_again_fails_with_a_reason(store, job, start):
    start("he.began=kill@1", job_attempts=1)
    wait_for(lambda: state(store, job) == "failed")
    found = jobs.get_job(store, job.id)
    assert found.reason == (
        "the job rows.prove was tried 1 times: the job rows.prove ended its process"
    )
    with store.read() as tx:
        assert tx.requests.due() == (job.request_id,)


@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
def test_a_frozen_workers_late_result_is_refused(store, job, start):
    """SIGSTOP outlasts the lease; the other's result stays when the first one wakes up."""
    frozen = start("job.computed=stop", lease_s=1.5)
    frozen.ready()
    wait_for(lambda: frozen.note.exists())
    other = start(lease_s=1.5)
    other.ready()
    # On one machine a frozen process is no dead one: its heart must stand still for a lease.
    wait_for(lambda: state(store, job) == "done")
    check_done(store, job, 2)
    before = jobs.get_job(store, job.id)
    os.kill(frozen.process.pid, signal.SIGCONT)
    wait_for(lambda: any(line["event"] == "late result refused" for line in frozen.events()))
    assert jobs.get_job(store, job.id) == before


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_cancelling_ends_the_process(store, job, start):
    worker = start("he.began=stop")
    worker.ready()
    wait_for(lambda: worker.note.exists())
    (process,) = capped(worker.process.pid)
    with store.write() as tx:
        assert tx.jobs.cancel_one(job.id, "enough", 1.0)
    wait_for(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)
    wait_for(lambda: any(line["event"] == "late result refused" for line in worker.events()))
    assert state(store, job) == "cancelled"
    assert worker.process.poll() is None


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_sigterm_drains_and_gives_back_what_does_not_end(store, job, start):
    worker = start("he.began=stop", drain_s=0.3)
    name = worker.ready()
    wait_for(lambda: worker.note.exists())
    with store.read() as tx:
        assert [found.id for found in tx.workers.all()] == [name]
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(timeout=60) == 0
    found = jobs.get_job(store, job.id)
    assert (found.state, found.attempts, found.token) == ("queued", 0, 1)
    assert found.reason == "its worker was stopped"
    with store.read() as tx:
        assert tx.workers.all() == ()


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_sigterm_lets_a_job_end(store, job, start):
    worker = start("job.claimed=wait:1.0")
    worker.ready()
    wait_for(lambda: worker.note.exists())
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(timeout=60) == 0
    check_done(store, job, 1)
    assert {"finished", "job"} <= {line["event"] for line in worker.events()}
    assert json.loads(worker.log.read_text().splitlines()[0])
    assert not Path(worker.log.parent, "server.key").exists()  # a worker makes and reads no key
