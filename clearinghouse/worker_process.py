"""The worker process: reads jobs from its standard input, answers on its standard output."""

import os
import resource
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from clearinghouse.blobs.place import BlobPlace
from clearinghouse.collector import collect_rarely
from clearinghouse.failpoints import reach
from clearinghouse.lifeline import die_with
from clearinghouse.worker import fault, read_frame, write_frame

_CPU_S = 24 * 3600
NICE = 10
"""So much later it gets a processor than the server on the same machine: calls do not wait."""


@contextmanager
def guarded() -> Iterator[tuple[dict[str, Any], IO[bytes], IO[bytes]]]:
    """Limits of a process that reads foreign bytes: its options, where frames come and go.

    Ends quietly when the process that started this one is gone.
    """
    die_with(int(sys.argv[1]))
    os.nice(NICE)
    warnings.simplefilter("ignore")  # their words go to the server's log and may quote numbers
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server decides, also on Ctrl-C
    frames_in = os.fdopen(os.dup(0), "rb")
    answers_out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not get between the frames
    try:
        options = read_frame(frames_in)
        _limit(int(options["memory"]))
        yield options, frames_in, answers_out
    except (EOFError, BrokenPipeError):
        return


def main() -> None:
    """Serve jobs until the server is gone."""
    with guarded() as (options, jobs_in, answers_out):
        blobs = BlobPlace.from_json(options["blobs"]).open()
        from clearinghouse import jobs  # here, under the limits just set
        from clearinghouse.block_pool import BlockPool

        collect_rarely()
        state = jobs.Jobs(blobs, BlockPool(options, int(options["processes"])))
        while True:
            frame = read_frame(jobs_in)
            reach("he.began")
            try:
                answer: dict[str, object] = {
                    "result": jobs.perform(state, frame["job"], frame["arguments"])
                }
            except Exception as error:  # noqa: BLE001  any error belongs to this job alone
                answer = dict(fault(error))
            reach("he.ended")
            write_frame(answers_out, answer)


def _limit(memory_bytes: int) -> None:
    """Bound memory and time, and leave no core file with a party's bytes."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
