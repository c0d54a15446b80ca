"""Sampled Shapley values: never over budget, exact where it can be, honest errors elsewhere."""

import json
import subprocess
import sys

import numpy as np
import pytest

import valuation
from valuation import Estimate, Progress, sampled_shapley, semivalue
from valuation.sampled import from_json, to_json


class Counted:
    """A game that counts how often it is asked."""

    def __init__(self, players: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.gains = rng.gamma(0.5, size=(60, players))
        self.weights = np.full(60, 1 / 60)
        self.calls = 0

    def __call__(self, coalition: frozenset[int]) -> float:
        self.calls += 1
        if not coalition:
            return 0.25  # U(nobody) need not be zero
        return 0.25 + float(self.weights @ self.gains[:, sorted(coalition)].max(axis=1))

    def exact(self) -> np.ndarray:
        return semivalue(self.gains, self.weights)


@pytest.mark.parametrize("players", [1, 2, 3, 5, 9])
def test_small_games_are_enumerated_exactly(players: int) -> None:
    game = Counted(players, players)
    estimate = sampled_shapley(game, players, 1 << players, seed=0)
    np.testing.assert_allclose(estimate.values, game.exact(), atol=1e-12)
    np.testing.assert_array_equal(estimate.standard_errors, np.zeros(players))
    assert estimate.calls == game.calls == 1 << players


@pytest.mark.parametrize(
    ("players", "calls"),
    [(2, 3), (3, 4), (3, 7), (4, 9), (5, 31), (8, 9), (8, 23), (8, 24), (12, 500), (30, 31)],
)
def test_calls_are_never_exceeded_and_values_stay_efficient(players: int, calls: int) -> None:
    for seed in range(5):
        game = Counted(players, seed)
        estimate = sampled_shapley(game, players, calls, seed)
        assert estimate.calls == game.calls <= calls
        whole = float(game.weights @ game.gains.max(axis=1))
        assert estimate.values.sum() == pytest.approx(whole, abs=1e-12)
        assert (estimate.standard_errors >= 0).all()


def test_standard_errors_cover_the_truth() -> None:
    """z-scores of 20 games x 20 sources; errors ignore antithesis, so they may be conservative."""
    z = []
    for seed in range(20):
        game = Counted(20, 100 + seed)
        estimate = sampled_shapley(game, 20, 3000, seed)
        z.append((estimate.values - game.exact()) / estimate.standard_errors)
    scores = np.concatenate(z)
    assert 0.3 < np.sqrt(np.mean(scores**2)) < 1.3
    assert abs(scores.mean()) < 0.15


def test_error_falls_with_calls_and_beats_plain_permutations() -> None:
    mine: dict[int, list[float]] = {800: [], 12_800: []}
    plain = []
    for seed in range(4):
        game = Counted(25, 200 + seed)
        exact = game.exact()
        for calls in mine:
            values = sampled_shapley(game, 25, calls, seed).values
            mine[calls].append(float(np.linalg.norm(values - exact) / np.linalg.norm(exact)))
        rng = np.random.default_rng(seed)
        total = np.zeros(25)
        orders = 800 // 24
        for _ in range(orders):
            order = rng.permutation(25)
            worth = [game(frozenset(order[:t].tolist())) for t in range(26)]
            total[order] += np.diff(worth)
        error = np.linalg.norm(total / orders - exact) / np.linalg.norm(exact)
        plain.append(float(error))
    assert np.mean(mine[12_800]) < 0.5 * np.mean(mine[800])
    assert np.mean(mine[800]) < 0.6 * np.mean(plain)


def test_additive_games_are_exact_at_once() -> None:
    worth = np.array([3.0, -1.0, 0.5, 2.0, 0.0, 7.0, 1.0, 1.0])
    for calls in (24, 40, 200):
        estimate = sampled_shapley(lambda c: float(sum(worth[list(c)])), 8, calls, seed=1)
        np.testing.assert_allclose(estimate.values, worth, atol=1e-12)
    np.testing.assert_allclose(estimate.standard_errors, 0, atol=1e-12)


def test_same_seed_same_estimate() -> None:
    game = Counted(15, 1)
    a, b, c = (sampled_shapley(game, 15, 400, seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(a.values, b.values)
    assert (a.values != c.values).any()


class StopError(Exception):
    """Raised to interrupt a run."""


@pytest.mark.parametrize(("players", "calls"), [(6, 64), (12, 700), (30, 3000)])
def test_an_interrupted_run_ends_with_the_same_numbers_and_repeats_no_call(
    players: int, calls: int
) -> None:
    whole = sampled_shapley(Counted(players, 3), players, calls, seed=4)
    game, kept = Counted(players, 3), {}

    def interrupt(state: Progress) -> None:
        if state.calls > 0.3 * state.limit:
            raise StopError

    with pytest.raises(StopError):
        sampled_shapley(game, players, calls, seed=4, known=kept, progress=interrupt)
    assert 0 < len(kept) < whole.calls
    text = json.dumps(to_json(kept))  # a file between two processes
    seen: list[Progress] = []
    again = sampled_shapley(
        game, players, calls, seed=4, known=from_json(json.loads(text)), progress=seen.append
    )
    np.testing.assert_array_equal(again.values, whole.values)
    np.testing.assert_array_equal(again.standard_errors, whole.standard_errors)
    assert game.calls == again.calls == whole.calls
    told = [state.calls for state in seen]
    assert told == sorted(told)
    assert seen[-1].limit <= max(calls, 1 << players)


def test_a_run_stops_at_its_target_width() -> None:
    for seed in range(3):
        wide = sampled_shapley(Counted(20, seed), 20, 20_000, seed, width=0.02)
        narrow = sampled_shapley(Counted(20, seed), 20, 20_000, seed, width=0.008)
        assert wide.calls < narrow.calls < 20_000
        for estimate, width in ((wide, 0.02), (narrow, 0.008)):
            assert estimate.standard_errors.max() * 1.6449 <= width
            inside = np.abs(estimate.values - Counted(20, seed).exact()) <= width
            assert inside.mean() >= 0.8
    with pytest.raises(ValueError, match="width"):
        sampled_shapley(Counted(20, 0), 20, 100, 0, width=-1.0)


def test_the_ridge_accuracy_game_is_within_a_tenth_at_twenty_thousand_calls() -> None:
    """The game of `benchmarks.valuation`, 12 sources; and the sampler itself, at fewer calls."""
    from benchmarks.valuation import relative, ridge_game

    errors = []
    for seed in range(3):
        utility, exact = ridge_game(seed, 12)
        assert relative(sampled_shapley(utility, 12, 20_000, seed).values, exact) <= 0.12
        errors.append(relative(sampled_shapley(utility, 12, 4095, seed).values, exact))
    assert np.median(errors) <= 0.12


@pytest.mark.parametrize(("players", "calls"), [(0, 10), (5, 5), (5, 0)])
def test_impossible_budgets_are_refused(players: int, calls: int) -> None:
    with pytest.raises(ValueError, match="expected n_players"):
        sampled_shapley(lambda c: 0.0, players, calls, seed=0)


def test_a_utility_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        sampled_shapley(lambda c: float("nan"), 3, 100, seed=0)


def test_one_order_alone_says_that_errors_are_unknown() -> None:
    estimate = sampled_shapley(Counted(3, 1), 3, 4, seed=0)
    assert isinstance(estimate, Estimate)
    assert np.isinf(estimate.standard_errors).all()


def test_the_package_loads_nothing_until_asked() -> None:
    code = (
        "import sys, valuation; print('numpy' in sys.modules); "
        "f = valuation.semivalue; print(callable(valuation.semivalue), 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "True"]
    assert {"semivalue", "knn_shapley", "sampled_shapley", "Estimate"} <= set(dir(valuation))
    with pytest.raises(AttributeError, match="nothing"):
        _ = valuation.nothing
