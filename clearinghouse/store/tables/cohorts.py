"""What parties bring: schemas, sources, validation sets and their bytes."""

from sqlalchemy import UniqueConstraint
from sqlmodel import Field, SQLModel

from clearinghouse.store.tables.base import check


class SchemaRow(SQLModel, table=True):
    """A registered schema, as canonical JSON."""

    __tablename__ = "schema"
    id: str = Field(primary_key=True)
    digest: str = Field(unique=True)
    body: str


class SourceRow(SQLModel, table=True):
    """A committed cohort; `committed` is the id of the log entry that commits it."""

    __tablename__ = "source"
    __table_args__ = (check("committed IS NULL OR committed >= 0", "committed"),)
    id: str = Field(primary_key=True)
    org_id: str = Field(foreign_key="org.id", index=True)
    name: str
    schema_id: str = Field(foreign_key="schema.id", index=True)
    size_class: int
    rows_root: str
    leaves: int
    committed: int | None = None


class SummaryRow(SQLModel, table=True):
    """A source's one DP release."""

    __tablename__ = "summary"
    __table_args__ = (check("epsilon_micro > 0", "epsilon_spent"),)
    source_id: str = Field(primary_key=True, foreign_key="source.id")
    digest: str
    level: str
    counts: str
    epsilon_micro: int


class ValsetRow(SQLModel, table=True):
    """A sealed validation set."""

    __tablename__ = "valset"
    id: str = Field(primary_key=True)
    org_id: str = Field(foreign_key="org.id", index=True)
    schema_id: str = Field(foreign_key="schema.id")
    body: str
    seed: str = ""
    verdict: str = "untested"
    reason: str = ""


class BlobRow(SQLModel, table=True):
    """A stored blob."""

    __tablename__ = "blob"
    __table_args__ = (check("size >= 0", "size"),)
    digest: str = Field(primary_key=True)
    size: int
    seen: int = 0
    """Second in which it was last announced though it was here, plus one whenever it was named."""


class BlobAccessRow(SQLModel, table=True):
    """Who may read a blob: who uploaded it, and whom it was addressed to."""

    __tablename__ = "blob_access"
    digest: str = Field(primary_key=True, foreign_key="blob.digest")
    org_id: str = Field(primary_key=True, foreign_key="org.id")


class UploadRow(SQLModel, table=True):
    """What an organisation stored here: the bytes that count against its quota."""

    __tablename__ = "upload"
    __table_args__ = (check("size >= 0", "size"),)
    org_id: str = Field(primary_key=True, foreign_key="org.id")
    digest: str = Field(primary_key=True, foreign_key="blob.digest", ondelete="CASCADE")
    size: int


class PartialRow(SQLModel, table=True):
    """An upload that comes in pieces and is not done."""

    __tablename__ = "partial"
    __table_args__ = (
        UniqueConstraint("org_id", "digest"),
        check("received >= 0 AND received <= size AND size > 0", "received"),
    )
    id: str = Field(primary_key=True)
    org_id: str = Field(foreign_key="org.id")
    digest: str
    size: int
    received: int
    expires: int
