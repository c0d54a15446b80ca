"""Who acts and reads for this home's organisation: keys, API keys, people of the console."""

from collections.abc import Sequence
from urllib.parse import quote

from pydantic import ValidationError

from clearinghouse.apikeys import SCOPES, make_token, prefix_of, token_digest
from clearinghouse.cli.loop import alone
from clearinghouse.cli.options import Result, columns
from clearinghouse.cli.profile import Session, check_id
from clearinghouse.client.rotation import rotate
from clearinghouse.clock import timestamp
from clearinghouse.documents import shown
from clearinghouse.errors import InputError, NotFoundError, RefusedError
from clearinghouse.messages.identity import (
    AddPerson,
    ApiKeyList,
    ApiKeyView,
    CreateApiKey,
    KeyList,
    KeyView,
    PersonList,
)

DAY_S = 86_400


def rotate_key(session: Session, keep_old: bool) -> Result:
    """Replace the signing key, or finish what broke off; no other command may work meanwhile.

    Raises:
        TryAgainError: Another command of this home runs, or a receipt waits for the old key.
    """
    with alone(session.keystore):
        keystore = session.keystore.reopened()
        done = rotate(keystore, session.transport, session.org_id(), keep_old=keep_old)
    value = {
        "key_id": done.key_id,
        "added": done.added,
        "old_key_id": done.old_key_id,
        "revoked": done.revoked,
    }
    words = f"{done.key_id} signs from log entry {done.added} on\n"
    if done.revoked is None:
        words += f"{done.old_key_id} stays valid; key rotate again revokes it"
    else:
        words += f"{done.old_key_id} is refused from log entry {done.revoked} on"
    return value, words + f"\nback {session.home} up: the key in older copies is no longer used"


def revoke_key(session: Session, key_id: str) -> Result:
    """Revoke a key of this organisation, but never the one this home signs with.

    Raises:
        RefusedError: It is this home's own.
    """
    check_id(key_id, "key", "key")
    with alone(session.keystore):
        keystore = session.keystore.reopened()
        if key_id == keystore.signing_key.key_id:
            raise RefusedError(
                f"{key_id} is the key this home signs with. Run clearinghouse key rotate instead"
            )
        view = session.transport.delete(f"/keys/{key_id}", KeyView)
        if keystore.old_key is not None and keystore.old_key.key_id == key_id:
            keystore.forget_old_key()
    return view.model_dump(), f"{key_id} is refused from log entry {view.revoked} on"


def list_keys(session: Session) -> Result:
    """All keys the organisation has or had."""
    found = session.transport.get("/keys", KeyList)
    mine = session.keystore.signing_key.key_id
    rows = [["key", "from entry", "to entry", ""]]
    for key in found.keys:
        until = "" if key.revoked is None else str(key.revoked)
        rows.append([key.id, str(key.added), until, "this home's" if key.id == mine else ""])
    return found.model_dump(), columns(rows)


def create_api_key(session: Session, name: str, scopes: Sequence[str], days: int) -> Result:
    """Make a token here and register its hash; the token is in this result and nowhere else.

    Raises:
        InputError: A scope is unknown, or name or days are out of range.
    """
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown:
        raise InputError(f"--scope must be one of {', '.join(SCOPES)}, not {shown(unknown[0])}")
    token = make_token()
    try:
        message = CreateApiKey.model_validate(
            {
                "name": name,
                "prefix": prefix_of(token),
                "digest": token_digest(token),
                "scopes": list(dict.fromkeys(scopes)),
                "lifetime_s": days * DAY_S,
            }
        )
    except ValidationError as error:
        raise InputError(
            "--name must be 1 to 100 printable characters and --days 1 to 366: "
            + str(error.errors()[0]["msg"])
        ) from None
    view = session.transport.post("/apikeys", message, ApiKeyView)
    words = (
        f"{view.id} '{view.name}' may do {', '.join(view.scopes)} until "
        f"{timestamp(view.expires)}\ntoken: {token}\n"
        "this is the only time it is shown. Send it as: Authorization: Bearer TOKEN"
    )
    return {**view.model_dump(), "token": token}, words


def revoke_api_key(session: Session, key_id: str) -> Result:
    """End an API key."""
    check_id(key_id, "apk", "API key")
    view = session.transport.delete(f"/apikeys/{key_id}", ApiKeyView)
    return view.model_dump(), f"{view.id} '{view.name}' is revoked"


def list_api_keys(session: Session) -> Result:
    """The organisation's API keys, without their tokens, which nobody but their users has."""
    found = session.transport.get("/apikeys", ApiKeyList)
    rows = [["key", "name", "scopes", "ends", "last used", ""]]
    for key in found.keys:
        used = "never" if key.last_used is None else timestamp(key.last_used)
        state = "" if key.revoked is None else "revoked"
        rows.append([key.id, key.name, " ".join(key.scopes), timestamp(key.expires), used, state])
    return found.model_dump(), columns(rows)


def invite(session: Session, email: str) -> Result:
    """Let a person look at this organisation's part of the console.

    Raises:
        InputError: It is no address.
    """
    try:
        message = AddPerson(email=email)
    except ValidationError:
        raise InputError(f"EMAIL must be an address, not {shown(email)}") from None
    found = session.transport.post("/people", message, PersonList)
    return found.model_dump(), f"{email.lower()} may look at {session.transport.base_url}/console"


def dismiss(session: Session, email: str) -> Result:
    """Let a person in no more.

    Raises:
        NotFoundError: There is no such person here.
    """
    if "@" not in email or "/" in email:
        raise NotFoundError(f"no person {shown(email)}")
    found = session.transport.delete(f"/people/{quote(email, safe='@')}", PersonList)
    return found.model_dump(), f"{email.lower()} is let in no more"


def people(session: Session) -> Result:
    """Who is let in."""
    found = session.transport.get("/people", PersonList)
    return found.model_dump(), "\n".join(found.people) or "nobody is let into the console yet"
