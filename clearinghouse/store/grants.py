"""Grants, what was done under them, and sources that were withdrawn."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sqlmodel import Session, col, or_, select

from clearinghouse.consent import Act, Grant
from clearinghouse.errors import NotFoundError
from clearinghouse.store.tables import GrantRow, SourceRow, UseRow, WithdrawalRow


@dataclass(frozen=True, slots=True)
class UseRecord:
    """A use that was allowed under `grant_id`, or refused for `reason`."""

    order_id: str
    org_id: str
    act: Act
    source_id: str
    request_id: str
    grant_id: str | None
    blob: str
    at: int
    reason: str

    @property
    def allowed(self) -> bool:
        """Whether it was."""
        return self.grant_id is not None


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """A source that was taken back: when, and when its body was gone (None until then)."""

    source_id: str
    at: int
    erased: int | None


class Grants:
    """Queries about consent."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, grant: Grant, given: int) -> None:
        """Store a grant."""
        self._session.add(
            GrantRow(
                id=grant.id,
                source_id=grant.source_id,
                sender=grant.sender,
                recipient=grant.recipient,
                attributes=json.dumps(list(grant.attributes)),
                purpose=grant.purpose,
                given=given,
                expires=grant.expires,
            )
        )
        self._session.flush()

    def get(self, grant_id: str) -> Grant:
        """Return a grant.

        Raises:
            NotFoundError: There is none.
        """
        return _grant(self._row(grant_id))

    def given(self, grant_id: str) -> int:
        """Return when a grant was given."""
        return self._row(grant_id).given

    def of(self, source_ids: Sequence[str]) -> dict[str, tuple[Grant, ...]]:
        """Return every grant of these sources, withdrawn ones too, by source."""
        query = select(GrantRow).where(col(GrantRow.source_id).in_(source_ids))
        found: dict[str, tuple[Grant, ...]] = dict.fromkeys(source_ids, ())
        for row in self._session.exec(query.order_by(GrantRow.id)):
            found[row.source_id] += (_grant(row),)
        return found

    def concerning(self, org_id: str) -> tuple[Grant, ...]:
        """Return the grants that an organisation gave or that name it."""
        query = (
            select(GrantRow)
            .join(SourceRow, col(SourceRow.id) == col(GrantRow.source_id))
            .where(
                or_(
                    col(SourceRow.org_id) == org_id,
                    col(GrantRow.sender) == org_id,
                    col(GrantRow.recipient) == org_id,
                )
            )
            .order_by(GrantRow.id)
        )
        return tuple(_grant(row) for row in self._session.exec(query))

    def withdraw(self, grant_id: str, now: int) -> bool:
        """End a grant; False if it was withdrawn before."""
        row = self._row(grant_id)
        if row.withdrawn is not None:
            return False
        row.withdrawn = now
        self._session.flush()
        return True

    def withdraw_source(self, source_id: str, now: int) -> bool:
        """Record that a source was taken back; False if it was before."""
        if self._session.get(WithdrawalRow, source_id) is not None:
            return False
        self._session.add(WithdrawalRow(source_id=source_id, at=now))
        self._session.flush()
        return True

    def withdrawal(self, source_id: str) -> Withdrawal | None:
        """Return when a source was taken back, if it was."""
        row = self._session.get(WithdrawalRow, source_id)
        return None if row is None else Withdrawal(row.source_id, row.at, row.erased)

    def withdrawn(self, source_ids: Sequence[str]) -> dict[str, Withdrawal]:
        """Return those of these sources that were taken back."""
        query = select(WithdrawalRow).where(col(WithdrawalRow.source_id).in_(source_ids))
        return {
            row.source_id: Withdrawal(row.source_id, row.at, row.erased)
            for row in self._session.exec(query)
        }

    def use(self, record: UseRecord) -> bool:
        """Record a use or its refusal; False if it is there already."""
        key = (record.order_id, record.org_id, record.act, record.allowed)
        if self._session.get(UseRow, key) is not None:
            return False
        self._session.add(
            UseRow(
                order_id=record.order_id,
                org_id=record.org_id,
                act=record.act,
                allowed=record.allowed,
                source_id=record.source_id,
                request_id=record.request_id,
                grant_id=record.grant_id,
                blob=record.blob,
                at=record.at,
                reason=record.reason,
            )
        )
        self._session.flush()
        return True

    def uses(
        self, *, source_id: str = "", request_id: str = "", order_id: str = "", org_id: str = ""
    ) -> tuple[UseRecord, ...]:
        """Return uses and refusals of a source, request or order, or by a recipient, in time."""
        query = select(UseRow)
        for column, value in (
            (UseRow.source_id, source_id),
            (UseRow.request_id, request_id),
            (UseRow.order_id, order_id),
            (UseRow.org_id, org_id),
        ):
            if value:
                query = query.where(column == value)
        order = (col(UseRow.at), col(UseRow.order_id), col(UseRow.org_id), col(UseRow.act))
        return tuple(_use(row) for row in self._session.exec(query.order_by(*order)))

    def under(self, grant_ids: Sequence[str]) -> tuple[UseRecord, ...]:
        """Return what was done under these grants, in time."""
        query = select(UseRow).where(col(UseRow.grant_id).in_(grant_ids))
        order = (col(UseRow.at), col(UseRow.order_id), col(UseRow.org_id), col(UseRow.act))
        return tuple(_use(row) for row in self._session.exec(query.order_by(*order)))

    def sealed_to(self, blob: str, org_id: str) -> UseRecord | None:
        """Return the delivery that these bytes are for this recipient, if they are one."""
        query = select(UseRow).where(
            UseRow.blob == blob,
            UseRow.org_id == org_id,
            col(UseRow.act).in_(("sealed", "passed")),
            col(UseRow.allowed),
        )
        row = self._session.exec(query).first()
        return None if row is None else _use(row)

    def _row(self, grant_id: str) -> GrantRow:
        row = self._session.get(GrantRow, grant_id)
        if row is None:
            raise NotFoundError(f"no grant {grant_id}")
        return row


def _grant(row: GrantRow) -> Grant:
    return Grant(
        row.id,
        row.source_id,
        row.sender,
        row.recipient,
        tuple(json.loads(row.attributes)),
        row.purpose,
        row.expires,
        row.withdrawn,
    )


def _use(row: UseRow) -> UseRecord:
    return UseRecord(
        row.order_id,
        row.org_id,
        row.act,  # type: ignore[arg-type]
        row.source_id,
        row.request_id,
        row.grant_id,
        row.blob,
        row.at,
        row.reason,
    )
