"""What follows from a histogram: area under the curve, confusion counts, noise-proof corners."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from secure_eval.histogram import Histogram

EDGES = np.array([-10, -5, 0, 5, 10])


@given(arrays(np.int64, (2, 4), elements=st.integers(0, 8)))
def test_auc_is_the_share_of_pairs_in_order(counts: np.ndarray) -> None:
    histogram = Histogram(counts, EDGES)
    if counts.sum(axis=1).min() < 1:
        assert histogram.auc == 0.5
        return
    low = np.repeat(np.arange(4), counts[0])
    high = np.repeat(np.arange(4), counts[1])
    wins = (high[:, None] > low).mean() + (high[:, None] == low).mean() / 2
    assert histogram.auc == pytest.approx(float(wins), abs=1e-12)


@given(arrays(np.int64, (2, 4), elements=st.integers(-8, 8)))
def test_auc_of_noised_counts_is_a_probability(counts: np.ndarray) -> None:
    assert 0.0 <= Histogram(counts, EDGES).auc <= 1.0


def test_confusion_counts_both_sides_of_an_edge() -> None:
    histogram = Histogram(np.array([[4, 3, 2, 1], [1, 2, 3, 4]]), EDGES)
    assert histogram.confusion(2) == (7, 3, 3, 7)
    assert histogram.confusion(0) == (10, 10, 0, 0)
    assert histogram.confusion(4) == (0, 0, 10, 10)
    with pytest.raises(ValueError, match="expected an edge"):
        histogram.confusion(5)


def test_three_labels_have_no_single_curve() -> None:
    histogram = Histogram(np.ones((3, 4), np.int64), EDGES)
    with pytest.raises(ValueError, match="2 labels"):
        _ = histogram.auc
    with pytest.raises(ValueError, match="2 labels"):
        histogram.confusion(1)
