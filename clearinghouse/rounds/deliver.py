"""Step 4, deliver: sellers seal exactly their quota to the developers, who open and check it."""

from collections.abc import Mapping
from dataclasses import dataclass

from clearinghouse.errors import ClearinghouseError, TryAgainError
from clearinghouse.messages.results import ClearingView, TargetView
from clearinghouse.messages.tasks import (
    DeliverAnswer,
    DeliverTask,
    DeliveryRef,
    ReceiveAnswer,
    ReceiveTask,
)
from clearinghouse.rounds import grants
from clearinghouse.rounds.desk import Desk
from clearinghouse.rounds.moves import HaltError, Move, Step, all_closed, no_work
from clearinghouse.rounds.queue import each
from clearinghouse.store.records import Order, Request, Source
from clearinghouse.store.store import Tx

PROOF_BYTES = 5000
"""More than one row's proof can take: 64 hashes in hex, and what JSON adds."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """An order and what its seller answered (None for silence)."""

    order: Order
    source: Source
    answer: DeliverAnswer | None


def decide(checks: Mapping[str, Mapping[str, tuple[int, bool]]], proven: int, delivery: str) -> int:
    """How many records of a delivery are paid for.

    The seller has proven `proven` committed rows. If recipients looked at the delivery and none of
    them accepts it, nothing is paid; otherwise the most that one of them found real is, but never
    more than was proven. One recipient that lies cannot lower what another one confirms.

    Args:
        checks: By recipient, by delivery: real records found, and whether it was accepted.
        proven: Rows proven to the clearinghouse.
        delivery: The delivery's id.
    """
    found = [given[delivery] for given in checks.values() if delivery in given]
    if not found:
        return proven
    return min(proven, max((real for real, accepted in found if accepted), default=0))


# ---------------------------------------------------------------- sellers


def _not_ordered(tx: Tx, request: Request) -> tuple[Order, ...] | None:
    orders = tx.orders.of(request.id)
    if not orders:
        raise HaltError("no source can serve this request within the tariff")
    if tx.tasks.of(request.id, "deliver") or all(order.real is not None for order in orders):
        return None
    return tuple(order for order in orders if order.real is None)


def _order(tx: Tx, desk: Desk, request: Request, orders: tuple[Order, ...], _result: None) -> bool:
    target = TargetView.model_validate_json(tx.requests.document(request.id, "target") or "")
    clearing = ClearingView.model_validate_json(tx.requests.document(request.id, "clearing") or "")
    columns = list(grants.attributes_of(tx, request))
    deadline = int(desk.clock.now()) + request.terms.deadlines.deliver_s
    for order in orders:
        recipients = grants.recipients(tx, desk, request, order)
        if not recipients:
            continue
        task = DeliverTask(
            order_id=order.id,
            source_id=order.source_id,
            level=target.level,
            by_label=target.label_cost_applied,
            quota=list(order.quota),
            draw_seed=clearing.draw_seed or "",
            purpose=request.terms.purpose,
            attributes=columns,
            recipients=recipients,
        )
        seller = tx.cohorts.source(order.source_id).org_id
        tx.tasks.create(request.id, seller, task, subject=order.id, deadline=deadline)
    return False


def _delivered(tx: Tx, request: Request) -> tuple[Delivered, ...] | None:
    tasks = {task.subject: task for task in tx.tasks.of(request.id, "deliver")}
    if not tasks or not all_closed(tuple(tasks.values())):
        return None
    orders = tx.orders.of(request.id)
    if all(order.real is not None for order in orders):
        return None
    result = []
    for order in orders:
        if order.real is not None:  # nobody may have it, or its source was withdrawn
            continue
        answer = tasks[order.id].answer
        source = tx.cohorts.source(order.source_id)
        sent = answer if isinstance(answer, DeliverAnswer) else None
        result.append(Delivered(order, source, sent))
    return tuple(result)


def _prove(desk: Desk, _request: Request, found: tuple[Delivered, ...]) -> dict[str, int]:
    """Rows that each seller has proven; a proof that does not hold counts as no delivery."""
    proven = each(found, lambda item: _proven(desk, item))
    return {item.order.id: real for item, real in zip(found, proven, strict=True)}


def _proven(desk: Desk, item: Delivered) -> int:
    if item.answer is None:
        return 0
    try:
        if desk.blobs.size(item.answer.proofs_blob) > PROOF_BYTES * (item.order.units + 1):
            return 0
        told = desk.worker.run(
            "rows.prove",
            {
                "proofs": item.answer.proofs_blob,
                "root": item.source.rows_root,
                "leaves": item.source.leaves,
                "most": item.order.units,
            },
        )
    except TryAgainError:  # ours to repeat, not the seller's fault
        raise
    except ClearinghouseError:
        return 0
    return int(told["real"]) if told["real"] == item.answer.real else 0


def _take(
    tx: Tx, desk: Desk, request: Request, found: tuple[Delivered, ...], proven: dict[str, int]
) -> bool:
    refs = []
    for item in found:
        real = proven[item.order.id]
        if item.answer is None or real == 0:
            tx.orders.delivered(item.order.id, None, 0)
            continue
        blob = item.answer.sealed_blob
        readers = grants.seal(tx, desk, request, item.order, blob)
        if not readers:
            tx.orders.delivered(item.order.id, None, 0)
            continue
        tx.orders.delivered(item.order.id, blob, real)
        _record_sealed(tx, desk, request, item, real)
        refs.append((_reference(tx, request, item, blob, real), readers))
    _ask_receipt(tx, desk, request, refs)
    return False


def _record_sealed(tx: Tx, desk: Desk, request: Request, item: Delivered, real: int) -> None:
    if item.answer is None:
        return
    desk.record(
        tx,
        "delivery.sealed",
        tx.parties.get(item.source.org_id),
        objects={
            "request": request.id,
            "source": item.source.id,
            "delivery": item.order.delivery_id,
            "order": item.order.id,
        },
        hashes={"blob": item.answer.sealed_blob, "proofs": item.answer.proofs_blob},
        amounts={"units": item.order.units, "real": real},
    )


def _reference(
    tx: Tx, request: Request, item: Delivered, sealed_blob: str, real: int
) -> DeliveryRef:
    target = TargetView.model_validate_json(tx.requests.document(request.id, "target") or "")
    return DeliveryRef(
        delivery_id=item.order.delivery_id,
        order_id=item.order.id,
        source_id=item.source.id,
        sealed_blob=sealed_blob,
        rows_root=item.source.rows_root,
        leaves=item.source.leaves,
        level=target.level,
        by_label=target.label_cost_applied,
        quota=list(item.order.quota),
        real=real,
    )


# ---------------------------------------------------------------- recipients


def _ask_receipt(
    tx: Tx, desk: Desk, request: Request, refs: list[tuple[DeliveryRef, list[str]]]
) -> None:
    """Ask every developer to open what it may read; one that may read nothing is not asked."""
    schema_id = tx.cohorts.valset(request.valset_id).schema_id
    deadline = int(desk.clock.now()) + request.terms.deadlines.model_s
    for org_id in request.terms.developer_ids:
        mine = [ref for ref, readers in refs if org_id in readers]
        if mine:
            task = ReceiveTask(schema_id=schema_id, deliveries=mine)
            tx.tasks.create(request.id, org_id, task, subject=request.id, deadline=deadline)


def _received(tx: Tx, request: Request) -> dict[str, ReceiveAnswer] | None:
    """What each developer found, once all have looked or run out of time."""
    orders = tx.orders.of(request.id)
    if not orders or any(order.real is None for order in orders):
        return None
    tasks = tx.tasks.of(request.id, "receive")
    if not tasks:
        raise HaltError("no seller delivered a record that it could prove")
    if not all_closed(tasks):
        return None
    return {task.org_id: task.answer for task in tasks if isinstance(task.answer, ReceiveAnswer)}


def _confirm(
    tx: Tx, desk: Desk, request: Request, found: dict[str, ReceiveAnswer], _result: None
) -> bool:
    checks = {
        org_id: {check.delivery_id: (check.real, check.accepted) for check in answer.checks}
        for org_id, answer in found.items()
    }
    paid = 0
    for order in tx.orders.of(request.id):
        if order.sealed_blob is None:
            continue
        for org_id in sorted(checks):
            if order.delivery_id in checks[org_id]:
                _record_received(tx, desk, request, order, org_id, checks[org_id])
        real = decide(checks, order.real or 0, order.delivery_id)
        tx.orders.delivered(order.id, order.sealed_blob, real)
        paid += real
    if not paid:
        raise HaltError("no delivery was accepted by any developer")
    return True


def _record_received(
    tx: Tx,
    desk: Desk,
    request: Request,
    order: Order,
    org_id: str,
    checks: Mapping[str, tuple[int, bool]],
) -> None:
    real, accepted = checks[order.delivery_id]
    desk.record(
        tx,
        "delivery.received",
        tx.parties.get(org_id),
        objects={"request": request.id, "delivery": order.delivery_id, "order": order.id},
        hashes={"blob": order.sealed_blob or ""},
        amounts={"real": real, "accepted": int(accepted)},
    )


STEP = Step(
    "deliver",
    (
        Move("to place the orders", _not_ordered, no_work, _order),
        Move("to check what was delivered", _delivered, _prove, _take),
        Move("to take the developers' findings", _received, no_work, _confirm),
    ),
)
