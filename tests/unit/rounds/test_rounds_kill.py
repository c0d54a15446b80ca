"""kill -9 at any moment: after a restart the request goes on and everything happened once.

These are long; in the default run the market of forty kills (test_rounds_mortal.py) kills server
and worker at every point, and test_rounds_pool.py workers with their capped processes.
"""

import os
import signal
import subprocess
import sys
import threading

import jobs
import pytest
from killing import check_journal
from ports import free_port

from clearinghouse.client.transport import make_client
from clearinghouse.log.verify import export_log, verify_log_directory
from clearinghouse.messages.results import CheckpointView, LogView, RunList, StatementView
from clearinghouse.store.store import Store

SERVER = """
import sys
from pathlib import Path
from clearinghouse.serve import serve
from clearinghouse.settings import settings_from_environment
serve(settings_from_environment(Path(sys.argv[1])), port=int(sys.argv[2]),
      announce=lambda port: print(port, flush=True), log=open(sys.argv[3], "a"))
"""


class Server:
    """A server process on a fixed port that can be killed and started again."""

    def __init__(self, folder, **settings):
        self.folder, self.process, self.settings = folder, None, settings
        self.port = free_port()

    def start(self, fail=""):
        support = [str(jobs.SUPPORT), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | self.settings | {"PYTHONPATH": os.pathsep.join(support)}
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                SERVER,
                str(self.folder / "server"),
                str(self.port),
                str(self.folder / "server.log"),
            ],
            stdout=subprocess.PIPE,
            text=True,
            env=environment | {"CLEARINGHOUSE_FAIL": fail, "CLEARINGHOUSE_IDLE_S": "0.1"},
        )
        assert self.process.stdout.readline().strip() == str(self.port)

    def kill(self, signal_number=signal.SIGKILL):
        os.kill(self.process.pid, signal_number)
        with self.process:
            return self.process.wait(timeout=20)


COMPUTES = "job.claimed=wait:3@3"
"""A worker's third job takes so long that the server is seen, and killed, while it computes."""


def moment(sentence):
    """What is waited for, without names, ids and times."""
    if sentence.startswith("the clearinghouse "):
        return sentence.split(" (", 1)[0]
    return sentence.split(") ", 1)[-1]


@pytest.mark.long
@pytest.mark.parametrize(("most", "least"), [(1, 1), (99, 12)])
def test_killed_while_it_waits_and_while_it_computes(tmp_path, make_world, most, least):
    """The server is killed while it computes, or whenever it first waits for anything new."""
    server = Server(tmp_path, CLEARINGHOUSE_WORKERS="1")
    server.start(COMPUTES if most == 1 else "")
    with make_client(f"http://127.0.0.1:{server.port}") as client:
        world = make_world(client, f"http://127.0.0.1:{server.port}")
        world.gather()
        seen = set()

        def is_new(view):
            if most == 1:
                return not seen and any(job.state == "running" for job in view.jobs)
            fresh = {moment(sentence) for sentence in view.waiting_for} - seen
            seen.update(fresh)
            return bool(fresh)

        view = world.work(world.everybody, until=is_new)
        kills = 0
        while view.state == "running":
            server.kill()
            kills += 1
            seen.add("a kill")
            server.start()
            view = world.work(world.everybody, until=is_new)
        assert (view.state, view.reason) == ("done", ""), world.events
        assert least <= kills <= most
        check(world, tmp_path)
    assert server.kill(signal.SIGTERM) == -signal.SIGTERM
    assert "job" in check_journal(tmp_path / "server.log")


API_POINTS = (
    "api.stored=kill@4",
    "api.writing=kill@6",
    "api.committed=kill@3",
    "move.queueing=kill@2",
    "move.queued=kill",
    "move.worked=kill@3",
    "move.writing=kill@2",
    "move.moved=kill@2",
)
OF_THE_OUTBOX = ("log.waiting=kill@3", "log.placing=kill@2")
WORKER_POINTS = (
    "job.claiming=kill@2",
    "job.claimed=kill@2",
    "job.computed=kill@2",
    "job.finishing=kill@2",
    "job.finished=kill@2",
)


class Relay(threading.Thread):
    """Starts a process again whenever it has died, each time with the next fail point."""

    def __init__(self, start, points):
        super().__init__(daemon=True)
        self.begin, self.points, self.deaths = start, list(points), 0
        self.ending = threading.Event()
        self.process = self.begin(self.points.pop(0))

    def run(self):
        while not self.ending.wait(0.05):
            if self.process.poll() is not None:
                self.deaths += 1
                self.process.stdout.close()
                self.process = self.begin(self.points.pop(0) if self.points else "")

    def end(self):
        self.ending.set()
        self.join()
        self.process.kill()
        with self.process:
            self.process.wait(timeout=30)


@pytest.mark.long
def test_a_market_whose_server_and_worker_die_at_every_point(tmp_path, make_world, store_url):
    """API and worker are processes of their own; both die again and again, at every named point."""
    Store(store_url).close()
    server = Server(tmp_path, CLEARINGHOUSE_DATABASE_URL=store_url, CLEARINGHOUSE_WORKERS="0")
    workers = []

    def start_server(fail):
        server.start(fail)
        return server.process

    def start_worker(fail):
        data = tmp_path / "server"
        workers.append(jobs.WorkerCommand(data, store_url, fail, lease_s=4))
        return workers[-1].process

    outbox = () if store_url.startswith("sqlite") else OF_THE_OUTBOX
    api = Relay(start_server, (*outbox, *API_POINTS))
    worker = Relay(start_worker, WORKER_POINTS)
    for relay in (api, worker):
        relay.start()
    try:
        with make_client(f"http://127.0.0.1:{server.port}") as client:
            world = make_world(client, f"http://127.0.0.1:{server.port}")
            world.attempts = 40  # a server that has just come back may be gone at once
            world.gather()
            view = world.work(world.everybody, seconds=380)
            assert (view.state, view.reason) == ("done", ""), world.events
            check(world, tmp_path)
    finally:
        for relay in (worker, api):
            relay.end()
    assert api.deaths >= 5, api.points
    assert worker.deaths >= 3, worker.points
    store = Store(store_url)
    with store.read() as tx:
        found = tx.jobs.of(world.request_id)
        assert {job.state for job in found} == {"done"}
        assert tx.jobs.open() == ()
        assert max(job.attempts for job in found) <= 3
    store.close()


def check(world, folder):
    transport = world.hospital.transport
    base = f"/requests/{world.request_id}"
    (run,) = transport.get(f"{base}/runs", RunList).runs
    assert (run.state, run.reason) == ("released", "")
    assert run.receipt is not None
    statement = transport.get(f"{base}/statement", StatementView)
    assert statement.balanced
    assert statement.balances[f"escrow:{world.request_id}"] == 0
    transfers = {posting.transfer for posting in statement.postings}
    assert len(statement.postings) == 2 * len(transfers)
    head = transport.get("/log/checkpoint", CheckpointView)
    entries = transport.get("/log/entries", LogView).entries
    export_log([e.encode() for e in entries], head.checkpoint, head.vkey, folder / "log")
    report = verify_log_directory(folder / "log")
    kinds = [entry.type for entry in report.entries]
    once = ("target.released", "inputs.frozen", "clearing.decided", "run.released", "award.decided")
    for kind in (*once, "receipt.issued", "statement.settled", "request.closed"):
        assert kinds.count(kind) == 1, kind
    assert report.epsilon_by_owner[world.hospital.org_id] == world.hospital.budget.spent
