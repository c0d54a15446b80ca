"""What participants and operators read of the server's long work."""

from typing import Annotated, Literal

from pydantic import Field

from clearinghouse.messages.base import Count, Id, Message


class JobView(Message):
    """A job of a request: proofs, tests and arithmetic on ciphertexts."""

    id: Id
    kind: str
    """Such as "score.begin"."""
    subject: str
    """The run, validation set or blob that it is about."""
    words: str
    """The move that waits for it: "to ..."."""
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    reason: str
    """Why it failed or was cancelled, or why the last attempt came to nothing."""
    position: Count
    """Place in the line of all queued jobs, from 1; 0 if it does not stand there."""
    attempts: Count
    worker: str
    """The worker that has it; empty if none has."""
    since: str
    """When it got into this state: RFC 3339, UTC."""
    deadline: str
    """When it fails, whatever its state."""


class JobList(Message):
    """GET /v1/requests/{id}/jobs: every job of a request, oldest first."""

    jobs: list[JobView]


class CancelRun(Message):
    """POST /v1/requests/{id}/runs/{run_id}/cancel: the hospital ends one of its scoring runs."""

    reason: Annotated[str, Field(min_length=1, max_length=500)]
