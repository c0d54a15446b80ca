"""Semivalues: closed forms against every coalition, and the laws that define them."""

from collections.abc import Callable
from itertools import combinations
from math import comb, factorial

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import beta as beta_function

from valuation import semivalue
from valuation.semivalues import contributions, effective_targets

Floats = NDArray[np.float64]
Game = Callable[[frozenset[int]], float]


def best_gain_game(gains: Floats, weights: Floats) -> Game:
    def utility(coalition: frozenset[int]) -> float:
        if not coalition:
            return 0.0
        return float(weights @ gains[:, sorted(coalition)].max(axis=1))

    return utility


def by_definition(utility: Game, n: int, weight: Callable[[int], float]) -> Floats:
    """Sum over coalitions without i of weight(size) x what i adds."""
    values = np.zeros(n)
    for i in range(n):
        others = [p for p in range(n) if p != i]
        for size in range(n):
            for members in combinations(others, size):
                coalition = frozenset(members)
                gain = utility(coalition | {i}) - utility(coalition)
                values[i] += weight(size) * gain
    return values


def shapley_weight(n: int) -> Callable[[int], float]:
    return lambda size: factorial(size) * factorial(n - 1 - size) / factorial(n)


def beta_weight(n: int, alpha: float, beta: float) -> Callable[[int], float]:
    """Kwon and Zou 2022: Beta(j + beta - 1, n - j + alpha) / Beta(alpha, beta), j = size + 1."""
    total = beta_function(alpha, beta)
    return lambda size: float(beta_function(size + beta, n - 1 - size + alpha) / total)


def random_game(rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    gains = rng.gamma(1.0, size=(7, n)) * (rng.random((7, n)) < 0.7)
    gains[0] = np.round(gains[0])  # some ties
    return gains, rng.uniform(0, 3, 7)


@pytest.mark.parametrize("n", [1, 2, 3, 6, 8])
def test_closed_forms_equal_brute_force(n: int) -> None:
    rng = np.random.default_rng(n)
    for _ in range(4):
        gains, weights = random_game(rng, n)
        game = best_gain_game(gains, weights)
        cases: list[tuple[dict[str, object], Callable[[int], float]]] = [
            ({"kind": "shapley"}, shapley_weight(n)),
            ({"kind": "banzhaf"}, lambda size: 0.5 ** (n - 1)),
            ({"kind": "loo"}, lambda size: float(size == n - 1)),
            ({"kind": "beta"}, beta_weight(n, 16, 1)),
            ({"kind": "beta", "alpha": 1, "beta": 4}, beta_weight(n, 1, 4)),
            ({"kind": "beta", "alpha": 2.5, "beta": 0.5}, beta_weight(n, 2.5, 0.5)),
        ]
        for arguments, weight in cases:
            mine = semivalue(gains, weights, **arguments)  # type: ignore[arg-type]
            np.testing.assert_allclose(mine, by_definition(game, n, weight), atol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 5, 7])
def test_veto_is_shapley_with_the_customer_as_a_player(n: int) -> None:
    rng = np.random.default_rng(10 + n)
    gains, weights = random_game(rng, n)
    game = best_gain_game(gains, weights)

    def with_customer(coalition: frozenset[int]) -> float:
        return game(coalition - {n}) if n in coalition else 0.0

    expected = by_definition(with_customer, n + 1, shapley_weight(n + 1))
    mine = semivalue(gains, weights, "veto")
    np.testing.assert_allclose(mine, expected[:n], atol=1e-12)
    whole = game(frozenset(range(n)))
    assert mine.sum() + expected[n] == pytest.approx(whole, abs=1e-12)


def test_a_monopolist_shares_with_the_customer_under_veto_only() -> None:
    assert semivalue([[8.0]], [2.0], "veto") == pytest.approx([8.0])
    for kind in ("shapley", "banzhaf", "loo", "beta"):
        assert semivalue([[8.0]], [2.0], kind) == pytest.approx([16.0])


def test_efficiency_symmetry_null_player_additivity() -> None:
    rng = np.random.default_rng(20)
    for _ in range(20):
        gains = rng.gamma(1.0, size=(30, 40))
        gains[:, 7] = gains[:, 3]
        gains[:, 11] = 0
        first, second = rng.uniform(0, 2, (2, 30))
        for kind in ("shapley", "banzhaf", "loo", "beta", "veto"):
            a, b = semivalue(gains, first, kind), semivalue(gains, second, kind)
            assert a[7] == pytest.approx(a[3], abs=1e-12)
            assert a[11] == 0
            assert (a >= 0).all()
            np.testing.assert_allclose(semivalue(gains, first + second, kind), a + b, atol=1e-12)
        whole = float(first @ gains.max(axis=1))
        assert semivalue(gains, first).sum() == pytest.approx(whole, abs=1e-12)


def test_loo_is_the_gap_to_the_second_best() -> None:
    np.testing.assert_allclose(semivalue([[5, 3, 1], [2, 2, 0]], [2, 7], "loo"), [4, 0, 0])


def test_beta_one_one_is_shapley_and_sixteen_one_rewards_substitutes() -> None:
    gains, weights = random_game(np.random.default_rng(30), 9)
    shapley = semivalue(gains, weights)
    np.testing.assert_allclose(semivalue(gains, weights, "beta", alpha=1, beta=1), shapley)
    clones, loo = semivalue([[4.0] * 6], [1.0], "beta"), semivalue([[4.0] * 6], [1.0], "loo")
    assert clones[0] > semivalue([[4.0] * 6], [1.0])[0] > loo[0] == 0


def test_values_do_not_depend_on_the_order_of_sources_or_on_blocks() -> None:
    rng = np.random.default_rng(31)
    gains, weights = rng.gamma(1.0, size=(3000, 700)), rng.uniform(0, 1, 3000)
    values = semivalue(gains, weights)  # more than one block of rows
    order = rng.permutation(700)
    np.testing.assert_allclose(semivalue(gains[:, order], weights), values[order], rtol=1e-12)
    np.testing.assert_allclose(values, weights @ contributions(gains), rtol=1e-12)


def test_contributions_and_effective_targets() -> None:
    gains = np.array([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [0.0, 9.0]])
    per_target = contributions(gains)
    np.testing.assert_allclose(per_target, gains)
    np.testing.assert_allclose(effective_targets(per_target), [3, 1])
    np.testing.assert_array_equal(effective_targets(np.zeros((3, 2))), [0, 0])


def test_markets_without_sources_or_targets() -> None:
    for kind in ("shapley", "banzhaf", "loo", "beta", "veto"):
        assert semivalue(np.zeros((3, 0)), np.ones(3), kind).shape == (0,)
        np.testing.assert_array_equal(semivalue(np.zeros((0, 2)), np.ones(0), kind), [0, 0])


@pytest.mark.parametrize(
    ("gains", "weights", "kind", "message"),
    [
        ([1.0], [1.0], "shapley", "gains: expected shape"),
        ([[1.0]], [1.0, 2.0], "shapley", "weights: expected shape"),
        ([[-1.0]], [1.0], "shapley", "gains: expected finite"),
        ([[1.0]], [np.nan], "shapley", "weights: expected finite"),
        ([[1.0]], [1.0], "nucleolus", "kind: expected one of"),
    ],
)
def test_malformed_games_are_refused(
    gains: list[object], weights: list[float], kind: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        semivalue(gains, weights, kind)  # type: ignore[arg-type]


def test_beta_parameters_must_be_positive() -> None:
    with pytest.raises(ValueError, match="alpha > 0"):
        semivalue([[1.0]], [1.0], "beta", alpha=0)


def test_combinatorial_identity_behind_the_closed_form() -> None:
    """c_l of Shapley: chance that l - 1 given others come later is 1 / l, over all orders."""
    for n in range(1, 8):
        for rank in range(1, n + 1):
            free = n - rank
            total = sum(comb(free, size) * shapley_weight(n)(size) for size in range(free + 1))
            assert total == pytest.approx(1 / rank)
