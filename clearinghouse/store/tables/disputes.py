"""What follows a settlement: disputes, outcomes that reputation counts, and prices paid."""

from sqlmodel import Field, SQLModel


class DisputeRow(SQLModel, table=True):
    """A claim against a delivery, a score, a payment or a failed test, and what became of it."""

    __tablename__ = "dispute"
    id: str = Field(primary_key=True)
    request_id: str = Field(foreign_key="request.id", index=True)
    opener_id: str = Field(foreign_key="org.id", index=True)
    respondent_id: str = Field(foreign_key="org.id", index=True)
    subject: str = Field(index=True)
    reason: str
    remedy: str
    state: str = Field(index=True)
    opened_s: int
    number: int = 0
    """Rises with every dispute; settles the order of two of one second."""
    deadline: int
    claim: str
    answer: str = ""
    finding: str = ""
    ruling: str = ""


class OutcomeRow(SQLModel, table=True):
    """A promise that was kept or broken, as somebody else attests."""

    __tablename__ = "outcome"
    digest: str = Field(primary_key=True)
    subject_id: str = Field(foreign_key="org.id", index=True)
    attester_id: str = Field(foreign_key="org.id")
    request_id: str = Field(foreign_key="request.id")
    kind: str
    good: bool
    at_s: int


class PriceRow(SQLModel, table=True):
    """A source's price in one request, as canonical JSON."""

    __tablename__ = "price"
    source_id: str = Field(primary_key=True, foreign_key="source.id")
    request_id: str = Field(primary_key=True, foreign_key="request.id")
    at_s: int = Field(index=True)
    body: str
