"""Quotes: firm prices are payments, indicative ones come true, intervals contain their point."""

import numpy as np
import pytest
from numpy.typing import NDArray

from matching import clear, marginal_values
from valuation import semivalue
from valuation.quotes import Market, firm, gains_from_market, indicative, quote_all

Integers = NDArray[np.int64]


def random_market(seed: int) -> Market:
    rng = np.random.default_rng(seed)
    sources, cells = 6, 4
    points = rng.random((cells, 2))
    distances = np.linalg.norm(points[:, None] - points, axis=2) * 1_000_000
    return Market(
        distances=distances.astype(np.int64),
        target=rng.integers(1, 12, cells),
        supplies=rng.integers(0, 8, (sources, cells)),
        prices=rng.integers(1_000_000, 2_900_000, sources),
        reserve=np.full(cells, 3_000_000),
    )


def without(market: Market, source: int) -> Integers:
    supplies = market.supplies.copy()
    supplies[source] = 0
    return supplies


def test_firm_prices_are_the_payments_per_record() -> None:
    for seed in range(20):
        market = random_market(seed)
        m = market
        plan = clear(m.distances, m.target, m.supplies, m.prices, reserve=m.reserve)
        added = marginal_values(plan)
        quotes = firm(plan, added, holdback_percent=10)
        assert set(quotes) == set(np.flatnonzero(plan.units).tolist())
        for source, quote in quotes.items():
            payment = int(m.prices[source]) * quote.units + int(added[source])
            assert abs(quote.point * quote.units - payment) <= quote.units / 2
            assert quote.low == quote.point == quote.high >= m.prices[source]
            assert quote.status == "firm"
            parts = quote.components
            assert parts.reserve + parts.marginal == quote.point
            assert abs(10 * parts.holdback - quote.point) <= 10
            rest = clear(m.distances, m.target, without(m, source), m.prices, reserve=m.reserve)
            assert quote.counterfactual == rest.objective


def test_dividends_are_shown_beside_the_price() -> None:
    plan = clear([[0]], [4], [[4]], [3], reserve=9)
    quote = firm(plan, marginal_values(plan), dividends=np.array([10]))[0]
    assert quote.components.dividend == 3  # 10 / 4, half up
    assert quote.point == 9
    with pytest.raises(ValueError, match="percentage"):
        firm(plan, marginal_values(plan), holdback_percent=101)
    with pytest.raises(ValueError, match="marginal values"):
        firm(plan, np.array([1, 2]))


def test_an_indicative_price_is_what_asking_zero_would_have_paid() -> None:
    losers = 0
    for seed in range(20):
        m = random_market(seed)
        for source, quote in indicative(m, clear, marginal_values, range(6)).items():
            asks = m.prices.copy()
            asks[source] = 0
            plan = clear(m.distances, m.target, m.supplies, asks, reserve=m.reserve)
            rest = clear(m.distances, m.target, without(m, source), asks, reserve=m.reserve)
            units = int(plan.units[source])
            assert quote.units == units
            assert quote.counterfactual == rest.objective
            assert quote.marginal_value == plan.objective - rest.objective
            assert abs(quote.point * units - quote.marginal_value) <= units / 2
            assert (quote.low, quote.high) == (0, 3_000_000)
            losers += quote.point < m.prices[source]
    assert losers > 10


def test_a_source_without_records_has_no_price() -> None:
    m = random_market(1)
    empty = Market(m.distances, m.target, without(m, 2), m.prices, m.reserve)
    quote = indicative(empty, clear, marginal_values, [2])[2]
    assert (quote.point, quote.units, quote.marginal_value) == (0, 0, 0)


def test_every_source_gets_one_quote_and_noise_widens_indicative_ones_only() -> None:
    m = random_market(3)
    rng = np.random.default_rng(0)
    draws = [
        (
            np.maximum(m.supplies + rng.integers(-2, 3, m.supplies.shape), 0),
            np.maximum(m.target + rng.integers(-2, 3, m.target.shape), 0),
        )
        for _ in range(30)
    ]
    quotes = quote_all(m, clear, marginal_values, draws)
    assert [quote.source for quote in quotes] == list(range(6))
    assert {quote.status for quote in quotes} == {"firm", "indicative"}
    for quote in quotes:
        assert quote.low <= quote.point <= quote.high
        if quote.status == "firm":
            assert quote.low == quote.high
        else:
            assert 0 <= quote.low < quote.high <= 3_000_000
    assert quotes == quote_all(m, clear, marginal_values, draws)


def test_constant_draws_give_an_interval_of_zero_width() -> None:
    m = random_market(4)
    draws = [(m.supplies, m.target)] * 5
    for quote in indicative(m, clear, marginal_values, range(6), draws).values():
        assert quote.low == quote.point == quote.high


def test_interval_quantiles_leave_out_the_extremes() -> None:
    m = Market(*(np.array(x) for x in ([[0]], [10], [[5]], [1], [100])))
    # A lone source is paid the reserve while the target wants anything, else nothing.
    draws = [(m.supplies, np.array([10 * (i > 0)])) for i in range(100)]
    quote = indicative(m, clear, marginal_values, [0], draws)[0]
    assert (quote.low, quote.point, quote.high) == (100, 100, 100)
    draws = [(m.supplies, np.array([10 * (i > 9)])) for i in range(100)]
    assert indicative(m, clear, marginal_values, [0], draws)[0].low == 0


def test_gains_follow_the_nearest_supplied_cell() -> None:
    distances = np.array([[0, 3], [3, 0]])
    gains, weights = gains_from_market(
        distances, [4, 6], [[5, 0], [0, 1], [2, 2], [0, 0]], [1, 2, 9, 0], 10
    )
    np.testing.assert_array_equal(gains, [[9, 5, 1, 0], [6, 8, 1, 0]])
    np.testing.assert_array_equal(weights, [4, 6])
    per_cell, _ = gains_from_market(distances, [4, 6], [[5, 0]], [1], [10, 2])
    np.testing.assert_array_equal(per_cell, [[9], [0]])
    with pytest.raises(ValueError, match="expected distances"):
        gains_from_market(distances, [4], [[5, 0]], [1], 10)


def test_without_binding_supplies_loo_of_the_gains_is_the_marginal_value() -> None:
    for seed in range(10):
        m = random_market(seed)
        plenty = m.supplies * 1000
        plan = clear(m.distances, m.target, plenty, m.prices, reserve=m.reserve)
        gains, weights = gains_from_market(m.distances, m.target, plenty, m.prices, m.reserve)
        assert weights @ gains.max(axis=1) == plan.objective
        np.testing.assert_allclose(semivalue(gains, weights, "loo"), marginal_values(plan))
