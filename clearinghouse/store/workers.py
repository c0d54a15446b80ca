"""Workers: which processes do jobs now, and when each was last heard of."""

from typing import Any

from sqlalchemy import delete, update
from sqlmodel import Session, col, select

from clearinghouse.store.tables import WorkerRow
from clearinghouse.store.work_records import WorkerRecord, WorkerState


class Workers:
    """Queries about workers."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, worker: WorkerRecord) -> None:
        """Say that a worker begins."""
        self._session.add(
            WorkerRow(**{name: getattr(worker, name) for name in WorkerRecord.__slots__})
        )
        self._session.flush()

    def beat(self, worker_id: str, state: WorkerState, now: float) -> bool:
        """Note a heartbeat; False if the worker was taken for dead meanwhile."""
        found: Any = self._session.execute(
            update(WorkerRow)
            .where(col(WorkerRow.id) == worker_id)
            .values(seen=now, state=state, beats=WorkerRow.beats + 1)
        )
        return bool(found.rowcount == 1)

    def remove(self, worker_id: str) -> None:
        """Say that a worker is gone; what it had must have been given back before."""
        self._session.execute(delete(WorkerRow).where(col(WorkerRow.id) == worker_id))

    def all(self) -> tuple[WorkerRecord, ...]:
        """Return every worker that is not known to be gone, oldest first."""
        query = select(WorkerRow).order_by(col(WorkerRow.started), col(WorkerRow.id))
        return tuple(
            WorkerRecord(**{name: getattr(row, name) for name in WorkerRecord.__slots__})
            for row in self._session.exec(query)
        )
