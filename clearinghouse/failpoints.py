"""Named places where a test can make a process die, stop, wait or fail.

`reach("job.claimed")` does nothing, unless two things hold at once: the environment variable
`CLEARINGHOUSE_FAIL` names the point, and this is a test build. A test build is one on whose import
path the module `clearinghouse_test_build` lies; it is in `tests/support`, in no wheel and in no
image, so an installed clearinghouse has no fail points whatever its environment says.

    CLEARINGHOUSE_FAIL="job.claimed=kill,api.committed=wait:0.5@3"

| action | what happens at the point |
|---|---|
| `kill` | SIGKILL to this process, as `kill -9` or the kernel would |
| `stop` | SIGSTOP: the process freezes until it gets SIGCONT |
| `full` | the error of a full disk |
| `error` | a RuntimeError, as a mistake of ours would raise |
| `wait:S` | S seconds pass |
| `hold` | it waits until there is a file of the note's name and `.go`, at most a minute |

`@n` acts at the n-th time only (the first, if not given; `@*` at every time). With
`CLEARINGHOUSE_FAIL_NOTE` naming a file, a line `point action pid` is written to it before.
"""

import errno
import os
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

SPEC = "CLEARINGHOUSE_FAIL"
NOTE = "CLEARINGHOUSE_FAIL_NOTE"
TEST_BUILD = "clearinghouse_test_build"
HOLD_S = 60.0

POINTS: Mapping[str, str] = {
    "api.verified": "a call's signature holds, nothing of it is written",
    "api.writing": "a signed call has written, its transaction is not yet committed",
    "api.committed": "a signed call is committed, its answer is not yet sent",
    "blob.writing": "bytes of a blob are about to be written; `full` for want of room",
    "api.stored": "an uploaded blob is in its place, its row is not yet written",
    "upload.kept": "a piece of an upload is on the disk, its row does not count it yet",
    "upload.stored": "an upload's blob is in its place, its rows are not yet written",
    "move.queueing": "a move has written its job, not yet committed",
    "move.queued": "a move's job is committed",
    "move.worked": "a move has all results, nothing of it is written",
    "move.writing": "a move has written rows and log entries, not yet committed",
    "move.moved": "a move is committed",
    "garbage.doomed": "blobs that nothing names are out of the index, their bytes are still there",
    "blob.removed": "a doomed blob's bytes are gone, the row that doomed it is still there",
    "log.waiting": "an act is committed, its log entries have no positions yet (PostgreSQL)",
    "log.placing": "entries have positions, what follows is written, not yet committed (likewise)",
    "job.claiming": "a worker has taken a job, not yet committed",
    "job.claimed": "a worker's claim of a job is committed",
    "he.began": "the capped process has read a job",
    "he.ended": "the capped process has the result, not yet written to the pipe",
    "job.computed": "a worker has a job's result, nothing of it is written",
    "job.finishing": "a worker has written a job's result, not yet committed",
    "job.finished": "a job's result is committed",
    "party.asked": "a party has read a task",
    "party.decided": "a party has worked out its answer, not yet stored it",
    "party.stored": "a party's answer is stored, not yet sent",
    "party.answered": "a party's answer is acknowledged",
    "agent.sealed": "the hospital has sealed its rows and uploaded them, not yet registered them",
    "agent.charged": "the key agent has debited epsilon, nothing is drawn",
    "onsite.released": "an on-site release is drawn and stored, not yet given to its developer",
    "hospital.sealed": "a hospital has sealed its rows, not yet uploaded them",
    "agent.drawn": "the key agent has drawn, its ledger has not stored the answer",
    "agent.opened": "the key agent has opened ciphertexts, its state is not yet stored",
    "provider.registered": "a provider's source is registered, its id is not yet remembered",
    "provider.ordered": "a provider has remembered an order, nothing of it is drawn",
    "provider.sealed": "a provider has sealed its records, not yet uploaded them",
    "provider.uploaded": "a provider has uploaded its records, not yet their proofs",
}
"""Every point, and what is so when it is reached."""

_FORM = re.compile(
    r"([a-z.]+)=(kill|stop|full|error|hold|wait:[0-9]+(?:\.[0-9]+)?)(?:@([1-9][0-9]*|\*))?"
)


@dataclass(frozen=True, slots=True)
class Failure:
    """What to do at a point; `turn` 0 means every time."""

    action: str
    turn: int


def parse(text: str) -> dict[str, Failure]:
    """Read `CLEARINGHOUSE_FAIL`.

    Raises:
        ValueError: It is malformed or names no point of ours.
    """
    found = {}
    for part in filter(None, text.split(",")):
        match = _FORM.fullmatch(part)
        if match is None or match[1] not in POINTS:
            raise ValueError(f"no such fail point or action: {part}")
        found[match[1]] = Failure(match[2], 0 if match[3] == "*" else int(match[3] or 1))
    return found


def active(environment: Mapping[str, str]) -> dict[str, Failure]:
    """The failures of this process: none, unless it was asked for and this is a test build."""
    text = environment.get(SPEC, "")
    if not text or find_spec(TEST_BUILD) is None:
        return {}
    return parse(text)


_failures = active(os.environ)
_reached: Counter[str] = Counter()
_lock = threading.Lock()


def reach(point: str) -> None:
    """Do what was asked for at this point; in a process without fail points, nothing."""
    if not _failures:
        return
    failure = _failures.get(point)
    if failure is None:
        return
    with _lock:
        _reached[point] += 1
        if failure.turn not in (0, _reached[point]):
            return
    _note(point, failure.action)
    _act(point, failure.action)


def _note(point: str, action: str) -> None:
    path = os.environ.get(NOTE)
    if path is None:
        return
    with open(path, "a", encoding="utf-8") as note:
        note.write(f"{point} {action} {os.getpid()}\n")


def _hold(sign: Path) -> None:
    """Wait for a sign of whoever asked for this."""
    end = time.monotonic() + HOLD_S
    while not sign.exists() and time.monotonic() < end:
        time.sleep(0.01)


def _act(point: str, action: str) -> None:
    sys.stdout.flush()
    if action in ("kill", "stop"):
        os.kill(os.getpid(), signal.SIGKILL if action == "kill" else signal.SIGSTOP)
    elif action == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    elif action == "error":
        raise RuntimeError(f"fail point {point}")
    elif action == "hold":
        _hold(Path(f"{os.environ[NOTE]}.go"))
    else:
        time.sleep(float(action.partition(":")[2]))
