"""Committed coins: epsilon and delta exactly those of the binomial, numbers known by hand."""

from fractions import Fraction
from math import comb, exp

import pytest

from dp.coins import coins_of, delta_of, epsilon_of, standard_deviation


def brute_delta(coins: int, epsilon: float) -> float:
    """Both directions of the hockey stick between Binomial(m, 1/2) and itself moved by one."""
    mass = [comb(coins, k) / 2**coins for k in range(coins + 1)]
    here, moved = [*mass, 0.0], [0.0, *mass]
    return max(
        sum(max(0.0, p - exp(epsilon) * q) for p, q in zip(here, moved, strict=True)),
        sum(max(0.0, q - exp(epsilon) * p) for p, q in zip(here, moved, strict=True)),
    )


@pytest.mark.parametrize("coins", [1, 2, 7, 80, 124, 128, 256])
@pytest.mark.parametrize("epsilon_micro", [0, 100_000, 757_043, 2_000_000])
def test_delta_is_the_exact_binomials(coins: int, epsilon_micro: int) -> None:
    found = float(delta_of(coins, epsilon_micro))
    assert found == pytest.approx(brute_delta(coins, epsilon_micro / 1e6), rel=1e-9, abs=1e-18)


def test_at_epsilon_0_delta_is_the_largest_probability() -> None:
    """Total variation of a symmetric unimodal law and itself moved by one."""
    for coins in (2, 10, 128):
        largest = Fraction(comb(coins, coins // 2), 2**coins)
        assert float(delta_of(coins, 0)) == pytest.approx(float(largest))


def test_known_numbers() -> None:
    assert standard_deviation(128) == pytest.approx(5.657, abs=1e-3)
    assert standard_deviation(124) == pytest.approx(5.568, abs=1e-3)
    assert epsilon_of(128) == 757_043
    assert epsilon_of(124) == 772_110


@pytest.mark.parametrize(
    "epsilon_micro", [100_000, 400_000, 600_000, 757_043, 1_000_000, 5_000_000]
)
def test_the_fewest_coins_for_an_epsilon(epsilon_micro: int) -> None:
    coins = coins_of(epsilon_micro)
    assert coins % 2 == 0
    assert epsilon_of(coins) <= epsilon_micro
    assert float(delta_of(coins, epsilon_micro)) <= 1e-6
    assert float(delta_of(coins - 2, epsilon_micro)) > 1e-6


def test_what_coins_cannot_do_is_refused() -> None:
    with pytest.raises(ValueError, match="choose a larger epsilon or the geometric law"):
        coins_of(50_000)
    with pytest.raises(ValueError, match="too few"):
        epsilon_of(10)
    for coins in (0, 8193):
        with pytest.raises(ValueError, match="expected 1 to 8192"):
            delta_of(coins, 0)
    with pytest.raises(ValueError, match="from 0"):
        delta_of(2, -1)
