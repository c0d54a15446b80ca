"""Onward transfer by hand: pass records on, and read what was passed on to this home."""

import csv
from collections.abc import Sequence
from pathlib import Path

from clearinghouse.cli.options import Result, columns
from clearinghouse.cli.profile import Session, check_id
from clearinghouse.client import onward
from clearinghouse.client.sealed_body import Entry
from clearinghouse.consent import PURPOSES
from clearinghouse.documents import shown
from clearinghouse.errors import InputError
from clearinghouse.messages.consent import OnwardList, OnwardView


def pass_records(
    session: Session, order_id: str, request_id: str, recipient: str, purpose: str
) -> Result:
    """Pass an order's records on to another developer.

    Raises:
        InputError: The purpose is none of the list.
        NotFoundError: The order was not opened here.
        NoGrantError: No grant covers it; nothing was sent.
    """
    if purpose not in PURPOSES:
        raise InputError(f"--purpose must be one of: {', '.join(PURPOSES)}; not {shown(purpose)}")
    session.org_id()
    view = onward.pass_on(
        session.keystore,
        session.transport,
        request_id=check_id(request_id, "req", "request"),
        order_id=check_id(order_id, "ord", "order"),
        recipient=check_id(recipient, "org", "organisation"),
        purpose=purpose,
    )
    words = f"records of {view.source_id} are passed on to {recipient} under {view.grant_id}"
    return view.model_dump(), words


def passed(session: Session, folder: Path | None) -> Result:
    """List what was passed on to this home and by it; with a folder, read what came into it.

    Raises:
        NoGrantError: A grant does not cover it any more.
    """
    session.org_id()
    found = session.transport.get("/onward", OnwardList)
    lines = [_table(found)]
    files = []
    for view in found.received:
        if folder is None:
            break
        body = onward.open_passed(session.keystore, session.transport, view)
        path = folder / f"{view.order_id}.csv"
        rows = _write(path, [entry for entry in body.entries if entry.weight])
        files.append({"order_id": view.order_id, "records": rows, "file": str(path)})
        lines.append(f"{path}: {rows} records of {view.source_id}")
    return {**found.model_dump(), "files": files}, "\n".join(lines)


def _write(path: Path, entries: Sequence[Entry]) -> int:
    """Records as CSV, for this home's owner only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = sorted(entries[0].record) if entries else []
    with path.open("w", newline="", encoding="utf-8") as file:
        path.chmod(0o600)
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(entry.record for entry in entries)
    return len(entries)


def _table(found: OnwardList) -> str:
    rows = [["order", "source", "from", "to", "grant"]]
    rows += [_row(view) for view in (*found.received, *found.sent)]
    return columns(rows) if len(rows) > 1 else "nothing was passed on to this home, or by it"


def _row(view: OnwardView) -> list[str]:
    return [view.order_id, view.source_id, view.sender, view.recipient, str(view.grant_id)]
