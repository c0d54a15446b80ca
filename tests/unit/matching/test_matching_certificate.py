"""The optimality certificate: accepts every optimum, refuses everything else."""

from dataclasses import replace

import numpy as np
import pytest

from matching import Plan, clear
from matching.certificate import cell_prices, certify


def markets(seed: int, count: int) -> list[Plan]:
    rng = np.random.default_rng(seed)
    plans = []
    for _ in range(count):
        sources, cells = (int(n) for n in rng.integers(1, 9, 2))
        plans.append(
            clear(
                rng.integers(0, 30, (cells, cells)),
                rng.integers(0, 12, cells),
                rng.integers(0, 6, (sources, cells)) * (rng.random((sources, cells)) < 0.6),
                rng.integers(-3, 15, sources),
                reserve=rng.integers(0, 40, cells),
            )
        )
    return plans


def test_every_cleared_plan_is_certified() -> None:
    for plan in markets(1, 300):
        certify(plan, cell_prices(plan))


def test_serving_less_than_the_optimum_is_refused() -> None:
    refused = 0
    for plan in markets(2, 100):
        prices = cell_prices(plan)
        gains = plan.reserve[:, None] - plan.distances
        served = np.argwhere(plan.flow > 0)
        sold = plan.quota > 0
        for j, c in served[:3]:
            source = int(np.flatnonzero(sold[:, c])[0])
            gain = int(gains[j, c] - plan.prices[source])
            if gain <= 0:
                continue
            flow, quota = plan.flow.copy(), plan.quota.copy()
            flow[j, c] -= 1
            quota[source, c] -= 1
            worse = replace(plan, flow=flow, quota=quota, objective=plan.objective - gain)
            with pytest.raises(ValueError, match="expected an optimum"):
                certify(worse, prices)
            refused += 1
    assert refused > 50


def test_a_wrong_objective_or_an_infeasible_plan_is_refused() -> None:
    plan = next(p for p in markets(3, 20) if p.objective > 0)
    prices = cell_prices(plan)
    with pytest.raises(ValueError, match="expected the objective"):
        certify(replace(plan, objective=plan.objective + 1), prices)
    with pytest.raises(ValueError, match="supply"):
        certify(replace(plan, quota=plan.quota + plan.supplies + 1), prices)
    with pytest.raises(ValueError, match="expected shape"):
        certify(plan, prices[:-1])


def test_prices_that_prove_nothing_are_refused() -> None:
    plan = clear([[0]], [3], [[2], [5]], [4, 6], reserve=10)
    np.testing.assert_array_equal(cell_prices(plan), [6])
    certify(plan, np.array([6]))
    for wrong in (3, 5, 7, 11):
        with pytest.raises(ValueError, match="expected an optimum"):
            certify(plan, np.array([wrong]))
