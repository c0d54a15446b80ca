"""What somebody did not deliver is offered once more, to sources with room left, at their asks.

The orders that were kept stand with their prices. Of the wanted records those that the kept orders
do not serve are cleared again, over what the other sources may still sell. Taking over is not an
obligation: who declines loses nothing.
"""

from collections.abc import Sequence

import numpy as np

from clearinghouse.messages.results import ClearingView, OrderView, TargetView
from clearinghouse.store.records import Request
from clearinghouse.store.store import Tx
from matching.clearing import clear
from matching.inputs import LARGEST, Integers

MOST_SHOWN = 512
"""Tags of a source at most; where more rows are undersold each place shows its part of them."""


def decide(
    target: TargetView, clearing: ClearingView, failed: Sequence[str]
) -> tuple[OrderView, ...]:
    """Orders for the units that sources in `failed` did not deliver; possibly none.

    Every unit gains: worth less distance less ask is above zero. It is paid its ask, so all units
    together still cost at most the reserve each, and no more units are ordered than are wanted.
    """
    orders = clearing.orders
    quota = np.array([order.quota for order in orders], np.int64)
    out = np.array([order.source_id in failed or order.ask_micro is None for order in orders])
    kept = quota.copy()
    kept[[order.source_id in failed for order in orders]] = 0
    missing = _missing(target, kept)
    if missing is None:
        return ()
    capped = np.array([target.capped[order.source_id] for order in orders], np.int64)
    room = np.maximum(capped - quota, 0)
    room[out] = 0
    reserve = clearing.reserve_micro
    plan = clear(
        np.array(target.distances_micro, np.int64),
        missing,
        room,
        np.array([min(order.ask_micro or 0, reserve) for order in orders], np.int64),
        reserve=reserve,
        tie_keys=list(range(len(orders))),
    )
    return tuple(
        _at_ask(order, row) for order, row in zip(orders, plan.quota, strict=True) if row.any()
    )


def _missing(target: TargetView, kept: Integers) -> Integers | None:
    """Wanted units (places,) that the kept orders do not serve; None where numbers are too large.

    All kept units are placed where they cost least. The worth of a unit is set so high that leaving
    one out never gains: a path through all places gains less than that by better distances.
    """
    distances = np.array(target.distances_micro, np.int64)
    wanted = np.array(target.wanted, np.int64)
    worth = (len(wanted) + 2) * (int(distances.max(initial=0)) + 1)
    if worth > LARGEST or worth * int(wanted.sum()) >= 1 << 60:
        return None
    plan = clear(distances, wanted, kept, np.zeros(len(kept), np.int64), reserve=worth)
    return plan.unserved if plan.units.sum() == kept.sum() else None


def _at_ask(order: OrderView, quota: Integers) -> OrderView:
    ask = order.ask_micro or 0
    return order.model_copy(
        update={
            "order_id": None,
            "units": int(quota.sum()),
            "quota": quota.tolist(),
            "marginal_micro": 0,
            "status": "sold",
            "ladder": [
                [int(place), ask, int(quota[place])] for place in np.flatnonzero(quota).tolist()
            ],
        }
    )


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
