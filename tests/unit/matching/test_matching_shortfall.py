"""What an honest source may lack by the law of its noise: the law, and how often it is passed."""

import numpy as np
import pytest

from matching.shortfall import allowed_shortfall
from matching.target import supply_counts


def noised(rng, exact, epsilon):
    chance = -np.expm1(-epsilon)
    return exact + rng.geometric(chance, exact.shape) - rng.geometric(chance, exact.shape)


@pytest.mark.parametrize(("epsilon", "children"), [(1.0, 1), (0.5, 1), (1.0, 4)])
def test_honest_sources_pass_the_law_about_once_in_a_thousand(epsilon, children):
    """All that may be sold is ordered, the worst case; false alarms below 1e-6 at this bound."""
    rng = np.random.default_rng(7)
    exact = rng.poisson(6.0, 24)
    late, markets = 0, 1500
    for _ in range(markets):
        fine = noised(rng, np.repeat(exact[:, None], children, axis=1), epsilon)
        supply = supply_counts(fine.sum(axis=1), epsilon, noise_entries=fine.size)
        short = int(np.maximum(supply - exact * children, 0).sum())
        late += short > allowed_shortfall(epsilon, supply.tolist(), [children] * 24)
    assert late <= 10  # 1.5 are expected if the law is tight; it is a bound, so fewer


def test_the_law_is_exact_for_one_place_and_never_above_the_order():
    # P(noise > k) = a^(k+1) / (1 + a) with a = exp(-1): the least k with at most 1e-3 is 6.
    assert allowed_shortfall(1.0, [100], [1]) == 6
    assert np.exp(-7) / (1 + np.exp(-1)) <= 1e-3 < np.exp(-6) / (1 + np.exp(-1))
    assert allowed_shortfall(1.0, [4], [1]) == 4
    assert allowed_shortfall(1.0, [], []) == 0
    assert allowed_shortfall(1.0, [0, 0], [1, 1]) == 0
    assert allowed_shortfall(0.1, [9, 9], [3, 3]) <= 18
    wide = [allowed_shortfall(1.0, [50] * n, [1] * n) for n in (1, 4, 16)]
    assert wide == sorted(wide)
    assert wide[-1] < 4 * wide[0] * 4


@pytest.mark.parametrize(
    "bad", [(0.0, [1], [1]), (1.0, [1], []), (1.0, [-1], [1]), (1.0, [1], [0])]
)
def test_numbers_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match="expected"):
        allowed_shortfall(*bad)
