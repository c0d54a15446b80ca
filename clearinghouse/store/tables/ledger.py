"""Money in double entry; the database keeps every transfer at zero."""

from sqlalchemy import BigInteger, Column, ForeignKey
from sqlmodel import Field, SQLModel

from clearinghouse.store.tables.base import check, counted


class AccountRow(SQLModel, table=True):
    """The balance of an account; only the outside world may be below zero."""

    __tablename__ = "account"
    __table_args__ = (
        check("balance_micro >= 0 OR substr(name, 1, 9) = 'external:'", "not_overdrawn"),
    )
    name: str = Field(primary_key=True)
    balance_micro: int = 0


class ZeroRow(SQLModel, table=True):
    """The one value that a transfer may sum to."""

    __tablename__ = "zero"
    __table_args__ = (check("value = 0", "zero"),)
    value: int = counted()


class TransferRow(SQLModel, table=True):
    """A double entry; `total_micro` follows its postings and is zero at every commit."""

    __tablename__ = "transfer"
    name: str = Field(primary_key=True)
    total_micro: int = Field(
        default=0,
        sa_column=Column(
            BigInteger,
            ForeignKey("zero.value", deferrable=True, initially="DEFERRED"),
            nullable=False,
        ),
    )
    at_s: int = 0


class PostingRow(SQLModel, table=True):
    """One side of a double entry."""

    __tablename__ = "posting"
    __table_args__ = (check("amount_micro <> 0", "moves"),)
    transfer: str = Field(primary_key=True, foreign_key="transfer.name")
    account: str = Field(primary_key=True, foreign_key="account.name", index=True)
    request_id: str = Field(foreign_key="request.id", index=True)
    position: int
    amount_micro: int
