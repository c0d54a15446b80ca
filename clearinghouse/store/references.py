"""Which blobs anything in the database still names.

A blob is named where its hash stands in a text of a row: a message that was moved, a validation
set, an order, an answer, a run, a document. Every table is searched but those below, so that a new
table keeps what it names without anybody thinking of it here: to keep too much is the safe mistake.
"""

import re
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Text, or_
from sqlmodel import Session, SQLModel, col, select

from clearinghouse.store.tables import JobRow, RequestRow

_HASH = re.compile(r"[0-9a-f]{64}")
_AT_ONCE = 500

_NAMES_NOTHING = frozenset(
    {
        "blob",  # the index itself, who may read it, whose quota it counts in
        "blob_access",
        "upload",
        "partial",  # not a blob yet
        "doomed",
        "entry",  # the log's hashes outlive what they commit to
        "node",
        "checkpoint",
        "cosignature",
        "witness",
        "release",
        "receipt",
        "grant_use",
        "salt",
        "nonce",
        "reply",
        "session",
        "worker",
        "meta",
    }
)

OPEN_JOBS = ("queued", "running")


class References:
    """Looks for hashes."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def named(self) -> frozenset[str]:
        """Return every hash that stands in a row which can name blobs.

        Jobs name blobs while they are open or their request runs; afterwards what counts of them is
        in other rows.
        """
        found: set[str] = set()
        for query in self._queries():
            for row in self._session.execute(query.execution_options(yield_per=_AT_ONCE)):
                for text in row:
                    if text is not None:
                        found.update(_HASH.findall(text))
        return frozenset(found)

    def _queries(self) -> Iterator[Any]:
        for name, table in SQLModel.metadata.tables.items():
            texts = [column for column in table.columns if isinstance(column.type, Text)]
            if name in _NAMES_NOTHING or name == JobRow.__tablename__ or not texts:
                continue
            yield select(*texts)
        yield (
            select(JobRow.arguments, JobRow.result)
            .join(RequestRow, col(RequestRow.id) == col(JobRow.request_id))
            .where(or_(col(JobRow.state).in_(OPEN_JOBS), col(RequestRow.state) == "running"))
        )
