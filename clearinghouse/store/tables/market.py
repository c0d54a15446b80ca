"""Requests from opening to settlement."""

from sqlalchemy import UniqueConstraint
from sqlmodel import Field, SQLModel

from clearinghouse.store.tables.base import check


class RequestRow(SQLModel, table=True):
    """A hospital's wish and where it stands; `version` moves with every step forward.

    `marks` counts what happened to it, and `cause` is the call that did so last. `closed` is the id
    of the log entry that says how it ended.
    """

    __tablename__ = "request"
    id: str = Field(primary_key=True)
    org_id: str = Field(foreign_key="org.id", index=True)
    valset_id: str = Field(foreign_key="valset.id")
    terms: str
    terms_digest: str
    step: str
    state: str = Field(index=True)
    reason: str = ""
    version: int = 0
    due: bool = Field(default=True, index=True)
    marks: int = 0
    cause: str = ""
    closed: int | None = None


class PartyRow(SQLModel, table=True):
    """An organisation admitted to a request."""

    __tablename__ = "party"
    request_id: str = Field(primary_key=True, foreign_key="request.id")
    org_id: str = Field(primary_key=True, foreign_key="org.id")


class StepRow(SQLModel, table=True):
    """When a request entered and left a step."""

    __tablename__ = "step"
    request_id: str = Field(primary_key=True, foreign_key="request.id")
    step: str = Field(primary_key=True)
    started: float
    finished: float | None = None


class TaskRow(SQLModel, table=True):
    """What a party is asked to do, and its one answer."""

    __tablename__ = "task"
    __table_args__ = (UniqueConstraint("request_id", "kind", "subject", "org_id"),)
    id: str = Field(primary_key=True)
    request_id: str = Field(foreign_key="request.id", index=True)
    org_id: str = Field(foreign_key="org.id", index=True)
    kind: str
    subject: str
    task: str
    deadline: int
    state: str = Field(index=True)
    answer: str | None = None
    reason: str = ""
    spent_micro: int = 0


class DocumentRow(SQLModel, table=True):
    """A finished result of a step, as the canonical JSON that readers get."""

    __tablename__ = "document"
    request_id: str = Field(primary_key=True, foreign_key="request.id")
    kind: str = Field(primary_key=True)
    body: str


class AskRow(SQLModel, table=True):
    """A committed ask; the amount is unknown to the database until it is revealed."""

    __tablename__ = "ask"
    __table_args__ = (check("ask_micro IS NULL OR ask_micro >= 0", "ask"),)
    request_id: str = Field(primary_key=True, foreign_key="request.id")
    source_id: str = Field(primary_key=True, foreign_key="source.id")
    commitment: str
    ask_micro: int | None = None
    salt: str | None = None


class OrderRow(SQLModel, table=True):
    """A source's part of a clearing, and what it delivered."""

    __tablename__ = "orders"
    __table_args__ = (
        check("payment_micro >= 0", "payment"),
        check("real IS NULL OR (real >= 0 AND real <= units)", "real"),
        check("earned_micro IS NULL OR earned_micro >= 0", "earned"),
    )
    id: str = Field(primary_key=True)
    request_id: str = Field(foreign_key="request.id", index=True)
    source_id: str = Field(foreign_key="source.id")
    quota: str
    units: int
    payment_micro: int
    delivery_id: str
    sealed_blob: str | None = None
    real: int | None = None
    ladder: str | None = None
    earned_micro: int | None = None
    ground: str | None = None
    disputed: str | None = None
    offered: int | None = None


class RunRow(SQLModel, table=True):
    """One opening of encrypted rows: the target of a request, or a model's blind score."""

    __tablename__ = "run"
    id: str = Field(primary_key=True)
    request_id: str = Field(foreign_key="request.id", index=True)
    kind: str
    position: int
    state: str
    reason: str = ""
    seed: str
    nonce: str
    model_id: str = ""
    model: str = "{}"
    result: str = "{}"


class MessageRow(SQLModel, table=True):
    """A blob that was moved in a request, in order."""

    __tablename__ = "message"
    request_id: str = Field(primary_key=True, foreign_key="request.id")
    position: int = Field(primary_key=True)
    run_id: str = Field(default="", index=True)
    kind: str
    digest: str
    size: int
