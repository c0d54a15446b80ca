"""Uploads that come in pieces: announced, received so far, forgotten after a while."""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import func, update
from sqlmodel import Session, col, delete, select

from clearinghouse.errors import NotFoundError
from clearinghouse.store.tables import PartialRow


@dataclass(frozen=True, slots=True)
class Partial:
    """An unfinished upload; `received` of `size` bytes count, `expires` is in seconds since 1970.

    Once all bytes count, they are known to have the hash that was announced.
    """

    id: str
    org_id: str
    digest: str
    size: int
    received: int
    expires: int


class Partials:
    """Queries about unfinished uploads."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, partial: Partial) -> None:
        """Store a new one."""
        self._session.add(
            PartialRow(
                id=partial.id,
                org_id=partial.org_id,
                digest=partial.digest,
                size=partial.size,
                received=partial.received,
                expires=partial.expires,
            )
        )
        self._session.flush()

    def of(self, org_id: str, digest: str) -> Partial | None:
        """Return an organisation's upload of a blob."""
        query = select(PartialRow).where(PartialRow.org_id == org_id, PartialRow.digest == digest)
        row = self._session.exec(query).first()
        return None if row is None else _partial(row)

    def get(self, upload_id: str, org_id: str) -> Partial:
        """Return an organisation's own upload.

        Raises:
            NotFoundError: It has no such.
        """
        row = self._session.get(PartialRow, upload_id)
        if row is None or row.org_id != org_id:
            raise NotFoundError(f"no upload {upload_id}")
        return _partial(row)

    def receive(self, upload_id: str, before: int, received: int, expires: int) -> None:
        """Record that so many bytes count now, where `before` counted until now.

        Raises:
            NotFoundError: It was ended meanwhile.
        """
        done = self._session.execute(
            update(PartialRow)
            .where(col(PartialRow.id) == upload_id, col(PartialRow.received) == before)
            .values(received=received, expires=expires)
        )
        if done.rowcount != 1:  # type: ignore[attr-defined]
            raise NotFoundError(f"no upload {upload_id}")
        self._session.expire_all()

    def remove(self, upload_id: str) -> None:
        """Forget an upload; no error if it is gone."""
        self._session.execute(delete(PartialRow).where(col(PartialRow.id) == upload_id))
        self._session.flush()
        self._session.expire_all()

    def remove_of(self, org_id: str) -> None:
        """Forget all uploads of an organisation."""
        self._session.execute(delete(PartialRow).where(col(PartialRow.org_id) == org_id))
        self._session.flush()
        self._session.expire_all()

    def late(self, now: float) -> bool:
        """Whether the time of any is over."""
        query = select(PartialRow.id).where(col(PartialRow.expires) < int(now)).limit(1)
        return self._session.exec(query).first() is not None

    def expire(self, now: float) -> int:
        """Forget the uploads whose time is over; how many."""
        found = self._session.exec(
            select(PartialRow.id).where(col(PartialRow.expires) < int(now))
        ).all()
        self._session.execute(delete(PartialRow).where(col(PartialRow.id).in_(found)))
        self._session.flush()
        self._session.expire_all()
        return len(found)

    def known(self, upload_ids: Collection[str]) -> frozenset[str]:
        """Return which of these uploads there are."""
        query = select(PartialRow.id).where(col(PartialRow.id).in_(upload_ids))
        return frozenset(self._session.exec(query))

    def total(self) -> tuple[int, int, int]:
        """Return how many there are, the bytes they announced and those that came."""
        count, size, received = self._session.exec(
            select(func.count(), func.sum(PartialRow.size), func.sum(PartialRow.received))
        ).one()
        return count, int(size or 0), int(received or 0)

    def open_bytes(self, org_id: str) -> tuple[int, int]:
        """Return how many an organisation has, and the bytes they announced."""
        count, size = self._session.exec(
            select(func.count(), func.sum(PartialRow.size)).where(PartialRow.org_id == org_id)
        ).one()
        return count, int(size or 0)


def _partial(row: PartialRow) -> Partial:
    return Partial(row.id, row.org_id, row.digest, row.size, row.received, row.expires)
