"""Money: double entries that sum to zero, and balances that cannot go below zero."""

from collections.abc import Mapping, Sequence

from sqlalchemy import func
from sqlmodel import Session, col, select

from clearinghouse.errors import RefusedError
from clearinghouse.store.records import Entry, Posting
from clearinghouse.store.tables import AccountRow, PostingRow, TransferRow

OUTSIDE = "external:"
"""Accounts of the world outside, which alone may be below zero."""


class Ledger:
    """Queries about accounts and postings, in micro-units of money."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def transfer(
        self, name: str, request_id: str, amounts: Mapping[str, int], *, at_s: int = 0
    ) -> None:
        """Post one transfer: each account's change; zero changes are left out.

        Args:
            name: Unique for ever; a repeated transfer is refused, never doubled.
            request_id: What it belongs to.
            amounts: Account name to change in micro-units.
            at_s: When, in seconds since 1970, for people who read statements; 0 for unknown.

        Raises:
            ValueError: The changes do not sum to zero, or all are zero.
            RefusedError: An account other than an external one would go below zero, or a
                transfer of this name exists.
        """
        changes = {account: amount for account, amount in amounts.items() if amount}
        if sum(changes.values()) != 0 or not changes:
            raise ValueError(f"transfer {name} must move something and sum to zero")
        if self._session.get(TransferRow, name) is not None:
            raise RefusedError(f"transfer {name} was posted before")
        self._session.add(TransferRow(name=name, at_s=at_s))
        self._session.flush()
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
        """Write one side; the database adds it to transfer and account.

        Writers take turns, so nobody can overdraw between the look and the entry; if one could, the
        account's CHECK would refuse it.
        """
        name = posting.account
        after = self.balance(name) + posting.amount_micro
        if after < 0 and not name.startswith(OUTSIDE):
            raise RefusedError(f"account {name} has too little for this")
        self._session.add(posting)
        self._session.flush()

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

    def balances(self, start: str) -> dict[str, int]:
        """Return the accounts that begin so and are not empty, by name."""
        query = (
            select(AccountRow.name, AccountRow.balance_micro)
            .where(col(AccountRow.name).startswith(start, autoescape=True))
            .where(AccountRow.balance_micro != 0)
            .order_by(AccountRow.name)
        )
        return dict(self._session.exec(query).all())

    def history(self, accounts: Sequence[str]) -> tuple[Entry, ...]:
        """Return every posting of these accounts, in order of time and transfer."""
        query = (
            select(PostingRow, TransferRow.at_s)
            .join(TransferRow, col(TransferRow.name) == col(PostingRow.transfer))
            .where(col(PostingRow.account).in_(accounts))
            .order_by(col(TransferRow.at_s), col(PostingRow.transfer), col(PostingRow.position))
        )
        return tuple(
            Entry(row.transfer, row.account, row.request_id, row.amount_micro, at_s)
            for row, at_s in self._session.exec(query)
        )
