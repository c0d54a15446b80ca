"""What all tables share. Rows never leave `clearinghouse.store`; other code sees `store.records`.

Amounts of money and epsilon are integers in millionths with CHECKs, so that even a wrong program
cannot store a negative price or spend an account below zero. Both databases hold the same: every
integer has 64 bits, and text is ordered by its code points, whatever language the server speaks.

A change of any table needs a migration in `store.migrations.versions`; tests compare the two.
"""

from sqlalchemy import (
    CheckConstraint,
    Text,
)
from sqlmodel import Field, SQLModel

SCHEMA_VERSION = "0013"
"""The newest migration."""

# Constraints have names, so that a migration can drop them on either database.
SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

TEXT = Text().with_variant(Text(collation="C"), "postgresql")


def check(rule: str, name: str) -> CheckConstraint:
    """A rule that the database itself enforces."""
    return CheckConstraint(rule, name=name)


def counted() -> int:
    """A primary key that we count ourselves, from 0."""
    return Field(primary_key=True, sa_column_kwargs={"autoincrement": False})  # type: ignore[no-any-return]


class MetaRow(SQLModel, table=True):
    """Facts about the database itself."""

    __tablename__ = "meta"
    name: str = Field(primary_key=True)
    value: str
