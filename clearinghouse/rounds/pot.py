"""The pot: a fixed amount, shared by value among admitted sources, whether they sold or not.

Only sources share it whose committed rows somebody has looked at. Rows that were sold are looked at
anyway. Who opened an ask and sold nothing opens a few rows of its own, drawn by a public seed: a
spot check, an order without a price. Whoever declines it, or has no such rows, gets no share and
loses nothing else. A share must not hang on having sold: an ask would then be worth lowering.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from clearinghouse.messages.results import ClearingView, TargetView
from clearinghouse.rounds import pricing
from clearinghouse.rounds.pricing import Closed
from clearinghouse.rows import SPOT_ROWS
from clearinghouse.store.records import SPOT_CHECK, Order
from valuation.budget import share_pot
from valuation.quotes import gains_from_market


def decide(closed: Closed, amount: int, owners: Mapping[str, str]) -> dict[str, int]:
    """The pot by quotient Shapley value; no ask is read.

    Asks count as zero here: a value that moved with a source's own ask would tempt it to misreport.
    All sources of one owner count as one, so that more names earn nothing more. Where nobody
    admitted adds anything the pot stays with the customer.

    Args:
        closed: The clearing; a source that opened no ask has no supply in it.
        amount: Fixed before asks, micro-money.
        owners: By source its owner; who is left out broke its promise, or nobody has looked at its
            rows, and gets nothing.

    Returns:
        By source what it gets, above 0; sums to the amount, or is empty.
    """
    if not amount:
        return {}
    inputs = pricing.market(closed)
    free = replace(inputs, prices=inputs.prices * 0)
    gains, weights = gains_from_market(
        free.distances, free.target, free.supplies, free.prices, free.reserve
    )
    names = [order.source_id for order in closed.clearing.orders]
    clusters = sorted({owners.get(name, name) for name in names})
    parts = share_pot(
        amount,
        gains,
        weights,
        [clusters.index(owners.get(name, name)) for name in names],
        [name in owners for name in names],
    )
    return {name: part for name, part in zip(names, parts, strict=True) if part}


def drawn(target: TargetView, clearing: ClearingView) -> dict[str, list[int]]:
    """Rows of each place that sources which sold nothing are asked to open, by source.

    Places are drawn from what the source may sell, without putting back, by a hash of the draw
    seed, which the asks of all have fixed and nobody could choose.
    """
    found = {}
    for order in clearing.orders:
        left = np.array(target.capped[order.source_id], np.int64)
        if order.ask_micro is None or order.units or not left.any():
            continue
        counts = np.zeros_like(left)
        for number in range(min(SPOT_ROWS, int(left.sum()))):
            text = f"clearinghouse spot check v1|{clearing.draw_seed}|{order.source_id}|{number}"
            at = int.from_bytes(hashlib.sha256(text.encode()).digest()) % int(left.sum())
            place = int(np.searchsorted(np.cumsum(left), at, side="right"))
            left[place] -= 1
            counts[place] += 1
        found[order.source_id] = counts.tolist()
    return found


def has_passed(order: Order, real: int, ground: str) -> bool:
    """Whether a spot check was passed: at least half of the rows are there and nobody objects.

    Half, as the noise of a published count may promise a row that is not there.
    """
    return bool(real) and 2 * real >= order.units and not ground


def looked_at(orders: Sequence[Order]) -> set[str]:
    """Sources whose rows were looked at and accepted, and that broke no promise."""
    broken = {order.source_id for order in orders if order.ground}
    return {order.source_id for order in orders if order.real} - broken


def is_spot_check(order: Order) -> bool:
    """Whether an order is a spot check: it earns nothing and costs no deposit."""
    return order.offered == SPOT_CHECK
