"""Organisations, and what protects their calls: nonces and stored answers."""

from sqlmodel import Session, col, delete, select

from clearinghouse.errors import ConflictError, NotFoundError
from clearinghouse.store.records import Org
from clearinghouse.store.tables import NonceRow, OrgRow, ReplyRow


class Parties:
    """Queries about organisations."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, org: Org) -> None:
        """Register an organisation.

        Raises:
            ConflictError: Its key is registered already.
        """
        if self.by_key(org.key_id) is not None:
            raise ConflictError(f"the key {org.key_id} is registered already")
        self._session.add(
            OrgRow(
                id=org.id,
                name=org.name,
                role=org.role,
                key_id=org.key_id,
                public_key=org.public_key,
                age_recipient=org.age_recipient,
            )
        )
        self._session.flush()

    def get(self, org_id: str) -> Org:
        """Return an organisation.

        Raises:
            NotFoundError: There is none.
        """
        row = self._session.get(OrgRow, org_id)
        if row is None:
            raise NotFoundError(f"no organisation {org_id}")
        return _org(row)

    def suspend(self, org_id: str, reason: str) -> None:
        """Suspend an organisation until a dispute is settled; the first reason stays.

        Raises:
            NotFoundError: There is none.
        """
        row = self._session.get(OrgRow, org_id)
        if row is None:
            raise NotFoundError(f"no organisation {org_id}")
        row.suspended = row.suspended or reason
        self._session.flush()

    def reinstate(self, org_id: str) -> None:
        """End a suspension."""
        row = self._session.get(OrgRow, org_id)
        if row is not None:
            row.suspended = ""
            self._session.flush()

    def by_key(self, key_id: str) -> Org | None:
        """Return the organisation that owns a key."""
        row = self._session.exec(select(OrgRow).where(OrgRow.key_id == key_id)).first()
        return None if row is None else _org(row)


class Guards:
    """Nonces and idempotent answers."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def remember_nonce(self, key_id: str, nonce: str, expires: int, now: float) -> bool:
        """Store a nonce; False if it was there. Old ones are dropped on the way."""
        self._session.exec(delete(NonceRow).where(col(NonceRow.expires) < int(now)))
        if self._session.get(NonceRow, (key_id, nonce)) is not None:
            return False
        self._session.add(NonceRow(key_id=key_id, nonce=nonce, expires=expires))
        self._session.flush()
        return True

    def reply(self, org_id: str, key: str, digest: str) -> str | None:
        """Return the stored answer to this call, or None if it is new.

        Raises:
            ConflictError: The key was used for another call.
        """
        row = self._session.get(ReplyRow, (org_id, key))
        if row is None:
            return None
        if row.digest != digest:
            raise ConflictError(
                "this Idempotency-Key was used for another call; use a fresh key for a new call"
            )
        return row.body

    def keep_reply(self, org_id: str, key: str, digest: str, body: str) -> None:
        """Store the answer to an idempotent call."""
        self._session.add(ReplyRow(org_id=org_id, key=key, digest=digest, body=body))
        self._session.flush()


def _org(row: OrgRow) -> Org:
    return Org(
        row.id,
        row.name,
        row.role,  # type: ignore[arg-type]
        row.key_id,
        row.public_key,
        row.age_recipient,
        row.suspended,
    )
