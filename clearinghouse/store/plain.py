"""Every row of a table as plain values, for those who check the database against its log."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import select
from sqlmodel import Session, SQLModel


class Plain:
    """Reads whole tables; nothing that serves a call uses this."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def rows(self, table: str) -> Iterator[dict[str, Any]]:
        """Yield the rows of a table in the order of its key.

        Raises:
            KeyError: There is no such table.
        """
        found = SQLModel.metadata.tables[table]
        query = select(found).order_by(*found.primary_key.columns)
        for row in self._session.execute(query):
            yield dict(row._mapping)
