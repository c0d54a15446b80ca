"""Jobs: queued once, claimed by one worker at a time, finished once.

Every change of a job is conditional: on its state, and while it is at work on its fencing token, so
that of a late worker and its successor only the newest claim can write.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy
from sqlalchemy import ColumnElement, func, update
from sqlmodel import Session, col, select

from clearinghouse import fairness
from clearinghouse.cause import current
from clearinghouse.errors import NotFoundError
from clearinghouse.ids import new_id
from clearinghouse.store.records import Request
from clearinghouse.store.tables import JobRow, RequestRow, WorkerRow
from clearinghouse.store.work_records import Job

OPEN = ("queued", "running")

# Jobs of disputes are replays beside a request's flow: nothing waits for them, and they outlast it.
_IN_FLOW = ~col(JobRow.subject).startswith("dsp_", autoescape=True)

# Seconds before the second, third... attempt.
_PAUSES = (1.0, 5.0, 30.0)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A job to be done.

    Attributes:
        priority: Higher goes first.
        deadline_s: Seconds from now after which it fails, whatever its state.
    """

    kind: str
    subject: str
    words: str
    key: str
    protocol: str
    priority: int
    deadline_s: int
    arguments: str


@dataclass(frozen=True, slots=True)
class Depth:
    """Open jobs of one kind and state; `oldest` is when the first of them was queued."""

    kind: str
    state: str
    count: int
    oldest: float


class Jobs:
    """Queries about jobs."""

    def __init__(self, session: Session) -> None:
        self._session = session

    # ---------------------------------------------------------------- who wants it

    def add(self, request: Request, wanted: Wanted, now: float) -> Job:
        """Queue a job, or find the same one; what another version wanted instead is dropped."""
        found = self.find(request.id, wanted.key)
        if found is not None:
            return found
        self._cancel(
            now,
            f"a clearinghouse of protocol {wanted.protocol} wants it otherwise",
            col(JobRow.request_id) == request.id,
            col(JobRow.kind) == wanted.kind,
            col(JobRow.subject) == wanted.subject,
            col(JobRow.protocol) != wanted.protocol,
        )
        row = JobRow(
            id=new_id("job"),
            request_id=request.id,
            org_id=request.org_id,
            kind=wanted.kind,
            subject=wanted.subject,
            words=wanted.words,
            key=wanted.key,
            protocol=wanted.protocol,
            priority=wanted.priority,
            state="queued",
            slot=self._home(request.id, wanted.subject, wanted.protocol),
            enqueued=now,
            deadline=int(now) + wanted.deadline_s,
            arguments=wanted.arguments,
            cause=current().text,
        )
        self._session.add(row)
        self._session.flush()
        return _job(row)

    def find(self, request_id: str, key: str) -> Job | None:
        """Return a request's job by the hash of its work."""
        query = select(JobRow).where(JobRow.request_id == request_id, JobRow.key == key)
        row = self._session.exec(query).first()
        return None if row is None else _job(row)

    def get(self, job_id: str) -> Job:
        """Return a job.

        Raises:
            NotFoundError: There is none.
        """
        row = self._session.get(JobRow, job_id)
        if row is None:
            raise NotFoundError(f"no job {job_id}")
        self._session.refresh(row)
        return _job(row)

    def of(self, request_id: str) -> tuple[Job, ...]:
        """Return every job of a request, in the order in which they were queued."""
        query = (
            select(JobRow)
            .where(JobRow.request_id == request_id)
            .order_by(col(JobRow.enqueued), col(JobRow.id))
        )
        return tuple(_job(row) for row in self._session.exec(query))

    def open(self) -> tuple[Job, ...]:
        """Return every job that is queued or at work, in the order in which they were queued."""
        query = (
            select(JobRow)
            .where(col(JobRow.state).in_(OPEN))
            .order_by(col(JobRow.enqueued), col(JobRow.id))
        )
        return tuple(_job(row) for row in self._session.exec(query))

    def busy(self, request_id: str) -> frozenset[str]:
        """Return the subjects of what is queued or at work for a request's moves."""
        query = select(JobRow.subject).where(
            JobRow.request_id == request_id, col(JobRow.state).in_(OPEN), _IN_FLOW
        )
        return frozenset(self._session.exec(query))

    def forget(self, request_id: str, now: float) -> None:
        """After a request's end: stop what is open, and keep of the rest only that it was done."""
        self._cancel(now, "its request ended", col(JobRow.request_id) == request_id, _IN_FLOW)
        self._session.execute(
            update(JobRow)
            .where(col(JobRow.request_id) == request_id, _IN_FLOW)
            .values(arguments="", result="")
        )

    def forget_about(self, subject: str) -> None:
        """Keep of what was done about a dispute only that it was."""
        self._session.execute(
            update(JobRow).where(col(JobRow.subject) == subject).values(arguments="", result="")
        )

    def cancel(self, request_id: str, subject: str, reason: str, now: float) -> int:
        """Cancel the open jobs of a request about something; how many there were."""
        return self._cancel(
            now, reason, col(JobRow.request_id) == request_id, col(JobRow.subject) == subject
        )

    def cancel_one(self, job_id: str, reason: str, now: float) -> bool:
        """Cancel a job; False if it has ended. Its worker ends the process at its next look."""
        self._touch(job_id)
        return self._cancel(now, reason, col(JobRow.id) == job_id) == 1

    def retry(self, job_id: str) -> bool:
        """Put an open job at the head of its next attempt; False if it has ended.

        One at work is taken from its worker, whose result would come too late; the attempt does
        not count.
        """
        job = self.get(job_id)
        values: dict[str, Any] = {"not_before": 0.0}
        if job.state == "running":
            values |= {"state": "queued", "owner": "", "attempts": JobRow.attempts - 1}
        return self._change(col(JobRow.id) == job_id, col(JobRow.state).in_(OPEN), values=values)

    def expire(self, now: float) -> tuple[str, ...]:
        """Fail every open job whose deadline has passed; return the requests concerned."""
        query = select(JobRow).where(col(JobRow.state).in_(OPEN), col(JobRow.deadline) < int(now))
        touched = set()
        for row in self._session.exec(query):
            row.reason = (
                f"the job {row.kind} was not done within its deadline "
                f"(it was {row.state}, {row.attempts} attempts were made)"
            )
            row.state, row.owner, row.error, row.finished = "failed", "", "JobFailedError", now
            touched.add(row.request_id)
        self._session.flush()
        return tuple(sorted(touched))

    def any_late(self, now: float) -> bool:
        """Whether an open job's deadline has passed."""
        query = select(JobRow.id).where(
            col(JobRow.state).in_(OPEN), col(JobRow.deadline) < int(now)
        )
        return self._session.exec(query).first() is not None

    # ---------------------------------------------------------------- who does it

    def line(self, protocol: str, now: float, slot: str = "") -> list[str]:
        """Return the ids of waiting jobs of this protocol, in the order in which to take them."""
        homes = set(self._session.exec(select(WorkerRow.id)))
        query = sqlalchemy.select(
            col(JobRow.id),
            col(JobRow.org_id),
            col(JobRow.priority),
            col(JobRow.enqueued),
            col(JobRow.slot),
        ).where(
            col(JobRow.state) == "queued",
            col(JobRow.protocol) == protocol,
            col(JobRow.not_before) <= now,
        )
        waiting = [
            fairness.Waiting(
                job_id, org_id, priority, since, home if home.partition("/")[0] in homes else ""
            )
            for job_id, org_id, priority, since, home in self._session.execute(query)
        ]
        return fairness.line(waiting, self._standing(), now, slot) if waiting else []

    def claim(self, owner: str, slot: str, protocol: str, now: float) -> Job | None:
        """Take the next job for a worker's slot, or None if there is none for it.

        Whoever else claims at the same moment passes over the row that is locked here.
        """
        for job_id in self.line(protocol, now, slot):
            query = select(JobRow).where(JobRow.id == job_id, JobRow.state == "queued")
            row = self._session.exec(query.with_for_update(skip_locked=True)).first()
            if row is None:
                continue
            last = self._session.exec(select(func.max(JobRow.turn))).one()
            row.state, row.owner, row.slot = "running", owner, slot
            row.attempts, row.token, row.turn = row.attempts + 1, row.token + 1, (last or 0) + 1
            row.started, row.reason, row.beats = now, "", 0
            self._session.flush()
            return _job(row)
        return None

    def beat(self, job: Job) -> bool:
        """Say that a job is still at work; False if it is not this claim's any more."""
        return self._change(*_mine(job), values={"beats": JobRow.beats + 1})

    def still(self, job: Job) -> bool:
        """Whether a job is still this claim's."""
        return self._session.exec(select(JobRow.id).where(*_mine(job))).first() is not None

    def finish(self, job: Job, result: str, now: float) -> bool:
        """Store a result, and that its request may move; False if the claim is not the newest."""
        return self._end(job, {"state": "done", "result": result}, now)

    def fail(self, job: Job, error: str, reason: str, now: float) -> bool:
        """End a job with a reason, and say that its request may move; False as `finish`."""
        return self._end(job, {"state": "failed", "error": error, "reason": reason}, now)

    def give_back(
        self,
        job: Job,
        reason: str,
        now: float,
        *,
        most: int,
        counts: bool,
        pause_s: float = 0.0,
    ) -> bool:
        """Let another attempt be made, or fail the job if there were enough; False as `finish`.

        Args:
            job: The claim.
            reason: Why this attempt came to nothing.
            now: Seconds since 1970.
            most: Attempts that a job has.
            counts: Whether this one counts: a worker that is told to stop is not the job's fault.
            pause_s: Seconds until an attempt that does not count is made again.
        """
        if counts and job.attempts >= most:
            reason = f"the job {job.kind} was tried {job.attempts} times: {reason}"
            return self.fail(job, "JobFailedError", reason, now)
        values: dict[str, Any] = {"state": "queued", "owner": "", "reason": reason}
        if counts:
            values["not_before"] = now + _PAUSES[min(job.attempts, len(_PAUSES)) - 1]
        else:
            values |= {"attempts": job.attempts - 1, "not_before": now + pause_s}
        return self._change(*_mine(job), values=values)

    # ---------------------------------------------------------------- numbers

    def depths(self) -> tuple[Depth, ...]:
        """Return how many jobs of each kind are queued and at work, and since when."""
        query = (
            select(JobRow.kind, JobRow.state, func.count(), func.min(JobRow.enqueued))
            .where(col(JobRow.state).in_(OPEN))
            .group_by(JobRow.kind, JobRow.state)
        )
        return tuple(Depth(*found) for found in self._session.exec(query))

    def count_by_state(self) -> dict[tuple[str, str], int]:
        """Return the number of jobs by kind and state."""
        query = select(JobRow.kind, JobRow.state, func.count()).group_by(JobRow.kind, JobRow.state)
        return {(kind, state): count for kind, state, count in self._session.exec(query)}

    # ---------------------------------------------------------------- inside

    def _home(self, request_id: str, subject: str, protocol: str) -> str:
        """Worker and slot that did the subject's latest job: it may have the run in memory."""
        query = (
            select(JobRow.slot)
            .where(
                JobRow.request_id == request_id,
                JobRow.subject == subject,
                JobRow.protocol == protocol,
                JobRow.state == "done",
            )
            .order_by(col(JobRow.turn).desc())
            .limit(1)
        )
        return self._session.exec(query).first() or ""

    def _standing(self) -> fairness.Standing:
        busy: Mapping[str, int] = dict(
            self._session.exec(
                select(JobRow.org_id, func.count())
                .where(JobRow.state == "running")
                .group_by(JobRow.org_id)
            ).all()
        )
        served: Mapping[str, int] = dict(
            self._session.exec(
                select(JobRow.org_id, func.max(JobRow.turn)).group_by(JobRow.org_id)
            ).all()
        )
        return fairness.Standing(busy, served)

    def _end(self, job: Job, values: dict[str, Any], now: float) -> bool:
        if not self._change(*_mine(job), values={**values, "owner": "", "finished": now}):
            return False
        self._touch(job.id)
        return True

    def _touch(self, job_id: str) -> None:
        """Say that something happened to a job's request."""
        cause = current().text
        request_id = self.get(job_id).request_id
        self._session.execute(
            update(RequestRow)
            .where(col(RequestRow.id) == request_id, col(RequestRow.state) == "running")
            .values(due=True, marks=RequestRow.marks + 1, **({"cause": cause} if cause else {}))
        )

    def _cancel(self, now: float, reason: str, *where: ColumnElement[bool]) -> int:
        found: Any = self._session.execute(
            update(JobRow)
            .where(*where, col(JobRow.state).in_(OPEN))
            .values(
                state="cancelled", owner="", error="JobFailedError", reason=reason, finished=now
            )
        )
        return int(found.rowcount)

    def _change(self, *where: ColumnElement[bool], values: Mapping[str, Any]) -> bool:
        found: Any = self._session.execute(update(JobRow).where(*where).values(**values))
        return bool(found.rowcount == 1)


def _mine(job: Job) -> tuple[ColumnElement[bool], ...]:
    """Only while the claim is the newest."""
    return (
        col(JobRow.id) == job.id,
        col(JobRow.token) == job.token,
        col(JobRow.state) == "running",
    )


def _job(row: JobRow) -> Job:
    return Job(**{name: getattr(row, name) for name in Job.__slots__})
