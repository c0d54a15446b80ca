"""Disputes, statements and reputation by hand."""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from clearinghouse.cli.options import Result, columns
from clearinghouse.cli.profile import Session, check_id, check_server, pick_request
from clearinghouse.client.transport import Transport, make_client
from clearinghouse.clock import SystemClock
from clearinghouse.documents import shown
from clearinghouse.errors import InputError
from clearinghouse.messages.disputes import (
    AnswerDispute,
    DisputeList,
    DisputeView,
    OpenDispute,
    OrgStatement,
    Outcome,
    Remedy,
    ReputationView,
    ResolveDispute,
)
from clearinghouse.money import MICRO, format_money, parse_money
from clearinghouse.report.statement import account_words, what_words
from clearinghouse.signing import SigningKey

REASONS = ("delivery", "duplicate", "payment", "score")
REMEDIES = get_args(Remedy)
OUTCOMES = get_args(Outcome)
MOST_WORDS = 2000


@dataclass(frozen=True, slots=True)
class Claim:
    """What a dispute is opened with."""

    subject: str
    reason: str
    remedy: str
    words: str
    receipts: tuple[str, ...]
    evidence: tuple[Path, ...]


def _choice(name: str, value: str, choices: Sequence[str]) -> Any:
    if value not in choices:
        raise InputError(f"--{name} must be one of {', '.join(choices)}, not {shown(value)}")
    return value


def _words(text: str) -> str:
    if not 1 <= len(text) <= MOST_WORDS:
        raise InputError(f"--words takes 1 to {MOST_WORDS} characters")
    return text


def _hashes(files: Sequence[Path]) -> dict[str, str]:
    """SHA-256 of each file under its name; the files stay where they are."""
    found = {}
    for path in files:
        if not path.is_file():
            raise InputError(f"{path}: no such file. Give the --evidence that you keep")
        with path.open("rb") as file:
            found[path.name[:100]] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def open_dispute(session: Session, told: Claim, request_id: str | None) -> Result:
    """Open a dispute.

    Raises:
        InputError: A choice is unknown, or an evidence file is not there.
    """
    session.org_id()
    message = OpenDispute(
        request_id=pick_request(session.keystore, request_id),
        subject=told.subject,
        reason=_choice("reason", told.reason, REASONS),
        remedy=_choice("remedy", told.remedy, REMEDIES),
        words=_words(told.words),
        receipts=list(told.receipts),
        evidence=_hashes(told.evidence),
    )
    view = session.transport.post(
        "/disputes", message, DisputeView, idempotency_key=secrets.token_hex(16)
    )
    return view.model_dump(), _standing(view)


def answer(session: Session, dispute_id: str, words: str, evidence: Sequence[Path]) -> Result:
    """Answer a claim."""
    session.org_id()
    wanted = check_id(dispute_id, "dsp", "dispute")
    message = AnswerDispute(words=_words(words), evidence=_hashes(evidence))
    view = session.transport.post(
        f"/disputes/{wanted}/answer",
        message,
        DisputeView,
        idempotency_key=f"{wanted}.answer.{secrets.token_hex(8)}",
    )
    return view.model_dump(), _standing(view)


def list_disputes(session: Session) -> Result:
    """The disputes of this home."""
    session.org_id()
    found = session.transport.get("/disputes", DisputeList).disputes
    rows = [["dispute", "request", "about", "reason", "asks", "state", "frozen"]]
    rows += [
        [
            item.id,
            item.request_id,
            item.subject,
            item.reason,
            item.remedy,
            item.state,
            format_money(item.frozen_micro),
        ]
        for item in found
    ]
    value = {"disputes": [item.model_dump() for item in found]}
    return value, columns(rows) if found else "no dispute that concerns this organisation"


def show(session: Session, dispute_id: str) -> Result:
    """One dispute."""
    session.org_id()
    wanted = check_id(dispute_id, "dsp", "dispute")
    view = session.transport.get(f"/disputes/{wanted}", DisputeView)
    return view.model_dump(), _standing(view)


@dataclass(frozen=True, slots=True)
class Ruling:
    """How a dispute is decided; `winners` as RUN=AMOUNT."""

    outcome: str
    words: str
    reinstate: bool
    winners: tuple[str, ...]


def _prizes(winners: Sequence[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for text in winners:
        run_id, _, amount = text.partition("=")
        if check_id(run_id, "run", "run") in found:
            raise InputError(f"--winner names {run_id} twice")
        found[run_id] = parse_money(amount, name=f"--winner {run_id}=")
    return found


def resolve(data: Path, server: str, dispute_id: str, told: Ruling) -> Result:
    """Decide a dispute with the server's own key.

    Raises:
        InputError: The folder holds no server key, the outcome is unknown, or a winner is no run.
    """
    path = data / "server.key"
    if not path.is_file():
        raise InputError(f"{path}: no such file. Give the server's folder with --data")
    wanted = check_id(dispute_id, "dsp", "dispute")
    message = ResolveDispute(
        outcome=_choice("outcome", told.outcome, OUTCOMES),
        words=_words(told.words),
        prizes=_prizes(told.winners),
        reinstate=told.reinstate,
    )
    address = check_server(server)
    with make_client(address) as client:
        transport = Transport(address, SigningKey.load(path), SystemClock(), client)
        view = transport.post(
            f"/disputes/{wanted}/resolve",
            message,
            DisputeView,
            idempotency_key=f"{wanted}.resolve.{secrets.token_hex(8)}",
        )
    return view.model_dump(), _standing(view)


def _standing(view: DisputeView) -> str:
    lines = [
        f"{view.id}: {view.state}; {view.reason} of {view.subject} in {view.request_id}",
        f"{view.opener_id} asks {view.respondent_id} for: {view.remedy}",
        f"claim: {view.claim.get('words', '')}",
        f"frozen: {format_money(view.frozen_micro)}",
    ]
    if view.answer:
        lines.append(f"answer: {view.answer['words']}")
    if view.finding:
        found = view.finding
        reason = f": {found['reason']}" if found.get("reason") else ""
        fault = f", fault: {found['fault']}" if found.get("fault") else ""
        lines.append(f"replay: {found['verdict']}{fault}{reason}")
    if view.ruling:
        ruling = view.ruling
        lines.append(
            f"ruling: {ruling['outcome']}, the claim {'stands' if ruling['upheld'] else 'fails'}; "
            f"{format_money(ruling['paid_micro'])} paid, "
            f"{format_money(ruling['returned_micro'])} returned: {ruling['words']}"
        )
        for run_id, amount in sorted(ruling.get("prizes", {}).items()):
            lines.append(f"prize: {format_money(amount)} to the developer of {run_id}")
    else:
        who = "the respondent's answer" if view.state == "open" else "the operator's ruling"
        lines.append(f"waits for {who} until {_when(view.deadline)}")
    return "\n".join(lines)


def _when(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC") if seconds else "-"


# ---------------------------------------------------------------- statement and reputation


def statement(session: Session, out: Path | None) -> Result:
    """This organisation's postings, and the printable page if wanted."""
    org_id = session.org_id()
    found = session.transport.get(f"/orgs/{org_id}/statement", OrgStatement)
    rows = [["time", "request", "what", "amount", "balance"]]
    rows += [
        [
            _when(line.at_s),
            line.request_id,
            what_words(line),
            format_money(line.amount_micro),
            format_money(line.balance_micro),
        ]
        for line in found.lines
    ]
    words = columns(rows) if found.lines else "no money has moved yet"
    for account, amount in sorted(found.balances.items()):
        words += f"\n{account_words(account)}: {format_money(amount)} {found.currency}".rstrip()
    for account, amount in sorted(found.frozen.items()):
        words += f"\nheld by dispute {account.split(':')[1]}: {format_money(amount)}"
    value = found.model_dump()
    if out is not None:
        page = session.transport.get_text(f"/orgs/{org_id}/statement.html")
        out.write_text(page, encoding="utf-8")
        value, words = {**value, "file": str(out)}, f"{words}\nwritten to {out}"
    return value, words


def reputation(session: Session, org_id: str | None) -> Result:
    """What attested outcomes say about an organisation."""
    wanted = session.org_id() if org_id is None else check_id(org_id, "org", "organisation")
    found = session.transport.get("/reputation", ReputationView, query=f"org_id={wanted}")
    rows = [["time", "what", "good", "attested by", "request"]]
    rows += [
        [
            _when(item.at_s),
            item.kind,
            "yes" if item.good else "no",
            item.attester_id,
            item.request_id,
        ]
        for item in found.outcomes
    ]
    words = (
        f"{wanted}: {found.status}, standing {found.standing_micro / MICRO:.3f} "
        "(10% quantile; a new name has 0.100)"
    )
    if found.outcomes:
        words += f"\n{columns(rows)}"
    return found.model_dump(), words
