"""Jobs and who works on them, as the store keeps them: plain values."""

from dataclasses import dataclass
from typing import Literal

JobState = Literal["queued", "running", "done", "failed", "cancelled"]
WorkerState = Literal["working", "draining"]


@dataclass(frozen=True, slots=True)
class Job:
    """A long piece of work.

    Attributes:
        org_id: The tenant whose turn it takes: the owner of the request.
        subject: What it is about: a run, a validation set, a blob.
        words: The move that wants it, "to ...".
        key: Hash of kind, arguments and protocol: the same work is one job.
        protocol: Version of arguments and results; workers of another version leave it.
        token: Fencing token: counts claims, and only the newest claim may write a result.
        owner: The worker that has it.
        slot: Which of the worker's processes had it last.
        not_before: Seconds since 1970 before which it is not tried again.
        deadline: Seconds since 1970 after which it fails, whatever its state.
        error: Class of the error it ended with.
    """

    id: str
    request_id: str
    org_id: str
    kind: str
    subject: str
    words: str
    key: str
    protocol: str
    priority: int
    state: JobState
    attempts: int
    token: int
    owner: str
    slot: str
    beats: int
    enqueued: float
    not_before: float
    started: float | None
    finished: float | None
    deadline: int
    arguments: str
    result: str
    error: str
    reason: str
    cause: str


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """A process that does jobs.

    Attributes:
        host: Its machine's name, for the operator's eyes.
        place: Boot and process namespace: within one, process ids can be looked up.
        begun: When the process began, in the kernel's clock; tells a reused id apart.
        slots: How many jobs it does at once.
        seen: Its latest heartbeat, seconds since 1970 by its own clock.
        beats: Counts its heartbeats.
    """

    id: str
    host: str
    place: str
    pid: int
    begun: str
    protocol: str
    slots: int
    state: WorkerState
    started: float
    seen: float
    beats: int = 0
