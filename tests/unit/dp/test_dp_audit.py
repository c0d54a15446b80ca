"""Audits: right mechanisms pass, planted faults are caught.

The bound is asked for with confidence 1 - 1e-6, so a right mechanism fails a test with a
probability of at most 1e-6. That a fault is caught was measured with wide margins.
"""

import math

import numpy as np
import pytest
from accusing import CAUGHT, SURE
from diffprivlib.mechanisms import Laplace

from dp.audit import epsilon_lower_bound
from dp.noise import geometric


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0])
def test_geometric_noise_passes_and_half_of_it_is_caught(epsilon) -> None:
    right = epsilon_lower_bound(lambda c: geometric(c, epsilon), 0, 1, 5000, SURE)
    assert 0.3 * epsilon < right <= epsilon
    planted = epsilon_lower_bound(lambda c: geometric(c, 2 * epsilon), 0, 1, 5000, CAUGHT)
    assert planted > epsilon


def test_wrong_sensitivity_is_caught() -> None:
    """Each patient counted in four cells with noise for one: epsilon is 4, not 1."""

    def repeated(n: int) -> np.ndarray:
        return geometric([n, n, n, n], 1)

    assert epsilon_lower_bound(repeated, 3, 4, 3000, CAUGHT) > 1

    def declared(n: int) -> np.ndarray:
        return geometric([n, n, n, n], 1, sensitivity=4)

    assert epsilon_lower_bound(declared, 3, 4, 2000, SURE) <= 1


def test_one_changed_cell_of_a_histogram_is_found() -> None:
    left = [5] * 12
    right = [*left[:7], 6, *left[8:]]
    assert epsilon_lower_bound(lambda c: geometric(c, 1), left, right, 2500, SURE) <= 1
    assert epsilon_lower_bound(lambda c: geometric(c, 2), left, right, 2500, CAUGHT) > 1


def test_empty_cells_must_get_noise_too() -> None:
    """Noise on occupied cells only, a common slip: an empty neighbour gives the patient away."""

    def skips_empty(counts: list[int]) -> np.ndarray:
        noised = geometric(counts, 1)
        return np.where(np.array(counts) == 0, 0, noised)

    full = [5, 9, 4, 7]
    assert epsilon_lower_bound(skips_empty, full, [6, *full[1:]], 1500, SURE) <= 1
    assert epsilon_lower_bound(skips_empty, [0, *full], [1, *full], 1500, CAUGHT) > 3
    honest = epsilon_lower_bound(lambda c: geometric(c, 1), [0, *full], [1, *full], 1500, SURE)
    assert honest <= 1


def test_low_bits_of_float_noise_are_caught_and_integers_have_none() -> None:
    """A float Laplace at a claimed 1: every threshold event passes, the grid does not."""
    laplace = Laplace(epsilon=1.0, sensitivity=1)
    assert epsilon_lower_bound(laplace.randomise, 0.0, 1.0, 3000, CAUGHT) > 2
    assert epsilon_lower_bound(lambda v: round(laplace.randomise(v)), 0.0, 1.0, 3000, SURE) <= 1


def test_a_mechanism_that_ignores_its_data_has_bound_zero_mostly() -> None:
    assert epsilon_lower_bound(lambda _: geometric(0, 1), 0, 1, 2000, SURE) < 1e-9


def test_no_noise_at_all_gives_the_largest_bound_the_runs_allow() -> None:
    bound = epsilon_lower_bound(lambda value: value, 0, 1, 2000, 0.99)
    tail = 0.005 ** (1 / 1000)  # Clopper-Pearson with all and none of 1,000 hits
    assert bound == pytest.approx(math.log(tail) - math.log(1 - tail))


def test_bound_holds_as_often_as_it_claims() -> None:
    """Randomised response with exact epsilon; 200 audits at confidence 0.9.

    With at most 10% false bounds, more than 48 of 200 have probability below 1e-8 (binomial).
    """
    random = np.random.default_rng(5)
    truth = 0.75  # epsilon = ln 3

    def respond(bit: int) -> int:
        return bit if random.random() < truth else 1 - bit

    false = sum(epsilon_lower_bound(respond, 0, 1, 200, 0.9) > math.log(3) for _ in range(200))
    assert false <= 48


@pytest.mark.parametrize(("n", "confidence"), [(99, 0.9), (100, 0.0), (100, 1.0)])
def test_refused_arguments(n, confidence) -> None:
    with pytest.raises(ValueError, match="at least 100"):
        epsilon_lower_bound(lambda v: v, 0, 1, n, confidence)


@pytest.mark.parametrize("output", [[], float("nan"), float("inf")])
def test_refused_outputs(output) -> None:
    with pytest.raises(ValueError, match="finite"):
        epsilon_lower_bound(lambda _: output, 0, 1, 100, 0.9)
