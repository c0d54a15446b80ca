"""What every party does by hand: set up a home, register, look at its budget."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clearinghouse.cli.epsilon import meaning
from clearinghouse.cli.options import Result, columns
from clearinghouse.cli.profile import (
    PROFILE,
    ROLES,
    Profile,
    Session,
    check_id,
    check_server,
    open_keys,
    read_profile,
    write_profile,
)
from clearinghouse.client.keystore import Keystore
from clearinghouse.documents import shown
from clearinghouse.errors import InputError, RefusedError
from clearinghouse.messages.intake import OrgView, RegisterOrg
from clearinghouse.money import MICRO, format_money
from dp.ledger import Entry, Ledger, LedgerError

NEXT = {
    "hospital": "clearinghouse org register, then clearinghouse valset seal TABLE --schema S",
    "provider": "clearinghouse org register, then clearinghouse source preview SOURCE.yaml",
    "developer": "clearinghouse org register, then clearinghouse model preflight MODEL",
    "auditor": "clearinghouse org register",
}

KEY_FILES = {"signing.pem", "age.txt", ".gitignore"}
"""What an `init` that broke off may have left."""

LIMITS = {"hospital": "valset-terms", "provider": "source-terms"}
"""Where a role's lifetime budget is remembered."""


def init(home: Path, role: str, name: str, server: str | None) -> Result:
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


# ---------------------------------------------------------------- the budget


def budget(home: Path) -> Result:
    """What was spent of the lifetime budget of this home's patients, and what that means.

    Raises:
        InputError: The home was not set up.
    """
    profile, keystore = read_profile(home), open_keys(home)
    terms = keystore.recall(LIMITS.get(profile.role, "none"))
    if terms is None:
        words = f"{home}: no table of patients is in use here, so there is no epsilon to spend"
        return {"role": profile.role, "spent": "0.00", "limit": None, "releases": []}, words
    limit = int(terms["limit_micro"])
    try:
        ledger = Ledger.open(keystore.ledger_path, limit_micro=limit)
        spent, _ = ledger.balance()
        entries = ledger.entries()
    except ValueError as error:
        raise InputError(f"{keystore.ledger_path}: {error}") from None
    except (LedgerError, sqlite3.Error) as error:
        raise RefusedError(
            f"{keystore.ledger_path} is damaged ({error}): nothing can be released from this "
            "table any more. Take the newest backup only if nothing was released since"
        ) from None
    releases = [
        {"purpose": item.purpose, "epsilon": format_money(item.cost_micro), "state": item.state}
        for item in entries
    ]
    value: dict[str, Any] = {
        "role": profile.role,
        "spent": format_money(spent),
        "limit": format_money(limit),
        "releases": releases,
        "size_class": terms["size_class"],
    }
    lines = [f"{home}: epsilon {format_money(spent)} of {format_money(limit)} spent"]
    if releases:
        rows = [[str(text) for text in item.values()] for item in releases]
        lines.append(columns([["release", "epsilon", "state"], *rows]))
    lines.append(_promise("all is spent" if spent == limit else "spent so far", spent))
    if spent < limit:
        lines.append(_promise("once all is spent", limit))
    costs = _counts(keystore, entries)
    lines += [count_words(what, cost, int(terms["size_class"])) for what, cost in costs]
    value["guess_at_most"] = f"{meaning(spent).guess:.4f}" if spent else "0.5000"
    return value, "\n".join(line for line in lines if line)


def _counts(keystore: Keystore, entries: Sequence[Entry]) -> list[tuple[str, int]]:
    """Kinds of counts that were released, with the epsilon of each.

    A summary or a target is one table; a score divides its epsilon among several.
    """
    found = {(item.purpose, item.cost_micro) for item in entries if item.purpose != "score"}
    for path in keystore.directory.glob("private/runs/run_*.json"):
        record = keystore.recall(f"private/runs/{path.stem}")
        for table in record["tables"] if record["kind"] == "score" else ():
            name = str(table["name"])
            kind = "subgroup" if name.startswith("group:") else name
            found.add((f"score {kind}", int(table["epsilon_micro"])))
    return sorted(found)


def _promise(when: str, epsilon_micro: int) -> str:
    if epsilon_micro == 0:
        return f"{when}: nothing about any patient has left that anyone could read"
    return (
        f"{when}: someone who knows everything but whether one patient is in the table, and would "
        f"be right 50% of the time by guessing, is right at most "
        f"{100 * meaning(epsilon_micro).guess:.1f}% of the time"
    )


def count_words(what: str, epsilon_micro: int, size_class: int) -> str:
    """What one released count of a kind is worth at a size."""
    found = meaning(epsilon_micro)
    share = 100 * found.half_width / size_class
    return (
        f"a count of the {what}, at epsilon {format_money(epsilon_micro)}: the true one +-"
        f"{found.half_width} in 9 of 10 cases (sd {found.sd:.1f}), "
        f"{share:.1f}% of {size_class} patients"
    )
