"""A request by hand: open it, see where it stands, who is paid what."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from clearinghouse.cli.hospital import TERMS, open_hospital
from clearinghouse.cli.options import Result, columns, some
from clearinghouse.cli.profile import Session, pick_request
from clearinghouse.cli.request_file import read_request_file
from clearinghouse.client.listing import list_sources
from clearinghouse.errors import InputError, NotFoundError, RefusedError, TryAgainError
from clearinghouse.messages.intake import OpenRequest, OrgView, RequestView
from clearinghouse.messages.results import ClearingView, StatementView
from clearinghouse.money import MICRO, format_money

POLL_S = 1.0


def open_request(session: Session, path: Path) -> Result:
    """Open a request with the terms of a file; the same terms again give the same request.

    Raises:
        InputError: The file is wrong, or names no source.
        RefusedError: No validation set is sealed, or the server refuses the terms.
    """
    hospital = open_hospital(session)
    sealed = session.keystore.recall(TERMS) or {}
    run_terms = sealed.get("run_terms")
    found = read_request_file(path, hospital.terms.epsilon_target_micro, run_terms)
    sources = found.source_ids
    if sources is None:
        listed = list_sources(session.transport, hospital.schema_id)
        sources = tuple(source.id for source in listed if source.published and not source.withdrawn)
        if not sources:
            raise InputError(f"{path}: 'sources: all', and no source has published yet. Wait")
    _check_terms(path, {**found.terms, "source_ids": sources, "developer_ids": found.developer_ids})
    request_id = hospital.open_request(found.terms, sources, found.developer_ids)
    view = session.transport.get(f"/requests/{request_id}", RequestView)
    value = {**view.model_dump(), "most_micro": _most(view)}
    terms = view.terms
    runs = terms.most_runs
    only = "" if runs == len(terms.developer_ids) else ", the first that come"
    words = (
        f"{request_id}: open; admitted are {some(len(sources), 'source')} and "
        f"{some(len(terms.developer_ids), 'developer')}\n"
        f"it can cost at most {format_money(_most(view))} {terms.currency} and epsilon "
        f"{format_money(terms.most_epsilon_micro)}: one target and {some(runs, 'run')}{only}\n"
        "next: clearinghouse agent run"
    )
    return value, words


def _check_terms(path: Path, terms: dict[str, Any]) -> None:
    """Sizes that the protocol bounds, said of the file rather than of the message.

    Raises:
        InputError: A term is above its bound.
    """
    try:
        OpenRequest.model_validate_json(json.dumps({**terms, "valset_id": f"val_{'0' * 20}"}))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"]).removesuffix("_micro")
        raise InputError(f"{path}: {place}: {first['msg']}. Correct it there") from None


def _most(view: RequestView) -> int:
    """The budget that is held in escrow."""
    terms = view.terms
    records = terms.records * terms.tariff_micro
    return records + records * terms.fairness_pot_micro // MICRO + terms.purse.amount_micro


def show(session: Session, request_id: str | None) -> Result:
    """Where a request stands and what it waits for; once cleared, who sold what."""
    session.org_id()
    wanted = pick_request(session.keystore, request_id)
    view = session.transport.get(f"/requests/{wanted}", RequestView)
    value: dict[str, Any] = {"request": view.model_dump()}
    lines = [_standing(view)]
    clearing = _maybe(session, f"/requests/{wanted}/clearing", ClearingView)
    if isinstance(clearing, ClearingView):
        value["clearing"] = clearing.model_dump()
        lines.append(_orders(clearing))
    if view.state == "done":
        statement = session.transport.get(f"/requests/{wanted}/statement", StatementView)
        value["statement"] = statement.model_dump()
        lines.append(_payments(session, statement, view.terms.currency))
    return value, "\n".join(lines)


def show_clearing(session: Session, request_id: str | None) -> Result:
    """Who sold what, from the exact clearing; with what was delivered and paid so far.

    Raises:
        NotFoundError: It is not cleared yet.
    """
    session.org_id()
    wanted = pick_request(session.keystore, request_id)
    view = session.transport.get(f"/requests/{wanted}/clearing", ClearingView)
    worth = f"{view.method}; the match is worth {format_money(view.objective_micro)} over its asks"
    return view.model_dump(), f"{worth}\n{_orders(view)}"


def show_award(session: Session, request_id: str | None) -> Result:
    """Who won the purse and why, with every score that was considered.

    Raises:
        NotFoundError: The purse is not decided yet.
    """
    session.org_id()
    wanted = pick_request(session.keystore, request_id)
    award = session.transport.get(f"/requests/{wanted}/statement", StatementView).award
    if not award:
        raise NotFoundError(f"request {wanted} has no award yet: its models are not all scored")
    won = {str(item["run_id"]): int(item["amount_micro"]) for item in award["winners"]}
    rows = [["run", "organisation", str(award["metric"]), "bound", "won"]]
    rows += [
        [
            str(item["run_id"]),
            str(item["org_id"]),
            format_money(int(item["point_micro"])),
            format_money(int(item["bound_micro"])),
            format_money(won.get(str(item["run_id"]), 0)),
        ]
        for item in award["considered"]
    ]
    words = f"{award['kind']} purse: {award['reason']}\n{columns(rows)}"
    for ruling in award.get("ruled", ()):
        for run_id, amount in sorted(ruling["prizes"].items()):
            words += f"\nby {ruling['dispute']}: {format_money(int(amount))} to {run_id}"
    return dict(award), words


def _maybe(session: Session, path: str, reply: type[ClearingView]) -> ClearingView | None:
    try:
        return session.transport.get(path, reply)
    except NotFoundError:  # not cleared yet
        return None


def _standing(view: RequestView) -> str:
    terms = view.terms
    lines = [
        f"{view.id}: step {view.step}, {view.state}" + (f" ({view.reason})" if view.reason else ""),
        f"wants {terms.records} records of {some(len(terms.source_ids), 'source')} at up to "
        f"{format_money(terms.tariff_micro)} {terms.currency} each; {terms.purse.kind} purse "
        f"{format_money(terms.purse.amount_micro)} {terms.currency} for {terms.purse.metric} "
        f">= {format_money(terms.purse.threshold_micro)}",
    ]
    if view.state == "running":
        lines.append(
            f"  {some(view.done_tasks, 'task')} answered, {view.open_tasks} open; "
            f"{some(len(view.jobs), 'job')} of the clearinghouse open"
        )
    lines += [f"  waits for {who}" for who in view.waiting_for]
    lines += [f"  note: {note}" for note in view.notes]
    return "\n".join(lines)


def _orders(view: ClearingView) -> str:
    rows = [["source", "status", "ask", "ordered", "delivered", "paid"]]
    rows += [
        [
            order.source_id,
            order.status,
            "-" if order.ask_micro is None else format_money(order.ask_micro),
            str(order.units),
            "-" if order.real is None else str(order.real),
            "-" if order.paid_micro is None else format_money(order.paid_micro),
        ]
        for order in view.orders
    ]
    unserved = sum(view.unserved)
    note = f"\n{unserved} wanted records are sold by nobody within the tariff" if unserved else ""
    return columns(rows) + note


def _payments(session: Session, view: StatementView, currency: str) -> str:
    """What every account has in the end, organisations by name."""
    rows = [["account", currency]]
    for account, balance in sorted(view.balances.items(), key=lambda item: (item[1], item[0])):
        if not balance:  # the emptied escrow
            continue
        rows.append([_account(session, account), format_money(balance)])
    balanced = "balanced" if view.balanced else "NOT BALANCED"
    winners = len(view.award.get("winners", []))
    purse = (
        f"purse: {some(winners, 'model')} won it"
        if winners
        else f"purse: {view.award.get('reason', 'not decided')}"
    )
    return f"{columns(rows)}\n{purse}\nledger {balanced}, {len(view.postings)} postings"


def _account(session: Session, account: str) -> str:
    kind, _, org_id = account.partition(":")
    if kind == "platform":
        return "fee of the clearinghouse"
    if kind not in ("org", "external"):
        return account
    found = session.transport.get(f"/orgs/{org_id}", OrgView)
    return f"{found.role} '{found.name}'" + (" pays" if kind == "external" else "")


def wait(
    session: Session,
    request_id: str | None,
    tell: Callable[[RequestView], None],
    stop: threading.Event,
    seconds: float | None,
) -> str:
    """Follow a request until it ends; `tell` is called with every change. Returns its id.

    Raises:
        RefusedError: It failed.
        TryAgainError: It has not ended within `seconds`, or it was stopped waiting for.
    """
    wanted = pick_request(session.keystore, request_id)
    last, waited = "", 0.0
    while not stop.is_set():
        view = session.transport.get(f"/requests/{wanted}", RequestView)
        standing = f"{view.step}{view.state}{view.waiting_for}"
        if standing != last:
            tell(view)
            last = standing
        if view.state == "failed":
            raise RefusedError(f"request {wanted} failed: {view.reason}")
        if view.state == "done":
            return wanted
        if seconds is not None and waited >= seconds:
            break
        stop.wait(POLL_S)
        waited += POLL_S
    raise TryAgainError(f"request {wanted} has not ended yet. Wait for it again later")
