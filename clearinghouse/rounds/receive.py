"""Recipients' findings about deliveries, and what each order earns by them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from clearinghouse import cells
from clearinghouse.canonical import digest
from clearinghouse.messages.deliveries import DeliverAnswer, DeliveryCheck, ReceiveAnswer
from clearinghouse.messages.results import ClearingView, TargetView
from clearinghouse.rounds import deposits, holds, offers, pot
from clearinghouse.rounds.desk import Desk
from clearinghouse.rounds.levels import read_schema
from clearinghouse.rounds.moves import HaltError, all_closed
from clearinghouse.schema import Schema
from clearinghouse.store.records import Order, Request, Summary
from clearinghouse.store.store import Tx
from matching.codebook import cell_map
from matching.shortfall import allowed_shortfall
from valuation.ladders import bound, settled

MICRO = 1_000_000
Rungs = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class Kept:
    """How an order was kept.

    Attributes:
        real: Records that count.
        earned_micro: What they earn.
        ground: Why the deposit is lost; empty if it is not.
        disputed: Why the money is frozen; empty if it is not.
    """

    real: int
    earned_micro: int
    ground: str = ""
    disputed: str = ""


def decide(
    order: Order, proven: int, claim: int, looked: Mapping[str, DeliveryCheck], allowed: int
) -> Kept:
    """What an order earns, and whether its deposit is lost or its money frozen.

    The seller has proven `proven` committed rows and claims an amount. Nothing is paid if those who
    looked all refuse the delivery. Otherwise it is paid its claim, at most what one of them
    confirms and what so many records can earn. One recipient that lies can neither lower what
    another one confirms, nor take a deposit, nor freeze an order: for those all have to agree.

    Args:
        order: With its ladder.
        proven: Rows proven to the clearinghouse.
        claim: What the seller says they earn, by place.
        looked: By recipient what it found; those who did not look are left out.
        allowed: Units that it may fall short by (`matching.shortfall`).
    """
    accepted = [check for check in looked.values() if check.accepted]
    if looked and not accepted:
        return Kept(0, 0, "refused")
    real = min(proven, max((check.real for check in accepted), default=proven))
    told = [check.earned_micro if check.accepted else 0 for check in looked.values()]
    if accepted and all(check.forfeits for check in accepted):
        return Kept(real, 0, "copied")
    earned = settled(order.ladder, real, claim, told)
    if order.units - real > allowed:
        return Kept(real, earned, "short")
    if accepted and all(check.grounds for check in accepted):
        names = sorted({ground for check in accepted for ground in check.grounds})
        return Kept(real, earned, disputed=f"stands out by {', '.join(names)}")
    return Kept(real, earned)


def allowed_of(schema: Schema, target: TargetView, summary: Summary, order: Order) -> int:
    """Units that an order may fall short by before its deposit is lost.

    Counts of a source that publishes coarser than the request were spread over cells by a guess
    that is not its own, and what is offered again follows rows that are sold: neither is held to
    the law of the noise.
    """
    level = tuple(target.level)
    if order.offered > 1 or not set(level) <= set(summary.level):
        return order.units
    book = cells.codebook(schema, level)
    fine = cells.codebook(schema, summary.level)
    inside = np.bincount(cell_map(fine, book), minlength=book.n_cells)
    labels = cells.n_labels(schema)
    by_label = target.label_cost_applied
    entries = np.repeat(inside, labels) if by_label else inside * labels
    return allowed_shortfall(summary.epsilon_micro / MICRO, order.quota, entries.tolist())


# ---------------------------------------------------------------- moves


def received(tx: Tx, request: Request) -> dict[str, ReceiveAnswer] | None:
    """What each developer found, once all have looked or run out of time.

    Raises:
        HaltError: Nothing was delivered, or nothing of it is accepted.
    """
    orders = tx.orders.of(request.id)
    if not orders or any(order.real is None for order in orders):
        return None
    tasks = tx.tasks.of(request.id, "receive")
    if not tasks:
        raise HaltError("no seller delivered a record that it could prove")
    if all(order.earned_micro is not None for order in orders):
        raise HaltError("no delivery was accepted by any developer")
    if not all_closed(tasks):
        return None
    return {task.org_id: task.answer for task in tasks if isinstance(task.answer, ReceiveAnswer)}


def confirm(
    tx: Tx, desk: Desk, request: Request, found: dict[str, ReceiveAnswer], _result: None
) -> bool:
    """Write down what every order earns, then settle the deposits; True if anything was kept."""
    target = TargetView.model_validate_json(tx.requests.document(request.id, "target") or "")
    schema = read_schema(tx.cohorts.schema(tx.cohorts.valset(request.valset_id).schema_id))
    summaries = tx.cohorts.summaries(request.terms.source_ids)
    committed = {name: tx.cohorts.source(name).place for name in request.terms.source_ids}
    total, asked = 0, _asked(tx, request)
    for order in tx.orders.of(request.id):
        if order.earned_micro is not None:
            continue
        looked = _findings(found, order, committed)
        for org_id in sorted(looked):
            _record_received(tx, desk, request, order, org_id, looked[org_id])
        allowed = allowed_of(schema, target, summaries[order.source_id], order)
        claim = _claim(tx, request, order, asked)
        kept = decide(order, order.real or 0, claim, looked, allowed)
        if pot.is_spot_check(order):
            passed = pot.has_passed(order, kept.real, kept.ground or kept.disputed)
            tx.orders.delivered(order.id, order.sealed_blob, kept.real if passed else 0)
            tx.orders.earned(order.id, 0, "")
            continue
        _write(tx, desk, request, order, kept, claim, looked)
        total += kept.real
    deposits.settle(tx, desk, request)
    return total > 0


def _findings(
    found: Mapping[str, ReceiveAnswer], order: Order, committed: Mapping[str, int]
) -> dict[str, DeliveryCheck]:
    """By recipient its finding; copies of sources that did not commit earlier are no copies."""
    result = {}
    for org_id, answer in found.items():
        for check in answer.checks:
            if check.delivery_id == order.delivery_id:
                own = committed[order.source_id]
                fair = all(committed.get(copy.source_id, own) < own for copy in check.copies)
                result[org_id] = (
                    check
                    if fair and (check.copies or not check.forfeits)
                    else check.model_copy(update={"copies": [], "forfeits": False})
                )
    return result


def _claim(tx: Tx, request: Request, order: Order, asked: Mapping[str, Rungs]) -> int:
    """What the seller says it earns, risen with its prices since it was asked; see `offers`."""
    for task in tx.tasks.of(request.id, "deliver", subject=order.id):
        if isinstance(task.answer, DeliverAnswer):
            before = asked.get(order.id, order.ladder)
            rise = offers.raised(before, order.ladder, order.real or 0)
            return task.answer.claim_micro + rise
    return 0


def _asked(tx: Tx, request: Request) -> dict[str, Rungs]:
    """By order the ladder that its seller was shown."""
    body = tx.requests.document(request.id, "clearing") or ""
    orders = ClearingView.model_validate_json(body).orders
    return {order.order_id: order.ladder for order in orders if order.order_id}


def _write(
    tx: Tx,
    desk: Desk,
    request: Request,
    order: Order,
    kept: Kept,
    claim: int,
    looked: Mapping[str, DeliveryCheck],
) -> None:
    tx.orders.delivered(order.id, order.sealed_blob, kept.real)
    tx.orders.earned(order.id, kept.earned_micro, kept.ground)
    desk.record(
        tx,
        "order.settled",
        desk.org,
        objects={
            "request": request.id,
            "order": order.id,
            "delivery": order.delivery_id,
            "source": order.source_id,
        },
        amounts={
            "units": order.units,
            "real": kept.real,
            "claim_micro": claim,
            "bound_micro": bound(order.ladder, kept.real),
            "earned_micro": kept.earned_micro,
            **({kept.ground: 1} if kept.ground else {}),
        },
    )
    if kept.disputed:
        told = {org: check.model_dump(mode="json") for org, check in looked.items()}
        evidence = {"findings": digest(told), "blob": order.sealed_blob or digest(b"")}
        holds.freeze(tx, desk, request, order.id, kept.disputed, evidence)


def _record_received(
    tx: Tx, desk: Desk, request: Request, order: Order, org_id: str, check: DeliveryCheck
) -> None:
    hashes = {"blob": order.sealed_blob or ""}
    if check.copies:
        hashes["copies"] = digest([copy.model_dump(mode="json") for copy in check.copies])
    desk.record(
        tx,
        "delivery.received",
        tx.parties.get(org_id),
        objects={"request": request.id, "delivery": order.delivery_id, "order": order.id},
        hashes=hashes,
        amounts={
            "real": check.real,
            "accepted": int(check.accepted),
            "earned_micro": check.earned_micro,
            "copied": sum(copy.rows for copy in check.copies),
            "forfeits": int(check.forfeits),
            "grounds": len(check.grounds),
        },
    )
