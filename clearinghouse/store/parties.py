"""Organisations and their keys, and what protects their calls: nonces and stored answers."""

from collections.abc import Sequence
from dataclasses import replace

from sqlmodel import Session, col, delete, select

from clearinghouse.errors import AuthenticationError, ConflictError, NotFoundError
from clearinghouse.store.places import places_of
from clearinghouse.store.records import Org, OrgKey
from clearinghouse.store.tables import NonceRow, OrgKeyRow, OrgRow, ReplyRow

UNDATED = -1
"""`added` of a key until its entry is written, in the same transaction."""


class Parties:
    """Queries about organisations and their keys."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, org: Org) -> None:
        """Register an organisation; `date_key` follows when the log says so.

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
        self.add_key(org.id, org.key_id, org.public_key)

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
        return self._keys(
            self._session.exec(query.order_by(col(OrgKeyRow.added), col(OrgKeyRow.id))).all()
        )

    def key(self, key_id: str) -> OrgKey | None:
        """Return a key, whoever's it is."""
        row = self._session.get(OrgKeyRow, key_id)
        return None if row is None else self._keys([row])[0]

    def _keys(self, rows: Sequence[OrgKeyRow]) -> tuple[OrgKey, ...]:
        dates = [date for row in rows for date in (row.added, row.revoked)]
        found = places_of(self._session, dates)
        return tuple(
            OrgKey(
                row.id,
                row.org_id,
                row.public_key,
                found[row.added],
                found[row.revoked],
                row.revoked is not None,
            )
            for row in rows
        )

    def add_key(self, org_id: str, key_id: str, public_key: str) -> None:
        """Store a key, which signs for its organisation; `date_key` follows.

        Raises:
            ConflictError: It is registered already.
        """
        if self._session.get(OrgKeyRow, key_id) is not None:
            raise ConflictError(f"the key {key_id} is registered already")
        row = OrgKeyRow(id=key_id, org_id=org_id, public_key=public_key, added=UNDATED)
        self._session.add(row)
        self._session.flush()

    def date_key(self, key_id: str, entry: int) -> None:
        """Name the log entry that adds a key; from now on it is what its organisation signs with.

        Args:
            key_id: Of a key that was just added.
            entry: Id of the log entry.
        """
        row = self._key_row(key_id)
        row.added = entry
        self._session.flush()
        self._use_newest(row.org_id)

    def revoke_key(self, key_id: str, entry: int) -> None:
        """Mark a key as revoked by the log entry with this id."""
        row = self._key_row(key_id)
        row.revoked = entry
        self._session.flush()
        self._use_newest(row.org_id)

    def _key_row(self, key_id: str) -> OrgKeyRow:
        row = self._session.get(OrgKeyRow, key_id)
        if row is None:
            raise NotFoundError(f"no key {key_id}")
        return row

    def _use_newest(self, org_id: str) -> None:
        """What the server records for an organisation must name a key that acts for it."""
        valid = [key for key in self.keys(org_id) if not key.is_revoked]
        row = self._session.get(OrgRow, org_id)
        if row is not None and valid:
            row.key_id, row.public_key = valid[-1].id, valid[-1].public_key
            self._session.flush()


class Guards:
    """Nonces and idempotent answers."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def remember_nonce(self, key_id: str, nonce: str, expires: int, now: float) -> bool:
        """Store a nonce; False if it was there. Old ones of this key are dropped on the way."""
        own = delete(NonceRow).where(col(NonceRow.key_id) == key_id)
        self._session.exec(own.where(col(NonceRow.expires) < int(now)))
        if self._session.get(NonceRow, (key_id, nonce)) is not None:
            return False
        self._session.add(NonceRow(key_id=key_id, nonce=nonce, expires=expires))
        self._session.flush()
        return True

    def forget_nonces(self, now: float) -> None:
        """Drop old nonces of all keys."""
        self._session.exec(delete(NonceRow).where(col(NonceRow.expires) < int(now)))

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
