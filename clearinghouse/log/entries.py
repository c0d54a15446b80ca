"""What the log may say: a closed list of entry types, each with its required fields.

An entry is canonical JSON with exactly these fields:

| field | content |
|---|---|
| v | 1 |
| type | one of `entry_types.ENTRY_TYPES`, in the words of the seven steps |
| time | RFC 3339, UTC, whole seconds (the server's clock; order is by index, not by time) |
| actor, key | the organisation that acted and its key |
| objects | names to ids |
| hashes | names to SHA-256 in hex (or a 32-byte salt opened on purpose) |
| amounts | names to integers (`..._micro` for millionths) or money as decimal strings |
| commit | a salted commitment in hex, or null |

Values have no room for free text, so personal data cannot get in: ids, hashes, salted commitments
and amounts only. Further names than the required ones are allowed when their values keep that form.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from clearinghouse.canonical import MAX_INTEGER, canonical_bytes, parse_canonical
from clearinghouse.clock import seconds_of, timestamp
from clearinghouse.errors import InputError, VerificationError
from clearinghouse.ids import Noun, is_id
from clearinghouse.log.entry_types import ENTRY_TYPES, OBJECT_NOUNS, is_release
from clearinghouse.signing import key_id_of

VERSION = 1
MAX_ENTRY_BYTES = 262_144
MAX_MEMBERS = 2_048

_FIELDS = {"v", "type", "time", "actor", "key", "objects", "hashes", "amounts", "commit"}
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_HASH = re.compile(r"[0-9a-f]{64}")
_MONEY = re.compile(r"(?!-0\.00?$)-?(0|[1-9][0-9]{0,11})\.[0-9]{2}([0-9]{0,3}[1-9])?")
_NOUNS: frozenset[str] = frozenset(get_args(Noun))


@dataclass(frozen=True, slots=True)
class Entry:
    """One validated entry."""

    type: str
    time: str
    actor: str
    key: str
    objects: Mapping[str, str]
    hashes: Mapping[str, str]
    amounts: Mapping[str, int | str]
    commit: str | None

    @property
    def data(self) -> bytes:
        """The canonical bytes that are hashed into the tree."""
        return canonical_bytes(_as_json(self))

    @property
    def epsilon_micro(self) -> int:
        """What this entry spent of its owner's pure lane, in millionths; 0 if it is no release."""
        return int(self.amounts["epsilon_micro"]) if is_release(self.type) else 0

    @property
    def rho_micro(self) -> int:
        """What this entry spent of its owner's zCDP lane, in millionths; 0 for the pure lane."""
        return int(self.amounts.get("rho_micro", 0)) if is_release(self.type) else 0


def make_entry(
    entry_type: str,
    *,
    now_s: float,
    actor: str,
    key: str,
    objects: Mapping[str, str],
    hashes: Mapping[str, str] | None = None,
    amounts: Mapping[str, int | str] | None = None,
    commit: str | None = None,
) -> Entry:
    """Build an entry; its `data` goes into the log.

    Raises:
        ValueError: It breaks the rules of its type; the message says which.
    """
    entry = Entry(
        entry_type,
        timestamp(now_s),
        actor,
        key,
        dict(objects),
        dict(hashes or {}),
        dict(amounts or {}),
        commit,
    )
    _validate(_as_json(entry))
    return entry


def parse_entry(data: bytes) -> Entry:
    """Read an entry in its only form.

    Raises:
        VerificationError: It is not canonical JSON or breaks the rules of its type.
    """
    if len(data) > MAX_ENTRY_BYTES:
        raise VerificationError(f"a log entry has at most {MAX_ENTRY_BYTES} bytes")
    try:
        content = parse_canonical(data)
        _validate(content)
    except (InputError, ValueError) as error:
        raise VerificationError(f"log entry: {error}") from None
    return Entry(**{name: content[name] for name in _FIELDS - {"v"}})


def is_timestamp(text: object) -> bool:
    """Whether `text` is a real time in the one form that `clock.timestamp` writes."""
    try:
        return timestamp(seconds_of(str(text))) == text
    except ValueError:
        return False


def epsilon_by_owner(entries: Iterable[Entry]) -> dict[str, int]:
    """Sum what all releases took of the pure lane of the organisation whose data paid."""
    spent: dict[str, int] = {}
    for entry in entries:
        if is_release(entry.type):
            owner = entry.objects["owner"]
            spent[owner] = spent.get(owner, 0) + entry.epsilon_micro
    return spent


class KeyHistory:
    """Which key may act for which organisation, by order in the log (clocks play no part)."""

    def __init__(self) -> None:
        self._organisations: set[str] = set()
        self._owner: dict[str, str] = {}
        self._revoked: set[str] = set()

    def apply(self, entry: Entry) -> None:
        """Check that the entry's key may act for its actor here, then learn from it.

        An organisation's first entry registers itself with its own key.

        Raises:
            VerificationError: Unknown, foreign or revoked key; an organisation registered twice.
        """
        if entry.type == "org.registered":
            if entry.actor in self._organisations or entry.key in self._owner:
                raise VerificationError(f"{entry.actor} or its key is registered already")
            self._organisations.add(entry.actor)
            self._owner[entry.key] = entry.actor
        if self._owner.get(entry.key) != entry.actor:
            raise VerificationError(f"{entry.key} is no key that {entry.actor} registered before")
        if entry.key in self._revoked:
            raise VerificationError(f"{entry.key} acts after its revocation")
        if entry.type == "key.added":
            if entry.objects["key"] in self._owner:
                raise VerificationError(f"{entry.objects['key']} is registered already")
            self._owner[entry.objects["key"]] = entry.actor
        elif entry.type == "key.revoked":
            if self._owner.get(entry.objects["key"]) != entry.actor:
                raise VerificationError(f"{entry.objects['key']} is not {entry.actor}'s to revoke")
            self._revoked.add(entry.objects["key"])


def _as_json(entry: Entry) -> dict[str, Any]:
    content: dict[str, Any] = {name: getattr(entry, name) for name in _FIELDS - {"v"}}
    return {"v": VERSION, **content}


def _validate(content: Any) -> None:
    """Raise ValueError unless `content` is an entry by the rules of its type."""
    version = content.get("v") if isinstance(content, dict) else None
    if type(version) is not int or version != VERSION or set(content) != _FIELDS:
        raise ValueError(f"an entry has v = {VERSION} and exactly {', '.join(sorted(_FIELDS))}")
    rules = ENTRY_TYPES.get(content["type"]) if isinstance(content["type"], str) else None
    if rules is None:
        raise ValueError(f"{content['type']!r} is no entry type")
    kind: str = content["type"]
    if not is_timestamp(content["time"]):
        raise ValueError(f"{kind}: time must look like 2030-01-31T12:00:00Z")
    if not _is_id(content["actor"], "org") or not _is_id(content["key"], "key"):
        raise ValueError(f"{kind}: actor must be an org id and key a key id")
    for part, required in (
        ("objects", rules.objects),
        ("hashes", rules.hashes),
        ("amounts", rules.amounts),
    ):
        _validate_part(kind, part, content[part], required)
    commit = content["commit"]
    if rules.commit != (commit is not None) or (rules.commit and not _is_hash(commit)):
        need = "a salted commitment in hex" if rules.commit else "null"
        raise ValueError(f"{kind}: commit must be {need}")
    _validate_identity(content)


def _validate_part(kind: str, part: str, content: Any, required: tuple[str, ...]) -> None:
    if not isinstance(content, dict) or len(content) > MAX_MEMBERS:
        raise ValueError(f"{kind}: {part} must be an object of at most {MAX_MEMBERS} members")
    missing = [name for name in required if name not in content]
    if missing:
        raise ValueError(f"{kind}: {part} needs {', '.join(missing)}")
    for name, value in content.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"{kind}: {part} has a malformed name")
        if part == "objects" and not _is_object(name, value):
            raise ValueError(f"{kind}: objects.{name} must be an id of its noun")
        if part == "hashes" and not _is_hash(value):
            raise ValueError(f"{kind}: hashes.{name} must be 64 hex digits")
        if part == "amounts" and not _is_amount(name, value):
            raise ValueError(
                f"{kind}: amounts.{name} must be an integer from 0 up (micro-units end in _micro) "
                'or money such as "2.00"'
            )


def _validate_identity(content: Mapping[str, Any]) -> None:
    """Entries about keys must agree with themselves: a key id is the hash of its public key."""
    kind, objects = content["type"], content["objects"]
    if (
        kind in ("org.registered", "key.added", "key.revoked")
        and objects["org"] != (content["actor"])
    ):
        raise ValueError(f"{kind}: an organisation speaks for itself only")
    if kind in ("org.registered", "key.added"):
        key = content["key"] if kind == "org.registered" else objects["key"]
        if key != key_id_of(content["hashes"]["public_key"]):
            raise ValueError(f"{kind}: the key id does not belong to hashes.public_key")


def _is_id(value: Any, noun: Noun) -> bool:
    return isinstance(value, str) and is_id(value, noun)


def _is_object(name: str, value: Any) -> bool:
    noun = OBJECT_NOUNS.get(name)
    if noun is not None:
        return _is_id(value, noun)
    return isinstance(value, str) and value[:3] in _NOUNS and is_id(value, value[:3])  # type: ignore[arg-type]


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and _HASH.fullmatch(value) is not None


def _is_amount(name: str, value: Any) -> bool:
    if type(value) is int:
        return 0 <= value <= MAX_INTEGER
    return not name.endswith("_micro") and isinstance(value, str) and bool(_MONEY.fullmatch(value))
