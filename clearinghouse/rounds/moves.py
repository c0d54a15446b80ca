"""What a step is made of: moves, each "when this is there, compute that, write it down".

A move reads in one transaction, computes outside of any, and writes in another, which commits only
if the request is still as it was read. So no lock is held while ciphertexts are multiplied, a crash
between the two costs a repetition and nothing else, and of two processes at work one wins.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from clearinghouse.errors import ClearinghouseError
from clearinghouse.messages.tasks import Answer
from clearinghouse.rounds.desk import Desk
from clearinghouse.store.records import Request, TaskRecord
from clearinghouse.store.store import Tx

Found = TypeVar("Found")
Result = TypeVar("Result")


class HaltError(ClearinghouseError):
    """The request cannot go on; the message is the reason that everybody sees."""

    problem_type = "halted"
    status = 409


@dataclass(frozen=True, slots=True)
class Move(Generic[Found, Result]):
    """One thing the server does in a step.

    Attributes:
        words: What participants read while it is done: "the clearinghouse to ...".
        ready: Reads what the move needs, or None while it is not all there. Raises HaltError if
            it never will be.
        work: Computes outside of any transaction. Raises ClearinghouseError.
        commit: Writes rows, tasks and log entries; True ends the step.
        failed: Records that `work` failed with a reason, where that ends less than the request.
    """

    words: str
    ready: Callable[[Tx, Request], Found | None]
    work: Callable[[Desk, Request, Found], Result]
    commit: Callable[[Tx, Desk, Request, Found, Result], bool]
    failed: Callable[[Tx, Desk, Request, Found, str], None] | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the flow: its moves are tried in order until none is ready."""

    name: str
    moves: tuple[Move[Any, Any], ...]


def no_work(_desk: Desk, _request: Request, _found: object) -> None:
    """For moves that only write."""


def essential_answer(tx: Tx, request: Request, kind: str, subject: str) -> Answer | None:
    """The answer to a task that the request cannot do without, or None while it is open.

    Raises:
        HaltError: It was refused or not answered in time.
    """
    for task in tx.tasks.of(request.id, kind, subject=subject):
        if task.state in ("refused", "expired"):
            raise HaltError(refusal(tx, task))
        return task.answer
    return None


def refusal(tx: Tx, task: TaskRecord) -> str:
    """Why a task was not answered, as a sentence."""
    who = tx.parties.get(task.org_id).words
    if task.state == "refused":
        return f"{who} refused {task.task.kind}: {task.reason}"
    return f"{who} did not answer {task.task.kind} in time"


def all_closed(tasks: tuple[TaskRecord, ...]) -> bool:
    """Whether no task is open any more."""
    return all(task.state != "open" for task in tasks)
