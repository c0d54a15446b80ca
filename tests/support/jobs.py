"""Jobs for tests: requests of several tenants in a bare store, and work with a known answer."""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from clearinghouse.ids import new_id
from clearinghouse.messages.intake import OpenRequest, Purse
from clearinghouse.rounds.queue import PROTOCOL
from clearinghouse.rows import commit_rows, write_proofs
from clearinghouse.store.jobs import Wanted
from clearinghouse.store.records import Org, Request, SchemaRecord, Valset
from clearinghouse.store.work_records import WorkerRecord

SUPPORT = Path(__file__).resolve().parent
NOW = 1_800_000_000.0


def _terms():
    purse = Purse(
        kind="acceptance",
        amount_micro=1,
        metric="auc",
        threshold_micro=1,
        confidence_micro=1,
    )
    return OpenRequest(
        valset_id=new_id("val"),
        source_ids=[new_id("src")],
        developer_ids=[new_id("org")],
        records=1,
        currency="EUR",
        tariff_micro=1,
        distance_price_micro=1,
        share_cap_micro=1_500_000,
        fee_micro=0,
        epsilon_target_micro=1,
        epsilon_score_micro=1,
        purse=purse,
    )


def add_request(store, name="h"):
    """A running request of a new hospital, at rest: nothing has happened to it."""
    org = Org(new_id("org"), name, "hospital", new_id("key"), "x", None)
    terms = _terms()
    made = Request(new_id("req"), org.id, terms.valset_id, terms, "0", "match", "running", "", 0)
    schema = new_id("sch")
    with store.write() as tx:
        tx.parties.add(org)
        tx.cohorts.add_schema(SchemaRecord(schema, schema, "{}"))
        tx.cohorts.add_valset(Valset(terms.valset_id, org.id, schema, "{}"))
        tx.requests.add(made, [], 0.0)
        tx.requests.rest(made)
    return made


def wanted(number=0, **changes):
    """A job; those of other numbers are other jobs."""
    values = {
        "kind": "rows.prove",
        "subject": f"s{number}",
        "words": "to check what was delivered",
        "key": hashlib.sha256(str(number).encode()).hexdigest(),
        "protocol": PROTOCOL,
        "priority": 0,
        "deadline_s": 1000,
        "arguments": "{}",
    }
    return Wanted(**{**values, **changes})


def proofs(blobs, number=0):
    """A job that shows that five of eight rows are committed to."""
    commitments = commit_rows([{"row": f"{number}.{i}"} for i in range(8)], bytes(32), 16)
    blob = blobs.put(write_proofs([commitments.proof(row) for row in range(5)]))
    arguments = {"proofs": blob, "root": commitments.root.hex(), "leaves": 16, "most": 6}
    return wanted(number, arguments=json.dumps(arguments))


def add_job(store, request, job, now=NOW):
    with store.write() as tx:
        return tx.jobs.add(request, job, now)


def get_job(store, job_id):
    with store.read() as tx:
        return tx.jobs.get(job_id)


def add_worker(store, worker_id="wrk_a", **changes):
    values = {
        "id": worker_id,
        "host": "elsewhere",
        "place": "elsewhere",
        "pid": 1,
        "begun": "1",
        "protocol": PROTOCOL,
        "slots": 2,
        "state": "working",
        "started": NOW,
        "seen": NOW,
    }
    with store.write() as tx:
        tx.workers.add(WorkerRecord(**{**values, **changes}))


def wait_for(found, seconds=90.0):
    """Wait until `found()` is true, and return what it returned."""
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.03)
    return value


class WorkerCommand:
    """`clearinghouse worker` as a process of its own, with fail points if asked for."""

    def __init__(self, data, url, fail="", slots=1, **settings):
        self.note, self.log = data / "fail-note", data / f"worker-{new_id('wrk')}.log"
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")]),
            "CLEARINGHOUSE_DATABASE_URL": url,
            "CLEARINGHOUSE_IDLE_S": "0.1",
            "CLEARINGHOUSE_FAIL": fail,
            "CLEARINGHOUSE_FAIL_NOTE": str(self.note),
            **{f"CLEARINGHOUSE_{name.upper()}": str(value) for name, value in settings.items()},
        }
        command = [sys.executable, "-m", "clearinghouse.cli.main", "worker", "--data", str(data)]
        command += ["--slots", str(slots), "--json", "--parent", str(os.getpid())]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
            )

    def ready(self):
        """Its id, once it takes jobs."""
        line = self.process.stdout.readline()
        assert line, self.log.read_text()
        return json.loads(line)["worker"]

    def events(self):
        """Lines of its log."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.process.kill()
        with self.process:
            self.process.wait(timeout=30)
