"""The transparency log, its witnesses, and what was proven with it."""

from sqlalchemy import Index, text
from sqlmodel import Field, SQLModel

from clearinghouse.store.tables.base import check, counted


class EntryRow(SQLModel, table=True):
    """A log entry: canonical JSON bytes.

    `id` is given by the transaction that writes it, and is what other tables refer to. `position`
    is its index in the log. While that is NULL the row waits in the outbox for the sequencer
    (PostgreSQL; on SQLite both are given at once and are equal).
    """

    __tablename__ = "entry"
    __table_args__ = (
        Index(
            "ix_entry_waiting",
            "id",
            sqlite_where=text("position IS NULL"),
            postgresql_where=text("position IS NULL"),
        ),
    )
    id: int = Field(primary_key=True)  # PostgreSQL counts by itself
    body: bytes
    position: int | None = Field(default=None, unique=True)


class ReleaseRow(SQLModel, table=True):
    """A release of an owner's data: what its log entry says, for sums by owner."""

    __tablename__ = "release"
    __table_args__ = (check("epsilon_micro >= 0", "epsilon"), check("rho_micro >= 0", "rho"))
    entry: int = Field(
        primary_key=True,
        foreign_key="entry.id",
        sa_column_kwargs={"autoincrement": False},
    )
    owner: str = Field(index=True)
    data: str
    kind: str
    request_id: str | None = None
    run_id: str | None = None
    epsilon_micro: int
    rho_micro: int = 0
    time: str


class NodeRow(SQLModel, table=True):
    """A hash of the log's tree."""

    __tablename__ = "node"
    level: int = Field(primary_key=True)
    position: int = Field(primary_key=True)
    hash: bytes


class CheckpointRow(SQLModel, table=True):
    """A signed tree head."""

    __tablename__ = "checkpoint"
    size: int = counted()
    note: str


class WitnessRow(SQLModel, table=True):
    """A witness whose cosignatures are kept: of an organisation, or named by the operator."""

    __tablename__ = "witness"
    vkey: str = Field(primary_key=True)
    org_id: str | None = Field(default=None, foreign_key="org.id", unique=True)


class CosignatureRow(SQLModel, table=True):
    """A witness's dated signature under one checkpoint, as its line in the note."""

    __tablename__ = "cosignature"
    size: int = Field(
        primary_key=True,
        foreign_key="checkpoint.size",
        sa_column_kwargs={"autoincrement": False},
    )
    vkey: str = Field(primary_key=True, foreign_key="witness.vkey")
    line: str


class ReceiptRow(SQLModel, table=True):
    """A receipt, as the text that is verified offline.

    `draft` is what it will be written from while its entry waits for the sequencer; the text is
    empty until then.
    """

    __tablename__ = "receipt"
    __table_args__ = (
        Index(
            "ix_receipt_draft",
            "id",
            sqlite_where=text("draft IS NOT NULL"),
            postgresql_where=text("draft IS NOT NULL"),
        ),
    )
    id: str = Field(primary_key=True)
    request_id: str = Field(foreign_key="request.id", index=True)
    run_id: str = Field(unique=True)
    body: str
    draft: str | None = None
