"""`log audit --data` and `doctor --data --world`: a server's database against its own log."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from clearinghouse.cli.doctor import Finding
from clearinghouse.cli.options import Result
from clearinghouse.client.keystore import Keystore
from clearinghouse.errors import InputError, VerificationError
from clearinghouse.log.checkpoint import NoteKey, parse_vkey
from clearinghouse.settings import Settings, settings_from_environment
from clearinghouse.world.check import PARTS, check_world

MOST_NAMED = 20


def audit_database(data: Path, log_key: str | None) -> Result:
    """Replay a database's log and compare it with the database, row by row.

    Args:
        data: The server's folder; its settings say where the database is.
        log_key: Verifier key of the log, from elsewhere.

    Raises:
        InputError: There is no database.
        VerificationError: The log does not hold, or the database is not what it says; every
            difference is named by table, key, field and log entry, up to `MOST_NAMED`.
    """
    report = check_world(_settings(data), time.time(), key=_key(log_key))
    wrong = [item for item in report.troubles if item.part in ("log", "database", "receipts")]
    if wrong:
        more = len(wrong) - MOST_NAMED
        named = [str(item) for item in wrong[:MOST_NAMED]] + [f"and {more} more"] * (more > 0)
        raise VerificationError(f"{data} is not what its log says: {'; '.join(named)}")
    words = f"{data}: {report.entries} entries replayed; the database is what the log says"
    return {"verified": True, "entries": report.entries, "differences": []}, words


def look_at_world(data: Path, owners: Sequence[Path] = ()) -> Iterator[Finding]:
    """What `check_world` finds, as findings of `doctor`; with these owners' own ledgers.

    Raises:
        InputError: A home is none, or registered nothing.
    """
    ledgers = dict(_ledger(home) for home in owners)
    report = check_world(_settings(data), time.time(), ledgers=ledgers)
    for part in PARTS:
        troubles = [item for item in report.troubles if item.part == part]
        if not troubles:
            yield Finding(f"world: {part}", "ok", "as the log says")
        for item in troubles[:MOST_NAMED]:
            remedy = "stop the server, keep its folder as evidence, see docs/operate.md, Drills"
            yield Finding(f"world: {part}", "broken", item.words, remedy)
        if len(troubles) > MOST_NAMED:
            words = f"and {len(troubles) - MOST_NAMED} more"
            yield Finding(f"world: {part}", "broken", words, "see clearinghouse log audit --data")


def _ledger(home: Path) -> tuple[str, list[Path | str]]:
    """Whose home it is, and where its ledger is."""
    if not home.is_dir():
        raise InputError(f"{home} is no home of a party")
    keystore = Keystore.open(home)
    known = keystore.recall("org")
    if known is None:
        raise InputError(f"{home} was never registered, so nothing in the log is its")
    return known["org_id"], [keystore.ledger_place]


def _settings(data: Path) -> Settings:
    settings = settings_from_environment(data)
    if not settings.database_url and not (data / "clearinghouse.db").is_file():
        raise InputError(f"{data} holds no database. Give the folder that serve --data names")
    return settings


def _key(text: str | None) -> NoteKey | None:
    return None if text is None else parse_vkey(text.strip())
