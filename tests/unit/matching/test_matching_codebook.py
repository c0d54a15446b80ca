"""Codebooks: cells and strata are one-to-one, sums are kept, distances are a Gower metric."""

import itertools
from math import sqrt

import numpy as np
import pytest

from matching.codebook import (
    Axis,
    Codebook,
    aggregate,
    category_axis,
    cell_map,
    choose_level,
    distances_between,
    number_axis,
    stacked_distances,
)

AGE = number_axis("age", [20, 45, 55, 65, 90], 17.5)
SEX = category_axis("sex", 2)
PAIN = category_axis("cp", 4)
FINE = Codebook((AGE, SEX, PAIN))
ROOT = Codebook()


def test_cells_and_codes_are_inverse() -> None:
    assert FINE.n_cells == 4 * 2 * 4
    np.testing.assert_array_equal(FINE.cells(FINE.codes()), np.arange(32))
    expected = [(a, s, p) for a, s, p in itertools.product(range(4), range(2), range(4))]
    np.testing.assert_array_equal(FINE.codes(), expected)


def test_the_root_has_one_cell() -> None:
    assert ROOT.n_cells == 1
    np.testing.assert_array_equal(ROOT.cells(np.zeros((5, 0), int)), np.zeros(5))
    np.testing.assert_array_equal(ROOT.distances(), [[0.0]])
    np.testing.assert_array_equal(cell_map(FINE, ROOT), np.zeros(32))


def test_category_mismatch_costs_one_and_numbers_their_spreads() -> None:
    np.testing.assert_allclose(Codebook((PAIN,)).distances(), 1 - np.eye(4))
    np.testing.assert_allclose(
        Codebook((AGE,)).distances()[0], [0, 17.5 / 17.5, 27.5 / 17.5, 45 / 17.5]
    )
    both = FINE.distances()
    i, j = FINE.cells([[0, 0, 0]])[0], FINE.cells([[1, 1, 0]])[0]
    assert both[i, j] == pytest.approx(sqrt(1 + 1))


def test_missing_values_have_their_own_stratum_and_coordinate() -> None:
    axis = number_axis("chol", [0, 10, 40], 10.0, missing=True)
    np.testing.assert_allclose(axis.coordinates, [[0.5, 0], [2.5, 0], [2.0, 1]])
    assert category_axis("fbs", 2, missing=True).n_strata == 3


def test_distances_are_a_metric() -> None:
    d = Codebook((AGE, SEX, number_axis("chol", [0, 1, 3], 1.0, missing=True))).distances()
    np.testing.assert_allclose(d, d.T)
    assert (np.diag(d) == 0).all()
    assert (d[:, :, None] + d.T[None] >= d[:, None, :] - 1e-12).all()


def test_aggregate_keeps_totals_and_equals_a_direct_count() -> None:
    rng = np.random.default_rng(0)
    codes = np.stack([rng.integers(0, n, 500) for n in FINE.shape], axis=1)
    labels = rng.integers(0, 3, 500)
    fine = np.zeros((32, 3), np.int64)
    np.add.at(fine, (FINE.cells(codes), labels), 1)
    for picked in ([0, 1], [1], [2, 0], []):
        coarse = Codebook(tuple(FINE.axes[i] for i in picked))
        direct = np.zeros((coarse.n_cells, 3), np.int64)
        np.add.at(direct, (coarse.cells(codes[:, picked]), labels), 1)
        result = aggregate(fine, FINE, coarse)
        assert result.dtype == np.int64
        np.testing.assert_array_equal(result, direct)


def test_a_level_without_an_axis_stands_at_its_centre() -> None:
    d = distances_between(Codebook((SEX,)), ROOT)
    np.testing.assert_allclose(d, np.full((2, 1), 0.5))  # half way between two levels 1 apart
    np.testing.assert_allclose(distances_between(ROOT, Codebook((SEX,))), d.T)
    np.testing.assert_allclose(distances_between(FINE, FINE), FINE.distances())
    swapped = Codebook((PAIN, AGE, SEX))
    np.testing.assert_allclose(
        distances_between(FINE, swapped)[np.arange(32), cell_map(FINE, swapped)], np.zeros(32)
    )


def test_stacked_levels_contain_every_pair() -> None:
    levels = [ROOT, Codebook((SEX,)), FINE]
    d = stacked_distances(levels)
    assert d.shape == (35, 35)
    np.testing.assert_allclose(d[3:, 3:], FINE.distances())
    np.testing.assert_allclose(d[1:3, 3:], distances_between(levels[1], FINE))


def test_codewords_are_bit_equal_on_every_call() -> None:
    assert FINE.distances().tobytes() == Codebook((AGE, SEX, PAIN)).distances().tobytes()


@pytest.mark.parametrize(
    ("size_class", "share", "level"),
    [(1, 1, 0), (15, 1, 0), (16, 1, 1), (63, 1, 1), (64, 1, 2), (64, 0.5, 1), (4096, 0.5, 3)],
)
def test_the_finest_level_that_noise_does_not_drown(
    size_class: int, share: float, level: int
) -> None:
    # labels 2, epsilon 0.25: 2, 4, 16, 64 numbers need a class of 8, 16, 64, 256 at share 1.
    assert choose_level([1, 2, 8, 32], 2, 0.25, size_class, share) == level


def test_level_choice_does_not_hang_on_float_products() -> None:
    assert choose_level([1, 12], 2, 0.1, 240, 1) == 1  # 0.1 x 240 is 24 in exact arithmetic
    assert choose_level([1, 3], 1, 0.3, 10, 1) == 1


@pytest.mark.parametrize(
    "arguments",
    [([2, 4], 2, 1.0, 8, 1), ([], 2, 1.0, 8, 1), ([1], 0, 1.0, 8, 1), ([1], 2, 0.0, 8, 1)],
)
def test_impossible_levels_are_refused(
    arguments: tuple[list[int], int, float, int, float],
) -> None:
    with pytest.raises(ValueError, match="expected"):
        choose_level(*arguments)


def test_bad_axes_and_codes_are_refused() -> None:
    with pytest.raises(ValueError, match="finite coordinates"):
        Axis("x", np.array([[np.nan]]))
    with pytest.raises(ValueError, match="finite coordinates"):
        Axis("x", np.zeros((0, 1)))
    with pytest.raises(ValueError, match="rising edges"):
        number_axis("x", [0, 2, 2], 1.0)
    with pytest.raises(ValueError, match="rising edges"):
        number_axis("x", [0, 2], 0.0)
    with pytest.raises(ValueError, match="at least one level"):
        category_axis("x", 0)
    with pytest.raises(ValueError, match="different axes"):
        Codebook((SEX, SEX))
    for codes in ([[0, 0]], [[0, 2, 0]], [[0, -1, 0]], [[0.0, 0.5, 1.0]]):
        with pytest.raises(ValueError, match="codes: expected"):
            FINE.cells(codes)
    with pytest.raises(ValueError, match="among the fine ones"):
        cell_map(Codebook((SEX,)), FINE)
    with pytest.raises(ValueError, match="same strata"):
        distances_between(FINE, Codebook((Axis("sex", np.eye(2)),)))
    with pytest.raises(ValueError, match="expected 32 cells"):
        aggregate(np.zeros((5, 2)), FINE, ROOT)
