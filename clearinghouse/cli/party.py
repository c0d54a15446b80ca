"""What every party does by hand: set up a home, register, look an organisation up."""

from pathlib import Path

from clearinghouse.cli.options import Result
from clearinghouse.cli.profile import (
    PROFILE,
    ROLES,
    Profile,
    Session,
    check_id,
    check_server,
    read_profile,
    write_profile,
)
from clearinghouse.client.keystore import Keystore
from clearinghouse.documents import shown
from clearinghouse.errors import InputError
from clearinghouse.messages.intake import OrgView, RegisterOrg
from clearinghouse.money import MICRO

NEXT = {
    "hospital": "clearinghouse org register, then clearinghouse valset seal TABLE --schema S",
    "provider": "clearinghouse org register, then clearinghouse source preview SOURCE.yaml",
    "developer": "clearinghouse org register, then clearinghouse model preflight MODEL",
    "auditor": "clearinghouse org register",
}

KEY_FILES = {"signing.pem", "age.txt", ".gitignore", "ledger.json"}
"""What an `init` that broke off may have left."""


def init(home: Path, role: str, name: str, server: str | None, ledger: str | None = None) -> Result:
    """Make a home with fresh keys, or change what an existing one remembers of its server.

    Raises:
        InputError: The role is unknown, the name is not printable, or the home is another's.
    """
    if role not in ROLES:
        raise InputError(f"--role must be one of {', '.join(ROLES)}, not {shown(role)}")
    if not 1 <= len(name) <= 100 or not name.isprintable() or name != name.strip():
        raise InputError(f"--name must be 1 to 100 printable characters, not {shown(name)}")
    address = check_server(server) if server else ""
    if (home / PROFILE).exists():
        known = read_profile(home)
        if (known.role, known.name) != (role, name):
            raise InputError(
                f"{home} is already the home of {known.role} '{known.name}'. "
                "Give another --home, or its own --role and --name"
            )
        address = address or known.server
    elif home.is_dir() and {path.name for path in home.iterdir()} - KEY_FILES:
        raise InputError(
            f"{home} holds other files, and a home is a folder of its own. Give another --home"
        )
    keystore = Keystore.open(home)
    # keys must not end up in a repository by accident
    keystore.write(".gitignore", b"*\n")
    if ledger is not None:
        _move_ledger(keystore, ledger)
    write_profile(keystore, Profile(name, role, address))  # type: ignore[arg-type]
    key_id = keystore.signing_key.key_id
    value = {"home": str(home), "role": role, "name": name, "server": address, "key_id": key_id}
    words = (
        f"{home}: home of {role} '{name}' with key {key_id}\n"
        f"server: {address or 'none yet; give --server URL'}\n"
        "back this folder up: whoever has it acts for you, and nobody can restore its keys\n"
        f"next: {NEXT[role]}"
    )
    return value, words


def _move_ledger(keystore: Keystore, url: str) -> None:
    """Remember the database of the owner's ledgers; only before anything was spent in this home.

    Raises:
        InputError: It is no PostgreSQL URL, or this home has a ledger already.
    """
    if not url.startswith("postgresql://"):
        raise InputError("--ledger must be a URL such as postgresql://user:password@host/database")
    if keystore.ledger_path.exists() or keystore.recall("ledger") not in (None, {"url": url}):
        raise InputError(
            f"{keystore.directory} has its ledger elsewhere already ({keystore.ledger_words}), and "
            "a budget is not moved. Leave --ledger out, or use another --home"
        )
    keystore.remember("ledger", {"url": url})


def register(session: Session) -> Result:
    """Register the organisation with the server; again gives the same id."""
    keys, profile = session.keystore, session.profile
    message = RegisterOrg(
        name=profile.name,
        role=profile.role,
        public_key=keys.signing_key.verify_key.base64,
        age_recipient=keys.age_recipient,
    )
    key = f"{keys.signing_key.key_id}.register"
    view = session.transport.post("/orgs", message, OrgView, idempotency_key=key)
    keys.remember("organisation", {"org_id": view.id})
    return _shown(view, "registered as ")


def show_org(session: Session, org_id: str | None) -> Result:
    """This organisation, or another one by its id."""
    wanted = session.org_id() if org_id is None else check_id(org_id, "org", "organisation")
    return _shown(session.transport.get(f"/orgs/{wanted}", OrgView), "")


def _shown(view: OrgView, intro: str) -> Result:
    standing = f"standing {view.standing_micro / MICRO:.3f} of 1"
    words = f"{intro}{view.id}: {view.role} '{view.name}', key {view.key_id}, {standing}"
    return view.model_dump(), words
