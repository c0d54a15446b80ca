"""What somebody did not deliver is offered once more, to sources with room left.

The market is cleared again at the same asks without those that did not deliver. Taking a competitor
away never takes a unit from anybody else, so whoever delivered keeps its order, may be ordered
more, and is paid for all of it what it would have been paid had they never been there. So it pays
nobody to ask more in the first clearing and wait for a failure: the outcome is the one of a market
without them, where asking one's cost is best. The customer's budget bounds that market as any
other. Taking over is no obligation: who declines loses nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from clearinghouse.messages.results import ClearingView, OrderView, TargetView
from clearinghouse.rounds import decision
from clearinghouse.store.records import Request
from clearinghouse.store.store import Tx

MOST_SHOWN = 512
"""Tags of a source at most; where more rows are undersold each place shows its part of them."""

Rung = tuple[int, int, int]
Rungs = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class Again:
    """The market without those that did not deliver, and what it changes.

    Attributes:
        cleared: Its clearing.
        more: New orders, beside those that were kept.
        repriced: Kept orders whose ladders changed.
    """

    cleared: ClearingView
    more: tuple[OrderView, ...]
    repriced: tuple[OrderView, ...]


def decide(target: TargetView, clearing: ClearingView, failed: Sequence[str]) -> Again:
    """Clear again without the sources in `failed`, and divide what that gives.

    In each place the dearest prices of a source belong to the order that it kept, the others to the
    new one: together they pay the dearest prices of all for its real records, as one order would.
    """
    orders = clearing.orders
    market = decision.Market(
        target,
        clearing.reserve_micro,
        tuple(order.source_id for order in orders),
        tuple(None if order.source_id in failed else order.ask_micro for order in orders),
        (),
    )
    view = decision.decide(market).model_copy(update={"draw_seed": clearing.draw_seed})
    pairs = [
        (first, again, *_divided(first, again))
        for first, again in zip(orders, view.orders, strict=True)
        if first.source_id not in failed
    ]
    spare = _beyond([first for first, *_ in pairs], [again for _, again, *_ in pairs])
    more = [_order(again, _less(extra, spare)) for _, again, _, extra in pairs]
    repriced = [
        first.model_copy(update={"ladder": kept})
        for first, _, kept, _ in pairs
        if first.units and _prices(kept) != _prices(first.ladder)
    ]
    return Again(view, tuple(order for order in more if order.units), tuple(repriced))


def _divided(first: OrderView, again: OrderView) -> tuple[list[list[int]], list[list[int]]]:
    """The ladder of a kept order, and of what is ordered beyond it, both by rising price."""
    rungs: dict[int, list[tuple[int, int]]] = {}
    for place, price, units in again.ladder:
        rungs.setdefault(place, []).append((price, units))
    kept, extra = [], []
    for place, ordered in enumerate(first.quota):
        left = ordered
        for price, units in sorted(rungs.get(place, ()), reverse=True):
            own = min(units, left)
            left -= own
            kept.append([place, price, own])
            extra.append([place, price, units - own])
        # Of equal asks in one place a larger total may round one down; its price is that ask.
        kept.append([place, first.ask_micro or 0, left])
    return _rising(kept), _rising(extra)


def _rising(ladder: list[list[int]]) -> list[list[int]]:
    return sorted((rung for rung in ladder if rung[2]), key=lambda rung: (rung[1], rung[0]))


def _prices(ladder: Rungs) -> dict[tuple[int, int], int]:
    """Units by place and price, however a ladder lists them."""
    units: dict[tuple[int, int], int] = {}
    for place, price, count in ladder:
        units[place, price] = units.get((place, price), 0) + count
    return units


def _beyond(first: Sequence[OrderView], again: Sequence[OrderView]) -> list[int]:
    """By place the units that kept orders have and the new clearing gives to others."""
    if not first:
        return []
    kept = np.array([order.quota for order in first], np.int64)
    now = np.array([order.quota for order in again], np.int64)
    beyond: list[int] = np.maximum(kept - now, 0).sum(axis=0).tolist()
    return beyond


def _less(ladder: list[list[int]], spare: list[int]) -> list[list[int]]:
    """A ladder without the units that a kept order has already; `spare` counts what is left."""
    result = []
    for place, price, units in ladder:
        taken = min(units, spare[place])
        spare[place] -= taken
        result.append([place, price, units - taken])
    return _rising(result)


def _order(again: OrderView, ladder: list[list[int]]) -> OrderView:
    quota = [0] * len(again.quota)
    for place, _, units in ladder:
        quota[place] += units
    changed = {"order_id": None, "units": sum(quota), "quota": quota, "ladder": ladder}
    return again.model_copy(update=changed)


def raised(before: Rungs, after: Rungs, real: int) -> int:
    """By how much a claim made under the old prices may rise for `real` records; exact if all are.

    The seller has named an amount for its records under the old ladder. Unit by unit, dearest first
    in each place, the new one pays so much more; of `real` records at most the largest rises count.
    """
    rises = []
    for place in sorted({rung[0] for rung in after}):
        old, new = (sorted(_units(ladder, place), reverse=True) for ladder in (before, after))
        rises += [high - low for low, high in zip(old, new, strict=True)]
    return max(0, sum(sorted(rises, reverse=True)[:real]))


def _units(ladder: Rungs, place: int) -> Iterator[int]:
    for at, price, units in ladder:
        if at == place:
            yield from [price] * units


def leave(tx: Tx, request: Request, source_id: str) -> bool:
    """Take a source that has not delivered yet out of a request; its units are offered again.

    Its deposit is lost when the request's deliveries are settled. Whoever calls this marks the
    request as due. What was delivered before stands.

    Returns:
        Whether there was an order to leave.
    """
    found = False
    for order in tx.orders.of(request.id):
        if order.source_id == source_id and order.real is None:
            tx.tasks.void(request.id, [order.id])
            tx.orders.delivered(order.id, None, 0)
            tx.orders.earned(order.id, 0, "undelivered")
            found = True
    return found


def shown_counts(target: TargetView, clearing: ClearingView) -> dict[str, list[int]]:
    """By undersold source how many tags of each place it shows; sources that need not are left out.

    As many as the largest order of the place takes beyond its own, at most what it published: so a
    copy that sells in its victim's place meets the victim's rows. Reads public numbers only.
    """
    opened = [order for order in clearing.orders if order.ask_micro is not None]
    if not opened:
        return {}
    most = np.array([order.quota for order in opened], np.int64).max(axis=0)
    result = {}
    for order in opened:
        supply = np.array(target.supplies[order.source_id], np.int64)
        counts = np.maximum(np.minimum(most, supply) - np.array(order.quota, np.int64), 0)
        total = int(counts.sum())
        if total > MOST_SHOWN:
            counts = counts * MOST_SHOWN // total
        if counts.any():
            result[order.source_id] = counts.tolist()
    return result
