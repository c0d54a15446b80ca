"""What was released of whose data, as the log has it: for budgets, not a budget itself.

The owner's own ledger decides what may be drawn; this adds up what the log says was.
"""

from sqlmodel import Session, col, select

from clearinghouse.log.entries import Entry
from clearinghouse.store.places import places_of
from clearinghouse.store.records import Release
from clearinghouse.store.tables import ReleaseRow


class Releases:
    """Queries about released epsilon."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, entry_id: int, entry: Entry) -> None:
        """Note a release that was logged, with the id of its entry."""
        objects = entry.objects
        self._session.add(
            ReleaseRow(
                entry=entry_id,
                owner=objects["owner"],
                data=objects.get("source") or objects.get("valset") or objects["owner"],
                kind=entry.type,
                request_id=objects.get("request"),
                run_id=objects.get("run"),
                epsilon_micro=entry.epsilon_micro,
                rho_micro=entry.rho_micro,
                time=entry.time,
            )
        )
        self._session.flush()

    def of(self, owner: str) -> tuple[Release, ...]:
        """Return an organisation's releases in the order in which they were logged."""
        query = select(ReleaseRow).where(ReleaseRow.owner == owner).order_by(col(ReleaseRow.entry))
        rows = self._session.exec(query).all()
        found = places_of(self._session, [row.entry for row in rows])
        return tuple(
            Release(
                found[row.entry],
                row.owner,
                row.data,
                row.kind,
                row.request_id,
                row.run_id,
                row.epsilon_micro,
                row.time,
                row.rho_micro,
            )
            for row in rows
        )
