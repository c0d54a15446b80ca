"""Who may read without a key of their own: API keys, people, and their sessions in the console."""

import json
from collections.abc import Sequence

from sqlmodel import Session as Connection
from sqlmodel import col, delete, select

from clearinghouse.errors import ConflictError, NotFoundError
from clearinghouse.store.records import ApiKey, Session
from clearinghouse.store.tables import ApiKeyRow, PersonRow, SessionRow


class ApiKeys:
    """Queries about API keys."""

    def __init__(self, session: Connection) -> None:
        self._session = session

    def add(self, key: ApiKey) -> None:
        """Store a key.

        Raises:
            ConflictError: Its prefix is taken.
        """
        if self.by_prefix(key.prefix) is not None:
            raise ConflictError("this prefix is taken; make a fresh API key")
        self._session.add(
            ApiKeyRow(
                id=key.id,
                org_id=key.org_id,
                name=key.name,
                prefix=key.prefix,
                digest=key.digest,
                scopes=json.dumps(list(key.scopes)),
                created=key.created,
                expires=key.expires,
            )
        )
        self._session.flush()

    def by_prefix(self, prefix: str) -> ApiKey | None:
        """Return the key whose token begins like this, also one that has ended."""
        row = self._session.exec(select(ApiKeyRow).where(ApiKeyRow.prefix == prefix)).first()
        return None if row is None else _api_key(row)

    def of(self, org_id: str) -> tuple[ApiKey, ...]:
        """Return all keys of an organisation, oldest first."""
        query = select(ApiKeyRow).where(ApiKeyRow.org_id == org_id)
        rows = self._session.exec(query.order_by(col(ApiKeyRow.created), col(ApiKeyRow.id)))
        return tuple(_api_key(row) for row in rows)

    def get(self, key_id: str, org_id: str) -> ApiKey:
        """Return a key of this organisation.

        Raises:
            NotFoundError: There is none, or it is another's.
        """
        return _api_key(self._row(key_id, org_id))

    def revoke(self, key_id: str, org_id: str, now: int) -> None:
        """End a key of this organisation; the first time stays.

        Raises:
            NotFoundError: There is none, or it is another's.
        """
        row = self._row(key_id, org_id)
        row.revoked = row.revoked or now
        self._session.flush()

    def used(self, key_id: str, now: int) -> None:
        """Note that a key was used."""
        row = self._session.get(ApiKeyRow, key_id)
        if row is not None:
            row.last_used = max(row.last_used or 0, now)
            self._session.flush()

    def _row(self, key_id: str, org_id: str) -> ApiKeyRow:
        row = self._session.get(ApiKeyRow, key_id)
        if row is None or row.org_id != org_id:
            raise NotFoundError(f"no API key {key_id}")
        return row


class People:
    """Queries about people and their sessions."""

    def __init__(self, session: Connection) -> None:
        self._session = session

    def add(self, email: str, org_id: str) -> None:
        """Let a person look at an organisation's part of the console."""
        if self._session.get(PersonRow, (org_id, email)) is None:
            self._session.add(PersonRow(org_id=org_id, email=email))
            self._session.flush()

    def remove(self, email: str, org_id: str) -> None:
        """Let a person in no more, and end that person's sessions here.

        Raises:
            NotFoundError: There is no such person in this organisation.
        """
        row = self._session.get(PersonRow, (org_id, email))
        if row is None:
            raise NotFoundError(f"no person {email}")
        self._session.delete(row)
        self._session.exec(
            delete(SessionRow).where(
                col(SessionRow.email) == email, col(SessionRow.org_id) == org_id
            )
        )
        self._session.flush()

    def of(self, org_id: str) -> tuple[str, ...]:
        """Return the addresses of an organisation's people, in order."""
        return tuple(
            self._session.exec(
                select(PersonRow.email)
                .where(PersonRow.org_id == org_id)
                .order_by(col(PersonRow.email))
            )
        )

    def organisations(self, email: str) -> tuple[str, ...]:
        """Return the organisations that let a person in, in order of id."""
        return tuple(
            self._session.exec(
                select(PersonRow.org_id)
                .where(PersonRow.email == email)
                .order_by(col(PersonRow.org_id))
            )
        )

    def begin(self, digest: str, session: Session, now: int) -> None:
        """Store a session under the SHA-256 of its token; old ones are dropped on the way."""
        self._session.exec(delete(SessionRow).where(col(SessionRow.expires) < now))
        self._session.add(
            SessionRow(
                digest=digest,
                email=session.email,
                org_id=session.org_id,
                expires=session.expires,
            )
        )
        self._session.flush()

    def session(self, digest: str, now: float) -> Session | None:
        """Return a session that has not ended."""
        row = self._session.get(SessionRow, digest)
        if row is None or row.expires <= now:
            return None
        return Session(row.email, row.org_id, row.expires)

    def move(self, digest: str, org_id: str) -> None:
        """Look at another organisation in the same session."""
        row = self._session.get(SessionRow, digest)
        if row is not None:
            row.org_id = org_id
            self._session.flush()

    def end(self, digests: Sequence[str]) -> None:
        """End sessions."""
        self._session.exec(delete(SessionRow).where(col(SessionRow.digest).in_(digests)))
        self._session.flush()


def _api_key(row: ApiKeyRow) -> ApiKey:
    return ApiKey(
        row.id,
        row.org_id,
        row.name,
        row.prefix,
        row.digest,
        tuple(json.loads(row.scopes)),
        row.created,
        row.expires,
        row.revoked,
        row.last_used,
    )
