"""Costs: rounded up, lanes apart, and the report's conversion against closed forms."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from dp.cost import MICRO, Cost, epsilon_of, parallel

positive = st.fractions(Fraction(1, 10**9), 100)


@given(positive)
def test_a_charge_is_never_too_small_and_less_than_a_micro_too_large(epsilon) -> None:
    cost = Cost.pure(epsilon)
    assert 0 <= Fraction(cost.micro_epsilon, MICRO) - epsilon < Fraction(1, MICRO)
    assert cost.micro_rho == 0
    assert Cost.zcdp(epsilon).micro_rho == cost.micro_epsilon
    assert Cost.zcdp(epsilon).micro_epsilon == 0


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)), min_size=1, max_size=6))
def test_sequence_adds_and_a_partition_costs_its_largest_part(pairs) -> None:
    costs = tuple(Cost(*pair) for pair in pairs)
    total = sum(costs, Cost())
    assert total == Cost(sum(a for a, _ in pairs), sum(b for _, b in pairs))
    together = parallel(costs)
    assert all(cost.fits(together) for cost in costs)
    assert together.micro_epsilon in [a for a, _ in pairs]
    assert together.fits(total)


def test_lanes_do_not_lend_to_each_other() -> None:
    assert not Cost(micro_epsilon=1).fits(Cost(micro_rho=10**9))
    assert not Cost(micro_rho=1).fits(Cost(micro_epsilon=10**9))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Cost(-1),
        lambda: Cost(0, -1),
        lambda: Cost(1.0),  # type: ignore[arg-type]
        lambda: Cost(True),
        lambda: Cost.pure(0),
        lambda: Cost.zcdp("-1"),
        lambda: epsilon_of(-1.0, 1e-6),
        lambda: epsilon_of(1.0, 0.0),
        lambda: epsilon_of(math.inf, 0.5),
    ],
)
def test_refusals(make) -> None:
    with pytest.raises(ValueError, match="must be"):
        make()


@pytest.mark.parametrize("rho", [0.001, 0.0244, 0.1, 0.5, 2.0])
@pytest.mark.parametrize("delta", [1e-9, 1e-6, 1e-2])
def test_reported_epsilon_lies_between_the_exact_gaussian_and_the_simple_bound(rho, delta) -> None:
    """A Gaussian with sd 1/sqrt(2 rho) is rho-zCDP; its exact (epsilon, delta) is known."""
    sd = 1 / math.sqrt(2 * rho)

    def excess(epsilon: float) -> float:
        a = norm.logcdf(0.5 / sd - epsilon * sd)
        b = epsilon + norm.logcdf(-0.5 / sd - epsilon * sd)
        return math.exp(a) - math.exp(b) - delta

    exact = 0.0 if excess(0.0) <= 0 else brentq(excess, 0.0, 100.0)
    simple = rho + 2 * math.sqrt(rho * math.log(1 / delta))  # Bun and Steinke 2016, prop. 1.3
    found = epsilon_of(rho, delta)
    assert exact <= found + 1e-12
    assert found <= simple
    assert found == pytest.approx(min(_direct(rho, delta)), rel=1e-3, abs=1e-3)


def _direct(rho: float, delta: float) -> list[float]:
    grid = [1 + 1.02**k / 1e4 for k in range(1200)]
    return [
        max(
            0.0,
            rho * a + (math.log(1 / delta) + (a - 1) * math.log(1 - 1 / a) - math.log(a)) / (a - 1),
        )
        for a in grid
    ]


def test_no_rho_costs_nothing() -> None:
    assert epsilon_of(0.0, 1e-6) == 0.0
