"""The clearing's optimum and all marginal values against a linear program."""

import numpy as np
import pytest
from random_markets import MICRO
from scipy.optimize import linprog
from scipy.sparse import coo_array

from matching import Plan, clear, marginal_values


def highs(plan: Plan, without: int | None = None) -> float:
    """The optimum by scipy's HiGHS, written out arc by arc."""
    supplies = plan.supplies.copy()
    if without is not None:
        supplies[without] = 0
    sources, cells = supplies.shape
    gain = plan.reserve[None, :, None] - plan.distances[None] - plan.prices[:, None, None]
    s, j, c = (index.ravel() for index in np.indices((sources, cells, cells)))
    rows = np.concatenate([j, cells + s * cells + c])
    columns = np.tile(np.arange(gain.size), 2)
    matrix = coo_array((np.ones(2 * gain.size), (rows, columns))).tocsr()
    limit = np.concatenate([plan.target, supplies.ravel()])
    result = linprog(-gain.ravel() / MICRO, A_ub=matrix, b_ub=limit, method="highs")
    assert result.status == 0
    return -float(result.fun) * MICRO


def against_highs(seeds: range, largest: int) -> None:
    for seed in seeds:
        rng = np.random.default_rng([seed, 7])
        sources, cells = (int(n) for n in rng.integers(2, largest, 2))
        plan = clear(
            rng.integers(0, 4 * MICRO, (cells, cells)),
            rng.integers(0, 20, cells),
            rng.integers(0, 12, (sources, cells)),
            rng.integers(0, 4 * MICRO, sources),
            reserve=rng.integers(0, 6 * MICRO, cells),
        )
        assert plan.objective == pytest.approx(highs(plan), abs=1, rel=1e-9)
        values = marginal_values(plan)
        source = int(rng.integers(sources))
        assert values[source] == pytest.approx(plan.objective - highs(plan, source), abs=2)
        for other in range(sources):
            supplies = plan.supplies.copy()
            supplies[other] = 0
            rest = clear(plan.distances, plan.target, supplies, plan.prices, reserve=plan.reserve)
            assert values[other] == plan.objective - rest.objective


def test_optimum_and_payments_equal_a_linear_program_on_60_instances() -> None:
    against_highs(range(60), 9)


@pytest.mark.long
def test_optimum_and_payments_equal_a_linear_program_on_200_instances() -> None:
    against_highs(range(1000, 1200), 13)
