"""Money: double entries that sum to zero, and balances that cannot go below zero."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, update
from sqlmodel import Session, col, select

from clearinghouse.errors import RefusedError
from clearinghouse.store.records import Posting
from clearinghouse.store.tables import AccountRow, PostingRow


class Ledger:
    """Queries about accounts and postings, in micro-units of money."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def transfer(self, name: str, request_id: str, amounts: Mapping[str, int]) -> None:
        """Post one transfer: each account's change; zero changes are left out.

        Args:
            name: Unique for ever; a repeated transfer is refused, never doubled.
            request_id: What it belongs to.
            amounts: Account name to change in micro-units.

        Raises:
            ValueError: The changes do not sum to zero, or all are zero.
            RefusedError: An account other than an external one would go below zero, or a
                transfer of this name exists.
        """
        changes = {account: amount for account, amount in amounts.items() if amount}
        if sum(changes.values()) != 0 or not changes:
            raise ValueError(f"transfer {name} must move something and sum to zero")
        taken = select(PostingRow.transfer).where(PostingRow.transfer == name)
        if self._session.exec(taken).first() is not None:
            raise RefusedError(f"transfer {name} was posted before")
        for position, (account, amount) in enumerate(sorted(changes.items())):
            if self._session.get(AccountRow, account) is None:
                self._session.add(AccountRow(name=account))
                self._session.flush()
            self._post(
                PostingRow(
                    transfer=name,
                    account=account,
                    request_id=request_id,
                    position=position,
                    amount_micro=amount,
                )
            )

    def _post(self, posting: PostingRow) -> None:
        """Write one side; the condition is in the statement, so that no race can overdraw."""
        self._session.add(posting)
        self._session.flush()
        after = col(AccountRow.balance_micro) + posting.amount_micro
        outside = func.substr(col(AccountRow.name), 1, 9) == "external:"
        changed: Any = self._session.execute(
            update(AccountRow)
            .where(col(AccountRow.name) == posting.account, (after >= 0) | outside)
            .values(balance_micro=after)
            .execution_options(synchronize_session=False)
        )
        if changed.rowcount != 1:
            raise RefusedError(f"account {posting.account} has too little for this")

    def balance(self, account: str) -> int:
        """Return an account's balance in micro-units."""
        query = select(AccountRow.balance_micro).where(AccountRow.name == account)
        return self._session.exec(query).first() or 0

    def count(self) -> int:
        """Return the number of postings."""
        return self._session.exec(select(func.count()).select_from(PostingRow)).one()

    def postings(self, request_id: str) -> tuple[Posting, ...]:
        """Return the postings of a request by transfer and account."""
        query = (
            select(PostingRow)
            .where(PostingRow.request_id == request_id)
            .order_by(col(PostingRow.transfer), col(PostingRow.position))
        )
        return tuple(
            Posting(row.transfer, row.account, row.amount_micro)
            for row in self._session.exec(query)
        )
