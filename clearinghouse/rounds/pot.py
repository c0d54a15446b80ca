"""The pot: a fixed amount, shared by value among admitted sources, whether they sold or not."""

from collections.abc import Mapping
from dataclasses import replace

from clearinghouse.rounds import pricing
from clearinghouse.rounds.pricing import Closed
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
        owners: By admitted source its owner; who is left out broke its promise and gets nothing.

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
