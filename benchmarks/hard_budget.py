"""A hard cap on what a customer pays: a scaled tariff, or whole sources by proportional share.

On simulated markets, and on the real rows of the packaged heart tables: the three hospitals that
sell, each split in four sources, matched to the fourth.
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from clearinghouse import cells
from clearinghouse.demo import write_market
from clearinghouse.market import load_market, load_tables
from matching import Plan, clear, marginal_values
from valuation.budget import affordable_tariff, proportional_share

MICRO = 1_000_000
TARIFF = 6 * MICRO
PARTS = 4
WANTED = 150
SHARES = (0.25, 0.5, 0.75)
"""B as parts of what the whole match is worth."""

Market = tuple[Any, Any, Any, Any, int]


def budgets(markets: int, simulated: Callable[[int, int, int], Market]) -> str:
    """Worth bought within B, simulated and real, as Markdown."""
    lines = [
        "| markets | B / whole value | flow at a scaled tariff: median (least) "
        "| proportional share: median (least) | flow buys more in |",
        "|---|---|---|---|---|",
    ]
    for name, instances in (
        ("simulated, 10 sources", lambda: (simulated(10, 12, seed) for seed in range(markets))),
        ("heart tables, 12 sources", lambda: real_markets(markets)),
    ):
        given = list(instances())
        for share in SHARES:
            flow = np.array([by_flow(market, share) for market in given])
            singer = np.array([by_sources(market, share) for market in given])
            lines.append(
                f"| {name} | {share:.2f} | {np.median(flow):.2f} ({flow.min():.2f}) "
                f"| {np.median(singer):.2f} ({singer.min():.2f}) "
                f"| {int((flow > singer).sum())} of {len(given)} |"
            )
    title = f"### Hard budget, {markets} markets of each kind"
    note = "Part of the whole value bought. Asks of the real markets are drawn from 1 to 3."
    return "\n".join([title, "", *lines, "", note])


def real_markets(markets: int) -> Iterator[Market]:
    """The heart market's own rows; only the split into sources and the asks are drawn."""
    with tempfile.TemporaryDirectory() as folder:
        market = load_market(write_market(Path(folder)))
        tables = load_tables(market)
    level = market.schema.strata_levels()[-1]
    book = cells.codebook(market.schema, level)
    distances = (book.distances() * int(market.distance_price)).astype(np.int64)
    wanted = cells.cells(tables[market.customer.name], level)
    places = [cells.cells(tables[source.name], level) for source in market.sources]
    for seed in range(markets):
        rng = np.random.default_rng([seed, 8])
        supplies = [
            np.bincount(part, minlength=book.n_cells)
            for found in places
            for part in np.array_split(rng.permutation(found), PARTS)
        ]
        shares = np.bincount(wanted, minlength=book.n_cells) / len(wanted)
        target = rng.multinomial(WANTED, shares)
        prices = rng.integers(MICRO, 3 * MICRO, len(supplies))
        yield distances, target, np.array(supplies), prices, TARIFF


def whole_value(market: Market) -> int:
    """What the match is worth if nothing had to be paid."""
    distances, target, supplies, prices, reserve = market
    return int(clear(distances, target, supplies, prices * 0, reserve=reserve).objective)


def by_flow(market: Market, share: float) -> float:
    """Part of the value bought by the clearing at a tariff that B can always pay."""
    distances, target, supplies, prices, reserve = market
    best = whole_value(market)
    budget = int(share * best)
    tariff = min(reserve, affordable_tariff(budget, int(target.sum())))
    plan = clear(distances, target, supplies, prices, reserve=tariff)
    assert int((plan.prices * plan.units + marginal_values(plan)).sum()) <= budget
    return worth(plan, reserve) / best


def by_sources(market: Market, share: float) -> float:
    """Part of the value bought by the proportional-share rule on whole sources."""
    distances, target, supplies, prices, reserve = market
    best = whole_value(market)

    def utility(members: frozenset[int]) -> float:
        chosen = sorted(members)
        if not chosen:
            return 0.0
        free = np.zeros(len(chosen), np.int64)
        return float(clear(distances, target, supplies[chosen], free, reserve=reserve).objective)

    costs = [max(float(p * u), 1.0) for p, u in zip(prices, supplies.sum(axis=1), strict=True)]
    return utility(proportional_share(utility, costs, share * best)) / best


def worth(plan: Plan, reserve: int) -> float:
    """What the units are worth to the customer before any price."""
    return float((plan.flow * (reserve - plan.distances)).sum())
