"""A whole market of processes that die by kill -9 at named points, again and again.

A nursery is one process that has imported everything and forks a child for each start, so that a
restart costs what it does and not what Python's imports do. No ciphertext is made in it before a
fork. Children are the server, a worker, the hospital's key agent, providers and a developer: each
runs what its command runs, and dies where `CLEARINGHOUSE_FAIL` says.

Run as `python killing.py FOLDER` it is a nursery: it reads starts as JSON lines and writes deaths.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from ports import free_port
from tiny_market import SCHEMA, TERMS

from clearinghouse import failpoints
from clearinghouse.client.keystore import Keystore
from clearinghouse.client.transport import Transport, make_client
from clearinghouse.clock import SystemClock
from clearinghouse.messages.intake import RequestView
from clearinghouse.settings import Settings
from clearinghouse.world.check import check_world

SUPPORT = Path(__file__).resolve().parent
PROVIDERS = {"a": (120, 0, 1_000_000), "b": (70, 8, 1_500_000)}
ROLES = ("api", "worker", "h", *PROVIDERS, "d")


JOURNAL = {"event", "level", "timestamp", "request", "step", "move", "seconds", "job", "ok"}
JOURNAL |= {"call", "id", "attempt", "method", "route", "status", "worker", "kind"}
JOURNAL |= {"at", "unnamed", "strays", "missing", "bytes"}  # what the collector counted


def check_journal(path):
    """Ids, steps and durations: nothing else ever gets into a server's own log. Its events."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert set().union(*lines) <= JOURNAL
    events = {line["event"] for line in lines}
    assert "moved" in events
    return events


# ---------------------------------------------------------------- what children do


def serve_api(folder, port):
    from clearinghouse.serve import serve
    from clearinghouse.settings import settings_from_environment

    with (folder / "api.log").open("a") as log:
        serve(settings_from_environment(folder / "server"), port=port, log=log)


def work(folder, _port):
    from clearinghouse.cli.operator import run_worker

    run_worker(folder / "server", 1, lambda *_: None)


def table_of(folder, schema, name, n, shift):
    import numpy as np

    from clearinghouse.tables import read_table

    path = folder / f"{name}.csv"
    if not path.exists():
        rng = np.random.default_rng(n)
        age = np.clip(rng.normal(50 + shift, 12, n), 20, 90).round(1)
        sex = rng.choice(["F", "M"], n)
        chance = 1 / (1 + np.exp(-(age - 52) / 6 - (sex == "M") * 0.8))
        sick = np.where(rng.random(n) < chance, "yes", "no")
        rows = "".join(f"{a},{s},{y}\n" for a, s, y in zip(age, sex, sick, strict=True))
        fresh = path.with_suffix(".new")
        fresh.write_text("age,sex,sick\n" + rows)
        fresh.replace(path)
    return read_table(path, schema)


def party_of(folder, name, port):
    """A party over its own folder, as its command opens it."""
    from clearinghouse.client.developer import Developer
    from clearinghouse.client.hospital import Hospital, HospitalTerms
    from clearinghouse.client.provider import Provider, SourceTerms
    from clearinghouse.client.recipes import recipe_source
    from clearinghouse.schema import load_schema

    path = folder / f"{name}.yaml"
    path.write_text(SCHEMA)
    schema, keystore = load_schema(path), Keystore.open(folder / name)
    url, client = f"http://127.0.0.1:{port}", make_client(f"http://127.0.0.1:{port}")
    transport = Transport(url, keystore.signing_key, SystemClock(), client, attempts=60)
    if name == "d":
        return Developer(name, keystore, transport, schema, recipe_source("logistic", 7))
    if name == "h":
        table, limits = (
            table_of(folder, schema, name, 100, 3),
            HospitalTerms(64, 500_000, 5_000_000),
        )
        return Hospital(name, keystore, transport, table, limits)
    rows, shift, ask = PROVIDERS[name]
    terms = SourceTerms(64, ask, 1_000_000, 1_000_000)
    return Provider(name, keystore, transport, table_of(folder, schema, name, rows, shift), terms)


def take_part(folder, name, port):
    """Register, publish or open the request as often as it takes, then answer tasks."""
    from clearinghouse.client.party import run_tasks

    party = party_of(folder, name, port)
    if name in PROVIDERS:
        party.publish()
    elif name == "d":
        party.register()
    else:
        party.register()
        party.seal()
        homes = {who: Keystore.open(folder / who) for who in (*PROVIDERS, "d")}
        sources = [homes[who].recall("source")["source_id"] for who in PROVIDERS]
        developers = [homes["d"].recall("org")["org_id"]]
        request = party.open_request(TERMS, sources, developers)
        (folder / "request").write_text(request)
    (folder / f"{name}.ready").touch()
    run_tasks([party], threading.Event(), busy_s=0.02, idle_s=0.1, wait_s=1)


# ---------------------------------------------------------------- the nursery


def nurse(folder):
    """Fork children on command and tell of their ends, until the standard input closes."""
    from clearinghouse import lifeline
    from clearinghouse.cli import operator  # noqa: F401  imported once, for all children

    for module in ("api.app", "clearinghouse.jobs", "clearinghouse.client.hospital"):
        __import__(module)
    warm = folder / "warm"
    warm.mkdir()
    for name in ("h", "a", "d"):  # what is imported at first use is imported once, too
        party_of(warm, name, 1)
    mother, pending = os.getpid(), b""
    children = {}
    while True:
        ready, _, _ = select.select([0], [], [], 0.01)
        if ready:
            data = os.read(0, 65536)
            if not data:
                break
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                order = json.loads(line)
                pid = os.fork()
                if pid == 0:
                    lifeline.die_with(mother)
                    bear(folder, order)
                children[pid] = order["role"]
        while children and (found := os.waitpid(-1, os.WNOHANG))[0]:
            code = os.waitstatus_to_exitcode(found[1])
            print(json.dumps({"role": children.pop(found[0]), "code": code}), flush=True)
    for pid in children:
        os.kill(pid, signal.SIGKILL)


def bear(folder, order):
    """Be a child to the end of its life."""
    try:
        with (folder / f"{order['role']}.err").open("ab") as log:
            os.dup2(log.fileno(), 2)
            os.dup2(log.fileno(), 1)
        os.environ[failpoints.SPEC] = order["fail"]
        failpoints._failures = failpoints.active(os.environ)
        act = {"api": serve_api, "worker": work}.get(order["role"])
        if act is not None:
            act(folder, order["port"])
        else:
            take_part(folder, order["role"], order["port"])
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(1)


# ---------------------------------------------------------------- who commands it


class Mortals:
    """A market whose processes die at their next point whenever they are started.

    Args:
        folder: Everything of the market.
        deaths: By role the points at which its processes die, one after another.
        url: The database; SQLite in the folder if empty.
        in_process: Whether the worker computes itself; if not, its capped processes do.
    """

    def __init__(self, folder, deaths, url="", *, in_process=True):
        self.folder, self.url = folder, url
        self.deaths = {role: list(deaths.get(role, ())) for role in ROLES}
        self.kills, self.unexpected, self.started = 0, [], set()
        self.port = free_port()
        self.note = folder / "note"
        settings = {
            "DATABASE_URL": url,
            "WORKERS": "0",
            "IN_PROCESS": str(int(in_process)),
            "IDLE_S": "0.1",
            "LEASE_S": "4",
            "JOB_ATTEMPTS": "50",
            "FAIL_NOTE": str(self.note),
        }
        environment = {f"CLEARINGHOUSE_{name}": value for name, value in settings.items() if value}
        path = os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")])
        environment |= {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self.nursery = subprocess.Popen(
            [sys.executable, str(SUPPORT / "killing.py"), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        self.lock, self.ending = threading.Lock(), False
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()

    def start(self, role):
        """Start a role; it dies at its next point, if it has one left."""
        with self.lock:
            self.started.add(role)
            fail = self.deaths[role].pop(0) if self.deaths[role] else ""
            order = {"role": role, "fail": fail, "port": self.port}
            self.nursery.stdin.write(json.dumps(order) + "\n")
            self.nursery.stdin.flush()

    def _listen(self):
        for line in self.nursery.stdout:
            end = json.loads(line)
            if self.ending:
                continue
            if end["code"] == -signal.SIGKILL:
                self.kills += 1
            else:
                self.unexpected.append(end)
                time.sleep(0.2)
            self.start(end["role"])

    def wait_for(self, found, seconds, what, pause_s=0.05):
        end = time.monotonic() + seconds
        while not (value := found()):
            assert time.monotonic() < end, f"{what} did not happen: {self.told()}"
            assert self.nursery.poll() is None
            time.sleep(pause_s)
        return value

    def told(self):
        """What children said when they ended otherwise than by a kill."""
        texts = {role: self.folder / f"{role}.err" for role in ROLES}
        return {role: path.read_text()[-800:] for role, path in texts.items() if path.exists()}

    def open(self, seconds=120):
        """Start everybody and wait until the request is open; its id."""
        self.start("api")
        self.wait_for(self._answers, seconds, "the start")
        for role in ("worker", *PROVIDERS, "d"):
            self.start(role)
        for name in (*PROVIDERS, "d"):
            self.wait_for((self.folder / f"{name}.ready").exists, seconds, f"the part of {name}")
        self.start("h")
        self.wait_for((self.folder / "h.ready").exists, seconds, "the request")
        return (self.folder / "request").read_text()

    def _answers(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def finish(self, request_id, seconds=240):
        """Wait until the request has ended; its last view."""
        keystore = Keystore.open(self.folder / "h")
        url = f"http://127.0.0.1:{self.port}"
        with make_client(url) as client:
            transport = Transport(url, keystore.signing_key, SystemClock(), client, attempts=60)

            def ended():
                view = transport.get(f"/requests/{request_id}", RequestView)
                return view if view.state != "running" else None

            return self.wait_for(ended, seconds, "the end", pause_s=0.3)

    def hits(self):
        """Points at which somebody died, in order."""
        lines = self.note.read_text().splitlines() if self.note.exists() else []
        return [line.split()[0] for line in lines]

    def close(self):
        """End every process."""
        self.ending = True
        self.nursery.stdin.close()
        self.nursery.wait(timeout=30)
        self.listener.join()
        self.nursery.stdout.close()

    def look(self, grace_s=86_400.0):
        """`check_world`, with every owner's own ledger."""
        homes = {name: Keystore.open(self.folder / name) for name in (*PROVIDERS, "h")}
        ledgers = {home.recall("org")["org_id"]: [home.ledger_place] for home in homes.values()}
        settings = Settings(self.folder / "server", database_url=self.url)
        return check_world(settings, time.time(), ledgers=ledgers, grace_s=grace_s)


if __name__ == "__main__":
    nurse(Path(sys.argv[1]))
