"""Deliveries that wait for a recipient, and those that were taken back before it opened them."""

from dataclasses import dataclass

from clearinghouse.client.transport import Transport
from clearinghouse.messages.deliveries import DeliveryRef, ReceiveTask
from clearinghouse.messages.results import ClearingView
from clearinghouse.messages.tasks import TaskList


@dataclass(frozen=True, slots=True)
class Waiting:
    """What one request has for this recipient.

    Attributes:
        request_id: Which request.
        there: Deliveries that can be opened.
        withdrawn: Deliveries that were announced and whose orders have come to nothing since:
            their source or its grant was withdrawn, and the sealed bodies are erased.
    """

    request_id: str
    there: tuple[DeliveryRef, ...]
    withdrawn: tuple[DeliveryRef, ...]


def waiting_deliveries(transport: Transport) -> list[Waiting]:
    """Ask the server for both, request by request; nothing is opened."""
    found = []
    for view in transport.get("/agent/tasks", TaskList).tasks:
        if not isinstance(view.task, ReceiveTask):
            continue
        clearing = transport.get(f"/requests/{view.request_id}/clearing", ClearingView)
        void = {
            order.order_id
            for order in (*clearing.orders, *clearing.offered_again)
            if order.real == 0
        }
        there = tuple(ref for ref in view.task.deliveries if ref.order_id not in void)
        gone = tuple(ref for ref in view.task.deliveries if ref.order_id in void and ref.real)
        found.append(Waiting(view.request_id, there, gone))
    return found
