"""Target and supply rules: projection, rounding, gate, share cap, label switch, uncovered."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize

from matching import clear
from matching.target import (
    SUPPLY_GATE,
    joint_distances,
    label_cost_needed,
    money,
    noise_quantile,
    noise_variance,
    project,
    round_to,
    share_cap,
    supply_counts,
    target_counts,
)
from matching.uncovered import Uncovered, uncovered


def two_sided(rng: np.random.Generator, epsilon: float, size: tuple[int, ...]) -> NDArray[np.int64]:
    success = 1 - math.exp(-epsilon)
    return rng.geometric(success, size) - rng.geometric(success, size)


def test_projection_is_the_nearest_point_with_that_total() -> None:
    rng = np.random.default_rng(0)
    for _ in range(15):
        values = rng.normal(1, 3, int(rng.integers(1, 7)))
        total = float(rng.uniform(0.1, 9))
        mine = project(values, total)
        assert mine.sum() == pytest.approx(total)
        assert (mine >= 0).all()
        best = minimize(
            lambda x, v=values: ((x - v) ** 2).sum(),
            np.full(len(values), total / len(values)),
            bounds=[(0, None)] * len(values),
            constraints={"type": "eq", "fun": lambda x, t=total: x.sum() - t},
            method="SLSQP",
            options={"ftol": 1e-12},
        )
        np.testing.assert_allclose(mine, best.x, atol=1e-4)


def test_projection_keeps_the_total_and_leaves_counts_alone() -> None:
    counts = np.array([[3.0, 0.0], [5.0, 2.0]])
    np.testing.assert_allclose(project(counts), counts)
    noisy = counts + np.array([[-4, 2], [1, 0]])
    assert project(noisy).sum() == pytest.approx(noisy.sum())
    assert project(noisy).shape == (2, 2)
    assert not project([-3.0, 1.0]).any()
    for bad in ([], [np.nan]):
        with pytest.raises(ValueError, match="finite counts"):
            project(bad)
    with pytest.raises(ValueError, match="total"):
        project([1.0], -1.0)


def test_rounding_sums_exactly_and_stays_within_one() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        values = rng.gamma(0.3, size=int(rng.integers(1, 40)))
        total = int(rng.integers(0, 5000))
        rounded = round_to(values, total)
        assert rounded.sum() == total
        assert (np.abs(rounded - values / values.sum() * total) < 1 + 1e-6).all()
    np.testing.assert_array_equal(round_to([1, 1, 1], 4), [2, 1, 1])  # ties to the earlier
    np.testing.assert_array_equal(round_to([3, 0, 9], 12), [3, 0, 9])
    np.testing.assert_array_equal(round_to([0.1 + 0.2, 0.3], 3), [2, 1])  # equal but for one bit
    np.testing.assert_array_equal(round_to([0.3, 0.1 + 0.2], 3), [2, 1])
    assert round_to([0.3, 0.7], 1 << 50).sum() == 1 << 50
    for values, total in (([-1, 2], 3), ([0, 0], 3), ([1], -1), ([np.inf], 1)):
        with pytest.raises(ValueError, match="expected"):
            round_to(values, total)


def test_target_counts_sum_to_the_records_wanted() -> None:
    noisy = np.array([[10, -3], [4, 7]])
    result = target_counts(noisy, 150)
    assert result.sum() == 150
    assert result.dtype == np.int64
    assert result[0, 1] == 0
    np.testing.assert_array_equal(target_counts([[10, 20], [30, 40]], 50), [[5, 10], [15, 20]])
    np.testing.assert_array_equal(target_counts([[-5, 1]], 10), [[5, 5]])  # nothing is known
    with pytest.raises(ValueError, match="records"):
        target_counts(noisy, 0)


@pytest.mark.parametrize(("epsilon", "entries"), [(1.0, 1), (1.0, 2), (0.5, 5), (0.2, 16)])
def test_noise_quantile_is_exact(epsilon: float, entries: int) -> None:
    """Against the distribution of the sum by repeated convolution."""
    reach = math.ceil(60 / epsilon)
    z = np.arange(-reach, reach + 1)
    single = np.exp(-epsilon * np.abs(z)) * math.tanh(epsilon / 2)
    mass = np.ones(1)
    for _ in range(entries):
        mass = np.convolve(mass, single)
    below = np.cumsum(mass)
    middle = reach * entries
    for level in (0.5, 0.9, 0.98, 0.999, 1 - 1e-6):
        expected = int(np.flatnonzero(below >= level - 1e-12)[0]) - middle
        assert noise_quantile(epsilon, entries, level) == expected


def test_noise_quantile_of_very_many_numbers_is_normal() -> None:
    exact = noise_quantile(0.01, 900, 0.98)
    assert exact == pytest.approx(2.0537 * math.sqrt(900 * noise_variance(0.01)), rel=0.01)
    tiny = noise_quantile(1e-5, 1000, 0.98)
    assert tiny == pytest.approx(2.0537 * math.sqrt(1000 * noise_variance(1e-5)), rel=1e-4)
    for arguments in ((1.0, 0, 0.98), (1.0, 3, 0.2), (1.0, 3, 1.0), (0.0, 3, 0.98)):
        with pytest.raises(ValueError, match="expected"):
            noise_quantile(*arguments)


def test_noise_variance_is_that_of_the_law() -> None:
    z = np.arange(-4000, 4001)
    for epsilon in (0.05, 1.0, 3.0):
        mass = np.exp(-epsilon * np.abs(z)) * math.tanh(epsilon / 2)
        assert noise_variance(epsilon) == pytest.approx((mass * z**2).sum())


def test_supplies_keep_the_noisy_total_and_never_go_negative() -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        noisy = rng.integers(0, 40, (8, 2)) + two_sided(rng, 1.0, (8, 2))
        supply = supply_counts(noisy, 1.0)
        assert (supply >= 0).all()
        assert supply.sum() == noisy.sum()
    np.testing.assert_array_equal(supply_counts([[5, 9], [0, 30]], 1.0), [[5, 9], [0, 30]])


def test_a_table_lost_in_its_own_noise_sells_nothing() -> None:
    edge = noise_quantile(1.0, 4, SUPPLY_GATE)
    assert edge == 18
    at, above = [[edge, 0], [0, 0]], [[edge + 1, 0], [0, 0]]
    assert supply_counts(at, 1.0).sum() == 0
    assert supply_counts(above, 1.0).sum() == edge + 1
    assert supply_counts(at, 1.0, gate=0).sum() == edge
    assert supply_counts([[edge + 1]], 1.0, noise_entries=64).sum() == 0
    assert supply_counts([[-4, 2]], 1.0, gate=0).sum() == 0
    # Of empty tables one in a million sells at all; with another gate as many as it says: 4000
    # tables at 98%, sd 8.9 tables, allow 6 sd.
    rng = np.random.default_rng(3)
    empty = two_sided(rng, 1.0, (4000, 8, 2))
    assert not any(supply_counts(table, 1.0).any() for table in empty)
    sold = sum(supply_counts(table, 1.0, gate=0.98).any() for table in empty)
    assert 80 - 6 * 8.9 <= sold <= 80 + 6 * 8.9
    # Honest tables of 48 rows sell nearly always.
    kept = [supply_counts(two_sided(rng, 1.0, (8, 2)) + 3, 1.0).sum() for _ in range(200)]
    assert np.mean(np.array(kept) > 0) > 0.95
    with pytest.raises(ValueError, match="integer counts"):
        supply_counts([[0.5]], 1.0)


def test_share_cap_follows_the_plan_without_asks() -> None:
    supplies = np.array([[90, 0], [10, 40]])
    # Cell 0 plans 50 of 100, cell 1 plans 20 of 40: parts 45, 5 and 20; times 1.5, rounded up.
    capped = share_cap([[0, 9], [9, 0]], [50, 20], supplies, 5, 1.5)
    np.testing.assert_array_equal(capped, [[68, 0], [8, 30]])
    generous = share_cap([[0, 9], [9, 0]], [50, 20], supplies, 5, 100.0)
    np.testing.assert_array_equal(generous, supplies)


def test_share_cap_is_exact_where_floats_round_up() -> None:
    # 1.1 x 10 x 10 / 10 is 11 exactly; in floats 11.000000000000002 would round up to 12.
    capped = share_cap([[0]], [20], [[10], [10]], 5, 1.1)
    np.testing.assert_array_equal(capped, [[10], [10]])
    np.testing.assert_array_equal(share_cap([[0]], [10], [[50], [50]], 5, 2.2), [[11], [11]])


def test_share_cap_leaves_room_to_serve_what_the_plan_serves() -> None:
    rng = np.random.default_rng(4)
    for _ in range(60):
        sources, cells = (int(n) for n in rng.integers(1, 8, 2))
        distances = rng.integers(0, 20, (cells, cells))
        target = rng.integers(0, 20, cells)
        supplies = rng.integers(0, 20, (sources, cells))
        capped = share_cap(distances, target, supplies, 25, 1.25)
        assert (capped <= supplies).all()
        zero = np.zeros(sources, int)
        free = clear(distances, target, supplies, zero, reserve=25)
        again = clear(distances, target, capped, zero, reserve=25)
        assert again.objective == free.objective


@pytest.mark.parametrize("gamma", [1.0, 0.5, math.nan, math.inf])
def test_a_cap_without_competition_is_refused(gamma: float) -> None:
    with pytest.raises(ValueError, match="gamma"):
        share_cap([[0]], [3], [[5]], 5, gamma)


def test_label_cost_is_on_only_beyond_noise() -> None:
    target = np.array([[30, 70], [20, 80]])  # 75% positive
    same = np.array([2500, 7500])
    shifted = np.array([6000, 4000])
    settings = {"target_epsilon": 0.5, "pooled_variance": 400.0}
    assert not label_cost_needed(target, same, **settings)
    assert label_cost_needed(target, shifted, **settings)
    few = np.array([[2, 6]])  # the same shift in 8 rows is no evidence
    assert not label_cost_needed(few, shifted, **settings)
    assert not label_cost_needed(target, shifted, target_epsilon=0.02, pooled_variance=400.0)
    assert not label_cost_needed(target, shifted, target_epsilon=0.5, pooled_variance=1e8)
    assert not label_cost_needed(-target, shifted, **settings)
    with pytest.raises(ValueError, match="shapes"):
        label_cost_needed(target, np.ones(3), **settings)


def test_label_switch_false_alarms_are_rare() -> None:
    """Equal shares: |z| > 2 in about 5% of draws; 2000 draws, sd 10, allow 9% (8 sd)."""
    rng = np.random.default_rng(5)
    alarms = 0
    for _ in range(2000):
        rows = rng.multinomial(200, [0.15, 0.35, 0.15, 0.35]).reshape(2, 2)
        target = rows + two_sided(rng, 0.5, (2, 2))
        pool = np.array([3000, 7000]) + two_sided(rng, 1.0, (2, 40)).sum(axis=1)
        alarms += label_cost_needed(
            target, pool, target_epsilon=0.5, pooled_variance=40 * noise_variance(1.0)
        )
    assert 0.01 * 2000 < alarms < 0.09 * 2000


def test_joint_distances_add_the_label_cost() -> None:
    cells = np.array([[0.0, 2.0], [2.0, 0.0]])
    joint = joint_distances(cells, 3, 4.0)
    for a in range(2):
        for b in range(2):
            for x in range(3):
                for y in range(3):
                    assert joint[a * 3 + x, b * 3 + y] == cells[a, b] + 4.0 * (x != y)
    np.testing.assert_array_equal(joint_distances(cells, 1), cells)
    with pytest.raises(ValueError, match="square"):
        joint_distances(np.zeros((2, 3)), 2)
    with pytest.raises(ValueError, match="labels"):
        joint_distances(cells, 0)


def test_money_rounds_to_micro_units() -> None:
    result = money([[0.0, 1.25], [1 / 3, 2.0]], 1_000_000)
    np.testing.assert_array_equal(result, [[0, 1_250_000], [333_333, 2_000_000]])
    assert result.dtype == np.int64
    with pytest.raises(ValueError, match="expected"):
        money([-1.0], 5)


def test_uncovered_cells_are_reported_with_their_shares() -> None:
    # Two cells x two labels; nobody has cell 1, and it is too far from cell 0.
    distances = np.array([[0, 4, 9, 9], [4, 0, 9, 9], [9, 9, 0, 4], [9, 9, 4, 0]])
    supplies = np.array([[6, 2, 0, 0]])
    plan = clear(distances, [4, 6, 5, 5], supplies, [1], reserve=6)
    assert uncovered(plan, n_labels=2) == (
        Uncovered(cell=1, units=10, share=0.5, reachable=False),
        Uncovered(cell=0, units=2, share=0.1, reachable=True),
    )
    assert [item.cell for item in uncovered(plan)] == [2, 3, 1]
    served = clear([[0]], [3], [[3]], [1], reserve=5)
    assert uncovered(served) == ()
    nobody = clear([[0]], [3], np.zeros((0, 1), int), [], reserve=5)
    assert uncovered(nobody) == (Uncovered(0, 3, 1.0, reachable=False),)
    with pytest.raises(ValueError, match="multiple"):
        uncovered(plan, n_labels=3)
