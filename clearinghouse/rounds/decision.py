"""What a market decides: pure functions from frozen inputs and asks to orders and prices.

One exact flow picks the records; each unit's price is the ask at which somebody else would sell it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from clearinghouse.canonical import digest
from clearinghouse.messages.results import ClearingView, OrderView, TargetView
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
