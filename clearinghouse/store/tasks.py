"""Tasks: one question, one party, one answer, one deadline."""

import json
from collections.abc import Sequence

from pydantic import TypeAdapter
from sqlalchemy import func
from sqlmodel import Session, col, select

from clearinghouse.canonical import canonical_bytes
from clearinghouse.errors import ConflictError, NotFoundError, RefusedError
from clearinghouse.ids import new_id
from clearinghouse.messages.tasks import Answer, Task
from clearinghouse.store.records import TaskRecord, TaskState
from clearinghouse.store.tables import RequestRow, TaskRow

AFTERWARDS = ("delete", "run.audit")
"""Tasks of these kinds outlive their request, and nothing waits for them."""

_IS_OPEN = (
    col(TaskRow.state) == "open",
    (col(RequestRow.state) == "running") | col(TaskRow.kind).in_(AFTERWARDS),
)

_TASK: TypeAdapter[Task] = TypeAdapter(Task)
_ANSWER: TypeAdapter[Answer] = TypeAdapter(Answer)


class Tasks:
    """Queries about tasks."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def create(
        self, request_id: str, org_id: str, task: Task, *, subject: str, deadline: int
    ) -> str:
        """Ask a party for something; asking twice for the same thing returns the first task."""
        found = self._session.exec(
            select(TaskRow).where(
                TaskRow.request_id == request_id,
                TaskRow.kind == task.kind,
                TaskRow.subject == subject,
                TaskRow.org_id == org_id,
            )
        ).first()
        if found is not None:
            return found.id
        row = TaskRow(
            id=new_id("tsk"),
            request_id=request_id,
            org_id=org_id,
            kind=task.kind,
            subject=subject,
            task=task.model_dump_json(),
            deadline=deadline,
            state="open",
        )
        self._session.add(row)
        self._session.flush()
        return row.id

    def get(self, task_id: str, org_id: str) -> TaskRecord:
        """Return a task of this organisation.

        Raises:
            NotFoundError: There is none, or it is another's.
        """
        return task_of(self._row(task_id, org_id))

    def open_for(self, org_id: str) -> tuple[TaskRecord, ...]:
        """Return the open tasks of an organisation, oldest deadline first.

        All but deletions and audits are of running requests.
        """
        query = (
            select(TaskRow)
            .join(RequestRow, col(RequestRow.id) == col(TaskRow.request_id))
            .where(TaskRow.org_id == org_id, *_IS_OPEN)
            .order_by(col(TaskRow.deadline), col(TaskRow.id))
        )
        return tuple(task_of(row) for row in self._session.exec(query))

    def with_open(self, org_ids: Sequence[str]) -> frozenset[str]:
        """Return those of some organisations that have open tasks."""
        query = (
            select(TaskRow.org_id)
            .distinct()
            .join(RequestRow, col(RequestRow.id) == col(TaskRow.request_id))
            .where(col(TaskRow.org_id).in_(org_ids), *_IS_OPEN)
        )
        return frozenset(self._session.exec(query))

    def of(self, request_id: str, *kinds: str, subject: str = "") -> tuple[TaskRecord, ...]:
        """Return the tasks of a request, of these kinds (all if none) and about this subject."""
        return tuple(task_of(row) for row in self.rows(request_id, *kinds, subject=subject))

    def rows(self, request_id: str, *kinds: str, subject: str = "") -> tuple[TaskRow, ...]:
        """The same tasks as they are stored, in the same order."""
        query = select(TaskRow).where(TaskRow.request_id == request_id)
        if kinds:
            query = query.where(col(TaskRow.kind).in_(kinds))
        if subject:
            query = query.where(TaskRow.subject == subject)
        return tuple(self._session.exec(query.order_by(TaskRow.id)))

    def answer(self, task_id: str, org_id: str, answer: Answer, now: float) -> bool:
        """Store a task's answer; False if the identical answer is there.

        Raises:
            NotFoundError: There is no such task of this organisation.
            ConflictError: It has another answer, or was refused.
            RefusedError: It is of another kind, or its deadline has passed.
        """
        row = self._row(task_id, org_id)
        if answer.kind != row.kind:
            raise RefusedError(f"task {task_id} asks for {row.kind}, not {answer.kind}")
        text = canonical_bytes(answer.model_dump(mode="json")).decode()
        if row.state == "answered":
            if row.answer != text:
                raise ConflictError(f"task {task_id} was answered before, with another answer")
            return False
        self._close(row, "answered", now)
        row.answer = text
        self._session.flush()
        return True

    def refuse(
        self, task_id: str, org_id: str, reason: str, now: float, spent_micro: int = 0
    ) -> bool:
        """Record a refusal and what was spent before it; False if the task was refused before.

        Raises:
            NotFoundError: There is no such task of this organisation.
            ConflictError: It was answered.
            RefusedError: Its deadline has passed.
        """
        row = self._row(task_id, org_id)
        if row.state == "refused":
            return False
        self._close(row, "refused", now)
        row.reason, row.spent_micro = reason, spent_micro
        self._session.flush()
        return True

    def any_late(self, now: float) -> bool:
        """Whether an open task's deadline has passed."""
        query = select(TaskRow.id).where(TaskRow.state == "open", col(TaskRow.deadline) < int(now))
        return self._session.exec(query).first() is not None

    def expire(self, now: float) -> tuple[str, ...]:
        """Mark every open task whose deadline has passed; return the requests concerned."""
        query = select(TaskRow).where(TaskRow.state == "open", col(TaskRow.deadline) < int(now))
        touched = set()
        for row in self._session.exec(query):
            row.state, row.reason = "expired", "did not answer in time"
            touched.add(row.request_id)
        self._session.flush()
        return tuple(sorted(touched))

    def void(self, request_id: str, subjects: Sequence[str] | None = None) -> None:
        """Withdraw the open tasks of a request that may not outlive it, or those about subjects."""
        query = select(TaskRow).where(
            TaskRow.request_id == request_id,
            TaskRow.state == "open",
            col(TaskRow.kind).not_in(AFTERWARDS),
        )
        for row in self._session.exec(query):
            if subjects is None or row.subject in subjects:
                row.state = "void"
        self._session.flush()

    def count_by_state(self) -> dict[str, int]:
        """Return the number of tasks in each state."""
        query = select(TaskRow.state, func.count()).group_by(TaskRow.state)
        return dict(self._session.exec(query).all())

    def _row(self, task_id: str, org_id: str) -> TaskRow:
        row = self._session.get(TaskRow, task_id)
        if row is None or row.org_id != org_id:
            raise NotFoundError(f"no task {task_id}")
        return row

    def _close(self, row: TaskRow, state: TaskState, now: float) -> None:
        if row.state == "expired" or (row.state == "open" and row.deadline < int(now)):
            raise RefusedError(f"the deadline of task {row.id} has passed")
        if row.state == "void":
            raise RefusedError(f"task {row.id} was withdrawn")
        if row.state != "open":
            raise ConflictError(f"task {row.id} was {row.state} before")
        row.state = state


def task_of(row: TaskRow) -> TaskRecord:
    """A stored task, read."""
    return TaskRecord(
        row.id,
        row.request_id,
        row.org_id,
        row.subject,
        _TASK.validate_json(row.task),
        row.deadline,
        row.state,  # type: ignore[arg-type]
        None if row.answer is None else _ANSWER.validate_python(json.loads(row.answer)),
        row.reason,
        row.spent_micro,
    )
