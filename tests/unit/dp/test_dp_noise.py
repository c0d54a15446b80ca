"""Geometric noise: its law, its grid, and what it refuses.

The noise comes from the operating system, so these tests can fail by chance: each with a
probability of at most 1e-6, stated beside it.
"""

import inspect
import math
import secrets
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import chi2

from dp.noise import float_below, geometric


@pytest.mark.parametrize(("epsilon", "sensitivity"), [("0.5", 1), (Fraction(1), 1), (2.0, 3)])
def test_noise_has_the_discrete_laplace_law(epsilon, sensitivity) -> None:
    """Pearson's test on 20,000 draws; false alarm 1e-7 each."""
    n, value = 20_000, 7
    noise = geometric(np.full(n, value), epsilon, sensitivity) - value
    ratio = math.exp(-float(Fraction(epsilon)) / sensitivity)
    reach = 0
    while n * ratio ** (reach + 1) / (1 + ratio) > 20:  # mass of both tails beyond reach
        reach += 1
    cells = range(-reach, reach + 1)
    expected = [n * (1 - ratio) / (1 + ratio) * ratio ** abs(k) for k in cells]
    tail = n * ratio ** (reach + 1) / (1 + ratio)
    observed = [int((noise == k).sum()) for k in cells]
    expected += [tail, tail]
    observed += [int((noise < -reach).sum()), int((noise > reach).sum())]
    statistic = sum((o - e) ** 2 / e for o, e in zip(observed, expected, strict=True))
    assert sum(expected) == pytest.approx(n)
    assert statistic < chi2.isf(1e-7, len(expected) - 1)


def test_counts_get_independent_noise_and_keep_their_shape() -> None:
    counts = np.arange(4000).reshape(2, 1000, 2)
    noised = geometric(counts, "0.1")
    assert noised.shape == counts.shape
    assert noised.dtype == np.int64
    left, right = (noised - counts)[..., 0].ravel(), (noised - counts)[..., 1].ravel()
    # Under independence the correlation is normal with sd 1/sqrt(2000): beyond 5.5 sd, 4e-8.
    assert abs(np.corrcoef(left, right)[0, 1]) < 5.5 / math.sqrt(2000)


def test_two_calls_differ() -> None:
    # 1,000 equal draws at epsilon 0.1: below 1e-900.
    zeros = np.zeros(1000, dtype=np.int64)
    assert not np.array_equal(geometric(zeros, "0.1"), geometric(zeros, "0.1"))


def test_output_is_an_integer_whatever_the_scale() -> None:
    assert geometric(5, 1).shape == ()
    assert geometric([1, 2, 3], 0.001).dtype == np.int64
    assert geometric(np.zeros((0, 3), dtype=int), 1).shape == (0, 3)
    assert geometric([2**51], 1000).tolist() == [2**51]


def test_no_seed_can_be_given() -> None:
    assert list(inspect.signature(geometric).parameters) == ["counts", "epsilon", "sensitivity"]


def test_the_draw_is_the_operating_systems(monkeypatch) -> None:
    """With SystemRandom pinned to its middle the noise vanishes: nothing else is drawn from."""
    monkeypatch.setattr(secrets.SystemRandom, "random", lambda self: 0.75)
    np.random.seed(1)  # must change nothing
    assert geometric(np.arange(50), 3).tolist() == list(range(50))
    monkeypatch.setattr(secrets.SystemRandom, "random", lambda self: 0.5 + 1e-9)
    assert (geometric(np.arange(50), 3) - np.arange(50)).min() > 5


@pytest.mark.parametrize(
    ("counts", "epsilon", "sensitivity"),
    [
        ([1.5], 1, 1),
        ([float("nan")], 1, 1),
        (["1"], 1, 1),
        ([True], 1, 1),
        ([2**52], 1, 1),
        ([1], 0, 1),
        ([1], -1, 1),
        ([1], "nan", 1),
        ([1], float("nan"), 1),
        ([1], float("inf"), 1),
        ([1], "much", 1),
        ([1], 1, 0),
        ([1], 1, 1.0),
        ([1], 1, True),
    ],
)
def test_refusals(counts, epsilon, sensitivity) -> None:
    with pytest.raises(ValueError, match=r"must be|too small"):
        geometric(counts, epsilon, sensitivity)


@pytest.mark.parametrize("text", ["0.1", "0.3", "1", "0.7", "1e-3", "2.675"])
def test_float_epsilon_is_never_above_the_exact_one(text) -> None:
    below = float_below(text)
    assert Fraction(below) <= Fraction(text) < Fraction(math.nextafter(below, math.inf))


def test_reading_costs_and_ledgers_loads_no_heavy_package() -> None:
    code = (
        "import sys, dp, dp.cost, dp.ledger, dp.noise\n"
        "bad = {'diffprivlib', 'sklearn', 'clearinghouse', 'pydantic', 'sqlmodel', 'httpx'}\n"
        "sys.exit(', '.join(bad & set(sys.modules)) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
