"""The blocks of one run, shared by the worker's process and a few more.

A run's message is put together from parts, one a block (and class), each a function of the run's
inputs and of what was received (`ScoringRun.block_arrays`), so it is the same byte for byte however
many processes make it. A block always goes to the same process, which still has the ciphertexts of
the step before. The processes are started freshly, have the same limits as the worker's own, read
ciphertexts from the blob store by themselves, and die with it. If one dies, its job is tried again
with new ones.
"""

import math
import subprocess
from collections.abc import Mapping, Sequence
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from clearinghouse.errors import ClearinghouseError
from clearinghouse.worker import (
    KINDS,
    MAX_FRAME_BYTES,
    CrashError,
    JobFailedError,
    end_process,
    exactly,
    pipe_of,
    read_frame,
    spawned,
    write_frame,
)
from secure_eval.run_inputs import BlockStep, Elsewhere

__all__ = ["BlockPool", "write_arrays"]

_DTYPES = {"uint8": np.uint8, "int64": np.int64, "uint64": np.uint64}


class BlockPool:
    """Processes beside this one, started when a run has more than one block."""

    def __init__(self, options: Mapping[str, Any], processes: int) -> None:
        """Prepare; nothing is started yet.

        Args:
            options: Of a worker process: where blobs are, and the limit on memory.
            processes: How many share a run's blocks, this one included.
        """
        self._options = dict(options)
        self._most = processes
        self._helpers: list[subprocess.Popen[bytes]] = []

    @property
    def pids(self) -> list[int]:
        """Ids of the processes that there are."""
        return [helper.pid for helper in self._helpers]

    def begin(self, step: BlockStep, units: int, arguments: Mapping[str, Any]) -> Elsewhere | None:
        """Have the others begin with their units of a step.

        Returns:
            What gives the arrays of a unit that is computed there, and None for one to be made
            here; None if there is nothing to share. Ask in the order of the units.

        Raises:
            CrashError: A process died, or could not be started.
        """
        count = min(self._most, units)
        if count < 2:
            return None
        try:
            self._start(count - 1)
            for place in range(1, count):
                task = {"step": step, "units": list(range(place, units, count))}
                pipe = pipe_of(self._helpers[place - 1].stdin)
                write_frame(pipe, {**task, "arguments": dict(arguments)})
        except (OSError, EOFError) as error:
            raise self._crashed(step) from error
        return lambda _step, unit: self._read(step, unit, unit % count)

    def close(self) -> None:
        """End the processes; the next run of several blocks starts new ones."""
        helpers, self._helpers = self._helpers, []
        for helper in helpers:
            end_process(helper)

    def _start(self, count: int) -> None:
        while len(self._helpers) < count:
            self._helpers.append(spawned("clearinghouse.block_process"))
            write_frame(pipe_of(self._helpers[-1].stdin), self._options)

    def _read(self, step: BlockStep, unit: int, place: int) -> list[NDArray[Any]] | None:
        if place == 0:
            return None
        try:
            pipe = pipe_of(self._helpers[place - 1].stdout)
            head = read_frame(pipe)
            if "error" in head:
                raise _error_of(head)
            return _read_arrays(pipe, head["arrays"])
        except (OSError, EOFError, ValueError) as error:
            raise self._crashed(f"{step} of unit {unit}") from error

    def _crashed(self, what: str) -> CrashError:
        self.close()
        return CrashError(f"a process that computes blocks ended ({what})")


def _error_of(head: Mapping[str, Any]) -> ClearinghouseError:
    return KINDS.get(str(head["error"]), JobFailedError)(str(head["message"]))


def write_arrays(pipe: IO[bytes], arrays: Sequence[NDArray[Any]]) -> None:
    """Write what a unit gave: a frame with the arrays' types and shapes, then their bytes."""
    shapes = [[array.dtype.name, list(array.shape)] for array in arrays]
    data = [array.tobytes() for array in arrays]  # before anything is written
    write_frame(pipe, {"arrays": shapes})
    for part in data:
        pipe.write(part)
    pipe.flush()


def _read_arrays(pipe: IO[bytes], shapes: Sequence[Any]) -> list[NDArray[Any]]:
    result = []
    for name, shape in shapes:
        dtype = np.dtype(_DTYPES[name])
        size = math.prod(shape) * dtype.itemsize
        if size > MAX_FRAME_BYTES:
            raise ValueError(f"an array has at most {MAX_FRAME_BYTES} bytes, not {size}")
        result.append(np.frombuffer(exactly(pipe, size), dtype).reshape(shape))
    return result
