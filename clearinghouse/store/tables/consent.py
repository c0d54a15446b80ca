"""What may be done with data: grants, their uses, withdrawals and erasure."""

from sqlmodel import Field, SQLModel

from clearinghouse.store.tables.base import check


class GrantRow(SQLModel, table=True):
    """A permission to send records of a source to somebody."""

    __tablename__ = "grants"
    id: str = Field(primary_key=True)
    source_id: str = Field(foreign_key="source.id", index=True)
    sender: str = Field(foreign_key="org.id")
    recipient: str = Field(index=True)
    attributes: str
    purpose: str
    given: int
    expires: int
    withdrawn: int | None = None


class UseRow(SQLModel, table=True):
    """Something that was done with an order's records under a grant, or refused; once each."""

    __tablename__ = "grant_use"
    __table_args__ = (check("(grant_id IS NULL) = (reason <> '')", "outcome"),)
    order_id: str = Field(primary_key=True, foreign_key="orders.id")
    org_id: str = Field(primary_key=True, foreign_key="org.id")
    act: str = Field(primary_key=True)
    allowed: bool = Field(primary_key=True)
    source_id: str = Field(foreign_key="source.id", index=True)
    request_id: str = Field(foreign_key="request.id", index=True)
    grant_id: str | None = Field(default=None, foreign_key="grants.id")
    blob: str = Field(default="", index=True)
    at: int
    reason: str = ""


class WithdrawalRow(SQLModel, table=True):
    """A source that its owner took back, and when its body was gone."""

    __tablename__ = "withdrawal"
    source_id: str = Field(primary_key=True, foreign_key="source.id")
    at: int
    erased: int | None = None


class SaltRow(SQLModel, table=True):
    """The salt of a commitment in the log; once it is erased, the commitment tells nothing."""

    __tablename__ = "salt"
    object_id: str = Field(primary_key=True)
    salt: str


class DoomedRow(SQLModel, table=True):
    """A blob that is to be removed from the disk; nobody can read it any more."""

    __tablename__ = "doomed"
    digest: str = Field(primary_key=True)


class StaleRow(SQLModel, table=True):
    """A settled request whose indicative prices rest on a source that was withdrawn."""

    __tablename__ = "stale"
    request_id: str = Field(primary_key=True, foreign_key="request.id")
