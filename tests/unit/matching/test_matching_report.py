"""Match report: figures against their definitions, baselines against brute force, honest nulls."""

import json
from itertools import permutations
from math import inf, nan, sqrt

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from matching.baselines import draw_random, label_only, points_ot, use_all
from matching.discrepancy import Yardstick, bandwidth, mmd_squared, wasserstein2
from matching.report import Cohorts, gap_closed, match_report, signed_root

Floats = NDArray[np.float64]


def test_w2_of_equal_sized_sets_is_the_best_assignment() -> None:
    rng = np.random.default_rng(0)
    for n in (1, 2, 5, 6):
        a, b = rng.normal(size=(n, 3)), rng.normal(size=(n, 3))
        cost = cdist(a, b, "sqeuclidean")
        best = min(sum(cost[i, p[i]] for i in range(n)) for p in permutations(range(n)))
        assert wasserstein2(a, b) == pytest.approx(sqrt(best / n), abs=1e-9)


def test_w2_laws() -> None:
    rng = np.random.default_rng(1)
    a = rng.normal(size=(40, 4))
    assert wasserstein2(a, a) == pytest.approx(0, abs=1e-6)
    shift = np.array([3.0, 0, -4, 0])
    assert wasserstein2(a, a + shift) == pytest.approx(5.0)
    doubled = np.vstack([a, a])
    assert wasserstein2(doubled, a) == pytest.approx(0, abs=1e-6)
    weights = (np.ones(1), np.array([1.0, 3.0]))
    assert wasserstein2(np.zeros((1, 1)), np.array([[0.0], [2.0]]), weights) == pytest.approx(
        sqrt(3)
    )
    for bad in (np.array([1.0]), np.array([-1.0, 2.0]), np.zeros(2)):
        with pytest.raises(ValueError, match="weights"):
            wasserstein2(np.zeros((1, 1)), np.zeros((2, 1)), (np.ones(1), bad))
    with pytest.raises(ValueError, match="expected points"):
        wasserstein2(np.zeros((0, 1)), np.zeros((2, 1)))


def plain_mmd_squared(x: Floats, y: Floats, width: float) -> float:
    def kernel(a: Floats, b: Floats) -> Floats:
        return np.exp(-cdist(a, b, "sqeuclidean") / (2 * width**2))

    n, m = len(x), len(y)
    xx = sum(kernel(x, x)[i, j] for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(kernel(y, y)[i, j] for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return float(xx + yy - 2 * kernel(x, y).mean())


def test_mmd_is_the_unbiased_estimate() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(9, 3)), rng.normal(0.5, 1, size=(7, 3))
    assert mmd_squared(x, y, 1.3) == pytest.approx(plain_mmd_squared(x, y, 1.3), abs=1e-12)
    assert mmd_squared(y, x, 1.3) == pytest.approx(mmd_squared(x, y, 1.3), abs=1e-12)
    # Unbiased: two halves of one sample give mean 0 over 300 splits (sd of the mean .0006).
    z = rng.normal(size=(60, 3))
    values = []
    for _ in range(300):
        rng.shuffle(z)
        values.append(mmd_squared(z[:20], z[20:], 1.5))
    assert abs(np.mean(values)) < 0.01
    assert min(values) < 0
    with pytest.raises(ValueError, match="two rows"):
        mmd_squared(x[:1], y, 1.0)
    with pytest.raises(ValueError, match="width"):
        mmd_squared(x, y, 0.0)


def test_jackknife_error_is_the_leave_one_out_spread() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(12, 2)), rng.normal(size=(15, 2))
    stick = Yardstick(y, 1.1)
    left_out = np.array([stick.mmd_squared(np.delete(x, i, axis=0)) for i in range(12)])
    expected = sqrt(11 / 12 * ((left_out - left_out.mean()) ** 2).sum())
    assert stick.jackknife_error(x) == pytest.approx(expected)
    assert stick.jackknife_error(x[:2]) == inf


def test_bandwidth_is_the_median_distance() -> None:
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(30, 3)), rng.normal(size=(20, 3))
    union = np.vstack([x, y])
    apart = cdist(union, union)[np.triu_indices(50, 1)]
    assert bandwidth(x, y) == pytest.approx(np.median(apart))
    large = rng.normal(size=(5000, 3))
    assert bandwidth(large, y) == bandwidth(large, y)
    assert bandwidth(np.zeros((5, 2)), np.zeros((5, 2))) == 1.0
    mostly_alike = np.vstack([np.zeros((50, 1)), [[2.0]]])
    assert bandwidth(mostly_alike, np.zeros((5, 1))) == pytest.approx(2.0)


def test_gap_closed_and_its_reasons() -> None:
    assert gap_closed(0.05, 0.02, 0.01, 0.001) == (pytest.approx(0.75), None)
    assert gap_closed(0.05, 0.07, 0.01, 0.001)[0] == pytest.approx(-0.5)
    for case in ((0.05, 0.02, 0.04, 0.02), (0.01, 0.02, 0.05, 0.001), (0.05, 0.02, 0.01, inf)):
        value, reason = gap_closed(*case)
        assert value is None
        assert "random rows fit as well" in str(reason)
    value, reason = gap_closed(0.05, 0.02, nan, nan)
    assert (value, "too few rows" in str(reason)) == (None, True)
    assert signed_root(-4.0) == -2.0
    assert signed_root(9.0) == 3.0


def test_draws_are_uniform_seeded_and_without_repeats() -> None:
    drawn = draw_random(100, 30, seed=1)
    assert len(np.unique(drawn)) == 30
    np.testing.assert_array_equal(drawn, draw_random(100, 30, seed=1))
    np.testing.assert_array_equal(draw_random(4, 30, seed=1), use_all(4))
    hits = np.zeros(20)
    for seed in range(4000):  # each row is met 1000 times, sd 27; allow 6 sd
        hits[draw_random(20, 5, seed)] += 1
    assert (np.abs(hits - 1000) < 6 * 27.4).all()


def test_label_only_draws_the_customers_label_shares() -> None:
    labels = np.array([0] * 500 + [1] * 500)
    picked = label_only(labels, np.array([1, 1, 1, 0]), 200, seed=0)
    assert len(np.unique(picked)) == 200
    assert labels[picked].sum() == 150
    short = label_only(np.array([0, 0, 0, 1]), np.array([1, 0]), 6, seed=0)
    np.testing.assert_array_equal(short, [0, 1, 2, 3])
    absent = label_only(np.array(["a", "b"]), np.array(["c"]), 6, seed=0)
    assert len(absent) == 0
    with pytest.raises(ValueError, match="validation row"):
        label_only(labels, [], 6, seed=0)


def test_points_ot_is_the_cheapest_assignment() -> None:
    rng = np.random.default_rng(5)
    for rows, wanted in ((6, 3), (7, 3), (2, 5), (9, 9)):
        pool, validation = rng.normal(size=(20, 2)), rng.normal(size=(wanted, 2))
        picked = points_ot(pool, validation, rows)
        assert len(np.unique(picked)) == rows
        quota = [rows // wanted + (i < rows % wanted) for i in range(wanted)]
        slots = np.repeat(np.arange(wanted), quota)
        cost = cdist(pool, validation)[:, slots]
        chosen, slot = linear_sum_assignment(cost)
        _, again = linear_sum_assignment(cost[picked])
        assert cost[picked][np.arange(rows), again].sum() == pytest.approx(cost[chosen, slot].sum())


def test_points_ot_with_labels_limits_and_edges() -> None:
    pool = np.array([[0.0], [0.1], [5.0], [5.1]])
    validation = np.array([[0.0]])
    labelled = points_ot(
        pool,
        validation,
        1,
        pool_labels=np.array([0, 1, 1, 1]),
        validation_labels=np.array([1]),
        label_cost=4.0,
    )
    np.testing.assert_array_equal(labelled, [1])
    np.testing.assert_array_equal(points_ot(pool, validation, 1), [0])
    np.testing.assert_array_equal(points_ot(pool, validation, 9), [0, 1, 2, 3])
    assert len(points_ot(pool, validation, 0)) == 0
    rng = np.random.default_rng(6)
    many = rng.normal(size=(900, 1))
    assert len(points_ot(many, validation, 10, candidates=100)) == 10
    with pytest.raises(ValueError, match="validation"):
        points_ot(pool, np.zeros((0, 1)), 1)
    with pytest.raises(ValueError, match="labels"):
        points_ot(pool, validation, 1, label_cost=4.0)


def cohorts(seed: int = 7, pool: int = 600) -> Cohorts:
    rng = np.random.default_rng(seed)
    return Cohorts(
        pool=rng.normal(size=(pool, 5)),
        validation=rng.normal(0.6, 1, size=(80, 5)),
        holdout=rng.normal(0.6, 1, size=(70, 5)),
        pool_labels=rng.integers(0, 2, pool),
        validation_labels=rng.integers(0, 2, 80),
    )


def test_report_orders_methods_as_they_should_be() -> None:
    c = cohorts()
    near = np.argsort(((c.pool - 0.6) ** 2).sum(axis=1) + np.arange(600) % 5)[:100]
    far = np.argsort(c.pool.sum(axis=1))[:100]
    report = match_report(c, {"clearinghouse": near, "noise_free": far}, records=100)
    methods = report["methods"]
    names = {"clearinghouse", "noise_free", "random", "use_all", "label_only", "points_ot"}
    assert set(methods) == names | {"importance", "greedy_mmd"}
    assert methods["greedy_mmd"]["gap_closed"] > 0.8
    assert methods["importance"]["gap_closed"] > 0.3
    assert methods["points_ot"]["gap_closed"] > 0.5
    assert methods["clearinghouse"]["gap_closed"] > 0.2
    assert methods["noise_free"]["gap_closed"] < -0.5
    assert methods["random"]["gap_closed"] == 0
    assert methods["random"]["rows"] == 100
    assert methods["use_all"]["rows"] == 600
    assert methods["points_ot"]["w2"] < methods["random"]["w2"] < methods["noise_free"]["w2"]
    assert report["subsampled"] == []
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_gap_closed_can_be_recomputed_from_the_report_and_the_rows() -> None:
    c = cohorts()
    mine = np.arange(0, 600, 6)
    report = match_report(c, {"clearinghouse": mine}, records=100, seed=3)
    width = report["bandwidth"]
    assert width == bandwidth(c.pool, c.holdout)
    draws = [mmd_squared(c.pool[draw_random(600, 100, 3 + i)], c.holdout, width) for i in range(50)]
    own = mmd_squared(c.validation, c.holdout, width)
    room = float(np.mean(draws)) - own
    entry = report["methods"]["clearinghouse"]
    squared = mmd_squared(c.pool[mine], c.holdout, width)
    assert entry["mmd"] == pytest.approx(signed_root(squared))
    assert entry["gap_closed"] == pytest.approx((np.mean(draws) - squared) / room)
    assert report["methods"]["random"]["gap_sd"] == pytest.approx(np.std(draws, ddof=1) / room)
    assert report["denominator"] == pytest.approx(room)
    assert report["methods"]["random"]["mmd_squared"] == pytest.approx(np.mean(draws))
    error = sqrt(
        Yardstick(c.holdout, width).jackknife_error(c.validation) ** 2 + np.var(draws, ddof=1) / 50
    )
    assert report["denominator_error"] == pytest.approx(error)


def test_where_random_fits_as_well_there_is_no_gap_but_a_reason() -> None:
    rng = np.random.default_rng(8)
    same = Cohorts(
        rng.normal(size=(400, 3)),
        rng.normal(1.0, 1, size=(30, 3)),  # the validation rows are the odd ones out
        rng.normal(size=(30, 3)),
        np.zeros(400),
        np.zeros(30),
    )
    report = match_report(same, {"clearinghouse": use_all(50)}, records=50)
    for entry in report["methods"].values():
        assert entry["gap_closed"] is None
        assert "random rows fit as well" in entry["reason"]
        assert entry["mmd"] is not None
    assert report["methods"]["random"]["gap_sd"] is None


def test_tiny_markets_give_nulls_with_reasons_not_errors() -> None:
    rng = np.random.default_rng(9)
    one = Cohorts(
        rng.normal(size=(1, 2)),
        rng.normal(size=(1, 2)),
        rng.normal(size=(2, 2)),
        np.zeros(1),
        np.zeros(1),
    )
    for chosen in (np.zeros(0, int), np.zeros(1, int)):
        report = match_report(one, {"clearinghouse": chosen}, records=5)
        for entry in report["methods"].values():
            assert entry["gap_closed"] is None
            assert "fewer than two rows" in entry["reason"]
        json.dumps(report, allow_nan=False)
        assert report["denominator"] is None
    pool = Cohorts(
        rng.normal(size=(9, 2)), *[rng.normal(size=(2, 2))] * 2, np.zeros(9), np.zeros(2)
    )
    report = match_report(pool, {"clearinghouse": np.zeros(0, int)}, records=5)
    assert report["methods"]["random"]["rows"] == 5
    assert report["methods"]["random"]["mmd"] is not None
    for arguments in ((pool, {"other": use_all(3)}), (one, {})):
        with pytest.raises(ValueError, match="clearinghouse"):
            match_report(*arguments, records=5)
    lone = Cohorts(pool.pool, pool.validation, pool.holdout[:1], pool.pool_labels, np.zeros(2))
    with pytest.raises(ValueError, match="holdout"):
        match_report(lone, {"clearinghouse": use_all(3)}, records=5)


def test_large_pools_are_subsampled_and_the_report_says_so() -> None:
    large = cohorts(10, pool=9000)
    report = match_report(large, {"clearinghouse": np.arange(100)}, records=100)
    assert report["subsampled"] == ["greedy_mmd", "points_ot", "use_all"]
    again = match_report(large, {"clearinghouse": np.arange(100)}, records=100)
    assert again == report
