"""kill -9 at any moment: after a restart the request goes on and everything happened once."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from clearinghouse.client.transport import make_client
from clearinghouse.log.verify import export_log, verify_log_directory
from clearinghouse.messages.results import CheckpointView, LogView, RunList, StatementView

SERVER = """
import sys
from pathlib import Path
from clearinghouse.serve import serve
from clearinghouse.settings import Settings
serve(Settings(Path(sys.argv[1])), port=int(sys.argv[2]),
      announce=lambda port: print(port, flush=True), log=open(sys.argv[3], "a"))
"""


class Server:
    """A server process on a fixed port that can be killed and started again."""

    def __init__(self, folder):
        self.folder, self.process = folder, None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    def start(self):
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
        )
        assert self.process.stdout.readline().strip() == str(self.port)

    def kill(self, signal_number=signal.SIGKILL):
        os.kill(self.process.pid, signal_number)
        with self.process:
            return self.process.wait(timeout=20)


MOMENTS = {
    "to open the target",
    "to reveal its ask",
    "the clearinghouse to sum a blind score",
    "to sign a score receipt",
}


def moment(sentence):
    """What is waited for, without names, ids and times."""
    if sentence.startswith("the clearinghouse "):
        return sentence.split(" (", 1)[0]
    return sentence.split(") ", 1)[-1]


@pytest.mark.parametrize(
    ("moments", "least"), [(MOMENTS, 1), pytest.param(None, 12, marks=pytest.mark.long)]
)
def test_killed_while_it_waits_and_while_it_computes(tmp_path, make_world, moments, least):
    """The server is killed when it first waits for each of these (None: for anything new).

    A quick moment can pass unseen, so the short run asks for one kill at least.
    """
    server = Server(tmp_path)
    server.start()
    with make_client(f"http://127.0.0.1:{server.port}") as client:
        world = make_world(client, f"http://127.0.0.1:{server.port}")
        world.gather()
        seen = set()

        def is_new(view):
            fresh = {moment(sentence) for sentence in view.waiting_for} - seen
            fresh &= fresh if moments is None else moments
            seen.update(fresh)
            return bool(fresh)

        view = world.work(world.everybody, until=is_new)
        kills = 0
        while view.state == "running":
            server.kill()
            kills += 1
            server.start()
            view = world.work(world.everybody, until=is_new)
        assert (view.state, view.reason) == ("done", ""), world.events
        assert kills >= least
        check(world, tmp_path)
    assert server.kill(signal.SIGTERM) == -signal.SIGTERM
    check_journal(tmp_path / "server.log")


JOURNAL = {"event", "level", "timestamp", "request", "step", "move", "seconds", "job", "ok"}
JOURNAL |= {"call", "id", "attempt", "method", "route", "status", "worker", "kind"}


def check_journal(path):
    """Ids, steps and durations; nothing else ever gets into the server's own log."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert {line["event"] for line in lines} >= {"moved", "job"}
    assert set().union(*lines) <= JOURNAL


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
