"""The stronger baselines against brute force, and what they must find on made populations."""

from dataclasses import replace

import numpy as np
import pytest

from matching.discrepancy import bandwidth, mmd_squared
from matching.mmd_greedy import greedy_mmd
from matching.report import Cohorts, match_report
from matching.weighting import best_source, importance


def biased_mmd_squared(x, y, width) -> float:
    """With the diagonal, as herding sees it; the part that y has with itself left out."""

    def kernel(a, b):
        return np.exp(-((a[:, None] - b[None]) ** 2).sum(axis=2) / (2 * width**2))

    return float(kernel(x, x).mean() - 2 * kernel(x, y).mean())


def test_each_greedy_step_is_the_best_single_addition() -> None:
    rng = np.random.default_rng(0)
    pool, validation = rng.normal(size=(25, 2)), rng.normal(0.5, 1, size=(12, 2))
    before: set[int] = set()
    for rows in range(1, 9):
        picked = greedy_mmd(pool, validation, rows, width=1.2)
        assert len(np.unique(picked)) == rows
        added = set(picked.tolist()) - before
        assert len(added) == 1  # a longer choice extends the shorter one
        values = {
            i: biased_mmd_squared(pool[[*sorted(before), i]], validation, 1.2)
            for i in set(range(25)) - before
        }
        best = min(values.values())
        assert values[added.pop()] == pytest.approx(best, abs=1e-12)
        before = set(picked.tolist())


def test_greedy_beats_every_random_draw_of_its_size() -> None:
    rng = np.random.default_rng(1)
    pool, validation = rng.normal(size=(400, 3)), rng.normal(0.7, 1, size=(80, 3))
    width = bandwidth(pool, validation)
    mine = mmd_squared(pool[greedy_mmd(pool, validation, 60)], validation, width)
    draws = [
        mmd_squared(pool[rng.choice(400, 60, replace=False)], validation, width) for _ in range(200)
    ]
    assert mine < min(draws)


def test_greedy_limits_and_edges() -> None:
    pool, validation = np.arange(6.0)[:, None], np.array([[5.0]])
    np.testing.assert_array_equal(greedy_mmd(pool, validation, 1), [5])
    np.testing.assert_array_equal(greedy_mmd(pool, validation, 9), np.arange(6))
    assert len(greedy_mmd(pool, validation, 0)) == 0
    many = np.random.default_rng(2).normal(size=(900, 1))
    picked = greedy_mmd(many, validation, 10, candidates=100, seed=3)
    assert len(picked) == 10
    np.testing.assert_array_equal(picked, greedy_mmd(many, validation, 10, candidates=100, seed=3))
    with pytest.raises(ValueError, match="validation"):
        greedy_mmd(pool, np.zeros((0, 1)), 1)
    with pytest.raises(ValueError, match="width"):
        greedy_mmd(pool, validation, 1, width=0.0)


def test_best_source_is_the_one_of_the_customers_population() -> None:
    rng = np.random.default_rng(4)
    means = (-1.0, 0.6, 2.0)
    pool = np.vstack([rng.normal(mean, 1, size=(150, 3)) for mean in means])
    sources = np.repeat([7, 3, 9], 150)
    validation = rng.normal(0.6, 1, size=(80, 3))
    picked = best_source(pool, sources, validation, 100, seed=0)
    assert len(np.unique(picked)) == 100
    assert set(sources[picked]) == {3}
    everything = best_source(pool, sources, validation, 500, seed=0)
    np.testing.assert_array_equal(everything, np.arange(150, 300))
    assert len(best_source(pool[:2], np.array([0, 1]), validation, 5, seed=0)) == 0
    assert len(best_source(pool, sources, validation[:1], 5, seed=0)) == 0
    with pytest.raises(ValueError, match="sources"):
        best_source(pool, sources[:5], validation, 5, seed=0)


def test_importance_follows_a_known_density_ratio() -> None:
    """One 0/1 column: 20% ones in the pool, 80% at the customer.

    The fitted odds ratio of ones to zeros is close to (.8/.2) / (.2/.8) = 16, so a draw of few
    rows has about 80% ones (sd of a draw of 400: 2 points; the regression is damped, so 70 to 85).
    """
    pool = np.r_[np.ones(4000), np.zeros(16000)][:, None]
    validation = np.r_[np.ones(800), np.zeros(200)][:, None]
    picked = importance(pool, validation, 400, seed=1)
    assert len(np.unique(picked)) == 400
    assert 0.70 < pool[picked].mean() < 0.85
    alike = importance(pool, pool[::20], 400, seed=1)
    assert 0.12 < pool[alike].mean() < 0.28
    np.testing.assert_array_equal(importance(pool[:3], validation, 5, seed=0), [0, 1, 2])
    blind = importance(pool, validation[:0], 400, seed=1)
    assert 0.12 < pool[blind].mean() < 0.28


def test_importance_survives_a_perfectly_separable_pool() -> None:
    pool, validation = np.linspace(0, 1, 200)[:, None], np.full((50, 1), 1e6)
    assert len(np.unique(importance(pool, validation, 20, seed=0))) == 20


def test_report_names_best_source_only_where_sources_are_known() -> None:
    rng = np.random.default_rng(5)
    cohorts = Cohorts(
        pool=np.vstack([rng.normal(0, 1, size=(300, 3)), rng.normal(0.8, 1, size=(100, 3))]),
        validation=rng.normal(0.8, 1, size=(80, 3)),
        holdout=rng.normal(0.8, 1, size=(80, 3)),
        pool_labels=rng.integers(0, 2, 400),
        validation_labels=rng.integers(0, 2, 80),
    )
    mine = {"clearinghouse": np.arange(0, 400, 5)}
    assert "best_source" not in match_report(cohorts, mine, records=80)["methods"]
    known = replace(cohorts, pool_sources=np.repeat([0, 1], [300, 100]))
    methods = match_report(known, mine, records=80)["methods"]
    assert methods["best_source"]["rows"] == 80
    assert methods["best_source"]["gap_closed"] > 0.7
    for name in ("importance", "greedy_mmd", "best_source"):
        assert methods[name]["gap_closed"] > methods["random"]["gap_closed"]
