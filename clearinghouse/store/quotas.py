"""What an organisation may have open and stored at once; exact, since writers take turns."""

from sqlalchemy import func
from sqlmodel import Session, col, select

from clearinghouse.errors import QuotaError
from clearinghouse.store.tables import PartialRow, RequestRow, UploadRow


class Quotas:
    """Counts that a writing transaction checks before it adds to them.

    A writing transaction holds the database's one write lock, also against other processes, so
    what it counts stays true until it commits: no two calls together go over a limit.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def stored(self, org_id: str) -> int:
        """Return the bytes that an organisation has uploaded and that are still here.

        Unfinished uploads count with all that they announced: room that is promised is taken.
        """
        found = 0
        for table in (UploadRow, PartialRow):
            query = select(func.coalesce(func.sum(table.size), 0)).where(table.org_id == org_id)
            found += int(self._session.exec(query).one())
        return found

    def store(self, org_id: str, digest: str, size: int, limit: int) -> None:
        """Count an uploaded blob against its organisation's quota, once.

        Raises:
            QuotaError: It would go over the limit.
        """
        self.check_stored(org_id, digest, size, limit)
        if self._session.get(UploadRow, (org_id, digest)) is None:
            self._session.add(UploadRow(org_id=org_id, digest=digest, size=size))
            self._session.flush()

    def has(self, org_id: str, digest: str) -> bool:
        """Whether the organisation uploaded this blob and it is still here."""
        return self._session.get(UploadRow, (org_id, digest)) is not None

    def check_stored(self, org_id: str, digest: str, size: int, limit: int) -> None:
        """Return if a blob fits, or is counted already.

        Raises:
            QuotaError: It does not.
        """
        if self._session.get(UploadRow, (org_id, digest)) is not None:
            return
        stored = self.stored(org_id)
        if stored + size > limit:
            raise QuotaError(
                f"{org_id} has {stored} bytes stored and may have {limit}: {size} more do not "
                "fit. Ask the operator for room"
            )

    def check_open(self, org_id: str, limit: int) -> None:
        """Return if the organisation may open one more request.

        Raises:
            QuotaError: It has as many as it may.
        """
        query = select(func.count()).where(
            col(RequestRow.org_id) == org_id, col(RequestRow.state) == "running"
        )
        running = int(self._session.exec(query).one())
        if running >= limit:
            raise QuotaError(
                f"{org_id} has {running} requests running and may have {limit} at once; "
                "wait for one to end"
            )
