"""Disputes, attested outcomes, and the history of prices."""

from collections.abc import Iterable

from sqlalchemy import func, or_
from sqlmodel import Session, col, select

from clearinghouse.errors import NotFoundError
from clearinghouse.store.records import Dispute, DisputeState, PastPrice, StoredOutcome
from clearinghouse.store.tables import DisputeRow, OutcomeRow, PartyRow, PriceRow

PENDING = ("open", "answered")
"""States of a dispute whose money is frozen."""


class Disputes:
    """Queries about disputes."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, dispute: Dispute) -> None:
        """Store a new dispute, after all that are there."""
        last = self._session.exec(select(func.max(DisputeRow.number))).one()
        self._session.add(
            DisputeRow(
                id=dispute.id,
                request_id=dispute.request_id,
                opener_id=dispute.opener_id,
                respondent_id=dispute.respondent_id,
                subject=dispute.subject,
                reason=dispute.reason,
                remedy=dispute.remedy,
                state=dispute.state,
                opened_s=dispute.opened_s,
                number=(last or 0) + 1,
                deadline=dispute.deadline,
                claim=dispute.claim,
            )
        )
        self._session.flush()

    def get(self, dispute_id: str) -> Dispute:
        """Return a dispute.

        Raises:
            NotFoundError: There is none.
        """
        return _dispute(self._row(dispute_id))

    def of(self, request_id: str) -> tuple[Dispute, ...]:
        """Return the disputes of a request, oldest first."""
        return self._found(DisputeRow.request_id == request_id)

    def pending(self, request_id: str) -> tuple[Dispute, ...]:
        """Return a request's disputes that are not decided, oldest first."""
        return tuple(item for item in self.of(request_id) if item.state in PENDING)

    def concerning(self, org_id: str) -> tuple[Dispute, ...]:
        """Return the disputes that an organisation opened or has to answer, oldest first."""
        return self._found(
            or_(col(DisputeRow.opener_id) == org_id, col(DisputeRow.respondent_id) == org_id)
        )

    def late(self, now: float) -> tuple[Dispute, ...]:
        """Return the pending disputes whose deadline has passed."""
        return self._found(
            col(DisputeRow.state).in_(PENDING) & (col(DisputeRow.deadline) < int(now))
        )

    def unexamined(self) -> Dispute | None:
        """Return the oldest pending dispute whose evidence was not replayed yet."""
        found = self._found(col(DisputeRow.state).in_(PENDING) & (col(DisputeRow.finding) == ""))
        return found[0] if found else None

    def all(self) -> tuple[Dispute, ...]:
        """Return every dispute, oldest first."""
        return self._found(col(DisputeRow.id) != "")

    def examined(self, dispute_id: str, finding: str) -> None:
        """Store what the replay of the evidence said; the first finding stays."""
        row = self._row(dispute_id)
        row.finding = row.finding or finding
        self._session.flush()

    def answered(self, dispute_id: str, answer: str, deadline: int) -> None:
        """Store the respondent's answer and the arbiter's deadline."""
        row = self._row(dispute_id)
        row.answer, row.deadline, row.state = answer, deadline, "answered"
        self._session.flush()

    def decided(self, dispute_id: str, state: DisputeState, ruling: str) -> None:
        """Store how a dispute ended."""
        row = self._row(dispute_id)
        row.state, row.ruling = state, ruling
        self._session.flush()

    def _row(self, dispute_id: str) -> DisputeRow:
        row = self._session.get(DisputeRow, dispute_id)
        if row is None:
            raise NotFoundError(f"no dispute {dispute_id}")
        return row

    def _found(self, condition: object) -> tuple[Dispute, ...]:
        query = (
            select(DisputeRow)
            .where(condition)  # type: ignore[arg-type]
            .order_by(col(DisputeRow.opened_s), col(DisputeRow.number), col(DisputeRow.id))
        )
        return tuple(_dispute(row) for row in self._session.exec(query))


class Outcomes:
    """Queries about attested outcomes: one for each receipt, written once."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, outcome: StoredOutcome) -> None:
        """Store an outcome; one with the same digest is there already and stays."""
        if self._session.get(OutcomeRow, outcome.digest) is None:
            self._session.add(
                OutcomeRow(
                    digest=outcome.digest,
                    subject_id=outcome.subject_id,
                    attester_id=outcome.attester_id,
                    request_id=outcome.request_id,
                    kind=outcome.kind,
                    good=outcome.good,
                    at_s=outcome.at_s,
                )
            )
            self._session.flush()

    def about(self, org_ids: Iterable[str]) -> dict[str, tuple[StoredOutcome, ...]]:
        """Return the outcomes about some organisations, by organisation."""
        wanted = sorted(set(org_ids))
        found: dict[str, list[StoredOutcome]] = {name: [] for name in wanted}
        query = (
            select(OutcomeRow)
            .where(col(OutcomeRow.subject_id).in_(wanted))
            .order_by(col(OutcomeRow.at_s), OutcomeRow.digest)
        )
        for row in self._session.exec(query):
            found[row.subject_id].append(
                StoredOutcome(
                    row.digest,
                    row.subject_id,
                    row.attester_id,
                    row.request_id,
                    row.kind,
                    row.good,
                    row.at_s,
                )
            )
        return {name: tuple(items) for name, items in found.items()}


class Prices:
    """Queries about what a source was offered or paid over time."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, price: PastPrice) -> None:
        """Store a source's price in a request, once."""
        self._session.add(
            PriceRow(
                source_id=price.source_id,
                request_id=price.request_id,
                at_s=price.at_s,
                body=price.body,
            )
        )
        self._session.flush()

    def history(
        self, source_id: str, org_id: str, after: tuple[int, str], limit: int
    ) -> tuple[PastPrice, ...]:
        """Return a source's prices in the requests that an organisation takes part in.

        Args:
            source_id: Whose prices.
            org_id: Who asks.
            after: Time and request id of the last one that is known; (-1, "") for the first page.
            limit: So many at most.
        """
        at_s, request_id = after
        later = or_(
            col(PriceRow.at_s) > at_s,
            (col(PriceRow.at_s) == at_s) & (col(PriceRow.request_id) > request_id),
        )
        query = (
            select(PriceRow)
            .join(PartyRow, col(PartyRow.request_id) == col(PriceRow.request_id))
            .where(PriceRow.source_id == source_id, PartyRow.org_id == org_id, later)
            .order_by(col(PriceRow.at_s), col(PriceRow.request_id))
            .limit(limit)
        )
        return tuple(
            PastPrice(row.source_id, row.request_id, row.at_s, row.body)
            for row in self._session.exec(query)
        )


def _dispute(row: DisputeRow) -> Dispute:
    return Dispute(
        row.id,
        row.request_id,
        row.opener_id,
        row.respondent_id,
        row.subject,
        row.reason,
        row.remedy,
        row.state,  # type: ignore[arg-type]
        row.opened_s,
        row.deadline,
        row.claim,
        row.answer,
        row.finding,
        row.ruling,
    )
