"""Step 3, clear: asks are committed, closed, revealed; then one exact flow decides.

A source puts up its deposit with its commitment and loses it if it does not open what it committed:
an ask that was changed, came late or not at all is no ask.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from clearinghouse.asks import opens_ask
from clearinghouse.canonical import canonical_bytes, digest
from clearinghouse.ids import new_id
from clearinghouse.messages.results import ClearingView, OrderView, TargetView
from clearinghouse.messages.tasks import (
    AskCommitAnswer,
    AskCommitTask,
    AskRevealAnswer,
    AskRevealTask,
)
from clearinghouse.money import format_money
from clearinghouse.rounds import deposits, grants, refreeze
from clearinghouse.rounds.desk import Desk
from clearinghouse.rounds.moves import HaltError, Move, Step, all_closed, no_work
from clearinghouse.rounds.terms import reserve_micro
from clearinghouse.store.records import Ask, Order, Request
from clearinghouse.store.store import Tx
from matching.certificate import Cleared, cell_prices, to_json
from matching.clearing import clear, marginal_values
from matching.ladder import price_ladders
from valuation.budget import monopoly_bound

METHOD = "exact integer min-cost flow, a price for every unit that only others' asks decide"


@dataclass(frozen=True, slots=True)
class Market:
    """Frozen inputs and revealed asks (None for a silent source), in the request's order."""

    target: TargetView
    reserve_micro: int
    source_ids: tuple[str, ...]
    asks: tuple[int | None, ...]
    commitments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """A clearing, and the canonical JSON that proves it: see `matching.certificate`."""

    view: ClearingView
    certificate: str


def decide(market: Market) -> ClearingView:
    """The optimal quotas and the price of every unit; exact, whatever the order of sources."""
    return decide_all(market).view


def cleared(market: Market) -> Cleared:
    """Clear the market, with dual prices, marginal values and ladders.

    A silent source has no supply. Ties between equal asks are settled by hashes that nobody chose.
    """
    names = market.source_ids
    capped = np.array([market.target.capped[name] for name in names], np.int64)
    silent = np.array([ask is None for ask in market.asks])
    capped[silent] = 0
    # An ask above the reserve sells nothing whatever it is; taken down to the reserve it cannot
    # drive the arithmetic out of its range and end the request for everybody.
    prices = np.array([min(ask or 0, market.reserve_micro) for ask in market.asks], np.int64)
    plan = clear(
        np.array(market.target.distances_micro, np.int64),
        np.array(market.target.wanted, np.int64),
        capped,
        prices,
        reserve=market.reserve_micro,
        tie_keys=[_tie_key(market.target.frozen_digest, name) for name in names],
    )
    marginals = marginal_values(plan)
    payments = plan.prices * plan.units + marginals
    return Cleared(plan, cell_prices(plan), marginals, payments, price_ladders(plan))


def decide_all(market: Market) -> Decision:
    """The clearing with its certificate; the same market gives the same bytes."""
    found = cleared(market)
    plan, certificate = found.plan, to_json(found)
    thin = monopoly_bound(plan.objective, found.marginals.tolist(), plan.supplies)
    orders = [_order_view(market, found, index, thin[index]) for index in range(len(thin))]
    view = ClearingView(
        objective_micro=plan.objective,
        reserve_micro=market.reserve_micro,
        orders=orders,
        unserved=plan.unserved.tolist(),
        method=METHOD,
        draw_seed=None,
        cell_prices=found.cell_prices.tolist(),
        certificate_sha256=digest(certificate.encode()),
    )
    seed = _draw_seed(market.target.frozen_digest, market.commitments, allocation_digest(view))
    return Decision(view.model_copy(update={"draw_seed": seed}), certificate)


def _order_view(market: Market, found: Cleared, index: int, thin: bool) -> OrderView:
    name, quota = market.source_ids[index], found.plan.quota[index]
    return OrderView(
        order_id=None,
        source_id=name,
        ask_micro=market.asks[index],
        units=int(quota.sum()),
        quota=quota.tolist(),
        marginal_micro=int(found.marginals[index]),
        real=None,
        paid_micro=None,
        status=_status(market, index, sold=bool(quota.any())),
        ladder=[list(rung) for rung in found.ladders[index]],
        monopoly_bound=thin,
        deposit_micro=market.target.deposits_micro.get(name, 0),
    )


def _status(
    market: Market, index: int, *, sold: bool
) -> Literal["sold", "unsold", "silent", "barred"]:
    if market.asks[index] is not None:
        return "sold" if sold else "unsold"
    return "barred" if market.source_ids[index] in market.target.barred else "silent"


def payment_micro(order: OrderView) -> int:
    """What a source earns if every unit it delivers is real: the sum of its ladder.

    It equals its ask x units + its marginal value.
    """
    return sum(price * units for _, price, units in order.ladder)


def allocation_digest(view: ClearingView) -> str:
    """Digest of who sells what at which price, which the draw of rows hangs on."""
    return digest({k: v for k, v in view.decided().items() if k != "draw_seed"})


def _tie_key(frozen: str, source_id: str) -> bytes:
    return hashlib.sha256(f"{frozen}|{source_id}".encode()).digest()


def _draw_seed(frozen: str, commitments: Sequence[str], allocation: str) -> str:
    """Public, and fixed by inputs no single party chose: so nobody picks which rows are drawn."""
    text = "|".join(["clearinghouse draw v1", frozen, *commitments, allocation])
    return hashlib.sha256(text.encode()).hexdigest()


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
    deadline = int(desk.clock.now()) + request.terms.deadlines.ask_s
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
        deposits.hold(tx, request, source_id, put_up.get(source_id, 0))
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
