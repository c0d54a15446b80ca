"""The pages about disputes: who claims what of whom, until when, what is frozen, how it ended."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from api.console.pages import named, shown
from api.console.sessions import Viewer
from clearinghouse.messages.disputes import DisputeView
from clearinghouse.rounds import disputes
from clearinghouse.store.records import Dispute
from clearinghouse.store.store import Tx

_ABOUT = {
    "delivery": "a delivery",
    "duplicate": "copied records",
    "payment": "a payment",
    "score": "a score",
    "test": "a failed test",
}
_ASKS = {
    "refund": "money back to the customer",
    "forfeit": "money back, and the deposit lost",
    "pay": "payment",
}
_HOW = {"open": "now", "answered": "now", "resolved": "done", "expired": "failed"}


def all_disputes(_request: Request, viewer: Viewer, tx: Tx) -> Response:
    """Those that the organisation opened or has to answer; for the operator, all. Newest first."""
    is_operator = viewer.org.role == "clearinghouse"
    found = tx.disputes.all() if is_operator else tx.disputes.concerning(viewer.org.id)
    items = [_item(tx, dispute) for dispute in reversed(found)]
    values = {
        "title": "Disputes",
        "disputes": items,
        "names": named(tx, _parties(item["view"] for item in items)),
        "is_operator": is_operator,
    }
    return shown("disputes.html", viewer, values)


def one_dispute(_request: Request, viewer: Viewer, tx: Tx, dispute_id: str) -> Response:
    """One dispute, for all who take part in its request, and for the operator.

    Raises:
        NotFoundError: There is none that the viewer may see.
    """
    if viewer.org.role == "clearinghouse":
        dispute = tx.disputes.get(dispute_id)
    else:
        dispute = tx.access.dispute(dispute_id, viewer.org.id)
    item = _item(tx, dispute)
    values = {
        "title": f"Dispute {dispute_id}",
        "item": item,
        "view": item["view"],
        "is_party": viewer.org.role != "clearinghouse",
        "names": named(tx, _parties([item["view"]])),
    }
    return shown("dispute.html", viewer, values)


def _parties(views: Iterable[DisputeView]) -> list[str]:
    return [org_id for view in views for org_id in (view.opener_id, view.respondent_id)]


def _item(tx: Tx, dispute: Dispute) -> dict[str, Any]:
    view = disputes.view(tx, dispute)
    return {
        "view": view,
        "about": _ABOUT[view.reason],
        "asks": _ASKS[view.remedy],
        "how": _HOW[view.state],
        "opened": _day(view.opened_s),
        "next": _next(view),
        "currency": tx.requests.get(view.request_id).terms.currency,
    }


def _next(view: DisputeView) -> str:
    """What happens next, and what happens if nothing does."""
    until = _day(view.deadline)
    if view.state == "open":
        return f"to be answered until {until}, or the claim stands"
    if view.state == "answered":
        return f"to be decided until {until}, or the claim fails"
    return ""


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
