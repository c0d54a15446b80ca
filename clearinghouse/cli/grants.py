"""Grants by hand: what source.yaml says of them, giving, listing, taking back; leaving for good."""

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from clearinghouse.cli.options import Result, columns, some
from clearinghouse.cli.profile import Session, check_id
from clearinghouse.client.consents import Consents, GrantTerms, record_columns
from clearinghouse.consent import DEVELOPERS, DISCLOSURE, PURPOSES
from clearinghouse.documents import Fields, shown
from clearinghouse.errors import InputError, RefusedError
from clearinghouse.ids import is_id
from clearinghouse.messages.consent import (
    GrantList,
    GrantView,
    WithdrawalView,
)

MOST_DAYS = 3650


# ---------------------------------------------------------------- source.yaml


def read_grants(fields: Fields) -> tuple[GrantTerms, ...]:
    """`grants:` of source.yaml, or the shorter `purposes:`; one for all developers by default.

    Raises:
        InputError: A key is unknown or malformed, or both are given.
    """
    if not fields.has("grants"):
        if not fields.has("purposes"):
            return (GrantTerms(),)
        return tuple(
            GrantTerms(purpose=_purpose(fields, "purposes", text))  # type: ignore[arg-type]
            for text in fields.texts("purposes")
        )
    if fields.has("purposes"):
        raise fields.fail("purposes", "left out beside grants", "both", "Write the grants only")
    found = []
    for place, item in enumerate(fields.items("grants")):
        part = Fields(item, file=fields.file, path=f"{fields.name('grants')}[{place}]")
        found.append(_grant(part))
        part.close()
    return tuple(found)


def _grant(part: Fields) -> GrantTerms:
    recipient = part.text("recipient") if part.has("recipient") else DEVELOPERS
    if recipient != DEVELOPERS and not is_id(recipient, "org"):
        raise part.fail(
            "recipient", f"{DEVELOPERS} or an id (org_...)", recipient, "Take it from org show"
        )
    days = part.integer("days", least=1) if part.has("days") else 365
    if days > MOST_DAYS:
        raise part.fail("days", f"at most {MOST_DAYS}", days, "Write days: 365")
    every = not part.has("columns") or part.raw("columns") == "all"
    return GrantTerms(
        recipient,
        _purpose(part, "purpose", part.text("purpose"))  # type: ignore[arg-type]
        if part.has("purpose")
        else "train models",
        () if every else tuple(sorted(part.texts("columns"))),
        days,
    )


def _purpose(fields: Fields, key: str, text: str) -> str:
    if text not in PURPOSES:
        raise fields.fail(key, f"one of: {', '.join(PURPOSES)}", text, f"Write {PURPOSES[0]}")
    return text


def grant_value(terms: GrantTerms) -> dict[str, Any]:
    """Grant terms as JSON."""
    return {
        "recipient": terms.recipient,
        "purpose": terms.purpose,
        "attributes": list(terms.attributes),
        "days": terms.days,
        "sender": terms.sender,
    }


def grant_words(value: dict[str, Any]) -> str:
    """Grant terms as a sentence."""
    who = (
        "every developer a request admits"
        if value["recipient"] == DEVELOPERS
        else (value["recipient"])
    )
    what = ", ".join(value["attributes"]) or "all columns"
    sent = f", passed on by {value['sender']}," if value.get("sender") else ""
    return f"{who} may '{value['purpose']}' with {what}{sent} for {value['days']} days"


# ---------------------------------------------------------------- give, list, withdraw


def _consents(session: Session) -> tuple[Consents, str]:
    known = session.keystore.recall("source")
    if known is None:
        raise RefusedError(
            f"{session.home} has no registered source. Run: clearinghouse source register "
            "source.yaml"
        )
    consents = Consents(session.keystore, session.transport, record_columns(session.schema()))
    return consents, str(known["source_id"])


def give(
    session: Session,
    recipient: str,
    purpose: str,
    attributes: Sequence[str],
    days: int,
    sender: str | None = None,
) -> Result:
    """Give one more grant of this home's source; with a sender, one to pass its records on.

    Raises:
        InputError: Recipient, purpose or days are none.
        RefusedError: There is no source, or it was withdrawn.
    """
    if recipient != DEVELOPERS:
        check_id(recipient, "org", "organisation")
    if sender is not None:
        check_id(sender, "org", "organisation")
    if purpose not in PURPOSES:
        raise InputError(f"--purpose must be one of: {', '.join(PURPOSES)}; not {shown(purpose)}")
    if not 1 <= days <= MOST_DAYS:
        raise InputError(f"--days must be 1 to {MOST_DAYS}, not {days}")
    consents, source_id = _consents(session)
    consents.check_here(source_id)
    terms = GrantTerms(recipient, purpose, tuple(attributes), days, sender)
    view = consents.give(source_id, terms, secrets.token_hex(16))
    words = f"{view.id}: {grant_words(grant_value(terms))}\n{DISCLOSURE}"
    return {**view.model_dump(), "disclosure": DISCLOSURE}, words


def listing(session: Session) -> Result:
    """Every grant that concerns this home, with all that was done under it."""
    session.org_id()
    found = session.transport.get("/grants", GrantList)
    rows = [["grant", "source", "recipient", "purpose", "columns", "state", "uses"]]
    rows += [_row(view) for view in found.grants]
    lines = [columns(rows) if found.grants else "no grant was given yet: nothing is delivered"]
    uses = [(view.id, use) for view in found.grants for use in view.uses]
    if uses:
        told = [["grant", "use", "recipient", "request", "when"]]
        told += [
            [name, use.act, use.recipient, use.request_id, _date(use.at)] for name, use in uses
        ]
        lines += ["what was done under them:", columns(told)]
    lines += [
        f"refused on {_date(use.at)}: {use.act} for {use.recipient}: {use.reason}"
        for use in found.refused
    ]
    return found.model_dump(), "\n".join(lines)


def _row(view: GrantView) -> list[str]:
    now = datetime.now(UTC).timestamp()
    state = f"until {_date(view.expires)}"
    if view.withdrawn is not None:
        state = f"withdrawn {_date(view.withdrawn)}"
    elif now >= view.expires:
        state = f"expired {_date(view.expires)}"
    return [
        view.id,
        view.source_id,
        view.recipient,
        view.purpose,
        str(len(view.attributes)),
        state,
        str(len(view.uses)),
    ]


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def withdraw(session: Session, grant_id: str) -> Result:
    """End a grant of this home's source.

    Raises:
        NotFoundError: It was not given from here.
    """
    consents, _ = _consents(session)
    view = consents.withdraw(check_id(grant_id, "grt", "grant"))
    return view.model_dump(), f"{grant_id} is withdrawn\n{withdrawal_words(view)}"


def leave(session: Session) -> Result:
    """Take this home's source back for good; the table need not be there any more.

    Raises:
        RefusedError: There is none.
    """
    consents, source_id = _consents(session)
    terms = session.keystore.recall("source-terms") or {}
    view = consents.leave(source_id, int(terms["limit_micro"]))
    words = f"{source_id} is withdrawn, and wiped here\n{withdrawal_words(view)}"
    return view.model_dump(), words


def withdrawal_words(view: WithdrawalView) -> str:
    """What a withdrawal did, as lines."""
    goes = "goes" if len(view.requests) == 1 else "go"
    lines = [f"{some(len(view.requests), 'running request')} {goes} on without it"]
    if view.notices:
        was = "was" if view.notices == 1 else "were"
        lines.append(f"{some(view.notices, 'recipient')} {was} asked to delete what was read")
    if view.models:
        lines.append(f"models trained on it are flagged for good: {', '.join(view.models)}")
    return "\n".join(lines)
