"""What each page shows: values of the store, made into text, put into a template."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from api.console.sessions import Viewer
from api.paging import PAGE
from clearinghouse.log.entries import parse_entry
from clearinghouse.messages.results import PriceList, RunView
from clearinghouse.money import format_money
from clearinghouse.rounds import pipeline, views
from clearinghouse.store.store import Tx

HERE = Path(__file__).parent
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
}
STEPS = ("match", "clear", "deliver", "score", "settle", "audit")
METRICS = ("auc", "accuracy", "sensitivity", "specificity", "brier")
LAST_ENTRIES = 25

_templates = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def _money(micro: int) -> str:
    """An amount to two decimals, halves away from zero; receipts and the API have it exactly."""
    cents = (abs(micro) + 5_000) // 10_000
    return format_money(cents * 10_000 if micro >= 0 else -cents * 10_000)


def _score(text: str) -> str:
    return f"{float(text):.3f}" if text else "–"


_templates.filters["money"] = _money
_templates.filters["score"] = _score
_templates.filters["number"] = lambda value: f"{value:,}".replace(",", " ")


def style(_request: Request) -> Response:
    """The one style sheet."""
    headers = {"Cache-Control": "max-age=300", "X-Content-Type-Options": "nosniff"}
    return Response((HERE / "style.css").read_bytes(), media_type="text/css", headers=headers)


def sign_in(_request: Request) -> Response:
    """The page that everybody may see."""
    return _page("sign_in.html", {"title": "Sign in", "viewer": None, "here": ""})


def notice(_request: Request, title: str, words: str, status: int) -> Response:
    """Something that did not work, in one sentence."""
    values = {"title": title, "words": words, "viewer": None, "here": ""}
    return _page("notice.html", values, status)


def requests(_request: Request, viewer: Viewer, tx: Tx, now: float) -> Response:
    """The requests the organisation takes part in; for the operator, all."""
    found = [pipeline.show(tx, item, now) for item in tx.access.requests(viewer.org)]
    values = {
        "title": "Requests",
        "requests": [
            {"view": view, "waiting": view.waiting_for or ([view.reason] if view.reason else [])}
            for view in found
        ],
        "names": named(tx, [view.org_id for view in found]),
        "is_operator": viewer.org.role == "clearinghouse",
    }
    return shown("requests.html", viewer, values)


def one_request(_request: Request, viewer: Viewer, tx: Tx, request_id: str, now: float) -> Response:
    """One request: where it stands, what was bought, at which prices, and how models score."""
    record = tx.access.request(request_id, viewer.org.id)
    view, clearing = pipeline.show(tx, record, now), views.clearing(tx, request_id)
    prices = tx.requests.document(request_id, "prices")
    runs = views.runs(tx, record, viewer.org.id, now).runs
    statement = views.statement(tx, record)
    orders = [] if clearing is None else clearing.orders
    sellers = {source_id: tx.cohorts.source(source_id) for source_id in record.terms.source_ids}
    org_ids = [record.org_id, *(source.org_id for source in sellers.values())]
    org_ids += [run.org_id for run in runs] + list(record.terms.developer_ids)
    names = named(tx, org_ids)
    values = {
        "title": f"Request {request_id}",
        "view": view,
        "currency": record.terms.currency,
        "steps": _steps(view.step, view.state, view.step_seconds),
        "orders": orders,
        "sellers": sellers,
        "prices": [] if prices is None else PriceList.model_validate_json(prices).prices,
        "runs": [_run(run) for run in runs],
        "award": statement.award,
        "balances": _balances(statement.balances, names),
        "names": names,
    }
    return shown("request.html", viewer, values)


def sources(_request: Request, viewer: Viewer, tx: Tx, after: str = "") -> Response:
    """Cohorts, page by page; what is shown of one is public among participants."""
    listed = tx.cohorts.sources(after=after, limit=PAGE + 1)
    found = listed[:PAGE]
    spent = {key: item.epsilon_micro for key, item in _summaries(tx, found).items()}
    values = {
        "title": "Sources",
        "sources": found,
        "spent": spent,
        "names": named(tx, [source.org_id for source in found]),
        "next": found[-1].id if len(listed) > PAGE else "",
    }
    return shown("sources.html", viewer, values)


def budgets(_request: Request, viewer: Viewer, tx: Tx, spent: Mapping[str, int]) -> Response:
    """What the organisation's own data has released, by the log."""
    names = {data: tx.cohorts.source(data).name for data in spent if data.startswith("src_")}
    rows = [
        (data, names.get(data, "validation set" if data.startswith("val_") else ""), micro)
        for data, micro in sorted(spent.items())
    ]
    values = {"title": "Budgets", "rows": rows, "total": sum(spent.values())}
    return shown("budgets.html", viewer, values)


def log(_request: Request, viewer: Viewer, tx: Tx, vkey: str) -> Response:
    """The log's signed head and its newest entries."""
    size = tx.log.size()
    start = max(0, size - LAST_ENTRIES)
    entries = [parse_entry(body) for body in tx.log.entries(start, LAST_ENTRIES)]
    values = {
        "title": "Log",
        "size": size,
        "checkpoint": tx.log.stored_checkpoint(),
        "vkey": vkey,
        "entries": list(reversed(list(enumerate(entries, start)))),
        "names": named(tx, [entry.actor for entry in entries]),
    }
    return shown("log.html", viewer, values)


def _steps(step: str, state: str, seconds: Mapping[str, str]) -> list[dict[str, str]]:
    """The six steps with how far each is; intake is done when a request exists."""
    result = []
    position = STEPS.index(step) if step in STEPS else 0
    for index, name in enumerate(STEPS):
        how = "done" if index < position or state == "done" else "waiting"
        if index == position and state != "done":
            how = "now" if state == "running" else "failed"
        took = seconds.get(name, "")
        result.append({"name": name, "how": how, "took": f"{float(took):.1f} s" if took else ""})
    return result


def _balances(balances: Mapping[str, int], names: Mapping[str, str]) -> list[tuple[str, int]]:
    """Accounts in words: `external:` is money outside, `escrow:` what the request holds."""
    result = []
    for account, micro in sorted(balances.items()):
        kind, _, owner = account.partition(":")
        words = {
            "external": f"{names.get(owner, owner)}, paid in",
            "escrow": "held in escrow",
            "platform": "the clearinghouse's fee",
        }
        result.append((words.get(kind, names.get(owner, owner)), micro))
    return result


def _run(run: RunView) -> dict[str, Any]:
    card = run.scorecard
    intervals = card.get("intervals", {})
    return {
        "run": run,
        "metrics": [
            (name, card[name], intervals.get(name, ["", ""])) for name in METRICS if name in card
        ],
        "status": card.get("status", ""),
    }


def _summaries(tx: Tx, found: Any) -> Mapping[str, Any]:
    return tx.cohorts.summaries([source.id for source in found])


def named(tx: Tx, org_ids: list[str]) -> dict[str, str]:
    """Organisations' names by id."""
    return {org_id: tx.parties.get(org_id).name for org_id in set(org_ids)}


def shown(template: str, viewer: Viewer, values: Mapping[str, Any]) -> Response:
    """A page for somebody who is signed in."""
    here = template.removesuffix(".html")
    return _page(template, {"viewer": viewer, "here": here, **values})


def _page(template: str, values: Mapping[str, Any], status: int = 200) -> Response:
    return HTMLResponse(_templates.get_template(template).render(values), status, headers=HEADERS)
