"""Organisations and their keys, and what protects their calls: nonces and stored answers."""

from dataclasses import replace

from sqlmodel import Session, col, delete, select

from clearinghouse.errors import AuthenticationError, ConflictError, NotFoundError
from clearinghouse.store.records import Org, OrgKey
from clearinghouse.store.tables import NonceRow, OrgKeyRow, OrgRow, ReplyRow


class Parties:
    """Queries about organisations and their keys."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, org: Org, entry: int = 0) -> None:
        """Register an organisation; `entry` is the index of the log entry that says so.

        Raises:
            ConflictError: Its key is registered already, or was.
        """
        if self._session.get(OrgKeyRow, org.key_id) is not None:
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
        self.add_key(OrgKey(org.key_id, org.id, org.public_key, entry, None))

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

    def check_key(self, org: Org) -> None:
        """Return if the key that an organisation called with still acts for it.

        Raises:
            AuthenticationError: It was revoked since the call's signature was checked.
        """
        if self.by_key(org.key_id) is None:
            raise AuthenticationError(f"the key {org.key_id} was revoked")

    def by_key(self, key_id: str) -> Org | None:
        """Return the organisation that a key acts for now, with that key; None if revoked."""
        query = (
            select(OrgKeyRow, OrgRow)
            .join(OrgRow, col(OrgRow.id) == col(OrgKeyRow.org_id))
            .where(OrgKeyRow.id == key_id, col(OrgKeyRow.revoked).is_(None))
        )
        found = self._session.exec(query).first()
        if found is None:
            return None
        key, org = found
        return replace(_org(org), key_id=key.id, public_key=key.public_key)

    def keys(self, org_id: str) -> tuple[OrgKey, ...]:
        """Return all keys an organisation has or had, in the order of the log."""
        query = select(OrgKeyRow).where(OrgKeyRow.org_id == org_id)
        rows = self._session.exec(query.order_by(col(OrgKeyRow.added), col(OrgKeyRow.id)))
        return tuple(_key(row) for row in rows)

    def key(self, key_id: str) -> OrgKey | None:
        """Return a key, whoever's it is."""
        row = self._session.get(OrgKeyRow, key_id)
        return None if row is None else _key(row)

    def add_key(self, key: OrgKey) -> None:
        """Store a key; from now on it is the one that signs for its organisation.

        Raises:
            ConflictError: It is registered already.
        """
        if self._session.get(OrgKeyRow, key.id) is not None:
            raise ConflictError(f"the key {key.id} is registered already")
        self._session.add(
            OrgKeyRow(id=key.id, org_id=key.org_id, public_key=key.public_key, added=key.added)
        )
        self._session.flush()
        self._use_newest(key.org_id)

    def revoke_key(self, key_id: str, entry: int) -> None:
        """Mark a key as revoked by the log entry with this index."""
        row = self._session.get(OrgKeyRow, key_id)
        if row is None:
            raise NotFoundError(f"no key {key_id}")
        row.revoked = entry
        self._session.flush()
        self._use_newest(row.org_id)

    def _use_newest(self, org_id: str) -> None:
        """What the server records for an organisation must name a key that acts for it."""
        valid = [key for key in self.keys(org_id) if key.revoked is None]
        row = self._session.get(OrgRow, org_id)
        if row is not None and valid:
            row.key_id, row.public_key = valid[-1].id, valid[-1].public_key
            self._session.flush()


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


def _key(row: OrgKeyRow) -> OrgKey:
    return OrgKey(row.id, row.org_id, row.public_key, row.added, row.revoked)
