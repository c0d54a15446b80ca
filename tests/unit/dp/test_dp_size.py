"""A noised number of rows: its margins by exact sums, its post-processing, what it refuses."""

import math

import pytest

from dp.size import (
    LEAST_EPSILON_MICRO,
    SPILL,
    UNSURE,
    margin,
    noised_size,
    room,
    size_class,
)

MICRO = 1_000_000


def beyond(k: int, epsilon: float) -> float:
    """P(noise > k), summed term by term."""
    a = math.exp(-epsilon)
    return sum((1 - a) / (1 + a) * a**z for z in range(k + 1, k + 1 + math.ceil(60 / epsilon)))


@pytest.mark.parametrize("epsilon_micro", [LEAST_EPSILON_MICRO, 100_000, MICRO, 5 * MICRO])
@pytest.mark.parametrize("chance", [UNSURE, 1e-6, SPILL])
def test_a_margin_is_the_least_that_keeps_its_chance(epsilon_micro, chance) -> None:
    k, epsilon = margin(epsilon_micro, chance), epsilon_micro / MICRO
    assert beyond(k, epsilon) <= chance * (1 + 1e-6)
    assert k == 0 or beyond(k - 1, epsilon) > chance * (1 - 1e-6)


def test_class_and_leaves_follow_from_the_number() -> None:
    for noised in (-50, 0, 1, 17, 100, 1000, 10**6):
        for epsilon_micro in (100_000, MICRO):
            small, large = size_class(noised, epsilon_micro), room(noised, epsilon_micro)
            assert small & (small - 1) == large & (large - 1) == 0
            assert 1 <= small <= max(1, noised)
            assert large >= 2 * small
            assert large >= noised + margin(epsilon_micro, SPILL)


def test_a_class_is_rarely_above_the_rows_and_the_rows_always_fit() -> None:
    """2,000 draws of n = 65 at epsilon 1: above 64 never, as one needs a noise of 67 or more
    (1e-28); a spill needs one beyond 20 on 2,000 draws: 2e-6."""
    for _ in range(2000):
        noised = noised_size(65, MICRO)
        assert size_class(noised, MICRO) <= 64
        assert room(noised, MICRO) >= 65


def test_refusals() -> None:
    with pytest.raises(ValueError, match="noised size"):
        noised_size(-1, MICRO)
    with pytest.raises(ValueError, match="noised size"):
        noised_size(10, LEAST_EPSILON_MICRO - 1)
