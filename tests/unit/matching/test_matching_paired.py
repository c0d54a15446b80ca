"""Intervals over seeds: worked by hand, and how often they hold what they should."""

import numpy as np
import pytest

from matching.paired import LEVEL, mean_interval, resampled_interval


def test_a_known_paired_sample() -> None:
    """Differences 1..5: sd sqrt(2.5), Student's t at 95% with 4 degrees of freedom 2.131847."""
    apart = [1.0, 2.0, 3.0, 4.0, 5.0]
    mean, low, high = mean_interval(apart, range(5))
    reach = 2.1318467863 * np.sqrt(2.5)
    assert (mean, low, high) == pytest.approx((3.0, 3 - reach / np.sqrt(5), 3 + reach / np.sqrt(5)))
    assert resampled_interval(7.0, apart) == pytest.approx((7 - reach, 7 + reach))


def test_runs_of_one_seed_count_once() -> None:
    once = mean_interval([1.0, 4.0, 2.0], [1, 2, 3])
    assert mean_interval([1.0, 1.0, 4.0, 4.0, 2.0, 2.0], [1, 1, 2, 2, 3, 3]) == once


def test_one_seed_has_no_interval() -> None:
    assert resampled_interval(0.5, [0.1]) is None
    assert np.isnan(mean_interval([0.1], [3])[1:]).all()


def test_more_resamples_do_not_make_the_interval_narrower() -> None:
    """A bootstrap replicate is not a new patient."""
    draws = np.random.default_rng(3).normal(size=4000)
    few, many = (resampled_interval(0.0, draws[:n]) for n in (40, 4000))
    assert few is not None
    assert many is not None
    assert many[1] == pytest.approx(1.645, abs=0.05)
    assert few[1] > 1.2


def test_the_resampled_interval_holds_the_truth_in_nine_of_ten_samples() -> None:
    """Means of 60 rows, 20 resamples each: the population's mean is inside as often as said."""
    rng = np.random.default_rng(11)
    inside = 0
    for _ in range(600):
        rows = rng.normal(2.0, 1.0, 60)
        again = [rows[rng.integers(0, 60, 60)].mean() for _ in range(20)]
        ends = resampled_interval(float(rows.mean()), again)
        assert ends is not None
        inside += ends[0] <= 2.0 <= ends[1]
    assert LEVEL - 0.05 < inside / 600 < LEVEL + 0.05
