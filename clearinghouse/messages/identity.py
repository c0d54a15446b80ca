"""Keys, API keys and people of an organisation."""

from typing import Annotated

from pydantic import Field

from clearinghouse.apikeys import Scope
from clearinghouse.canonical import canonical_bytes
from clearinghouse.messages.base import Base64, Count, Id, Message, Name, Sha256

Seconds = Annotated[int, Field(ge=0, le=2**40)]
Prefix = Annotated[str, Field(pattern=r"^[0-9a-z]{12}$")]
Email = Annotated[
    str,
    Field(
        max_length=254, pattern=r"^[^\s@\x00-\x20\x7f-\xa0\ufeff]+@[^\s@\x00-\x20\x7f-\xa0\ufeff]+$"
    ),
]
"""What counts as a space is spelt out where dialects of regular expressions differ."""


class AddKey(Message):
    """POST /v1/keys: another key of the caller's organisation."""

    public_key: Base64
    possession: Base64
    """Signature of `possession_bytes` by the new key: nobody can register a key of others."""


class KeyView(Message):
    """A key of an organisation; the numbers are indexes of log entries."""

    id: str
    public_key: Base64
    added: Count
    revoked: Count | None


class KeyList(Message):
    """GET /v1/keys: all keys the caller's organisation has or had, in the order of the log."""

    keys: list[KeyView]


class CreateApiKey(Message):
    """POST /v1/apikeys: a token that its owner made; the server gets its hash alone."""

    name: Name
    prefix: Prefix
    digest: Sha256
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=16)]
    lifetime_s: Annotated[int, Field(ge=60, le=366 * 86_400)]


class ApiKeyView(Message):
    """An API key as its organisation sees it; times are seconds since 1970."""

    id: Id
    name: Name
    prefix: Prefix
    scopes: list[Scope]
    created: Seconds
    expires: Seconds
    revoked: Seconds | None
    last_used: Seconds | None


class ApiKeyList(Message):
    """GET /v1/apikeys: the API keys of the caller's organisation."""

    keys: list[ApiKeyView]


class AddPerson(Message):
    """POST /v1/people: a person who may look at the caller's part of the console."""

    email: Email


class PersonList(Message):
    """GET /v1/people: the people of the caller's organisation, by address."""

    people: list[Email]


def possession_bytes(org_id: str, public_key: str) -> bytes:
    """What a new key signs to show that its owner wants it to act for this organisation."""
    return canonical_bytes(
        {"type": "clearinghouse.key.added", "org": org_id, "public_key": public_key}
    )
