"""Who acts and reads for an organisation: its keys, its API keys, its people."""

from clearinghouse.errors import InputError, NotFoundError, RefusedError, TryAgainError
from clearinghouse.ids import new_id
from clearinghouse.messages.identity import (
    AddKey,
    AddPerson,
    ApiKeyView,
    CreateApiKey,
    KeyView,
    PersonList,
    possession_bytes,
)
from clearinghouse.rounds.desk import Desk
from clearinghouse.signing import VerifyKey, b64decode_strict
from clearinghouse.store.records import ApiKey, Org, OrgKey
from clearinghouse.store.store import Tx

MOST_KEYS = 16
"""Keys that may act for an organisation at once."""

MOST_API_KEYS = 100
MOST_PEOPLE = 1000


def add_key(tx: Tx, desk: Desk, caller: Org, message: AddKey) -> None:
    """Let another key act for the caller's organisation, from this log entry on.

    The same key again changes nothing.

    Raises:
        VerificationError: The new key did not sign for this organisation.
        ConflictError: It is, or was, the key of another organisation.
        RefusedError: It was revoked, or there are too many.
    """
    key = VerifyKey.from_base64(message.public_key)
    key.verify(
        b64decode_strict(message.possession), possession_bytes(caller.id, message.public_key)
    )
    known = tx.parties.key(key.key_id)
    if known is not None and known.org_id == caller.id:
        if known.is_revoked:
            raise RefusedError(f"{known.id} was revoked{_by(known.revoked)}: make another")
        return
    valid = [item for item in tx.parties.keys(caller.id) if not item.is_revoked]
    if len(valid) >= MOST_KEYS:
        raise RefusedError(f"an organisation has at most {MOST_KEYS} keys at once; revoke one")
    tx.parties.add_key(caller.id, key.key_id, key.base64)
    added = desk.record(
        tx,
        "key.added",
        caller,
        objects={"org": caller.id, "key": key.key_id},
        hashes={"public_key": key.digest},
    )
    tx.parties.date_key(key.key_id, added)


def _by(index: int | None) -> str:
    return "" if index is None else f" by log entry {index}"


def revoke_key(tx: Tx, desk: Desk, caller: Org, key_id: str) -> None:
    """End a key of the caller's organisation, from this log entry on; what it signed stays valid.

    Raises:
        NotFoundError: The caller's organisation has no such key.
        RefusedError: It is the last one: nobody could act for the organisation any more.
    """
    keys = {key.id: key for key in tx.parties.keys(caller.id)}
    if key_id not in keys:
        raise NotFoundError(f"no key {key_id}")
    if keys[key_id].is_revoked:
        return
    if sum(not key.is_revoked for key in keys.values()) == 1:
        raise RefusedError("this is the organisation's last key; add another one before")
    entry = desk.record(tx, "key.revoked", caller, objects={"org": caller.id, "key": key_id})
    tx.parties.revoke_key(key_id, entry)


def create_api_key(tx: Tx, desk: Desk, caller: Org, message: CreateApiKey) -> ApiKeyView:
    """Register a token by its hash.

    Raises:
        InputError: A scope is named twice.
        ConflictError: The prefix is taken.
        RefusedError: There are too many.
    """
    if len(set(message.scopes)) < len(message.scopes):
        raise InputError("a scope is named twice; name each once")
    now = int(desk.clock.now())
    valid = [key for key in tx.apikeys.of(caller.id) if key.revoked is None and key.expires > now]
    if len(valid) >= MOST_API_KEYS:
        raise RefusedError(f"an organisation has at most {MOST_API_KEYS} API keys; revoke one")
    key = ApiKey(
        new_id("apk"),
        caller.id,
        message.name,
        message.prefix,
        message.digest,
        tuple(message.scopes),
        now,
        now + message.lifetime_s,
    )
    tx.apikeys.add(key)
    return api_key_view(key)


def revoke_api_key(tx: Tx, desk: Desk, caller: Org, key_id: str) -> ApiKeyView:
    """End an API key.

    Raises:
        NotFoundError: The caller's organisation has no such key.
    """
    tx.apikeys.revoke(key_id, caller.id, int(desk.clock.now()))
    return api_key_view(tx.apikeys.get(key_id, caller.id))


def add_person(tx: Tx, caller: Org, message: AddPerson) -> PersonList:
    """Let a person look at the organisation's part of the console.

    Raises:
        RefusedError: There are too many.
    """
    email = message.email.lower()
    people = tx.people.of(caller.id)
    if email not in people and len(people) >= MOST_PEOPLE:
        raise RefusedError(f"an organisation lets at most {MOST_PEOPLE} people in")
    tx.people.add(email, caller.id)
    return PersonList(people=list(tx.people.of(caller.id)))


def remove_person(tx: Tx, caller: Org, email: str) -> PersonList:
    """Let a person in no more; that person's sessions end.

    Raises:
        NotFoundError: There is no such person in the caller's organisation.
    """
    tx.people.remove(email.lower(), caller.id)
    return PersonList(people=list(tx.people.of(caller.id)))


def own_key(tx: Tx, caller: Org, key_id: str) -> KeyView:
    """A key of the caller's organisation.

    Raises:
        NotFoundError: It has no such key.
        TryAgainError: As `key_view`.
    """
    key = tx.parties.key(key_id)
    if key is None or key.org_id != caller.id:
        raise NotFoundError(f"no key {key_id}")
    return key_view(key)


def key_view(key: OrgKey) -> KeyView:
    """A key as its organisation sees it.

    Raises:
        TryAgainError: The log entry that adds or revokes it has no index yet.
    """
    if key.added is None or (key.is_revoked and key.revoked is None):
        raise TryAgainError(
            f"this is recorded, and the log entry about {key.id} gets its number within a second; "
            "repeat the same call"
        )
    return KeyView(id=key.id, public_key=key.public_key, added=key.added, revoked=key.revoked)


def api_key_view(key: ApiKey) -> ApiKeyView:
    """An API key as its organisation sees it: without the hash."""
    return ApiKeyView.model_validate(
        {
            "id": key.id,
            "name": key.name,
            "prefix": key.prefix,
            "scopes": list(key.scopes),
            "created": key.created,
            "expires": key.expires,
            "revoked": key.revoked,
            "last_used": key.last_used,
        }
    )
