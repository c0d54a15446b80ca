"""The worker may die, hang or be fed nonsense: one job fails, the server lives on."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from clearinghouse.blobs.disk import DiskStore
from clearinghouse.blobs.place import BlobPlace
from clearinghouse.errors import InputError, NotFoundError, ProtocolError, TryAgainError
from clearinghouse.rows import commit_rows, write_proofs
from clearinghouse.worker import CrashError, JobFailedError, WorkerProcess, WorkerThread
from clearinghouse.worker_process import NICE

GIGABYTE = 2**30


@pytest.fixture
def blobs(tmp_path):
    return DiskStore(tmp_path / "blobs", max_bytes=2**24)


@pytest.fixture
def worker(blobs):
    made = WorkerProcess(BlobPlace(blobs.folder, 2**24), wall_s=60, memory_bytes=6 * GIGABYTE)
    yield made
    made.close()


def proofs(blobs):
    """A job with a known answer: five of eight rows are proven."""
    commitments = commit_rows([{"row": str(i)} for i in range(8)], bytes(32), 16)
    blob = blobs.put(write_proofs([commitments.proof(row) for row in range(5)]))
    return {"proofs": blob, "root": commitments.root.hex(), "leaves": 16, "most": 6}


def test_jobs_errors_and_death(blobs, worker):
    """One process serves several jobs, survives bad ones, and is replaced when it dies."""
    job = proofs(blobs)
    assert worker.run("rows.prove", job) == {"real": 5}
    first = worker.pid
    with pytest.raises(InputError, match="at most 4"):
        worker.run("rows.prove", {**job, "most": 4})
    with pytest.raises(InputError, match="no job"):
        worker.run("os.system", {"command": "true"})
    with pytest.raises((NotFoundError, JobFailedError)):
        worker.run("rows.prove", {**job, "proofs": "0" * 64})
    with pytest.raises(JobFailedError):
        worker.run("rows.prove", {})
    with pytest.raises(ProtocolError, match="model: not JSON"):
        worker.run("score.begin", _nonsense(blobs))
    assert worker.pid == first
    os.kill(first, signal.SIGSTOP)  # so that the kill surely comes in the middle of the next job
    threading.Timer(0.2, os.kill, (first, signal.SIGKILL)).start()
    with pytest.raises(CrashError, match="ended its process"):
        worker.run("rows.prove", job)
    assert worker.run("rows.prove", job) == {"real": 5}
    assert worker.pid != first
    maps = Path(f"/proc/{worker.pid}/limits").read_text()
    assert str(6 * GIGABYTE) in maps
    ours, its = (os.getpriority(os.PRIO_PROCESS, pid) for pid in (0, worker.pid))
    assert its == min(19, ours + NICE) > ours, "calls go before computations"
    worker.close()
    with pytest.raises(TryAgainError):
        worker.run("rows.prove", job)


def _nonsense(blobs):
    junk = blobs.put(os.urandom(1000))
    layout = {
        "version": "bfv-8192-1032193-1",
        "n_blocks": 1,
        "columns": 2,
        "labels": 2,
        "cells": 2,
        "groups": [],
    }
    return {
        "run": "run_x",
        "seed": "00" * 32,
        "nonce": "00" * 16,
        "keys": junk,
        "upload": [junk],
        "layout": layout,
        "model": junk,
        "columns": [],
    }


def test_a_job_that_takes_too_long_is_ended(blobs):
    slow = WorkerProcess(BlobPlace(blobs.folder, 1), wall_s=0, memory_bytes=6 * GIGABYTE)
    with pytest.raises(JobFailedError, match="more than 0 s"):
        slow.run("rows.prove", proofs(blobs))
    assert slow.pid is None
    slow.close()


def test_a_process_that_cannot_start_fails_its_job(blobs):
    """Memory so small that it dies."""
    small = WorkerProcess(BlobPlace(blobs.folder, 1), wall_s=60, memory_bytes=2**24)
    with pytest.raises(JobFailedError, match="ended its process"):
        small.run("rows.prove", proofs(blobs))
    small.close()


def test_stopping_in_the_middle_of_a_job_is_no_failure(blobs, worker):
    job = proofs(blobs)
    worker.run("rows.prove", job)
    os.kill(worker.pid, signal.SIGSTOP)  # the next job will not end by itself
    threading.Timer(0.2, worker.close).start()
    with pytest.raises(TryAgainError, match="stopping"):
        worker.run("rows.prove", job)
    assert worker.pid is None


def test_the_worker_dies_with_its_server(blobs):
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from clearinghouse.blobs.place import BlobPlace\n"
        "from clearinghouse.worker import WorkerProcess\n"
        "w = WorkerProcess(BlobPlace(Path(sys.argv[1]), 1), wall_s=60, memory_bytes=6 * 2**30)\n"
        "try:\n    w.run('none', {})\nexcept Exception as e:\n    print(w.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    server = subprocess.Popen(
        [sys.executable, "-c", script, str(blobs.folder)], stdout=subprocess.PIPE, text=True
    )
    with server:
        pid = int(server.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        server.kill()
    end = time.monotonic() + 10
    while _alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert not _alive(pid)


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_same_jobs_in_this_process(blobs):
    here = WorkerThread(blobs)
    assert here.run("rows.prove", proofs(blobs)) == {"real": 5}
    with pytest.raises(ProtocolError):
        here.run("score.begin", _nonsense(blobs))
    here.close()
