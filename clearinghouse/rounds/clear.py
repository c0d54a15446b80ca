"""Step 3, clear: asks are committed, closed, revealed; then one exact flow decides.

A source puts up its deposit with its commitment and loses it if it does not open what it committed:
an ask that was changed, came late or not at all is no ask. What is decided is in `decision`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from clearinghouse.asks import opens_ask
from clearinghouse.canonical import canonical_bytes, digest
from clearinghouse.ids import new_id
from clearinghouse.messages.results import OrderView, TargetView
from clearinghouse.messages.tasks import (
    AskCommitAnswer,
    AskCommitTask,
    AskRevealAnswer,
    AskRevealTask,
)
from clearinghouse.money import format_money
from clearinghouse.rounds import deposits, grants, refreeze
from clearinghouse.rounds.decision import (
    Decision,
    Market,
    allocation_digest,
    decide_all,
    payment_micro,
)
from clearinghouse.rounds.desk import Desk
from clearinghouse.rounds.moves import HaltError, Move, Step, all_closed, no_work
from clearinghouse.rounds.terms import reserve_micro
from clearinghouse.store.records import Ask, Order, Request
from clearinghouse.store.store import Tx

# ---------------------------------------------------------------- moves


def _target(tx: Tx, request: Request) -> TargetView:
    body = tx.requests.document(request.id, "target")
    if body is None:
        raise ValueError("clearing begins with frozen inputs")
    return TargetView.model_validate_json(body)


def _not_asked(tx: Tx, request: Request) -> bool | None:
    return None if tx.tasks.of(request.id, "ask.commit") else True


def _ask(tx: Tx, desk: Desk, request: Request, _found: bool, _result: None) -> bool:
    target = _target(tx, request)
    deadline = int(desk.clock.now()) + request.terms.deadlines.ask_s
    willing = grants.admitted(tx, request)
    if not willing:
        raise HaltError("no source is left that grants its records for this purpose")
    admitted = [name for name in willing if name not in target.barred]
    if not admitted:
        raise HaltError("no source is admitted: the labels of all published counts are at odds")
    for source_id in admitted:
        source = tx.cohorts.source(source_id)
        task = AskCommitTask(
            source_id=source_id,
            frozen_digest=target.frozen_digest,
            deposit_micro=target.deposits_micro.get(source_id, 0),
        )
        tx.tasks.create(request.id, source.org_id, task, subject=source_id, deadline=deadline)
    return False


def _closed(tx: Tx, request: Request) -> dict[str, str] | None:
    """The commitments, once nobody can add one."""
    tasks = tx.tasks.of(request.id, "ask.commit")
    if not tasks or not all_closed(tasks) or tx.tasks.of(request.id, "ask.reveal"):
        return None
    found = {
        task.subject: task.answer.commitment
        for task in tasks
        if isinstance(task.answer, AskCommitAnswer)
    }
    if not found:
        raise HaltError("no source committed an ask")
    return found


def _close(tx: Tx, desk: Desk, request: Request, found: dict[str, str], _result: None) -> bool:
    """Log every commitment, take its deposit, then ask those who made one to open it."""
    put_up = _target(tx, request).deposits_micro
    now = int(desk.clock.now())
    deadline = now + request.terms.deadlines.ask_s
    for source_id in sorted(found):
        source = tx.cohorts.source(source_id)
        tx.asks.commit(request.id, source_id, found[source_id])
        desk.record(
            tx,
            "ask.committed",
            tx.parties.get(source.org_id),
            objects={"request": request.id, "source": source_id},
            amounts={"deposit_micro": put_up.get(source_id, 0)},
            commit=found[source_id],
        )
        deposits.hold(tx, request, source_id, put_up.get(source_id, 0), now)
        task = AskRevealTask(source_id=source_id)
        tx.tasks.create(request.id, source.org_id, task, subject=source_id, deadline=deadline)
    return False


@dataclass(frozen=True, slots=True)
class _Revealed:
    market: Market
    opened: Mapping[str, AskRevealAnswer]


def _revealed(tx: Tx, request: Request) -> _Revealed | None:
    tasks = tx.tasks.of(request.id, "ask.reveal")
    if not tasks or not all_closed(tasks):
        return None
    asks = tx.asks.of(request.id)
    opened = {
        task.subject: task.answer
        for task in tasks
        if isinstance(task.answer, AskRevealAnswer) and _opens(asks[task.subject], task.answer)
    }
    names = tuple(request.terms.source_ids)
    market = Market(
        _target(tx, request),
        reserve_micro(request.terms),
        names,
        tuple(opened[name].ask_micro if name in opened else None for name in names),
        tuple(asks[name].commitment for name in sorted(asks)),
    )
    return _Revealed(market, opened)


def _opens(ask: Ask, answer: AskRevealAnswer) -> bool:
    salt = bytes.fromhex(answer.salt)
    return opens_ask(ask.commitment, salt, ask.request_id, ask.source_id, answer.ask_micro)


def _decide(_desk: Desk, _request: Request, found: _Revealed) -> Decision:
    return decide_all(found.market)


def _settle(tx: Tx, desk: Desk, request: Request, found: _Revealed, decision: Decision) -> bool:
    view = decision.view
    for name in sorted(found.opened):
        answer = found.opened[name]
        tx.asks.reveal(request.id, name, answer.ask_micro, answer.salt)
        desk.record(
            tx,
            "ask.revealed",
            tx.parties.get(tx.cohorts.source(name).org_id),
            objects={"request": request.id, "source": name},
            hashes={"salt": answer.salt},
            amounts={"ask": format_money(answer.ask_micro)},
        )
    orders = [_order(tx, request, order) for order in view.orders]
    placed = view.model_copy(update={"orders": orders})
    body = canonical_bytes(placed.decided()).decode()
    tx.requests.keep(request.id, "clearing", body)
    tx.requests.keep(request.id, "certificate", decision.certificate)
    desk.record(
        tx,
        "clearing.decided",
        desk.org,
        objects={"request": request.id},
        hashes={
            "inputs": found.market.target.frozen_digest,
            "allocation": allocation_digest(view),
            "clearing": digest(body.encode()),
            "certificate": digest(decision.certificate.encode()),
        },
    )
    return True


def _order(tx: Tx, request: Request, order: OrderView) -> OrderView:
    """Give a source that sells its order."""
    if not order.units:
        return order
    placed = Order(
        new_id("ord"),
        request.id,
        order.source_id,
        tuple(order.quota),
        order.units,
        payment_micro(order),
        new_id("dlv"),
        None,
        None,
        tuple((place, price, units) for place, price, units in order.ladder),
    )
    tx.orders.add(placed)
    return order.model_copy(update={"order_id": placed.id})


STEP = Step(
    "clear",
    (
        refreeze.MOVE,
        Move("to ask for sealed asks", _not_asked, no_work, _ask),
        Move("to close the asks", _closed, no_work, _close),
        Move("to clear the market", _revealed, _decide, _settle),
    ),
)
