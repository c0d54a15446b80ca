"""Price ladders: they sum to the payment, do not depend on the own ask, and pay what is real."""

from dataclasses import replace

import numpy as np
import pytest
from random_markets import full, random_market

from matching import clear
from matching.ladder import price_ladders, separated
from valuation.ladders import earned


def test_paying_in_proportion_tempts_a_source_that_is_short_to_ask_more() -> None:
    """The smallest example: 10 wanted at up to 10, rival with 5 at ask 3, own cost 1, 5 of 10 real.

    In proportion, honesty earns half of 65 less 5 = 27; asking 4 sells 5, all real, and earns 45.
    By the ladder (five units at 10, five at 3) both earn 5 x 10 - 5.
    """
    for ask, proportional, ladder in ((1, 27, 45), (4, 45, 45)):
        plan = clear([[0]], [10], [[10], [5]], [ask, 3], reserve=10)
        real = min(5, int(plan.units[0]))
        assert full(plan, 0) * real // int(plan.units[0]) - real == proportional
        assert earned(price_ladders(plan)[0], {0: real}) - real == ladder


def test_ladders_sum_to_the_payment_and_do_not_depend_on_the_own_ask() -> None:
    moved = 0
    for seed in range(150):
        market = random_market(seed)
        plan = market.plan(market.costs)
        for source, ladder in enumerate(price_ladders(plan)):
            assert sum(price * units for _, price, units in ladder) == full(plan, source)
            assert [price for _, price, _ in ladder] == sorted(price for _, price, _ in ladder)
            asks = market.costs.copy()
            asks[source] += 370_001
            fewer = market.plan(asks)
            kept = price_ladders(fewer)[source]
            for cell in range(len(market.target)):
                old = [p for c, p, n in ladder if c == cell for _ in range(n)]
                new = [p for c, p, n in kept if c == cell for _ in range(n)]
                assert len(old) == plan.quota[source, cell]
                assert len(new) == fewer.quota[source, cell]
                assert old[len(old) - len(new) :] == new  # the cheapest rungs go first
                moved += len(old) - len(new)
    assert moved > 100


def test_ladders_of_markets_without_trade_are_empty_and_false_plans_are_refused() -> None:
    assert price_ladders(clear([[0]], [3], [[2], [0]], [9, 1], reserve=5)) == ((), ())
    assert price_ladders(clear([[0]], [3], np.zeros((0, 1), int), [], reserve=5)) == ()
    good = clear([[0, 9], [9, 0]], [2, 2], [[2, 2]], [1], reserve=10)
    assert price_ladders(good) == (((0, 10, 2), (1, 10, 2)),)
    with pytest.raises(ValueError, match="optimal plan"):
        price_ladders(replace(good, flow=good.flow[::-1].copy()))
    with pytest.raises(ValueError, match="agree in every cell"):
        price_ladders(replace(good, quota=good.quota * 0))


def test_separated_distances_move_less_than_a_tenth_of_a_cent() -> None:
    given = np.arange(16).reshape(4, 4) * 1_000_000
    moved = separated(given, b"seed") - given
    assert (moved >= 0).all()
    assert (moved < 1000).all()
    assert len(np.unique(moved)) > 8
    np.testing.assert_array_equal(separated(given, b"seed") - given, moved)
    assert (separated(given, b"other") - given != moved).any()
    np.testing.assert_array_equal(separated(given, b"seed", 1), given)
    for bad in (np.zeros((2, 3), int), np.zeros((2, 2))):
        with pytest.raises(ValueError, match="square integers"):
            separated(bad, b"")
    with pytest.raises(ValueError, match="jitter"):
        separated(given, b"", 0)
