"""One run's blocks shared by several processes: wall time, and the processor time of each process.

A worker process leads and others compute some of the blocks (`clearinghouse/block_pool.py`), as in
the market: the job's messages come from a blob store and go to it. All runs have the same seed, so
every message must be the same bytes whatever the number of processes. On a machine that is busy
with other work wall time says little; the longest processor time of a process is what it would be
with a core for each.
"""

import json
import os
import secrets
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.scoring import NONCES, table
from benchmarks.scoring_inputs import N, linear, sealed_set
from clearinghouse.blobs.disk import DiskStore
from clearinghouse.blobs.place import BlobPlace
from clearinghouse.worker import WorkerProcess
from secure_eval.checked_agent import CheckedAgentRun
from secure_eval.keyholder import KeyHolder, SealedSet
from secure_eval.noise import Table
from secure_eval.nonces import nonce_commitment

MOST_BYTES = 2**30
MEMORY = 6 * 2**30
COLUMNS = 10
STEPS = {
    "score.begin": "score",
    "score.early": "early_checks",
    "score.verdict": "",
    "score.shares": "shares",
    "score.final": "final_checks",
    "score.openings": "openings",
    "score.release": "",
}


def processor_s(pid: int) -> float:
    """Processor seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """A process and those that it started."""
    return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


class Answers:
    """The key holder's messages of one run, made once and given to every worker."""

    def __init__(self, holder: KeyHolder, sealed: SealedSet, labels: Any, blobs: DiskStore) -> None:
        self._blobs = blobs
        layout = sealed.layout
        self.agent = CheckedAgentRun(holder, layout, labels[sealed.order], "run", bins=32)
        groups = [Table(f"group:{name}", k * layout.labels, 500_000) for name, k in layout.groups]
        self.tables = [Table("histogram", 32 * layout.labels, 500_000), *groups]
        self.made: dict[str, str] = {}

    def take(self, name: str, message: bytes) -> None:
        """Answer a message, unless that was done."""
        agent, commitments = self.agent, [nonce_commitment(nonce) for nonce in NONCES]
        answers = {
            "score": ("digits", lambda: agent.digits(message, self.tables, commitments)),
            "early_checks": ("early", lambda: agent.early_replies(message)),
            "shares": ("characters", lambda: agent.characters(message, NONCES)),
            "final_checks": ("final", lambda: agent.final_replies(message)),
            "openings": ("replies", lambda: agent.replies(message)),
        }
        if name in answers and answers[name][0] not in self.made:
            key, make = answers[name]
            self.made[key] = self._blobs.put(make())


def one(
    blobs: DiskStore, processes: int, job: Mapping[str, Any], answers: Answers
) -> tuple[float, list[float], list[str]]:
    """Return wall seconds, processor seconds of each process, and the hashes of all messages."""
    place = BlobPlace(blobs.folder, MOST_BYTES)
    worker = WorkerProcess(place, wall_s=3600, memory_bytes=MEMORY, block_processes=processes)
    try:
        worker.run("score.begin", {**job, "run": "first"})  # starts the processes
        assert worker.pid is not None
        before = [processor_s(pid) for pid in family(worker.pid)]
        wall, sent = 0.0, []
        for step, name in STEPS.items():
            started = time.monotonic()
            told = worker.run(step, {**job, **answers.made})
            wall += time.monotonic() - started
            if name:
                sent.append(told["blob"])
                answers.take(name, blobs.get(told["blob"]))
        after = [processor_s(pid) for pid in family(worker.pid)]
        return wall, [b - a for a, b in zip(before, after, strict=True)], sent
    finally:
        worker.close()


def run(quick: bool) -> str:
    """Measure runs of several blocks and return Markdown."""
    holder, rows = KeyHolder.generate(), []
    for count in (1, 2) if quick else (1, 2, 4):
        with tempfile.TemporaryDirectory() as folder:
            blobs = DiskStore(Path(folder) / "blobs", max_bytes=MOST_BYTES)
            sealed, labels = sealed_set(holder, count * N, COLUMNS)
            job = {
                "run": "run",
                "keys": blobs.put(holder.public_keys()),
                "upload": [blobs.put(block) for block in sealed.blobs],
                "layout": json.loads(sealed.layout.to_json()),
                "model": blobs.put(linear(COLUMNS, 0).to_json().encode()),
                "columns": list(range(COLUMNS)),
                "seed": secrets.token_hex(32),
                "nonce": NONCES[0].hex(),
                "developer_nonce": NONCES[1].hex(),
                "coins": [],
            }
            answers = Answers(holder, sealed, labels, blobs)
            first: list[str] = []
            for processes in (1, 2) if count < 4 else (1, 2, 4):
                if processes > count:
                    continue
                wall, spent, sent = one(blobs, processes, job, answers)
                first = first or sent
                same = "the same" if sent == first else "OTHER BYTES"
                each = " + ".join(f"{seconds:.2f}" for seconds in spent)
                cells = [f"{wall:.2f} s", f"{max(spent):.2f} s", f"{each} s", same]
                rows.append([str(count), str(processes), *cells])
    head = ["blocks", "processes", "wall", "longest", "CPU of each process", "messages"]
    load = ", ".join(f"{value:.0f}" for value in os.getloadavg())
    return f"{table(head, rows)}\n\nLoad average {load}, {os.cpu_count()} cores."
