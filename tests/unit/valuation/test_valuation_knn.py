"""KNN-Shapley: equal to its definition over all coalitions, ties and few records included."""

from itertools import combinations
from math import factorial

import numpy as np
import pytest
from numpy.typing import NDArray

from valuation import knn_shapley

Floats = NDArray[np.float64]


def by_definition(distances: Floats, train: list[int], target: list[int], k: int) -> Floats:
    n, m = distances.shape

    def utility(coalition: tuple[int, ...]) -> float:
        total = 0.0
        for t in range(m):
            nearest = sorted(coalition, key=lambda i: (distances[i, t], i))[:k]
            total += sum(train[i] == target[t] for i in nearest) / k
        return total / m

    values = np.zeros(n)
    for i in range(n):
        others = [p for p in range(n) if p != i]
        for size in range(n):
            weight = factorial(size) * factorial(n - 1 - size) / factorial(n)
            for members in combinations(others, size):
                values[i] += weight * (utility((*members, i)) - utility(members))
    return values


@pytest.mark.parametrize(("n", "k"), [(1, 1), (1, 3), (2, 5), (5, 1), (7, 2), (7, 7), (8, 3)])
def test_equals_brute_force(n: int, k: int) -> None:
    rng = np.random.default_rng(100 * n + k)
    for ties in (False, True):
        distances = rng.random((n, 4)) if not ties else rng.integers(0, 3, (n, 4)).astype(float)
        train, target = rng.integers(0, 3, n).tolist(), rng.integers(0, 3, 4).tolist()
        mine = knn_shapley(distances, train, target, k)
        np.testing.assert_allclose(mine, by_definition(distances, train, target, k), atol=1e-12)


def test_values_sum_to_the_accuracy_of_all_records() -> None:
    rng = np.random.default_rng(1)
    distances = rng.random((400, 60))
    train, target = rng.integers(0, 2, 400), rng.integers(0, 2, 60)
    nearest = np.argsort(distances, axis=0, kind="stable")[:5]
    accuracy = (train[nearest] == target).mean()
    assert knn_shapley(distances, train, target, 5).sum() == pytest.approx(accuracy, abs=1e-12)


def test_ties_go_by_key_so_order_of_records_does_not_matter() -> None:
    rng = np.random.default_rng(2)
    distances = rng.integers(0, 4, (40, 10)).astype(float)
    train, target = rng.integers(0, 2, 40), rng.integers(0, 2, 10)
    keys = [bytes([i, 7]) for i in rng.permutation(40)]
    values = knn_shapley(distances, train, target, 3, tie_keys=keys)
    order = rng.permutation(40)
    moved = knn_shapley(
        distances[order], train[order], target, 3, tie_keys=[keys[i] for i in order]
    )
    np.testing.assert_allclose(moved, values[order], atol=1e-15)
    assert not np.allclose(values, knn_shapley(distances, train, target, 3))


def test_blocks_of_targets_add_up() -> None:
    rng = np.random.default_rng(3)
    distances = rng.random((3_000, 300)).astype(np.float32)  # three blocks of 133 targets
    train, target = rng.integers(0, 2, 3_000), rng.integers(0, 2, 300)
    whole = knn_shapley(distances, train, target, 5, block=400_000)
    halves = [
        knn_shapley(distances[:, half], train, target[half], 5, block=400_000)
        for half in (slice(0, 150), slice(150, 300))
    ]
    np.testing.assert_allclose(whole, (halves[0] + halves[1]) / 2, atol=1e-15)


def test_labels_may_be_text() -> None:
    values = knn_shapley([[0.1], [0.2]], ["ill", "well"], ["ill"], 1)
    np.testing.assert_allclose(values, [1.0, 0.0])


def test_no_records() -> None:
    assert knn_shapley(np.zeros((0, 3)), [], [0, 1, 1], 5).shape == (0,)


@pytest.mark.parametrize(
    ("distances", "train", "target", "k"),
    [
        ([[0.1, 0.2]], [1], [1], 1),
        ([[0.1]], [1, 0], [1], 1),
        ([[np.nan]], [1], [1], 1),
        ([[0.1]], [1], [1], 0),
        (np.zeros((1, 0)), [1], [], 1),
    ],
)
def test_malformed_inputs_are_refused(
    distances: Floats, train: list[int], target: list[int], k: int
) -> None:
    with pytest.raises(ValueError, match="expected"):
        knn_shapley(distances, train, target, k)


def test_tie_keys_must_be_one_per_record() -> None:
    with pytest.raises(ValueError, match="tie_keys"):
        knn_shapley([[0.1]], [1], [1], 1, tie_keys=[b"a", b"b"])
