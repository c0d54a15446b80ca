"""The integer mathematics of bins: exact for millions of masked scores and every edge case."""

from itertools import pairwise

import numpy as np
import pytest

from secure_eval.comparison import RADICES, grid, hidden_edges
from secure_eval.integer_model import hidden_edges as model_edges
from secure_eval.params import PARAMETERS

P = PARAMETERS.plain_modulus


def shared_bins(bins: int, scores: np.ndarray, mask: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Both parties' steps on plain numbers; the comparison from its digits, as the circuit does."""
    g = grid(bins)
    holder = g.split_masked((2 * scores + mask) % P)
    mine = g.split_mask(mask)
    less = np.zeros(len(scores), bool)
    for theirs, ours in zip(holder.digits, mine.digits, strict=True):
        less = (theirs < ours) | ((theirs == ours) & less)
    share = (less - shift) % bins
    return (holder.top - share - (mine.top + shift)) % bins


def triples(bins: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(bins)
    edges = hidden_edges(bins)
    scores = rng.integers(edges[0], edges[-1], n)
    return scores, rng.integers(0, P, n), rng.integers(0, bins, n)


@pytest.mark.parametrize("bins", sorted(RADICES))
def test_random_triples_land_in_the_schoolbook_bin(bins: int) -> None:
    scores, mask, shift = triples(bins, 1_000_000)
    expected = np.searchsorted(hidden_edges(bins), scores, side="right") - 1
    assert np.array_equal(shared_bins(bins, scores, mask, shift), expected)
    assert np.array_equal(grid(bins).hidden_bin(scores), expected)


def test_every_score_at_the_edge_masks() -> None:
    g = grid(32)
    edges = g.edges()
    scores = np.arange(edges[0], edges[-1])
    expected = np.searchsorted(edges, scores, side="right") - 1
    masks = [0, 1, g.width - 1, g.width, g.width + 1, 31 * g.width, P - 3, P - 2, P - 1]
    for masked in [*masks, *((-g.shift + m) % P for m in masks)]:
        mask = np.full(len(scores), masked)
        shift = np.full(len(scores), masked % 32)
        assert np.array_equal(shared_bins(32, scores, mask, shift), expected)


def test_every_mask_at_the_edge_scores() -> None:
    edges = hidden_edges(32)
    mask = np.arange(P)
    for score in (edges[0], edges[16] - 1, edges[16], edges[5], edges[5] - 1, edges[-1] - 1):
        scores = np.full(P, score)
        expected = np.searchsorted(edges, score, side="right") - 1
        assert (shared_bins(32, scores, mask, mask % 32) == expected).all()


def test_masked_value_p_minus_1_for_every_score() -> None:
    g = grid(32)
    edges = g.edges()
    scores = np.arange(edges[0], edges[-1])
    mask = (P - 1 - 2 * scores) % P
    holder = g.split_masked((2 * scores + mask) % P)
    assert holder.flag.all()
    expected = np.searchsorted(edges, scores, side="right") - 1
    assert np.array_equal(shared_bins(32, scores, mask, scores % 32), expected)


@pytest.mark.parametrize("bins", sorted(RADICES))
def test_edges_are_the_least_scores_of_their_bins(bins: int) -> None:
    g = grid(bins)
    edges = g.edges()
    assert np.array_equal(edges, model_edges(bins))
    for b, edge in enumerate(edges.tolist()):
        assert 2 * edge >= b * g.width + g.shift > 2 * (edge - 1)
    assert int(np.prod(g.radices)) * bins == P - 1
    # every allowed score stays below p / 2 when doubled
    assert 2 * max(-edges[0], edges[-1] - 1) < P / 2


def test_digits_are_canonical_and_the_share_alone_says_nothing() -> None:
    g = grid(32)
    masked = np.arange(P)
    share = g.split_masked(masked)
    low = np.zeros(P, np.int64)
    for radix, digit in zip(reversed(g.radices), reversed(share.digits), strict=True):
        assert 0 <= digit.min() <= digit.max() < radix
        low = low * radix + digit
    assert np.array_equal(share.top * g.width + low + share.flag, masked)
    assert share.top.max() == 31


@pytest.mark.parametrize("bins", sorted(RADICES))
def test_indicators_pick_exactly_their_bins(bins: int) -> None:
    g = grid(bins)
    characters = g.characters(np.arange(bins))
    edges = [0, 1, bins // 2, bins - 1, bins]
    values = g.merging(edges) @ characters % P
    for row, (first, last) in enumerate(pairwise(edges)):
        wanted = (np.arange(bins) >= first) & (np.arange(bins) < last)
        assert np.array_equal(values[row], wanted.astype(np.int64))
    assert (values.sum(axis=0) == 1).all()


def test_unknown_grids_are_refused() -> None:
    with pytest.raises(ValueError, match="bins: expected one of"):
        grid(20)
