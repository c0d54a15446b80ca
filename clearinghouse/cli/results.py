"""What a request leaves behind, for whoever took part: runs, models, prices, receipts."""

from decimal import Decimal
from pathlib import Path
from typing import Any

from clearinghouse.cli.audit import check_receipt
from clearinghouse.cli.options import Result, columns
from clearinghouse.cli.profile import Session, check_id, known_requests, pick_request
from clearinghouse.client.listing import list_sources
from clearinghouse.errors import InputError, NotFoundError
from clearinghouse.messages.audits import AuditView
from clearinghouse.messages.intake import RequestView
from clearinghouse.messages.jobs import CancelRun
from clearinghouse.messages.results import PriceList, PriceView, RunList, RunView
from clearinghouse.money import format_money
from clearinghouse.noise_laws import privacy_facts


def _runs(session: Session, request_id: str) -> list[RunView]:
    return session.transport.get(f"/requests/{request_id}/runs", RunList).runs


def list_runs(session: Session, request_id: str | None) -> Result:
    """The blind scorings of a request."""
    session.org_id()
    wanted = pick_request(session.keystore, request_id)
    runs = _runs(session, wanted)
    metric = "mae" if any("mae" in run.scorecard for run in runs) else "auc"
    rows = [["run", "model", "kind", "state", metric, "90%", "receipt"]]
    rows += [
        [
            run.id,
            run.model_name,
            run.model_kind,
            run.state,
            *_metric(run, metric),
            run.receipt or "-",
        ]
        for run in runs
    ]
    value = {"request_id": wanted, "runs": [run.model_dump() for run in runs]}
    return value, columns(rows) if runs else f"{wanted}: no model was submitted yet"


def _metric(run: RunView, name: str) -> tuple[str, str]:
    card = run.scorecard
    if name not in card:
        return "-", "-"
    interval = card.get("intervals", {}).get(name)
    return _three(card[name]), "-" if interval is None else " to ".join(map(_three, interval))


def _three(text: object) -> str:
    return f"{Decimal(str(text)):.3f}"


def _find(session: Session, request_id: str | None, key: str, wanted: str) -> tuple[str, RunView]:
    """The request and run of this id, or model, among those that this home took part in."""
    session.org_id()
    requests = (
        [pick_request(session.keystore, request_id)]
        if request_id is not None
        else known_requests(session.keystore)[::-1]
    )
    for request in requests:
        try:
            found = _runs(session, request)
        except NotFoundError:  # one of another server or another life
            continue
        for run in found:
            if getattr(run, key) == wanted:
                return request, run
    where = f"{len(requests)} requests that this home knows" if request_id is None else request_id
    raise NotFoundError(f"no {wanted} in {where}. Give its request with --request")


def find_run(session: Session, request_id: str | None, run_id: str) -> tuple[str, RunView]:
    """A run of this id, among the requests that this home took part in, and its request.

    Raises:
        NotFoundError: There is none.
    """
    return _find(session, request_id, "id", check_id(run_id, "run", "run"))


def audit_words(audit: AuditView) -> str:
    """A run's audit in one line."""
    why = "drawn for an audit" if audit.drawn else "audit"
    match audit.state:
        case "asked":
            return f"{why}: asked of the model's owner, not answered yet"
        case "overdue":
            return f"{why}: audit overdue"
        case "none":
            return "no audit"
        case "damaged":
            return audit.reason
        case _:
            fault = "" if audit.fault == "none" else f", fault: {audit.fault}"
            return f"{why}: {audit.state} by {audit.auditor}{fault} ({audit.reason})"


def show_run(session: Session, run_id: str, request_id: str | None) -> Result:
    """One blind scoring with its metrics and intervals."""
    _, run = find_run(session, request_id, run_id)
    lines = [
        f"{run.id}: model '{run.model_name}' ({run.model_kind}), {run.state}"
        + (f" ({run.reason})" if run.reason else ""),
    ]
    lines += [f"  waits for {run.waiting_for}"] if run.waiting_for else []
    rows = [["metric", "value", "90% interval"]]
    rows += [[name, *_metric(run, name)] for name in run.scorecard.get("intervals", {})]
    if len(rows) > 1:
        lines += [columns(rows), _spent_words(run)]
    if run.audit.state != "none":
        lines.append(f"  {audit_words(run.audit)}")
    if run.receipt:
        lines.append(f"receipt: clearinghouse receipt show {run.receipt} --out receipt.txt")
    return run.model_dump(), "\n".join(lines)


def _spent_words(run: RunView) -> str:
    """What the run took of the hospital's budget, with its delta where its noise has one."""
    words = f"epsilon {format_money(run.epsilon_micro)} was spent on it"
    facts = privacy_facts([int(table.get("coins", 0)) for table in run.tables], 0)
    return f"{words}, at delta {facts['delta']}" if facts else words


def cancel_run(session: Session, run_id: str, reason: str, request_id: str | None) -> Result:
    """End a blind scoring of this hospital's request.

    Raises:
        RefusedError: It has released its score, or the request is another hospital's.
    """
    request, run = find_run(session, request_id, run_id)
    path = f"/requests/{request}/runs/{run.id}/cancel"
    session.transport.send(path, CancelRun(reason=reason))
    _, run = _find(session, request, "id", run.id)
    return run.model_dump(), f"{run.id}: {run.state} ({run.reason})"


def list_models(session: Session, request_id: str | None) -> Result:
    """The models of a request."""
    session.org_id()
    wanted = pick_request(session.keystore, request_id)
    runs = _runs(session, wanted)
    rows = [["model", "name", "kind", "owner", "sha256"]]
    rows += [
        [run.model_id, run.model_name, run.model_kind, run.org_id, run.model_digest[:16]]
        for run in runs
    ]
    value = {"request_id": wanted, "models": [_model(run) for run in runs]}
    return value, columns(rows) if runs else f"{wanted}: no model was submitted yet"


def _model(run: RunView) -> dict[str, Any]:
    return {
        "id": run.model_id,
        "org_id": run.org_id,
        "name": run.model_name,
        "kind": run.model_kind,
        "sha256": run.model_digest,
        "run_id": run.id,
        "run_state": run.state,
    }


def show_model(session: Session, model_id: str, request_id: str | None) -> Result:
    """One model and its run."""
    _, run = _find(session, request_id, "model_id", check_id(model_id, "mod", "model"))
    words = (
        f"{run.model_id}: '{run.model_name}' ({run.model_kind}) of {run.org_id}\n"
        f"sha256 {run.model_digest}\n"
        f"run: clearinghouse run show {run.id} ({run.state})"
    )
    return _model(run), words


# ---------------------------------------------------------------- prices and receipts


def list_prices(session: Session, request_id: str | None) -> Result:
    """Every source's price with its reasons, the dearest first."""
    session.org_id()
    wanted = pick_request(session.keystore, request_id)
    found = session.transport.get(f"/requests/{wanted}/prices", PriceList)
    sources = list_sources(session.transport, session.schema_id())
    names = {source.id: source.name for source in sources}
    currency = session.transport.get(f"/requests/{wanted}", RequestView).terms.currency
    prices = sorted(found.prices, key=lambda price: (-price.point_micro, price.source_id))
    rows = [["source", "price", "from", "to", "status", "value of the source", "Shapley"]]
    rows += [_price_row(price, names) for price in prices]
    words = (
        f"{columns(rows)}\n"
        f"prices are in {currency} per record; the value of a source is what the market would lose "
        "without it"
    )
    return {"currency": currency, **found.model_dump()}, words


def _price_row(price: PriceView, names: dict[str, str]) -> list[str]:
    return [
        names.get(price.source_id, price.source_id),
        format_money(price.point_micro),
        format_money(price.low_micro),
        format_money(price.high_micro),
        price.status,
        format_money(price.marginal_micro),
        format_money(price.shapley_micro),
    ]


def show_receipt(session: Session, receipt_id: str, out: Path | None) -> Result:
    """A receipt: its text, or a file of it and what was checked.

    Raises:
        InputError: The file cannot be written.
        VerificationError: The receipt does not verify.
    """
    session.org_id()
    wanted = check_id(receipt_id, "rcp", "receipt")
    text = session.transport.get_text(f"/receipts/{wanted}")
    value, words = check_receipt(text.encode(), wanted)
    value = {"id": wanted, **value, "receipt": text}
    if out is None:
        return value, text.rstrip("\n")
    try:
        out.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}. Give another --out") from None
    return {**value, "file": str(out)}, f"{words}\nwritten to {out}"
