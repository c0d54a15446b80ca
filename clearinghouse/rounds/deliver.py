"""Step 4, deliver: sellers seal exactly their quota to the developers, who open and check it.

What somebody did not deliver is offered once more to sources with room left, at the prices of a
market without who failed. Sources that were undersold show tags of their next rows, so that copies
are found whoever sold them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clearinghouse.canonical import canonical_bytes, digest
from clearinghouse.errors import ClearinghouseError, TryAgainError
from clearinghouse.ids import new_id
from clearinghouse.messages.deliveries import (
    DeliverAnswer,
    DeliverTask,
    DeliveryRef,
    ReceiveTask,
    ShowAnswer,
    ShownRef,
    ShowTask,
)
from clearinghouse.messages.results import ClearingView, OrderList, OrderView, TargetView
from clearinghouse.rounds import grants, offers, pot
from clearinghouse.rounds.decision import payment_micro
from clearinghouse.rounds.desk import Desk
from clearinghouse.rounds.moves import HaltError, Move, Step, all_closed, no_work
from clearinghouse.rounds.queue import each
from clearinghouse.rounds.receive import confirm, received
from clearinghouse.rounds.terms import pot_micro
from clearinghouse.store.records import SPOT_CHECK, Order, Request, Source
from clearinghouse.store.store import Tx

PROOF_BYTES = 5000
"""More than one row's proof can take: 64 hashes in hex, and what JSON adds."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """An order and what its seller answered (None for silence)."""

    order: Order
    source: Source
    answer: DeliverAnswer | None


def _target(tx: Tx, request: Request) -> TargetView:
    return TargetView.model_validate_json(tx.requests.document(request.id, "target") or "")


def _clearing(tx: Tx, request: Request) -> ClearingView:
    return ClearingView.model_validate_json(tx.requests.document(request.id, "clearing") or "")


def _deadline(desk: Desk, request: Request) -> int:
    return int(desk.clock.now()) + request.terms.deadlines.deliver_s


# ---------------------------------------------------------------- sellers


def _not_ordered(tx: Tx, request: Request) -> tuple[Order, ...] | None:
    orders = tx.orders.of(request.id)
    if not orders:
        raise HaltError("no source can serve this request within the tariff")
    if tx.tasks.of(request.id, "deliver") or all(order.real is not None for order in orders):
        return None
    return tuple(order for order in orders if order.real is None)


def _order(tx: Tx, desk: Desk, request: Request, orders: tuple[Order, ...], _result: None) -> bool:
    target, clearing = _target(tx, request), _clearing(tx, request)
    deadline = _deadline(desk, request)
    quotas = {order.source_id: order.quota for order in clearing.orders}
    checks = pot.drawn(target, clearing) if pot_micro(request.terms) else {}
    _place(tx, desk, request, (*orders, *_spot_checks(tx, request, checks)))
    for source_id, counts in offers.shown_counts(target, clearing).items():
        recipients = grants.covered(tx, desk, request, source_id)
        if not recipients:
            continue
        task = ShowTask(
            source_id=source_id,
            level=target.level,
            by_label=target.label_cost_applied,
            skip=checks.get(source_id, quotas[source_id]),
            show=counts,
            draw_seed=clearing.draw_seed or "",
            recipients=recipients,
        )
        owner = tx.cohorts.source(source_id).org_id
        tx.tasks.create(request.id, owner, task, subject=source_id, deadline=deadline)
    return False


def _spot_checks(tx: Tx, request: Request, checks: Mapping[str, list[int]]) -> list[Order]:
    """Orders of a few rows, without a price, of sources that sold nothing."""
    placed = []
    for source_id, counts in checks.items():
        order = Order(
            new_id("ord"),
            request.id,
            source_id,
            tuple(counts),
            sum(counts),
            0,
            new_id("dlv"),
            None,
            None,
            tuple((place, 0, units) for place, units in enumerate(counts) if units),
            offered=SPOT_CHECK,
        )
        tx.orders.add(order)
        placed.append(order)
    return placed


def _place(
    tx: Tx,
    desk: Desk,
    request: Request,
    orders: Sequence[Order],
    before: Mapping[str, Sequence[int]] | None = None,
) -> None:
    """Ask sellers for their orders; `before` is what earlier orders of a source take."""
    target, clearing = _target(tx, request), _clearing(tx, request)
    columns, deadline = list(grants.attributes_of(tx, request)), _deadline(desk, request)
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
            skip=list((before or {}).get(order.source_id, ())),
            spot_check=pot.is_spot_check(order),
            ladder=[list(rung) for rung in order.ladder],
            draw_seed=clearing.draw_seed or "",
            purpose=request.terms.purpose,
            attributes=columns,
            recipients=recipients,
        )
        seller = tx.cohorts.source(order.source_id).org_id
        tx.tasks.create(request.id, seller, task, subject=order.id, deadline=deadline)


def _delivered(tx: Tx, request: Request) -> tuple[Delivered, ...] | None:
    if not all_closed(tx.tasks.of(request.id, "deliver", "show")):
        return None
    tasks = {task.subject: task for task in tx.tasks.of(request.id, "deliver")}
    result = []
    for order in tx.orders.of(request.id):
        if order.real is None and order.id in tasks:
            answer = tasks[order.id].answer
            sent = answer if isinstance(answer, DeliverAnswer) else None
            result.append(Delivered(order, tx.cohorts.source(order.source_id), sent))
    return tuple(result) or None


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
    for item in found:
        real = proven[item.order.id]
        if item.answer is None or real == 0:
            tx.orders.delivered(item.order.id, None, 0)
            # Who takes over from somebody else may decline; who sold has promised.
            tx.orders.earned(item.order.id, 0, "undelivered" if item.order.offered == 1 else "")
            continue
        blob = item.answer.sealed_blob
        if not grants.seal(tx, desk, request, item.order, blob):
            grants.undo(tx, item.order)
            continue
        tx.orders.delivered(item.order.id, blob, real)
        _record_sealed(tx, desk, request, item, item.answer, real)
    return False


def _record_sealed(
    tx: Tx, desk: Desk, request: Request, item: Delivered, answer: DeliverAnswer, real: int
) -> None:
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
        hashes={"blob": answer.sealed_blob, "proofs": answer.proofs_blob},
        amounts={"units": item.order.units, "real": real, "claim_micro": answer.claim_micro},
    )


# ---------------------------------------------------------------- offered again


@dataclass(frozen=True, slots=True)
class _Lack:
    target: TargetView
    clearing: ClearingView
    failed: tuple[str, ...]


def _lacking(tx: Tx, request: Request) -> _Lack | None:
    """Sources that did not deliver, once, before anybody received anything."""
    orders = tx.orders.of(request.id)
    if any(order.real is None for order in orders) or tx.tasks.of(request.id, "receive"):
        return None
    if tx.requests.document(request.id, "offered_again") is not None:
        return None
    failed = tuple(order.source_id for order in orders if order.real == 0 and order.offered == 1)
    return _Lack(_target(tx, request), _clearing(tx, request), failed) if failed else None


def _offer(_desk: Desk, _request: Request, found: _Lack) -> offers.Again:
    return offers.decide(found.target, found.clearing, found.failed)


def _offer_again(tx: Tx, desk: Desk, request: Request, found: _Lack, again: offers.Again) -> bool:
    placed, views = [], []
    for view in again.more:
        order = Order(
            new_id("ord"),
            request.id,
            view.source_id,
            tuple(view.quota),
            view.units,
            payment_micro(view),
            new_id("dlv"),
            None,
            None,
            tuple((place, price, units) for place, price, units in view.ladder),
            offered=2,
        )
        tx.orders.add(order)
        placed.append(order)
        views.append(view.model_copy(update={"order_id": order.id}))
    body = canonical_bytes(OrderList(orders=views, repriced=list(again.repriced)).model_dump())
    cleared = canonical_bytes(again.cleared.decided())
    tx.requests.keep(request.id, "offered_again", body.decode())
    tx.requests.keep(request.id, "cleared_again", cleared.decode())
    desk.record(
        tx,
        "order.offered",
        desk.org,
        objects={"request": request.id},
        hashes={"orders": digest(body), "clearing": digest(cleared)},
        amounts={"units": sum(order.units for order in placed), "orders": len(placed)},
    )
    for view in again.repriced:
        _reprice(tx, desk, request, view)
    before = {order.source_id: order.quota for order in found.clearing.orders}
    before |= pot.drawn(found.target, found.clearing) if pot_micro(request.terms) else {}
    _place(tx, desk, request, placed, before)
    return False


def _reprice(tx: Tx, desk: Desk, request: Request, view: OrderView) -> None:
    """Give a kept order its new prices; its seller's claim rises with them."""
    order = tx.orders.get(view.order_id or "")
    rise = offers.raised(order.ladder, view.ladder, order.real or 0)
    ladder = tuple((place, price, units) for place, price, units in view.ladder)
    tx.orders.reprice(order.id, ladder, payment_micro(view))
    desk.record(
        tx,
        "order.repriced",
        desk.org,
        objects={
            "request": request.id,
            "order": order.id,
            "delivery": order.delivery_id,
            "source": order.source_id,
        },
        amounts={"payment_micro": payment_micro(view), "raised_micro": rise},
    )


# ---------------------------------------------------------------- recipients


def _not_received(tx: Tx, request: Request) -> tuple[Order, ...] | None:
    """What was delivered, once nothing more can come."""
    orders = tx.orders.of(request.id)
    if any(order.real is None for order in orders) or tx.tasks.of(request.id, "receive"):
        return None
    return tuple(order for order in orders if order.sealed_blob is not None) or None


def _ask_receipt(
    tx: Tx, desk: Desk, request: Request, orders: tuple[Order, ...], _result: None
) -> bool:
    target, clearing = _target(tx, request), _clearing(tx, request)
    schema_id = tx.cohorts.valset(request.valset_id).schema_id
    deadline = int(desk.clock.now()) + request.terms.deadlines.model_s
    for org_id in request.terms.developer_ids:
        readable = [
            order for order in orders if tx.grants.sealed_to(order.sealed_blob or "", org_id)
        ]
        if not readable:  # it may read nothing, so it is not asked
            continue
        task = ReceiveTask(
            schema_id=schema_id,
            deliveries=[_reference(tx, target, order) for order in readable],
            draw_seed=clearing.draw_seed or "",
            shown=_shown(tx, desk, request, org_id),
        )
        tx.tasks.create(request.id, org_id, task, subject=request.id, deadline=deadline)
    return False


def _reference(tx: Tx, target: TargetView, order: Order) -> DeliveryRef:
    source = tx.cohorts.source(order.source_id)
    return DeliveryRef(
        delivery_id=order.delivery_id,
        order_id=order.id,
        source_id=source.id,
        sealed_blob=order.sealed_blob or "",
        rows_root=source.rows_root,
        leaves=source.leaves,
        level=target.level,
        by_label=target.label_cost_applied,
        quota=list(order.quota),
        real=order.real or 0,
        ladder=[list(rung) for rung in order.ladder],
        committed=source.place,
    )


def _shown(tx: Tx, desk: Desk, request: Request, org_id: str) -> list[ShownRef]:
    """Tags of rows that a developer may see: those of sources that still grant it records."""
    refs = []
    for task in tx.tasks.of(request.id, "show"):
        if not isinstance(task.answer, ShowAnswer):
            continue
        holders = grants.covered(tx, desk, request, task.subject)
        if org_id not in {item.org_id for item in holders}:
            continue
        tx.blobs.allow(task.answer.shown_blob, org_id)
        source = tx.cohorts.source(task.subject)
        refs.append(
            ShownRef(
                source_id=source.id,
                shown_blob=task.answer.shown_blob,
                rows_root=source.rows_root,
                leaves=source.leaves,
                committed=source.place,
            )
        )
    return refs


STEP = Step(
    "deliver",
    (
        Move("to place the orders", _not_ordered, no_work, _order),
        Move("to check what was delivered", _delivered, _prove, _take),
        Move("to offer again what was not delivered", _lacking, _offer, _offer_again),
        Move("to have the deliveries opened", _not_received, no_work, _ask_receipt),
        Move("to take the developers' findings", received, no_work, confirm),
    ),
)
