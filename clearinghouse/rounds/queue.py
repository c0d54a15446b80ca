"""Jobs of moves: queued in the database, done by any worker, and read back by the same move.

A move asks its worker for a result. If the job is new it is queued, and the move is made later;
when the job is done its request is due, the move asks for the very same work again and gets the
stored result. So moves stay plain functions that can be repeated, and no thread waits for a
ciphertext.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from clearinghouse.errors import ClearinghouseError, TryAgainError
from clearinghouse.failpoints import reach
from clearinghouse.rounds.desk import Desk, JobOpenError
from clearinghouse.store.jobs import Wanted
from clearinghouse.store.records import Request
from clearinghouse.store.work_records import Job
from clearinghouse.worker import KINDS, JobFailedError

PROTOCOL = "4"
"""Version of the jobs' arguments, results and messages. Raise it with any change of them: jobs of
another version are left to workers of that version."""

PRIORITIES: Mapping[str, int] = {
    "score.release": 2,
    "score.card": 2,
    "target.release": 2,
    "model.inspect": 1,
    "rows.prove": 1,
    "valset.verdict": 1,
    "score.replay": -1,
    "target.replay": -1,
    "delivery.replay": -1,
}
"""What is short and lets parties go on comes first, replays last; everything else has 0."""

Item = TypeVar("Item")
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class MoveWorker:
    """Has the jobs of one move of one request done.

    Attributes:
        words: The move, "to ...".
        aside: Subject of jobs that are not part of the request's flow: a dispute. They outlast
            the request's moves and its end.
    """

    desk: Desk
    request: Request
    words: str
    aside: str = ""

    def run(self, job: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The result of a job that is done; errors as `Worker.run`."""
        wanted = self._wanted(job, arguments)
        with self.desk.store.read() as tx:
            found = tx.jobs.find(self.request.id, wanted.key)
        if found is None:
            found = self._queue(wanted)
            raise JobOpenError(found.id, is_new=True)
        if found.state in ("queued", "running"):
            raise JobOpenError(found.id, is_new=False)
        if found.state == "done":
            return dict(json.loads(found.result))
        raise error_of(found)

    def _wanted(self, kind: str, arguments: Mapping[str, Any]) -> Wanted:
        text = json.dumps(dict(arguments), sort_keys=True, separators=(",", ":"))
        whole = "\n".join((PROTOCOL, kind, text))
        return Wanted(
            kind,
            self.aside or subject_of(arguments),
            self.words,
            hashlib.sha256(whole.encode()).hexdigest(),
            PROTOCOL,
            PRIORITIES.get(kind, 0),
            self.desk.settings.job_deadline_s,
            text,
        )

    def _queue(self, wanted: Wanted) -> Job:
        with self.desk.store.write() as tx:
            now = tx.requests.get(self.request.id)
            is_same = now.version == self.request.version and now.state == "running"
            if not is_same and not self.aside:
                raise TryAgainError(f"request {self.request.id} was moved by another process")
            job = tx.jobs.add(self.request, wanted, self.desk.clock.now())
            reach("move.queueing")
        reach("move.queued")
        self.desk.job_bell.ring()
        return job


def at_move(desk: Desk, request: Request, words: str) -> Desk:
    """The desk as one move of a request has it, with a worker for its jobs."""
    return replace(desk, worker=MoveWorker(desk, request, words))


def at_dispute(desk: Desk, request: Request, dispute_id: str) -> Desk:
    """The desk as a dispute about a request has it, which may have ended long ago."""
    words = "to replay what is disputed"
    return replace(desk, worker=MoveWorker(desk, request, words, dispute_id))


def subject_of(arguments: Mapping[str, Any]) -> str:
    """What a job is about: its run, else its validation set, model or proofs."""
    for name in ("run", "valset", "model", "proofs"):
        if name in arguments:
            return str(arguments[name])
    return ""


def error_of(job: Job) -> ClearinghouseError:
    """Why a job has no result, as the error that ended it."""
    return KINDS.get(job.error, JobFailedError)(job.reason)


def each(items: Iterable[Item], act: Callable[[Item], Found]) -> list[Found]:
    """`act` on every item, so that their jobs are queued together and not one after another.

    Raises:
        JobOpenError: One is not done yet.
    """
    found, is_open = [], []
    for item in items:
        try:
            found.append(act(item))
        except JobOpenError as error:
            is_open.append(error)
    if is_open:
        raise JobOpenError(is_open[0].job_id, is_new=any(error.is_new for error in is_open))
    return found
