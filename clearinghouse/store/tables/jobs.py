"""Durable jobs and the workers that run them."""

from sqlalchemy import UniqueConstraint
from sqlmodel import Field, SQLModel

from clearinghouse.store.tables.base import check


class JobRow(SQLModel, table=True):
    """A long piece of work: who wants it, who does it, and what came of it."""

    __tablename__ = "job"
    __table_args__ = (
        UniqueConstraint("request_id", "key"),
        check("attempts >= 0 AND token >= attempts", "attempts"),
        check("(state = 'running') = (owner <> '')", "owner"),
    )
    id: str = Field(primary_key=True)
    request_id: str = Field(foreign_key="request.id", index=True)
    org_id: str = Field(foreign_key="org.id", index=True)
    kind: str
    subject: str
    words: str
    key: str
    protocol: str
    priority: int
    state: str = Field(index=True)
    attempts: int = 0
    token: int = 0
    turn: int = 0
    owner: str = ""
    slot: str = ""
    beats: int = 0
    enqueued: float
    not_before: float = 0.0
    started: float | None = None
    finished: float | None = None
    deadline: int
    arguments: str
    result: str = ""
    error: str = ""
    reason: str = ""
    cause: str = ""


class WorkerRow(SQLModel, table=True):
    """A process that does jobs, as long as it lives."""

    __tablename__ = "worker"
    id: str = Field(primary_key=True)
    host: str
    place: str
    pid: int
    begun: str
    protocol: str
    slots: int
    state: str
    started: float
    seen: float
    beats: int = 0
