"""Every source's price with its reasons: post-processing of one closed clearing.

A source that sold has a firm price: what it is paid per record. One that sold nothing learns what
it would have been paid had it asked zero, with an interval from clearing again under re-drawn
privacy noise. Values are published as information; nobody is paid by them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from clearinghouse.messages.intake import OpenRequest
from clearinghouse.messages.results import ClearingView, PriceList, PriceView, TargetView
from clearinghouse.money import MICRO
from clearinghouse.rounds.frozen import freeze
from clearinghouse.rounds.terms import reserve_micro
from clearinghouse.schema import Schema
from clearinghouse.store.records import Summary
from matching.clearing import clear, marginal_values
from valuation.quotes import Draw, Market, Quote, firm, gains_from_market, indicative
from valuation.semivalues import semivalue

VERSION = "ladder 2"
DRAWS = 19
"""So many that the widest of them bounds 95%."""
MOST_DRAWN = 32
"""Above so many unsold sources intervals are left at all that is possible; they cost clearings."""

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Closed:
    """A closed clearing with the releases behind it, and what became of the pot."""

    request_id: str
    terms: OpenRequest
    terms_digest: str
    schema: Schema
    target: TargetView
    clearing: ClearingView
    summaries: Mapping[str, Summary]
    commit_hash: str
    pot: Mapping[str, int] = field(default_factory=dict)
    """By source its share of the pot."""


def market(closed: Closed) -> Market:
    """The clearing's inputs as arrays; a silent source has no supply and asks nothing."""
    orders = closed.clearing.orders
    supplies = np.array([closed.target.capped[order.source_id] for order in orders], np.int64)
    supplies[[order.ask_micro is None for order in orders]] = 0
    wanted = np.array(closed.target.wanted, np.int64)
    reserve = reserve_micro(closed.terms)
    return Market(
        distances=np.array(closed.target.distances_micro, np.int64),
        target=wanted,
        supplies=supplies,
        prices=np.array([min(order.ask_micro or 0, reserve) for order in orders], np.int64),
        reserve=np.full(len(wanted), reserve, np.int64),
    )


def shapley(inputs: Market, *, kind: str = "shapley") -> Integers:
    """Each source's value in the game of best gains, in whole micro-money."""
    gains, weights = gains_from_market(
        inputs.distances, inputs.target, inputs.supplies, inputs.prices, inputs.reserve
    )
    return np.rint(semivalue(gains, weights, kind)).astype(np.int64)


def decide(closed: Closed) -> PriceList:
    """A price for every source, in the request's order. The same inputs give the same bytes."""
    inputs = market(closed)
    orders = closed.clearing.orders
    quotes = _firm(closed) | _indicative(closed, inputs)
    values, alone = shapley(inputs), shapley(inputs, kind="loo")
    return PriceList(
        request_id=closed.request_id,
        prices=[
            _price(closed, quotes[index], int(values[index]), int(alone[index]))
            for index in range(len(orders))
        ],
    )


def _price(closed: Closed, quote: Quote, value: int, alone: int) -> PriceView:
    drawn = quote.status == "indicative" and _draws(closed) > 0
    parts = quote.components
    return PriceView(
        source_id=closed.clearing.orders[quote.source].source_id,
        point_micro=quote.point,
        low_micro=quote.low,
        high_micro=quote.high,
        basis="per record",
        status=quote.status,
        n_effective=quote.units,
        components={
            "reserve": parts.reserve,
            "marginal": parts.marginal,
            "dividend": parts.dividend,
            "holdback": parts.holdback,
        },
        counterfactual={"objective_without_micro": quote.counterfactual},
        shapley_micro=value,
        leave_one_out_micro=alone,
        marginal_micro=quote.marginal_value,
        monopoly_bound=closed.clearing.orders[quote.source].monopoly_bound,
        calls=_draws(closed) if drawn else 0,
        seed=seed_of(closed) if drawn else 0,
        mechanism_version=VERSION,
        commit_hash=closed.commit_hash,
    )


@dataclass(frozen=True, slots=True)
class _Sold:
    """The plan that was decided, as quotes read it."""

    units: Integers
    objective: int
    prices: Integers


def _firm(closed: Closed) -> dict[int, Quote]:
    orders = closed.clearing.orders
    plan = _Sold(
        np.array([order.units for order in orders], np.int64),
        closed.clearing.objective_micro,
        np.array([order.ask_micro or 0 for order in orders], np.int64),
    )
    marginals = np.array([order.marginal_micro for order in orders], np.int64)
    dividends = np.array([closed.pot.get(order.source_id, 0) for order in orders], np.int64)
    return firm(plan, marginals, dividends=dividends)


def _indicative(closed: Closed, inputs: Market) -> dict[int, Quote]:
    unsold = [index for index, order in enumerate(closed.clearing.orders) if not order.units]
    generator = np.random.default_rng(seed_of(closed))
    draws = [_redrawn(closed, generator) for _ in range(_draws(closed))]
    return indicative(inputs, clear, marginal_values, unsold, draws)


def _draws(closed: Closed) -> int:
    unsold = sum(not order.units for order in closed.clearing.orders)
    return DRAWS if 0 < unsold <= MOST_DRAWN else 0


def seed_of(closed: Closed) -> int:
    """The public seed of the re-drawn noise: fixed by the frozen inputs."""
    return int(closed.target.frozen_digest[:7], 16)


def _redrawn(closed: Closed, generator: np.random.Generator) -> Draw:
    """Supplies and target as they might have come out: noise like the releases' own is added.

    The released counts stand in for the true ones. This is a simulation on published numbers, so a
    reproducible generator is right here; no privacy hangs on it.
    """
    terms = closed.terms
    noised = _noisier(closed.target.noised, terms.epsilon_target_micro, generator)
    summaries = {
        name: replace(summary, counts=_noisier(summary.counts, summary.epsilon_micro, generator))
        for name, summary in closed.summaries.items()
    }
    drawn = freeze(
        closed.target.run_id,
        terms,
        closed.terms_digest,
        closed.schema,
        tuple(closed.target.level),
        noised,
        summaries,
        by_label=closed.target.label_cost_applied,
    )
    again = market(replace(closed, target=drawn))
    return again.supplies, again.target


def _noisier(
    counts: tuple[int, ...] | list[int], epsilon_micro: int, generator: np.random.Generator
) -> tuple[int, ...]:
    chance = -np.expm1(-epsilon_micro / MICRO)
    first, second = generator.geometric(chance, (2, len(counts)))
    return tuple((np.asarray(counts, np.int64) + first - second).tolist())
