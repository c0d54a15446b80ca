"""A party's home: who it is, which server it talks to, which schema it agreed to, its keys.

One home holds one organisation with one source, one validation set or one model on offer. Whoever
plays several parts has a home for each.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

from clearinghouse.cli.transfers import transfers
from clearinghouse.client.keystore import Keystore
from clearinghouse.client.party import Party
from clearinghouse.client.transport import Transport, make_client
from clearinghouse.clock import SystemClock
from clearinghouse.documents import Fields, load_document, shown
from clearinghouse.errors import AuthenticationError, InputError, NotFoundError, RefusedError
from clearinghouse.ids import Noun, is_id
from clearinghouse.messages.intake import Role
from clearinghouse.schema import Schema, load_schema

PROFILE = "profile.json"
ROLES: tuple[str, ...] = get_args(Role)

ATTEMPTS = 5
"""Tries of one command: about two seconds before it says that the server is away."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Who a home belongs to.

    Attributes:
        name: As others see the organisation.
        role: hospital, provider, developer or auditor.
        server: Scheme, host and port, or "" where none is known yet.
    """

    name: str
    role: Role
    server: str


def check_server(address: str) -> str:
    """The address without a final slash.

    Raises:
        InputError: It is no http or https address.
    """
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
        raise InputError(
            f"--server must be an address such as https://host:8765, not {shown(address)}"
        )
    return address.rstrip("/")


def read_profile(home: Path) -> Profile:
    """Read the profile of a home.

    Raises:
        InputError: The home was never set up, or its profile is malformed.
    """
    path = home / PROFILE
    if not path.is_file():
        raise InputError(
            f"{home} is no party's home yet. Run: clearinghouse init --home {home} "
            "--role ROLE --name NAME --server URL"
        )
    fields = Fields(load_document(path), file=str(path))
    name, role = fields.text("name"), fields.text("role")
    server = fields.text("server") if fields.has("server") else ""
    fields.close()
    if role not in ROLES:
        raise fields.fail("role", f"one of {', '.join(ROLES)}", role, "Correct it")
    return Profile(name, role, check_server(server) if server else "")  # type: ignore[arg-type]


def write_profile(keystore: Keystore, profile: Profile) -> None:
    """Store a profile so that people can read and correct it."""
    body = {"name": profile.name, "role": profile.role}
    if profile.server:
        body["server"] = profile.server
    keystore.write(PROFILE, (json.dumps(body, indent=2) + "\n").encode())


def open_keys(home: Path) -> Keystore:
    """The keys of a home that was set up before.

    Raises:
        InputError: It never was, or other users can read it.
    """
    read_profile(home)
    return Keystore.open(home)


def agreed_schema(home: Path, keystore: Keystore, path: Path | None = None) -> Schema:
    """The schema of a home, agreed to now if a file is given and none was before.

    Raises:
        InputError: No schema is known, or another one was agreed to.
    """
    known = keystore.recall("schema")
    agreed = None if known is None else Schema.from_dict(known, file="schema.json")
    if path is None:
        if agreed is None:
            raise InputError(f"{home} knows no schema yet. Give --schema schema.yaml once")
        return agreed
    given = load_schema(path)
    if agreed is not None and agreed != given:
        raise InputError(
            f"{path}: differs from the schema '{agreed.name}' that {home} works with. "
            "Use another --home for another schema"
        )
    return given


@dataclass(frozen=True, slots=True)
class Session:
    """One party at work: its home, keys and line to the server."""

    home: Path
    profile: Profile
    keystore: Keystore
    transport: Transport

    def org_id(self) -> str:
        """The id this organisation was registered under.

        Raises:
            RefusedError: It was never registered.
        """
        known = self.keystore.recall("org") or self.keystore.recall("organisation")
        if known is None:
            raise RefusedError(
                f"{self.home} is not registered with a server yet. "
                f"Run: clearinghouse org register --home {self.home}"
            )
        return str(known["org_id"])

    def schema(self, path: Path | None = None) -> Schema:
        """The schema of this home, agreed to now if a file is given and none was before.

        Raises:
            InputError: No schema is known, or another one was agreed to.
        """
        return agreed_schema(self.home, self.keystore, path)

    def join(self, schema: Schema) -> None:
        """Register the organisation and its schema, both once."""
        party = Party(self.profile.name, self.profile.role, self.keystore, self.transport, schema)
        party.register()
        self.keystore.remember("schema", schema.to_dict())

    def schema_id(self) -> str | None:
        """The id of this home's schema, if it has one."""
        known = self.keystore.recall("org")
        return None if known is None else str(known["schema_id"])


@contextmanager
def session(
    home: Path,
    server: str | None,
    *,
    role: Role | None = None,
    attempts: int = ATTEMPTS,
    pause: Callable[[float], object] | None = None,
) -> Iterator[Session]:
    """Open a home and a line to its server.

    Args:
        home: The folder.
        server: Overrides the address that the home remembers.
        role: Refuse homes of another role.
        attempts: Tries of each call while the server is away.
        pause: Called with seconds between tries.

    Raises:
        InputError: The home was not set up, is open to others, or is of another role.
    """
    profile = read_profile(home)
    if role is not None and profile.role != role:
        raise InputError(
            f"{home} is the home of a {profile.role}, and this is a command of a {role}. "
            f"Give the {role}'s folder with --home"
        )
    address = check_server(server) if server else profile.server
    if not address:
        raise InputError(f"{home} knows no server. Give --server URL")
    keystore = Keystore.open(home)
    more: dict[str, Any] = {} if pause is None else {"pause": pause}
    with make_client(address) as client, transfers() as shown_bytes:
        transport = Transport(
            address, keystore.signing_key, SystemClock(), client,
            attempts=attempts, progress=shown_bytes, **more,
        )  # fmt: skip
        try:
            yield Session(home, profile, keystore, transport)
        except AuthenticationError as error:
            raise AuthenticationError(
                f"{address} does not accept this call: {error}. "
                "Run clearinghouse org register, or clearinghouse doctor if it was registered"
            ) from None


@contextmanager
def session_if_any(home: Path, server: str | None) -> Iterator[Session | None]:
    """A session for commands that work without one too; None where the home knows no server."""
    is_home = (home / PROFILE).is_file()
    if not is_home or not (server or read_profile(home).server):
        yield None
        return
    with session(home, server, attempts=1) as opened:
        yield opened


def check_id(text: str, noun: Noun, words: str) -> str:
    """The id, if it can be one; what cannot be an id is an unknown one.

    Raises:
        NotFoundError: It has another form.
    """
    if not is_id(text, noun):
        raise NotFoundError(
            f"no {words} {shown(text)}: an id looks like {noun}_ and 20 letters or digits"
        )
    return text


def known_requests(keystore: Keystore) -> list[str]:
    """Ids of the requests this home took part in, the newest last."""
    found: dict[str, float] = {}
    for folder in ("requests", "asks"):
        for path in keystore.directory.glob(f"{folder}/req_*"):
            name = path.name.removesuffix(".json")
            if is_id(name, "req"):
                found[name] = max(found.get(name, 0.0), path.stat().st_mtime)
    return sorted(found, key=lambda name: (found[name], name))


def pick_request(keystore: Keystore, request_id: str | None) -> str:
    """The request a command is about: the given one, or the newest that this home knows.

    Raises:
        NotFoundError: The id cannot be one.
        InputError: None is given and none is known.
    """
    if request_id is not None:
        return check_id(request_id, "req", "request")
    known = known_requests(keystore)
    if not known:
        raise InputError(f"{keystore.directory} knows no request yet. Give its id: req_...")
    return known[-1]
