"""Random small markets, with what only their sources know: for laws that hold on any of them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matching import Plan, clear, marginal_values
from matching.ladder import separated
from matching.target import money, share_cap
from valuation.budget import affordable_tariff, reserve_of, share_pot
from valuation.quotes import gains_from_market

Integers = NDArray[np.int64]
MICRO = 1_000_000
FEE = 50_000


@dataclass(frozen=True)
class Market:
    """Frozen inputs with what only the sources know: their costs and true counts."""

    distances: Integers
    target: Integers
    capped: Integers
    reserve: int
    costs: Integers
    true: Integers
    budget: int
    pot: tuple[int, ...]

    def plan(self, asks: Integers) -> Plan:
        return clear(self.distances, self.target, self.capped, asks, reserve=self.reserve)


def random_market(seed: int, *, with_pot: bool = True) -> Market:
    """Sizes, budget, geometry (half of them lattices with many ties), supplies, costs, truth."""
    rng = np.random.default_rng([seed, 20_260])
    sources, cells = (int(n) for n in rng.integers(1, 7, 2))
    points = rng.integers(0, 3, (cells, 2)) if seed % 2 else rng.random((cells, 2)) * 3
    apart = np.linalg.norm(points[:, None] - points[None], axis=2)
    distances = separated(money(apart, MICRO), seed.to_bytes(8, "big"))
    target = rng.integers(0, 12, cells)
    target[0] += 1
    noisy = rng.integers(0, 9, (sources, cells)) * (rng.random((sources, cells)) < 0.7)
    records = int(target.sum())
    budget = int(rng.integers(1_000, 6_000)) * 1000 * records
    fixed = budget // 12 if with_pot else 0
    reserve = reserve_of(affordable_tariff(budget, records, fee_micro=FEE, pot=fixed), FEE)
    capped = share_cap(distances, target, noisy, reserve, 1.5)
    gains, weights = gains_from_market(
        distances, target, capped, np.zeros(sources), np.full(cells, reserve)
    )
    pot = share_pot(fixed, gains, weights, range(sources), rng.random(sources) < 0.9)
    costs = rng.integers(0, 400, sources) * 10_000
    # Two thirds of the sources have fewer records in some cells than their summaries promised.
    true = np.maximum(noisy - rng.integers(0, 6, noisy.shape) * (rng.random((sources, 1)) < 0.7), 0)
    return Market(distances, target, capped, reserve, costs, true, budget, pot)


def full(plan: Plan, source: int) -> int:
    """The whole payment of a source: its asks and its marginal value."""
    return int(plan.prices[source] * plan.units[source] + marginal_values(plan)[source])
