"""The decision of a clearing, against a linear programme and its laws."""

import itertools

import numpy as np
import pytest
from scipy.optimize import linprog

from clearinghouse.messages.results import TargetView
from clearinghouse.rounds import decision

MICRO = 1_000_000
NAMES = tuple(f"src_{letter * 20}" for letter in "abcd")


def market(rng, sources=3, places=4):
    wanted = rng.integers(0, 6, places)
    distances = rng.integers(0, 4 * MICRO, (places, places))
    np.fill_diagonal(distances, 0)
    capped = rng.integers(0, 5, (sources, places))
    target = TargetView.model_construct(
        wanted=wanted.tolist(),
        distances_micro=distances.tolist(),
        capped={name: row.tolist() for name, row in zip(NAMES, capped, strict=False)},
        frozen_digest="f" * 64,
    )
    asks = [int(ask) for ask in rng.integers(0, 3 * MICRO, sources)]
    return target, asks


def decide(target, asks, reserve=3 * MICRO):
    names = NAMES[: len(asks)]
    return decision.decide(decision.Market(target, reserve, names, tuple(asks), ("c",)))


def best_by_linear_programme(target, asks, reserve):
    """The optimum of the same transport problem by another solver."""
    names = [name for name, ask in zip(NAMES, asks, strict=False) if ask is not None]
    costs = [ask for ask in asks if ask is not None]
    distances, places = np.array(target.distances_micro), len(target.wanted)
    gains, serve, supply_rows = [], [], []
    for (s, name), c, j in itertools.product(enumerate(names), range(places), range(places)):
        gains.append(-(reserve - distances[j][c] - costs[s]))
        serve.append((j, len(gains) - 1))
        supply_rows.append((s * places + c, len(gains) - 1, target.capped[name][c]))
    if not gains:
        return 0
    limits = np.zeros((places + len(names) * places, len(gains)))
    bounds = np.concatenate([target.wanted, np.zeros(len(names) * places)])
    for j, column in serve:
        limits[j, column] = 1
    for row, column, capacity in supply_rows:
        limits[places + row, column] = 1
        bounds[places + row] = capacity
    return -linprog(gains, A_ub=limits, b_ub=bounds).fun


@pytest.mark.parametrize("seed", range(15))
def test_the_clearing_is_optimal_and_marginal_values_are_differences(seed):
    target, asks = market(np.random.default_rng(seed))
    view = decide(target, asks)
    best = best_by_linear_programme(target, asks, 3 * MICRO)
    assert view.objective_micro == pytest.approx(best, abs=1)
    for index, order in enumerate(view.orders):
        without = [None if i == index else ask for i, ask in enumerate(asks)]
        assert (
            order.marginal_micro == view.objective_micro - decide(target, without).objective_micro
        )
        assert order.units == sum(order.quota)
        assert decision.payment_micro(order) >= order.ask_micro * order.units
    served = sum(order.units for order in view.orders)
    assert served + sum(view.unserved) == sum(target.wanted)


@pytest.mark.parametrize("seed", range(15))
def test_payments_fit_into_the_escrow_and_nobody_gains_by_misreporting(seed):
    rng = np.random.default_rng(100 + seed)
    target, asks = market(rng)
    view = decide(target, asks)
    paid = sum(decision.payment_micro(order) for order in view.orders)
    assert paid <= 3 * MICRO * sum(order.units for order in view.orders)
    for index, truth in enumerate(asks):
        honest = decision.payment_micro(view.orders[index]) - truth * view.orders[index].units
        for lie in (0, truth // 2, truth + MICRO // 3, 3 * MICRO):
            told = [lie if i == index else ask for i, ask in enumerate(asks)]
            order = decide(target, told).orders[index]
            assert decision.payment_micro(order) - truth * order.units <= honest


def test_the_order_of_sources_changes_nothing_and_silence_sells_nothing():
    target, asks = market(np.random.default_rng(3))
    view = decide(target, asks)
    turned = decision.decide(
        decision.Market(target, 3 * MICRO, NAMES[2::-1], tuple(asks[::-1]), ("c",))
    )
    by_name = {order.source_id: order for order in view.orders}
    assert {order.source_id: order for order in turned.orders} == by_name
    silent = decide(target, [None, *asks[1:]])
    assert silent.orders[0].status == "silent"
    assert silent.orders[0].units == 0


def test_an_absurd_ask_only_keeps_its_own_source_out():
    target, asks = market(np.random.default_rng(3))
    view = decide(target, [2**53 - 1, *asks[1:]])
    silent = decide(target, [None, *asks[1:]])
    assert view.objective_micro == silent.objective_micro
    assert view.orders[0].status == "unsold"
    assert view.orders[0].ask_micro == 2**53 - 1
    assert decision.payment_micro(view.orders[0]) == 0
    at_reserve = decide(target, [3 * MICRO, *asks[1:]])
    assert at_reserve.orders[1:] == view.orders[1:]


def test_the_draw_hangs_on_every_commitment():
    target, asks = market(np.random.default_rng(3))
    seeds = {
        decision.decide(
            decision.Market(target, 3 * MICRO, NAMES[:3], tuple(asks), commitments)
        ).draw_seed
        for commitments in (("a", "b"), ("a", "c"), ("ab",))
    }
    assert len(seeds) == 3
