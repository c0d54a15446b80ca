"""Deposits: put up with an ask, returned when the promise is kept, lost when it is broken.

A deposit is fixed with the frozen inputs, so it hangs on no ask. It is lost by a source that does
not open its ask, does not deliver its order or nothing that recipients accept, falls short by more
than the noise of its summary explains, or sold copies. What is lost goes to a fund that nobody who
takes part can draw from: neither the customer and its developers, who judge deliveries, nor rivals,
who could accuse, nor the operator's fees. The money of a disputed order, its deposit included,
stays where it is until the dispute is decided.
"""

from dataclasses import dataclass
from typing import Literal

from clearinghouse.rounds import disputes, holds
from clearinghouse.rounds.desk import Desk
from clearinghouse.store.records import Order, Request
from clearinghouse.store.store import Tx

Ground = Literal["unopened", "undelivered", "refused", "short", "copied"]
GROUNDS: tuple[Ground, ...] = ("unopened", "undelivered", "refused", "short", "copied")


def account(request_id: str, source_id: str) -> str:
    """Where a source's deposit for a request is."""
    return f"deposit:{request_id}:{source_id}"


@dataclass(frozen=True, slots=True)
class Conduct:
    """What a source did in a request.

    Attributes:
        is_open: Whether asks can still be opened.
        opened: Whether it opened its ask.
        grounds: Why its orders were not kept; empty for each that was, or was not yet due.
        disputed: Whether the money of one of its orders is frozen.
    """

    is_open: bool
    opened: bool
    grounds: tuple[str, ...]
    disputed: bool


def decide(conduct: Conduct) -> tuple[Literal["return", "keep", "lose"], str]:
    """What becomes of a deposit, and on which ground it is lost."""
    broken = [ground for ground in conduct.grounds if ground]
    if broken:
        return "lose", broken[0]
    if conduct.disputed:
        return "keep", ""
    if not conduct.opened and not conduct.is_open:
        return "lose", "unopened"
    return "return", ""


def hold(tx: Tx, request: Request, source_id: str, amount: int, at_s: int) -> None:
    """Take a deposit from outside, at a time in seconds since 1970."""
    if amount:
        outside = f"external:{tx.cohorts.source(source_id).org_id}"
        amounts = {outside: -amount, account(request.id, source_id): amount}
        tx.ledger.transfer(f"{request.id}:deposit:{source_id}", request.id, amounts, at_s=at_s)


def settle(tx: Tx, desk: Desk, request: Request) -> None:
    """Return or take every deposit that is still held and not frozen; again changes nothing."""
    asks, is_open = tx.asks.of(request.id), tx.requests.document(request.id, "clearing") is None
    orders: dict[str, list[Order]] = {}
    for order in tx.orders.of(request.id):
        orders.setdefault(order.source_id, []).append(order)
    for source_id in sorted(asks):
        if not tx.ledger.balance(account(request.id, source_id)):
            continue
        own = orders.get(source_id, [])
        fate, ground = decide(
            Conduct(
                is_open,
                asks[source_id].ask_micro is not None,
                tuple(order.ground for order in own),
                any(order.disputed for order in own),
            )
        )
        if fate == "keep":
            _freeze(tx, request, source_id, int(desk.clock.now()))
        else:
            release(tx, desk, request, source_id, ground)


def _freeze(tx: Tx, request: Request, source_id: str, at_s: int) -> None:
    """Move a deposit to the dispute that decides about it."""
    kept, held = holds.frozen_deposit(tx, request, source_id), account(request.id, source_id)
    amount = tx.ledger.balance(held)
    if kept is not None and amount:
        name = f"{request.id}:freeze:deposit:{source_id}"
        tx.ledger.transfer(name, request.id, {held: -amount, kept: amount}, at_s=at_s)


def release(tx: Tx, desk: Desk, request: Request, source_id: str, ground: str = "") -> None:
    """End one deposit: back to its owner, or to the fund if there is a ground. Logs it."""
    held = tx.ledger.balance(account(request.id, source_id))
    if not held:
        return
    to = disputes.fund(desk.org.id) if ground else f"external:{tx.cohorts.source(source_id).org_id}"
    what = "forfeit" if ground else "return"
    amounts = {account(request.id, source_id): -held, to: held}
    name, at_s = f"{request.id}:{what}:{source_id}", int(desk.clock.now())
    tx.ledger.transfer(name, request.id, amounts, at_s=at_s)
    desk.record(
        tx,
        "deposit.settled",
        desk.org,
        objects={"request": request.id, "source": source_id},
        amounts={
            "returned_micro": 0 if ground else held,
            "forfeited_micro": held if ground else 0,
            **({ground: 1} if ground else {}),
        },
    )
