"""Heavy and dangerous jobs, in a process of their own.

Ciphertexts, models and proofs come from other parties, and the library that reads ciphertexts can
be made to crash (measured: by blobs of eleven bytes), holds the interpreter's lock for whole
seconds and hangs after a fork. So such bytes are parsed and computed with in a freshly started
process with limits on memory and time, which may die without harm: its job fails, the next one gets
a new process. Jobs and results are JSON over pipes; bytes lie in the blob store.
"""

import contextlib
import json
import os
import select
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import IO, Any, Protocol

from clearinghouse import errors
from clearinghouse.blobs import BlobStore, StorageFullError
from clearinghouse.blobs.place import BlobPlace
from clearinghouse.errors import ClearinghouseError, ProtocolError, TryAgainError
from clearinghouse.journal import journal
from clearinghouse.places import is_said
from clearinghouse.settings import Settings

LENGTH = struct.Struct(">I")
MAX_FRAME_BYTES = 256 * 2**20

_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""There are as many processes as cores: more threads would wait for each other."""

_log = journal("worker")
KINDS: dict[str, type[ClearinghouseError]] = {
    kind.__name__: kind
    for kind in (
        errors.InputError,
        errors.ProtocolError,
        errors.VerificationError,
        errors.TryAgainError,  # the blob store is away: the job is not at fault
        StorageFullError,
    )
}


class JobFailedError(ClearinghouseError):
    """A job crashed its process or took too long."""

    problem_type = "job-failed"


class StoppedError(TryAgainError):
    """This worker is stopping."""


class CrashError(JobFailedError):
    """A job's process died."""


KINDS[CrashError.__name__] = CrashError  # of a process that a job's process had beside it


class WorkerProcess:
    """One worker process, started at the first job and again after each crash.

    One job at a time. The process dies with the thread that started it, so the thread that calls
    `run` must live as long as the server.
    """

    def __init__(
        self, place: BlobPlace, *, wall_s: int, memory_bytes: int, block_processes: int = 1
    ) -> None:
        """Prepare; nothing is started yet.

        Args:
            place: Where blobs are.
            wall_s: Seconds that a job may take.
            memory_bytes: Address space of the process, and of each that it starts for blocks.
            block_processes: So many processes share the blocks of one run, this one included.
        """
        self._options = {
            "blobs": place.to_json(),
            "memory": memory_bytes,
            "processes": block_processes,
        }
        self._wall_s = wall_s
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._closed = False

    def run(self, job: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Do one job.

        Raises:
            CrashError: The process died; the job can be repeated.
            JobFailedError: It took too long.
            StoppedError: This worker is stopping.
            TryAgainError: There is no room for what it computes, or the blob store is away.
            ClearinghouseError: What the job itself raised: the peer's bytes are at fault.
        """
        with self._lock:
            started = time.monotonic()
            answer = self._try(job, arguments)
        seconds = round(time.monotonic() - started, 4)
        _log.info("job", job=job, seconds=seconds, ok="result" in answer)
        if "result" in answer:
            return dict(answer["result"])
        raise KINDS.get(answer["error"], JobFailedError)(answer["message"])

    def close(self) -> None:
        """End the process, also in the middle of a job; later jobs are refused."""
        self._closed = True
        self._end()

    def kill(self) -> None:
        """End the process in the middle of its job; the next job gets a new one."""
        self._end()

    @property
    def pid(self) -> int | None:
        """The process's id while there is one."""
        return None if self._process is None else self._process.pid

    def _try(self, job: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        try:
            process = self._started()
            write_frame(pipe_of(process.stdin), {"job": job, "arguments": dict(arguments)})
            return self._await(process, time.monotonic() + self._wall_s)
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            self._end()
            if self._closed:
                raise StoppedError("this worker is stopping") from None
            if isinstance(error, TimeoutError):
                raise JobFailedError(f"the job {job} took more than {self._wall_s} s") from None
            raise CrashError(f"the job {job} ended its process") from None

    def _started(self) -> subprocess.Popen[bytes]:
        if self._closed:
            raise StoppedError("this worker is stopping")
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._end()
        self._process = spawned("clearinghouse.worker_process")
        if self._closed:  # meanwhile, by another thread
            raise EOFError
        write_frame(pipe_of(self._process.stdin), self._options)
        return self._process

    def _await(self, process: subprocess.Popen[bytes], deadline: float) -> dict[str, Any]:
        source = pipe_of(process.stdout)
        remaining = deadline - time.monotonic()
        # A frame is written at once when a job is done, so waiting for its first byte is enough.
        if not select.select([source], [], [], max(0.0, remaining))[0]:
            raise TimeoutError
        return read_frame(source)

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        end_process(process)


class WorkerThread:
    """The same jobs in this very process: for quick tests, where no foreign bytes come."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._lock = threading.Lock()
        self._jobs: Any = None

    def run(self, job: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Do one job here and now; errors as `WorkerProcess.run`."""
        from clearinghouse import jobs  # here, because the server itself must not load TenSEAL

        with self._lock:
            if self._jobs is None:
                self._jobs = jobs.Jobs(self._blobs)
            try:
                return jobs.perform(self._jobs, job, json.loads(json.dumps(dict(arguments))))
            except ValueError as error:
                raise ProtocolError(fault(error)["message"]) from None

    def kill(self) -> None:
        """Nothing to end."""

    def close(self) -> None:
        """Nothing to end."""


class Processor(Protocol):
    """Does one job at a time."""

    def run(self, job: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Do one job."""
        ...

    def kill(self) -> None:
        """End the job at hand."""
        ...

    def close(self) -> None:
        """End for good."""
        ...


def make_processor(settings: Settings) -> Processor:
    """A process for jobs, or what stands for it in quick tests."""
    if settings.in_process:
        return WorkerThread(settings.blob_place.open())
    return WorkerProcess(
        settings.blob_place,
        wall_s=settings.worker_wall_s,
        memory_bytes=settings.worker_memory_bytes,
        block_processes=settings.block_processes,
    )


def spawned(module: str) -> subprocess.Popen[bytes]:
    """A fresh process of a module that speaks frames over pipes and dies with this one."""
    paths = os.pathsep.join(part for part in sys.path if part)
    return subprocess.Popen(
        [sys.executable, "-m", module, str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": paths, **_ONE_THREAD},
    )


def end_process(process: subprocess.Popen[bytes]) -> None:
    """End a process that was `spawned`."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            pipe_of(pipe).close()


def write_frame(pipe: IO[bytes], value: Mapping[str, Any]) -> None:
    """Write one JSON object with its length."""
    data = json.dumps(dict(value)).encode()
    pipe.write(LENGTH.pack(len(data)) + data)
    pipe.flush()


def read_frame(pipe: IO[bytes]) -> dict[str, Any]:
    """Read one JSON object.

    Raises:
        EOFError: The other side is gone.
        ValueError: It is not such a frame.
    """
    (size,) = LENGTH.unpack(exactly(pipe, LENGTH.size))
    if size > MAX_FRAME_BYTES:
        raise ValueError(f"a frame has at most {MAX_FRAME_BYTES} bytes, not {size}")
    value = json.loads(exactly(pipe, size))
    if not isinstance(value, dict):
        raise ValueError("a frame holds one JSON object")
    return value


def exactly(pipe: IO[bytes], size: int) -> bytes:
    """So many bytes of a pipe.

    Raises:
        EOFError: The other side is gone.
    """
    data = pipe.read(size)
    if len(data) != size:
        raise EOFError
    return data


def pipe_of(pipe: IO[bytes] | None) -> IO[bytes]:
    """A process's pipe.

    Raises:
        EOFError: It has none.
    """
    if pipe is None:
        raise EOFError
    return pipe


def fault(error: Exception) -> dict[str, str]:
    """An error as a frame: what the peer did wrong, without any value of its bytes."""
    kind = type(error).__name__
    if isinstance(error, ClearinghouseError):
        return {"error": type(error).__name__, "message": str(error)}
    if isinstance(error, ValueError):  # the numerical packages' error for malformed input
        if not is_said(error):
            return {"error": ProtocolError.__name__, "message": f"bytes are malformed: {kind}"}
        return {"error": ProtocolError.__name__, "message": str(error)}
    return {"error": JobFailedError.__name__, "message": f"the job failed: {kind}"}
