"""Freezing an order: its pay and its deposit stay where they are until a dispute is decided.

Recipients whose statistics stand out do not prove anything, so nothing is taken and nothing is paid
on their word: the operator opens a dispute, which freezes the pay when the request is settled, and
the deposit goes into an account of the dispute. A ruling moves both.
"""

from collections.abc import Mapping

from clearinghouse.rounds import disputes
from clearinghouse.rounds.desk import Desk
from clearinghouse.store.records import Request
from clearinghouse.store.store import Tx


def freeze(
    tx: Tx, desk: Desk, request: Request, order_id: str, reason: str, evidence: Mapping[str, str]
) -> None:
    """Open a dispute about an order that stands out, and log that it is frozen.

    Args:
        tx: The transaction.
        desk: Logs it, and opens the dispute.
        request: Of the order.
        order_id: The order.
        reason: In words that name no value of a record.
        evidence: Names to SHA-256 in hex of what supports it.
    """
    order = tx.orders.get(order_id)
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
    disputes.open_dispute(
        tx, desk, request, order_id, "delivery", evidence, remedy="forfeit", words=reason
    )


def frozen_deposit(tx: Tx, request: Request, source_id: str) -> str | None:
    """The account that holds a source's deposit while one of its orders is disputed."""
    own = {order.id for order in tx.orders.of(request.id) if order.source_id == source_id}
    for dispute in tx.disputes.pending(request.id):
        if dispute.subject in own:
            owner = tx.cohorts.source(source_id).org_id
            return f"frozen:{dispute.id}:{disputes.DEPOSIT}:external:{owner}"
    return None
