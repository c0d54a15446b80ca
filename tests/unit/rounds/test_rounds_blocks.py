"""Several processes share the blocks of a run: the same bytes, and a death costs one job."""

import hashlib
import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from evil import COMMITMENTS, NONCES, SEED

from clearinghouse.blobs.disk import DiskStore
from clearinghouse.blobs.place import BlobPlace
from clearinghouse.errors import ProtocolError
from clearinghouse.worker import CrashError, WorkerProcess
from secure_eval.checked_agent import CheckedAgentRun
from secure_eval.integer_model import Column, IntegerModel
from secure_eval.keyholder import KeyHolder, SealedSet
from secure_eval.noise import Table
from secure_eval.replay import Transcript, replay

MEMORY = 5 * 2**30
COINS = [128]


@dataclass(frozen=True)
class Given:
    """What both sides of a run start from."""

    holder: KeyHolder
    model: IntegerModel
    columns: np.ndarray
    labels: np.ndarray
    sealed: SealedSet

    def plain_counts(self):
        """Exact counts (label, published bin)."""
        scores = self.model.score_columns(self.columns)
        return np.stack(
            [np.histogram(scores[self.labels == label], self.model.edges)[0] for label in (0, 1)]
        )


@pytest.fixture(scope="module")
def given():
    """A set of two blocks, and a model of two published bins."""
    model = IntegerModel(
        kind="linear",
        columns=tuple(Column.value_of(i, 0.0, 1.0, 16) for i in range(2)),
        weights=np.array([15_000, -15_000]),
        bias=0,
        n_features=2,
        bins=8,
        bin_edges=(0, 4, 8),
    )
    holder, rng = KeyHolder.generate(), np.random.default_rng(0)
    columns, labels = rng.integers(0, 16, (20, 2)), rng.integers(0, 2, 20)
    sealed = holder.seal(columns, labels, 2, max_rows_per_block=12)
    return Given(holder, model, columns, labels, sealed)


@pytest.fixture(scope="module")
def blobs(tmp_path_factory):
    return DiskStore(tmp_path_factory.mktemp("blocks") / "blobs", max_bytes=2**26)


@pytest.fixture(scope="module")
def worker(blobs):
    place = BlobPlace(blobs.folder, 2**26)
    made = WorkerProcess(place, wall_s=300, memory_bytes=MEMORY, block_processes=3)
    yield made
    made.close()


@pytest.fixture
def job(given, blobs):
    return {
        "run": "run",
        "keys": blobs.put(given.holder.public_keys()),
        "upload": [blobs.put(block) for block in given.sealed.blobs],
        "layout": json.loads(given.sealed.layout.to_json()),
        "model": blobs.put(given.model.to_json().encode()),
        "columns": [0, 1],
        "seed": SEED.hex(),
        "nonce": NONCES[0].hex(),
        "developer_nonce": NONCES[1].hex(),
        "coins": COINS,
    }


def helpers(worker):
    """Process ids of those beside the worker's process."""
    return Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()


def test_a_run_over_processes_is_the_run_that_a_replay_makes_alone(given, blobs, worker, job):
    """Each message of a run whose blocks two processes made is reproduced by one."""
    agent = CheckedAgentRun(
        given.holder,
        given.sealed.layout,
        given.labels[given.sealed.order],
        "run",
        bins=8,
        rows_per_block=12,
    )
    messages = {}

    def made(kind, name):
        told = worker.run(f"score.{kind}", job)
        messages[name] = blobs.get(told["blob"])
        return messages[name]

    def answered(name, message):
        messages[name] = message
        job[_JOB_NAMES.get(name, name)] = blobs.put(message)

    tables = [Table("histogram", 4, 500_000, COINS[0])]
    answered("digits", agent.digits(made("begin", "score"), tables, COMMITMENTS))
    answered("early_replies", agent.early_replies(made("early", "early_checks")))
    answered("characters", agent.characters(made("shares", "shares"), NONCES))
    answered("final_replies", agent.final_replies(made("final", "final_checks")))
    answered("replies", agent.replies(made("openings", "openings")))
    assert len(helpers(worker)) == 1, "two blocks keep two processes busy, not three"
    released = worker.run("score.release", job)
    transcript = Transcript(
        keys=given.holder.public_keys(),
        layout=given.sealed.layout,
        upload=given.sealed.blobs,
        model=given.model,
        column_map=[0, 1],
        seed=SEED,
        run_id="run",
        nonces=NONCES,
        messages=messages,
        log={name: hashlib.sha256(data).hexdigest() for name, data in messages.items()},
        coins=COINS,
    )
    found = replay(transcript)
    assert (found.reproduced, found.fault) == (True, None), found.reason
    counts = np.array(released["counts"])
    assert np.abs(counts - given.plain_counts()).max() <= COINS[0] // 2
    assert abs(counts.sum() - 20) < 60, "coins of 4 cells: standard deviation 11"


_JOB_NAMES = {"early_replies": "early", "final_replies": "final"}


def test_a_process_that_dies_costs_its_job_and_no_more(blobs, worker, job):
    first = worker.run("score.begin", job)
    leader, (helper,) = worker.pid, helpers(worker)
    limits = Path(f"/proc/{helper}/limits").read_text()
    assert str(MEMORY) in limits, "as the worker's own process"
    os.kill(int(helper), signal.SIGKILL)
    with pytest.raises(CrashError, match=r"computes blocks ended"):
        worker.run("score.begin", job)
    assert worker.run("score.begin", job) == first
    assert worker.pid == leader
    assert helper not in helpers(worker)
    # what is wrong with a block's bytes is said as if one process read them, and the next job done
    blocks = job["upload"]
    broken = bytearray(blobs.get(blocks[1]))
    broken[200:300] = b"\xff" * 100
    ruined = {**job, "run": "other", "upload": [blocks[0], blobs.put(bytes(broken))]}
    with pytest.raises(ProtocolError, match=r"upload block 1, part 0"):
        worker.run("score.begin", ruined)
    assert worker.run("score.begin", job) == first
    (helper,) = helpers(worker)
    worker.close()
    for _ in range(200):
        if _is_ending(helper):
            break
        time.sleep(0.05)
    assert _is_ending(helper), "it ends with the worker's process"


def _is_ending(pid):
    """Whether a process is gone or killed and not yet waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] in "ZX"
    except OSError:
        return True
