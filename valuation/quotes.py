"""Prices per record with their reasons: firm for sources that sold, indicative for the others.

A firm price is the payment of a closed clearing divided by the units sold: zero width, recomputable
by anyone with the log. An indicative price says what a source that sold nothing would have been
paid per record had it asked zero, the others as they are; its interval comes from clearing again
under re-drawn privacy noise. All of it is post-processing of published counts and revealed asks.

The clearing itself is handed in (`clear`, `marginal_values`): this package computes values and
knows no solver.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Draw = tuple[Integers, Integers]

WITHIN = 0.95
"""Part of the redrawn prices that lies within the interval's half-width."""


class Plan(Protocol):
    """What a quote reads of a cleared plan: units, objective, asks and the highest worth."""

    @property
    def units(self) -> Integers:
        """(S,) units sold."""

    @property
    def objective(self) -> int:
        """Sum of gains, micro-money."""

    @property
    def prices(self) -> Integers:
        """(S,) asks, micro-money."""


P = TypeVar("P", bound=Plan)
# `matching.clear` and `matching.marginal_values`, or anything that answers like them.
Clear = Callable[..., P]
MarginalValues = Callable[[P], Integers]


@dataclass(frozen=True, slots=True)
class Market:
    """Frozen inputs and revealed asks of one clearing, int64: see `matching.clear`."""

    distances: Integers
    target: Integers
    supplies: Integers
    prices: Integers
    reserve: Integers


@dataclass(frozen=True, slots=True)
class Components:
    """What a price per record is made of, integer micro-money.

    Attributes:
        reserve: The source's own ask.
        marginal: Its marginal value per record; reserve + marginal is the price.
        dividend: Its share of the fairness pot per record, paid on top of the price.
        holdback: The part of the price that is held until the dispute window closes.
    """

    reserve: int
    marginal: int
    dividend: int
    holdback: int


@dataclass(frozen=True, slots=True)
class Quote:
    """Price per record of one source.

    Attributes:
        source: Its index.
        point: Price per record, micro-money.
        low: Lower end of the 90% interval; equal to `point` if firm.
        high: Upper end; equal to `point` if firm.
        status: Whether the price was paid (firm) or would have been (indicative).
        units: Units sold, or that would have been sold at ask zero.
        components: What the price is made of.
        counterfactual: What the whole match would be worth without the source, micro-money.
        marginal_value: What the source adds to it, micro-money (at its ask, or at ask zero).
    """

    source: int
    point: int
    low: int
    high: int
    status: Literal["firm", "indicative"]
    units: int
    components: Components
    counterfactual: int
    marginal_value: int


def firm(
    plan: Plan,
    marginals: Integers,
    *,
    dividends: Integers | None = None,
    holdback_percent: int = 0,
) -> dict[int, Quote]:
    """Firm prices of all sources that sold.

    Args:
        plan: The cleared plan.
        marginals: (S,) its marginal values.
        dividends: (S,) fixed shares of the fairness pot, micro-money; none by default.
        holdback_percent: 0..100, part of the price held until the dispute window closes.

    Returns:
        Quote by source. The price is (ask x units + marginal value) / units, rounded half up.

    Raises:
        ValueError: If shapes do not fit or the percentage is out of range.
    """
    if marginals.shape != plan.prices.shape or not 0 <= holdback_percent <= 100:
        raise ValueError(
            f"expected {plan.prices.shape} marginal values and a percentage of 0..100, "
            f"got {marginals.shape} and {holdback_percent}"
        )
    quotes = {}
    for source in np.flatnonzero(plan.units).tolist():
        units, ask = int(plan.units[source]), int(plan.prices[source])
        added = _per_record(int(marginals[source]), units)
        dividend = 0 if dividends is None else _per_record(int(dividends[source]), units)
        point = ask + added
        held = _per_record(point * holdback_percent, 100)
        quotes[source] = Quote(
            source=source,
            point=point,
            low=point,
            high=point,
            status="firm",
            units=units,
            components=Components(ask, added, dividend, held),
            counterfactual=plan.objective - int(marginals[source]),
            marginal_value=int(marginals[source]),
        )
    return quotes


def indicative(
    market: Market,
    clear: Clear[P],
    marginal_values: MarginalValues[P],
    sources: Sequence[int],
    draws: Sequence[Draw] = (),
) -> dict[int, Quote]:
    """What each of some sources would be paid per record had it asked zero.

    Costs one clearing per source and draw, so ask for the sources that did not sell only.

    Args:
        market: The cleared market.
        clear: The solver.
        marginal_values: Its marginal values.
        sources: Indices of the sources to quote.
        draws: (supplies, target) under re-drawn privacy noise, shaped like the market's. Without
            any, the interval is all that is possible: from 0 to the highest reserve.

    Returns:
        Quote by source: price 0 if it would not sell even at ask zero. The interval reaches as far
        to either side of the point as 95% of the draws moved it: noise drawn on top of noise pulls
        prices to one side, so quantiles of the draws themselves cover too little (measured on 500
        markets, 19 draws: 79% against 90%).
    """
    point = _at_ask_zero(market, clear, marginal_values, sources)
    spread = [
        _at_ask_zero(
            Market(market.distances, target, supplies, market.prices, market.reserve),
            clear,
            marginal_values,
            sources,
        )
        for supplies, target in draws
    ]
    highest = int(market.reserve.max(initial=0))
    quotes = {}
    for source in sources:
        price, units, added, without = point[source]
        drawn = [draw[source][0] for draw in spread]
        low, high = _interval(price, drawn, highest) if drawn else (0, highest)
        quotes[source] = Quote(
            source=source,
            point=price,
            low=low,
            high=high,
            status="indicative",
            units=units,
            components=Components(0, price, 0, 0),
            counterfactual=without,
            marginal_value=added,
        )
    return quotes


def quote_all(
    market: Market,
    clear: Clear[P],
    marginal_values: MarginalValues[P],
    draws: Sequence[Draw] = (),
    *,
    dividends: Integers | None = None,
    holdback_percent: int = 0,
) -> tuple[Quote, ...]:
    """A quote for every source: firm where it sold, indicative elsewhere; see those functions."""
    plan = _clear(market, clear, market.prices)
    sold = firm(plan, marginal_values(plan), dividends=dividends, holdback_percent=holdback_percent)
    rest = [source for source in range(len(market.prices)) if source not in sold]
    quotes = sold | indicative(market, clear, marginal_values, rest, draws)
    return tuple(quotes[source] for source in range(len(market.prices)))


def gains_from_market(
    distances: ArrayLike,
    target: ArrayLike,
    supplies: ArrayLike,
    prices: ArrayLike,
    reserve: ArrayLike,
) -> tuple[Floats, Floats]:
    """The game of best gains behind a market, for values published as information.

    gains[j, s] = max(0, reserve[j] - least distance from j to a cell where s has supply - ask of s)
    and weights[j] = target[j]. It ignores how much each source has: never pay by it where supplies
    bind (measured: errors of a third against the game with capacities).

    Args:
        distances: (K, K) micro-money.
        target: (K,) units.
        supplies: (S, K) units.
        prices: (S,) micro-money.
        reserve: number or (K,) micro-money.

    Returns:
        gains (K, S) and weights (K,), float64 micro-money and units: the arguments of `semivalue`.

    Raises:
        ValueError: If the shapes do not fit.
    """
    cost = np.asarray(distances, np.float64)
    offered, asks = np.asarray(supplies), np.asarray(prices, np.float64)
    weights = np.asarray(target, np.float64)
    cells = len(weights)
    if cost.shape != (cells, cells) or offered.shape != (len(asks), cells):
        raise ValueError(
            f"expected distances ({cells}, {cells}) and supplies ({len(asks)}, {cells}), "
            f"got {cost.shape} and {offered.shape}"
        )
    worth = np.broadcast_to(np.asarray(reserve, np.float64), (cells,))
    nearest = np.full((cells, len(asks)), np.inf)
    for source in range(len(asks)):
        has = offered[source] > 0
        if has.any():
            nearest[:, source] = cost[:, has].min(axis=1)
    return np.maximum(worth[:, None] - nearest - asks[None, :], 0.0), weights


def _at_ask_zero(
    market: Market, clear: Clear[P], marginal_values: MarginalValues[P], sources: Sequence[int]
) -> dict[int, tuple[int, int, int, int]]:
    """Price per record, units, marginal value and objective without it, at ask zero."""
    base = _clear(market, clear, market.prices)
    present = marginal_values(base)
    result = {}
    for source in sources:
        without = base.objective - int(present[source])
        asks = market.prices.copy()
        asks[source] = 0
        plan = _clear(market, clear, asks)
        units = int(plan.units[source])
        added = plan.objective - without
        result[source] = (_per_record(added, units) if units else 0, units, added, without)
    return result


def _clear(market: Market, clear: Clear[P], prices: Integers) -> P:
    return clear(market.distances, market.target, market.supplies, prices, reserve=market.reserve)


def _per_record(amount: int, units: int) -> int:
    """Amount / units rounded half up, in integers; amounts are never negative."""
    return (2 * amount + units) // (2 * units)


def _interval(point: int, values: Sequence[int], highest: int) -> tuple[int, int]:
    """The point and how far 95% of the values lie from it, cut to what can be."""
    moved = sorted(abs(value - point) for value in values)
    rank = min(len(moved), ceil(WITHIN * (len(moved) + 1)))
    half = moved[rank - 1]
    return max(0, point - half), max(point, min(highest, point + half))
