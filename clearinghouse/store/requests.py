"""Requests: state, steps, parties, results, and the blobs they moved."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, update
from sqlmodel import Session, col, select

from clearinghouse.cause import current
from clearinghouse.errors import NotFoundError, TryAgainError
from clearinghouse.messages.intake import OpenRequest
from clearinghouse.store.records import MessageRecord, Request, RequestState, StepTime
from clearinghouse.store.tables import DocumentRow, MessageRow, PartyRow, RequestRow, StepRow


class Requests:
    """Queries about requests."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, request: Request, party_ids: Sequence[str], now: float) -> None:
        """Store a new request with its participants and start its first step."""
        self._session.add(
            RequestRow(
                id=request.id,
                org_id=request.org_id,
                valset_id=request.valset_id,
                terms=request.terms.model_dump_json(),
                terms_digest=request.terms_digest,
                step=request.step,
                state=request.state,
                cause=current().text,
            )
        )
        self._session.flush()
        for org_id in sorted({request.org_id, *party_ids}):
            self._session.add(PartyRow(request_id=request.id, org_id=org_id))
        self._session.add(StepRow(request_id=request.id, step=request.step, started=now))
        self._session.flush()

    def get(self, request_id: str) -> Request:
        """Return a request.

        Raises:
            NotFoundError: There is none.
        """
        row = self._session.get(RequestRow, request_id)
        if row is None:
            raise NotFoundError(f"no request {request_id}")
        return _request(row)

    def running_of(self, org_id: str) -> tuple[Request, ...]:
        """Return an organisation's requests that have not ended."""
        query = select(RequestRow).where(RequestRow.org_id == org_id, RequestRow.state == "running")
        return tuple(_request(row) for row in self._session.exec(query))

    def is_party(self, request_id: str, org_id: str) -> bool:
        """Whether an organisation takes part in a request."""
        return self._session.get(PartyRow, (request_id, org_id)) is not None

    def is_party_on(self, valset_id: str, org_id: str) -> bool:
        """Whether an organisation takes part in a request on this validation set."""
        query = (
            select(PartyRow.org_id)
            .join(RequestRow, col(RequestRow.id) == col(PartyRow.request_id))
            .where(PartyRow.org_id == org_id, RequestRow.valset_id == valset_id)
        )
        return self._session.exec(query).first() is not None

    def due(self) -> tuple[str, ...]:
        """Return the running requests that something happened to, oldest id first."""
        query = select(RequestRow.id).where(col(RequestRow.due), RequestRow.state == "running")
        return tuple(sorted(self._session.exec(query)))

    def running_in(self, step: str) -> tuple[str, ...]:
        """Return the running requests that are in a step, in order of id."""
        query = select(RequestRow.id).where(RequestRow.step == step, RequestRow.state == "running")
        return tuple(sorted(self._session.exec(query)))

    def of(self, org_id: str, most: int) -> tuple[Request, ...]:
        """Return the newest requests that an organisation takes part in, newest first."""
        query = self._newest().join(PartyRow, col(PartyRow.request_id) == col(RequestRow.id))
        rows = self._session.exec(query.where(PartyRow.org_id == org_id).limit(most))
        return tuple(_request(row) for row in rows)

    def newest(self, most: int) -> tuple[Request, ...]:
        """Return the newest requests of all, newest first."""
        return tuple(_request(row) for row in self._session.exec(self._newest().limit(most)))

    def _newest(self) -> Any:
        return (
            select(RequestRow)
            .join(StepRow, col(StepRow.request_id) == col(RequestRow.id))
            .where(StepRow.step == "intake")
            .order_by(col(StepRow.started).desc(), col(RequestRow.id))
        )

    def mark_due(self, request_id: str) -> None:
        """Say that something happened to the request, so that it may be able to move."""
        cause = current().text
        self._session.execute(
            update(RequestRow)
            .where(col(RequestRow.id) == request_id)
            .values(due=True, marks=RequestRow.marks + 1, **({"cause": cause} if cause else {}))
        )

    def rest(self, request: Request) -> None:
        """Say that the request was looked at, unless something happened to it meanwhile."""
        self._session.execute(
            update(RequestRow)
            .where(col(RequestRow.id) == request.id, col(RequestRow.marks) == request.marks)
            .values(due=False)
        )

    def mark_all_due(self) -> None:
        """After a start: look at every running request again."""
        self._session.execute(
            update(RequestRow)
            .where(col(RequestRow.state) == "running")
            .values(due=True, marks=RequestRow.marks + 1)
        )

    def claim(self, request: Request) -> None:
        """Move the version on, if the request is still as it was read.

        Raises:
            TryAgainError: Another process moved it first; nothing of this transaction may stay.
        """
        found: Any = self._session.execute(
            update(RequestRow)
            .where(
                col(RequestRow.id) == request.id,
                col(RequestRow.version) == request.version,
                col(RequestRow.state) == "running",
            )
            .values(version=request.version + 1, due=True, marks=RequestRow.marks + 1)
        )
        if found.rowcount != 1:
            raise TryAgainError(f"request {request.id} was moved by another process")

    def touch(self, request_id: str) -> None:
        """Make whoever read the request before start again: something it rests on changed."""
        self._session.execute(
            update(RequestRow)
            .where(col(RequestRow.id) == request_id)
            .values(version=RequestRow.version + 1, due=True)
        )

    def of_party(self, org_id: str) -> tuple[Request, ...]:
        """Return the requests that an organisation takes part in, in order of id."""
        query = (
            select(RequestRow)
            .join(PartyRow, col(PartyRow.request_id) == col(RequestRow.id))
            .where(PartyRow.org_id == org_id)
            .order_by(RequestRow.id)
        )
        return tuple(_request(row) for row in self._session.exec(query))

    def running(self) -> tuple[Request, ...]:
        """Return the running requests, in order of id."""
        query = select(RequestRow).where(RequestRow.state == "running").order_by(RequestRow.id)
        return tuple(_request(row) for row in self._session.exec(query))

    def enter(self, request_id: str, step: str, now: float) -> None:
        """Finish the current step and start the next."""
        row = self._row(request_id)
        self._finish(row, now)
        row.step = step
        self._session.add(StepRow(request_id=request_id, step=step, started=now))
        self._session.flush()

    def close(self, request_id: str, state: RequestState, reason: str, now: float) -> None:
        """End a request as done or failed."""
        row = self._row(request_id)
        self._finish(row, now)
        row.state, row.reason, row.due = state, reason, False
        self._session.flush()

    def date_end(self, request_id: str, entry: int) -> None:
        """Name the log entry, by its id, that says how a request ended."""
        self._row(request_id).closed = entry
        self._session.flush()

    def have_ended(self, entries: Sequence[int]) -> bool:
        """Whether one of these log entries, by their ids, says how a running request ended."""
        query = select(RequestRow.id).where(
            RequestRow.state == "running", col(RequestRow.closed).in_(entries)
        )
        return self._session.exec(query.limit(1)).first() is not None

    def look_at_ended(self, entries: Sequence[int]) -> None:
        """Let requests move whose end is in one of these log entries, now that they are placed."""
        self._session.execute(
            update(RequestRow)
            .where(col(RequestRow.state) == "running", col(RequestRow.closed).in_(entries))
            .values(due=True, marks=RequestRow.marks + 1)
        )

    def count_by_state(self) -> dict[str, int]:
        """Return the number of requests in each state."""
        query = select(RequestRow.state, func.count()).group_by(RequestRow.state)
        return dict(self._session.exec(query).all())

    def step_times(self, request_id: str) -> tuple[StepTime, ...]:
        """Return when the request entered and left each step so far, in order."""
        query = select(StepRow).where(StepRow.request_id == request_id).order_by(StepRow.started)  # type: ignore[arg-type]
        return tuple(
            StepTime(row.step, row.started, row.finished) for row in self._session.exec(query)
        )

    def keep(self, request_id: str, kind: str, body: str) -> None:
        """Store a finished result; it never changes afterwards."""
        self._session.add(DocumentRow(request_id=request_id, kind=kind, body=body))
        self._session.flush()

    def replace(self, request_id: str, kind: str, body: str) -> None:
        """Store a result again, where a withdrawal changed what it rests on."""
        self._session.merge(DocumentRow(request_id=request_id, kind=kind, body=body))
        self._session.flush()

    def document(self, request_id: str, kind: str) -> str | None:
        """Return a stored result, exactly as it was stored."""
        row = self._session.get(DocumentRow, (request_id, kind))
        return None if row is None else row.body

    def moved(self, request_id: str, kind: str, digest: str, size: int, run_id: str = "") -> None:
        """Record a blob that travelled, in order."""
        last = self._session.exec(
            select(func.max(MessageRow.position)).where(MessageRow.request_id == request_id)
        ).one()
        position = 0 if last is None else last + 1
        self._session.add(
            MessageRow(
                request_id=request_id,
                position=position,
                run_id=run_id,
                kind=kind,
                digest=digest,
                size=size,
            )
        )
        self._session.flush()

    def messages(self, request_id: str, run_id: str | None = None) -> tuple[MessageRecord, ...]:
        """Return the blobs moved in a request, or in one of its runs, in order."""
        query = select(MessageRow).where(MessageRow.request_id == request_id)
        if run_id is not None:
            query = query.where(MessageRow.run_id == run_id)
        query = query.order_by(MessageRow.position)  # type: ignore[arg-type]
        return tuple(
            MessageRecord(row.run_id, row.kind, row.digest, row.size)
            for row in self._session.exec(query)
        )

    def _row(self, request_id: str) -> RequestRow:
        row = self._session.get(RequestRow, request_id)
        if row is None:
            raise NotFoundError(f"no request {request_id}")
        self._session.refresh(row)
        return row

    def _finish(self, row: RequestRow, now: float) -> None:
        step = self._session.get(StepRow, (row.id, row.step))
        if step is not None:
            step.finished = now


def _request(row: RequestRow) -> Request:
    return Request(
        row.id,
        row.org_id,
        row.valset_id,
        OpenRequest.model_validate_json(row.terms),
        row.terms_digest,
        row.step,
        row.state,  # type: ignore[arg-type]
        row.reason,
        row.version,
        row.marks,
        row.cause,
        row.closed,
    )
