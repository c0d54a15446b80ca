"""Intervals of a noised table's shares hold the true share as often as they say."""

import numpy as np
import pytest

from dp.noise import geometric
from matching.shares import share_intervals


@pytest.mark.parametrize(
    ("exact", "entries", "epsilon"),
    [((3, 97), 2, 0.5), ((40, 60), 8, 1.0), ((0, 20, 80, 5), 1, 0.5), ((1, 0), 4, 0.5)],
)
def test_intervals_hold_the_true_share_in_nine_of_ten_releases(exact, entries, epsilon) -> None:
    """300 releases: 240 of 300 is more than five standard errors below 270."""
    true = np.array(exact) / sum(exact)
    held = np.zeros(len(exact))
    table = np.zeros((len(exact), entries), np.int64)
    table[:, 0] = exact
    for _ in range(300):
        ends = share_intervals(geometric(table, epsilon).sum(axis=1), entries, epsilon)
        held += (ends[:, 0] <= true + 1e-3) & (true - 1e-3 <= ends[:, 1])
    assert (held >= 240).all()
    if min(exact) >= 3 and len(exact) == 2:  # an edge at 0 or 1 makes an interval hold more often
        assert (held < 300).any()


def test_more_patients_and_a_larger_epsilon_narrow_an_interval() -> None:
    def width(sums: list[int], epsilon: float) -> float:
        low, high = share_intervals(sums, 4, epsilon)[0]
        return float(high - low)

    assert width([400, 600], 1.0) < width([40, 60], 1.0) < width([40, 60], 0.5)
    low, high = share_intervals([40, 60], 4, 1.0)[0]
    assert low < 0.4 < high


def test_nothing_is_known_of_a_table_of_noise_and_all_of_one_stratum() -> None:
    assert share_intervals([-3, 1], 8, 0.5)[0].tolist() == [0.0, 1.0]
    assert share_intervals([7], 2, 1.0).tolist() == [[1.0, 1.0]]
    with pytest.raises(ValueError, match="one stratum"):
        share_intervals([], 1, 1.0)
    with pytest.raises(ValueError, match="one cell"):
        share_intervals([1, 2], 0, 1.0)
