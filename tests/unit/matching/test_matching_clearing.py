"""Laws of the clearing flow: exact optimum, order independence, marginal values, truthfulness."""

import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import linprog

from matching import Plan, clear, marginal_values
from matching.target import share_cap

Integers = NDArray[np.int64]
Market = tuple[Integers, Integers, Integers, Integers, Integers]


def random_market(rng: np.random.Generator, largest: int = 6) -> Market:
    """Distances, target, supplies, prices, reserve with many ties, empty cells and losses."""
    sources, cells = (int(n) for n in rng.integers(1, largest, 2))
    distances = rng.integers(0, 30, (cells, cells))
    if rng.random() < 0.5:
        np.fill_diagonal(distances, 0)
    supplies = rng.integers(0, 9, (sources, cells)) * (rng.random((sources, cells)) < 0.7)
    prices = rng.integers(0, int(rng.choice([3, 20])), sources)
    target = rng.integers(0, 12, cells)
    reserve = rng.integers(0, 40, cells) if rng.random() < 0.5 else np.full(cells, 25)
    return distances, target, supplies, prices, reserve


def solve(market: Market) -> Plan:
    distances, target, supplies, prices, reserve = market
    return clear(distances, target, supplies, prices, reserve=reserve)


def linear_program(market: Market, unit_cost: float = 0.0) -> float:
    """The same optimum by scipy's HiGHS, written out arc by arc."""
    distances, target, supplies, prices, reserve = market
    sources, cells = supplies.shape
    gain = reserve[None, :, None] - distances[None] - prices[:, None, None] - unit_cost
    arc = np.arange(gain.size).reshape(gain.shape)
    rows = [arc[:, j, :].ravel() for j in range(cells)]
    rows += [arc[s, :, c] for s in range(sources) for c in range(cells)]
    matrix = np.zeros((len(rows), gain.size))
    for i, members in enumerate(rows):
        matrix[i, members] = 1
    limit = np.concatenate([target, supplies.ravel()])
    result = linprog(-gain.ravel().astype(float), A_ub=matrix, b_ub=limit, method="highs")
    assert result.status == 0
    return float(-result.fun)


def check_consistent(plan: Plan) -> None:
    assert (plan.quota >= 0).all()
    assert (plan.quota <= plan.supplies).all()
    assert (plan.flow >= 0).all()
    assert (plan.unserved >= 0).all()
    np.testing.assert_array_equal(plan.quota.sum(axis=0), plan.flow.sum(axis=0))
    gain = (plan.flow * (plan.reserve[:, None] - plan.distances)).sum()
    assert plan.objective == gain - (plan.quota.sum(axis=1) * plan.prices).sum()


def test_objective_equals_highs_on_300_random_markets() -> None:
    rng = np.random.default_rng(1)
    for _ in range(300):
        market = random_market(rng)
        plan = solve(market)
        check_consistent(plan)
        assert plan.objective == pytest.approx(linear_program(market), abs=1e-6)


def test_units_that_gain_nothing_stay_unserved() -> None:
    # Charging 1/1000 per unit makes HiGHS serve the fewest units among the optima.
    rng = np.random.default_rng(2)
    seen = 0
    for _ in range(400):
        market = random_market(rng)
        plan = solve(market)
        charged = linear_program(market, unit_cost=1e-3)
        served = round((plan.objective - charged) * 1e3)
        assert plan.units.sum() == served
        seen += served < solve((*market[:4], market[4] + 1)).units.sum()
    assert seen > 10  # ties with the outside option did occur


def test_permuting_the_sources_permutes_the_result() -> None:
    rng = np.random.default_rng(3)
    split = 0
    for _ in range(150):
        distances, target, supplies, prices, reserve = random_market(rng, largest=9)
        _, first = np.unique(supplies, axis=0, return_index=True)  # identical twins have no order
        supplies, prices = supplies[first], prices[first] // 5
        order = rng.permutation(len(prices))
        plan = clear(distances, target, supplies, prices, reserve=reserve)
        other = clear(distances, target, supplies[order], prices[order], reserve=reserve)
        np.testing.assert_array_equal(plan.quota[order], other.quota)
        np.testing.assert_array_equal(plan.flow, other.flow)
        np.testing.assert_array_equal(marginal_values(plan)[order], marginal_values(other))
        split += bool(((plan.quota > 0) & (plan.quota < supplies)).any())
    assert split > 50


def test_identical_twins_get_the_same_multiset_of_units_in_any_order() -> None:
    supplies = np.array([[5], [5], [5]])
    plan = clear([[0]], [7], supplies, [1, 1, 1], reserve=10)
    assert sorted(plan.units) == [2, 2, 3]


def test_equal_asks_share_a_cell_in_proportion_and_keys_settle_the_rest() -> None:
    supplies = np.array([[10], [30], [20]])
    plan = clear([[0]], [30], supplies, [4, 4, 4], reserve=10)
    np.testing.assert_array_equal(plan.units, [5, 15, 10])
    for keys, winner in (([b"a", b"b", b"c"], 0), ([b"b", b"c", b"a"], 2), ([3, 1, 2], 1)):
        odd = clear([[0]], [1], np.full((3, 1), 9), [4, 4, 4], reserve=10, tie_keys=keys)
        assert odd.units[winner] == 1
        assert odd.objective == 6


def test_lower_asks_are_served_first() -> None:
    plan = clear([[0]], [12], [[10], [10]], [5, 3], reserve=9)
    np.testing.assert_array_equal(plan.units, [2, 10])
    assert plan.objective == 10 * 6 + 2 * 4


def test_marginal_values_equal_naive_resolves() -> None:
    rng = np.random.default_rng(4)
    sold = 0
    for _ in range(300):
        distances, target, supplies, prices, reserve = random_market(rng, largest=8)
        plan = clear(distances, target, supplies, prices, reserve=reserve)
        values = marginal_values(plan)
        assert values.dtype == np.int64
        for source in range(len(prices)):
            without = supplies.copy()
            without[source] = 0
            rest = clear(distances, target, without, prices, reserve=reserve)
            assert plan.objective - rest.objective == values[source] >= 0
        sold += int((plan.units > 0).sum())
    assert sold > 300


def test_negative_asks_and_a_shift_of_all_prices_change_no_gain() -> None:
    rng = np.random.default_rng(5)
    for _ in range(60):
        market = random_market(rng)
        distances, target, supplies, prices, reserve = market
        shifted = clear(distances, target, supplies, prices - 7, reserve=reserve - 7)
        plan = solve(market)
        assert shifted.objective == plan.objective
        np.testing.assert_array_equal(shifted.quota, plan.quota)
        negative = (distances, target, supplies, prices - 10, reserve)
        assert solve(negative).objective == pytest.approx(linear_program(negative), abs=1e-6)


def utility(market: Market, source: int, ask: int) -> int:
    """What a source gains with a reported ask: payment by ask and marginal value, minus cost."""
    distances, target, supplies, prices, reserve = market
    reported = prices.copy()
    reported[source] = ask
    plan = clear(distances, target, supplies, reported, reserve=reserve)
    units = int(plan.units[source])
    payment = ask * units + int(marginal_values(plan)[source])
    return payment - int(prices[source]) * units


def misreport_gain(market: Market, asks: tuple[int, ...]) -> int:
    """Largest gain of any source from any of the asks; also checks individual rationality."""
    prices = market[3]
    worst = -1
    for source in range(len(prices)):
        honest = utility(market, source, int(prices[source]))
        assert honest >= 0
        worst = max(worst, *(utility(market, source, ask) - honest for ask in asks))
    return worst


def test_no_source_gains_from_any_price_misreport() -> None:
    rng = np.random.default_rng(6)
    for _ in range(60):
        assert misreport_gain(random_market(rng), (0, 1, 2, 5, 9, 14, 21, 30)) <= 0


def test_no_misreport_gains_under_share_capped_supplies() -> None:
    rng = np.random.default_rng(7)
    bound = 0
    for _ in range(60):
        distances, target, supplies, prices, reserve = random_market(rng)
        capped = share_cap(distances, target, supplies, reserve, 1.5)
        bound += bool((capped < supplies).any())
        market = (distances, target, capped, prices, reserve)
        assert misreport_gain(market, (0, 1, 3, 8, 13, 25)) <= 0
    assert bound > 20


def test_caps_that_read_asks_would_be_manipulable() -> None:
    """Guard of the two tests above: the same search finds gains in a rule that is not truthful."""
    rng = np.random.default_rng(8)
    gains = 0
    for _ in range(40):
        distances, target, supplies, prices, reserve = random_market(rng)

        def paid_as_asked(source: int, ask: int, m: Market) -> int:
            reported = m[3].copy()
            reported[source] = ask
            units = int(clear(*m[:3], reported, reserve=m[4]).units[source])
            return (ask - int(m[3][source])) * units

        market = (distances, target, supplies, prices, reserve)
        for source in range(len(prices)):
            gains += max(paid_as_asked(source, ask, market) for ask in (5, 9, 14, 21)) > 0
    assert gains > 20


def test_a_monopolist_is_paid_exactly_the_customers_value() -> None:
    plan = clear([[0, 4], [4, 0]], [3, 5], [[4, 2]], [2], reserve=10)
    payment = 2 * int(plan.units[0]) + int(marginal_values(plan)[0])
    # 2 + 3 perfect units, one crossing of cost 4: the value 10 x 6 - 4 is all paid away.
    assert plan.units[0] == 6
    assert payment == 10 * 6 - 4


@pytest.mark.parametrize(
    ("target", "supplies", "reserve"),
    [
        ([3, 4], np.zeros((2, 2), int), 10),
        ([0, 0], np.full((2, 2), 5), 10),
        ([3, 4], np.full((2, 2), 5), 0),
        ([3, 4], np.zeros((0, 2), int), 10),
    ],
    ids=["no supply", "no target", "no reserve", "no source"],
)
def test_empty_markets_serve_nothing(target: list[int], supplies: Integers, reserve: int) -> None:
    prices = np.ones(len(supplies), int)
    plan = clear(
        np.ones((2, 2), int) - np.eye(2, dtype=int), target, supplies, prices, reserve=reserve
    )
    assert plan.objective == 0
    assert plan.quota.shape == supplies.shape
    assert not plan.quota.any()
    np.testing.assert_array_equal(plan.unserved, target)
    np.testing.assert_array_equal(marginal_values(plan), np.zeros(len(supplies)))


def test_money_near_2_to_the_40_does_not_overflow() -> None:
    rng = np.random.default_rng(9)
    scale = 1 << 35
    for _ in range(40):
        distances, target, supplies, prices, reserve = random_market(rng)
        small = clear(distances, target, supplies, prices, reserve=reserve)
        large = clear(distances * scale, target, supplies, prices * scale, reserve=reserve * scale)
        assert large.objective == small.objective * scale
        np.testing.assert_array_equal(large.quota, small.quota)
        np.testing.assert_array_equal(marginal_values(large), marginal_values(small) * scale)


def test_supplies_near_2_to_the_40_do_not_overflow() -> None:
    supplies = np.array([[1 << 40, 3], [3 << 40, 1 << 41]])
    plan = clear([[0, 1], [1, 0]], [1000, 1 << 18], supplies, [5, 5], reserve=1 << 30)
    np.testing.assert_array_equal(plan.quota[:, 0], [250, 750])
    assert plan.units.sum() == 1000 + (1 << 18)


def test_a_thousand_sources_clear_and_are_certified() -> None:
    rng = np.random.default_rng(10)
    points = rng.normal(size=(64, 6))
    distances = (np.linalg.norm(points[:, None] - points, axis=2) * 1e6).astype(np.int64)
    supplies = (rng.random((1000, 64)) < 0.4) * rng.poisson(1.0, (1000, 64))
    prices = rng.integers(1_000_000, 2_900_000, 1000)
    target = rng.multinomial(2000, rng.dirichlet(np.ones(64) * 0.5))
    plan = clear(distances, target, supplies, prices, reserve=5_714_285)
    check_consistent(plan)
    values = marginal_values(plan)
    assert ((values > 0) <= (plan.units > 0)).all()
    for source in rng.choice(np.flatnonzero(plan.units), 8, replace=False):
        without = supplies.copy()
        without[source] = 0
        rest = clear(distances, target, without, prices, reserve=5_714_285)
        assert plan.objective - rest.objective == values[source]


def test_a_plan_is_frozen_and_keeps_copies_of_its_inputs() -> None:
    supplies = np.array([[4]])
    plan = clear([[0]], [2], supplies, [1], reserve=5)
    supplies[0, 0] = 0
    assert plan.supplies[0, 0] == 4
    for array in (plan.quota, plan.flow, plan.supplies, plan.prices, plan.reserve, plan.target):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 1
    with pytest.raises(AttributeError):
        plan.objective = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"distances": [[0.5]]}, "distances: expected integers"),
        ({"distances": [[0, 1]]}, r"distances: expected shape \(1, 1\)"),
        ({"distances": [[-1]]}, "distances: expected 0 to"),
        ({"target": [[3]]}, r"target: expected shape"),
        ({"target": [-3]}, "target: expected 0 to"),
        ({"supplies": [[3], [4]]}, r"supplies: expected shape \(1, 1\)"),
        ({"supplies": [[-3]]}, "supplies: expected 0 to"),
        ({"prices": [[1]]}, r"prices: expected shape"),
        ({"reserve": [5, 5]}, r"reserve: expected shape \(1,\)"),
        ({"reserve": 5.5}, "reserve: expected integers"),
        ({"reserve": 1 << 60}, "reserve: expected"),
        ({"reserve": 1 << 52, "target": [1 << 12]}, "below 2\\^62"),
        ({"tie_keys": [b"a", b"b"]}, "tie_keys: expected 1"),
        ({"tie_keys": ["a"]}, "all bytes or all integers"),
    ],
)
def test_malformed_inputs_are_refused(change: dict[str, object], message: str) -> None:
    good: dict[str, object] = {
        "distances": [[0]],
        "target": [3],
        "supplies": [[3]],
        "prices": [1],
        "reserve": 5,
    }
    with pytest.raises(ValueError, match=message):
        clear(**(good | change))  # type: ignore[arg-type]


def test_marginal_values_refuse_a_plan_that_is_not_optimal() -> None:
    good = clear([[0, 9], [9, 0]], [2, 2], [[2, 2]], [1], reserve=10)
    values = {name: getattr(good, name) for name in Plan.__slots__}
    with pytest.raises(ValueError, match="optimal plan"):
        marginal_values(Plan(**(values | {"flow": good.flow[::-1].copy()})))
    with pytest.raises(ValueError, match="agree in every cell"):
        marginal_values(Plan(**(values | {"quota": good.quota * 0})))
    with pytest.raises(ValueError, match="source's supply"):
        marginal_values(Plan(**(values | {"quota": good.quota + 1})))


def test_importing_the_package_loads_neither_numba_nor_pot() -> None:
    code = "import sys, matching; print([m for m in ('numba', 'ot', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_package_has_no_other_names() -> None:
    import matching

    assert {"clear", "marginal_values", "Plan"} <= set(dir(matching))
    with pytest.raises(AttributeError, match="nothing"):
        _ = matching.nothing
