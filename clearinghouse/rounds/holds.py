"""Freezing an order: its pay and its deposit stay where they are until a dispute is decided.

Recipients whose statistics stand out do not prove anything, so nothing is taken and nothing is paid
on their word. What is frozen when a request is settled goes to the order's own account, with the
fee that would be due; whoever decides the dispute moves it from there.
"""

from collections.abc import Mapping

from clearinghouse.rounds.desk import Desk
from clearinghouse.store.records import Order, Request
from clearinghouse.store.store import Tx


def account(order_id: str) -> str:
    """Where the pay of a frozen order is from the settlement on."""
    return f"dispute:{order_id}"


def open_dispute(
    tx: Tx, desk: Desk, request: Request, order_id: str, reason: str, evidence: Mapping[str, str]
) -> None:
    """Freeze an order and log it; the first reason stays.

    Args:
        tx: The transaction.
        desk: Logs it.
        request: Of the order.
        order_id: The order.
        reason: In words that name no value of a record.
        evidence: Names to SHA-256 in hex of what supports it.
    """
    order: Order = tx.orders.get(order_id)
    tx.orders.dispute(order_id, reason)
    desk.record(
        tx,
        "order.frozen",
        desk.org,
        objects={
            "request": request.id,
            "order": order_id,
            "delivery": order.delivery_id,
            "source": order.source_id,
        },
        hashes=evidence,
    )
