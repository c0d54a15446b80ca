"""The scorecard: exact metrics without noise, honest intervals with it, hostile input refused."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import brier_score_loss, roc_auc_score, roc_curve

from secure_eval.noise import geometric_variance
from secure_eval.score_intervals import isotonic, project
from secure_eval.scorecard import (
    METRICS,
    GroupRate,
    Scorecard,
    group_rates,
)

EXACT = math.inf


def card(counts: object, epsilon: float = EXACT, edge: int | None = None, **options: object):
    table = np.asarray(counts)
    edges = np.arange(table.shape[1] + 1) * 100
    edge = table.shape[1] // 2 if edge is None else edge
    return Scorecard.from_counts(table, epsilon, edges, edge, **options)  # type: ignore[arg-type]


def rows_of(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bin and label of every patient behind a table of counts."""
    bins = np.concatenate([np.repeat(np.arange(counts.shape[1]), row) for row in counts])
    return bins, np.repeat([0, 1], counts.sum(axis=1))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(2, 12), st.integers(0, 10**6), st.integers(0, 12))
def test_exact_counts_give_the_textbook_metrics(bins: int, seed: int, edge: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 9, (2, bins))
    counts[:, 0] += 1  # both classes are present
    edge = min(edge, bins)
    result = card(counts, edge=edge)
    at, label = rows_of(counts)
    predicted = at >= edge
    assert result.status == "ok"
    assert result.auc == pytest.approx(roc_auc_score(label, at))
    assert result.accuracy == pytest.approx((predicted == label).mean())
    assert result.sensitivity == pytest.approx(predicted[label == 1].mean())
    assert result.specificity == pytest.approx(1 - predicted[label == 0].mean())
    if predicted.any():
        assert result.ppv == pytest.approx(label[predicted].mean())
    if not predicted.all():
        assert result.npv == pytest.approx(1 - label[~predicted].mean())
    fitted = IsotonicRegression().fit(at, label).predict(at)
    assert result.brier == pytest.approx(brier_score_loss(label, fitted))
    assert np.allclose(np.array(result.probabilities)[at], fitted)
    false, true, _ = roc_curve(label, at, drop_intermediate=False)
    present = counts.sum(axis=0)[::-1] > 0
    shown = np.array(result.roc)[np.append(True, present)]
    assert np.allclose(shown, np.column_stack([false, true]))
    area = np.trapezoid(*np.array(result.roc).T[::-1])
    assert area == pytest.approx(result.auc)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.integers(1, 16), st.integers(0, 10**6), st.sampled_from([0.05, 0.4, 2.0, EXACT]))
def test_laws_of_every_scorecard(bins: int, seed: int, epsilon: float) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(-12, 20, (2, bins))
    result = card(counts, epsilon)
    assert set(result.intervals) == set(METRICS)
    for name in METRICS:
        low, high = result.intervals[name]
        point = getattr(result, name)
        assert 0.0 <= low <= point <= high <= 1.0
        bounds = [result.lower_bound(name, c) for c in (0.5, 0.8, 0.9, 0.99)]
        assert bounds == sorted(bounds, reverse=True)
        assert bounds[0] <= point
    roc = np.array(result.roc)
    assert (np.diff(roc, axis=0) >= 0).all()
    assert roc[0].tolist() == [0.0, 0.0]
    assert roc[-1].tolist() == [1.0, 1.0]
    assert (np.diff(result.probabilities) >= 0).all()
    undetermined = counts.sum(axis=1).min() < 1
    assert result.status == ("undetermined" if undetermined else "ok")
    if undetermined:
        assert result.auc == 0.5
        assert result.intervals["auc"] == (0.0, 1.0)
    assert result == card(counts, epsilon)  # deterministic


def test_projection_is_the_nearest_point_of_the_simplex() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        counts = rng.normal(2, 5, int(rng.integers(1, 9)))
        nearest = project(counts)
        total = max(counts.sum(), 0.0)
        assert nearest.min() >= 0
        assert nearest.sum() == pytest.approx(total)
        for _ in range(20):
            other = rng.dirichlet(np.ones(len(counts))) * total
            assert ((nearest - counts) ** 2).sum() <= ((other - counts) ** 2).sum() + 1e-9


def test_isotonic_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    for _ in range(100):
        counts = rng.uniform(0.01, 5, (2, int(rng.integers(1, 12))))
        share, weight = counts[1] / counts.sum(axis=0), counts.sum(axis=0)
        at = np.arange(counts.shape[1])
        expected = IsotonicRegression().fit(at, share, sample_weight=weight).predict(at)
        assert isotonic(counts) == pytest.approx(expected)
    empty = isotonic(np.array([[0.0, 3.0, 0.0], [0.0, 1.0, 0.0]]))
    assert empty.tolist() == [0.25, 0.25, 0.25]


def test_variance_of_geometric_noise() -> None:
    for epsilon in (0.1, 0.7, 3.0):
        k = np.arange(-4000, 4001)
        weight = np.exp(-epsilon * np.abs(k))
        variance = (weight * k**2.0).sum() / weight.sum()
        assert geometric_variance(epsilon) == pytest.approx(variance)
    assert geometric_variance(EXACT) == 0.0


def geometric(rng: np.random.Generator, shape: tuple[int, ...], epsilon: float) -> np.ndarray:
    ratio = 1 - math.exp(-epsilon)
    return rng.geometric(ratio, shape) - rng.geometric(ratio, shape)


def population(distance: float) -> tuple[np.ndarray, int]:
    """Shares (2, 8) of normal scores of two classes in eight bins, and the threshold's edge."""
    cuts = np.linspace(-1.5, distance + 1.5, 7)
    shares = []
    for mean in (0.0, distance):
        below = [0.5 * (1 + math.erf((cut - mean) / math.sqrt(2))) for cut in cuts]
        shares.append(np.diff([0.0, *below, 1.0]))
    return np.array(shares), 4


def values(result: Scorecard) -> np.ndarray:
    return np.array([getattr(result, name) for name in METRICS])


@pytest.mark.parametrize("epsilon", [0.4, 0.7, 2.0])
@pytest.mark.parametrize("n", [60, 100, 400])
def test_intervals_cover_the_population_and_the_exact_counts(n: int, epsilon: float) -> None:
    """At least 85% of 90% intervals hold the truth, for every metric, both ways of counting it.

    Fixed seed. 3 populations x 2 prevalences x 50 samples: an interval with true coverage 0.9
    falls below 0.85 in 300 draws with odds 0.3%, hence the fixed seed.
    """
    rng = np.random.default_rng(11)
    covered, exact, bound, runs = np.zeros(7), np.zeros(7), 0, 0
    for distance in (0.3, 1.0, 2.0):
        shares, edge = population(distance)
        for prevalence in (0.5, 0.25):
            sizes = np.array([n - int(n * prevalence), int(n * prevalence)])
            truth = values(card(np.rint(shares * sizes[:, None] * 1e9).astype(np.int64), edge=edge))
            for _ in range(50):
                sample = np.stack(
                    [rng.multinomial(s, p) for s, p in zip(sizes, shares, strict=True)]
                )
                result = card(sample + geometric(rng, sample.shape, epsilon), epsilon, edge)
                low, high = np.array([result.intervals[name] for name in METRICS]).T
                seen = values(card(sample, edge=edge))
                covered += (low <= truth) & (truth <= high)
                exact += (low <= seen) & (seen <= high)
                bound += result.lower_bound("auc", 0.9) <= truth[0]
                runs += 1
    assert covered.min() / runs >= 0.85
    assert exact.min() / runs >= 0.85
    assert bound / runs >= 0.85


def test_intervals_shrink_with_rows_and_epsilon() -> None:
    shares, edge = population(1.5)
    widths = []
    for n, epsilon in ((50, 0.5), (500, 0.5), (500, 5.0), (50_000, 5.0)):
        result = card(np.rint(shares * n).astype(np.int64), epsilon, edge)
        widths.append([np.diff(result.intervals[name])[0] for name in METRICS])
    assert (np.diff(widths, axis=0) < 0).all()
    # 50,000 rows per class leave a few thousandths: sampling and grid alone.
    assert max(widths[-1]) < 0.012


def test_noise_of_another_law() -> None:
    counts = np.array([[30, 10], [8, 40]])
    assert card(counts, 0.4) == card(counts, 9.9, noise_variance=geometric_variance(0.4))
    wide, narrow = card(counts, 1.0, noise_variance=32.0), card(counts, 1.0, noise_variance=1.0)
    assert wide.intervals["auc"][0] < narrow.intervals["auc"][0]
    assert card(counts, 1.0, level=0.5).intervals["auc"][0] > card(counts, 1.0).intervals["auc"][0]


def test_one_class_is_undetermined_but_the_other_still_reads() -> None:
    result = card([[40, 10], [-3, 1]], 1.0)
    assert result.status == "undetermined"
    assert (result.auc, result.sensitivity) == (0.5, 0.5)
    assert result.intervals["auc"] == result.intervals["sensitivity"] == (0.0, 1.0)
    assert result.specificity == pytest.approx(0.8)
    assert result.intervals["specificity"][0] > 0.6
    nothing = card([[-1, 0], [0, 0]], 1.0)
    assert {nothing.intervals[name] for name in METRICS} == {(0.0, 1.0)}
    assert nothing.brier == 0.25


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"counts": np.zeros((3, 4), int)}, "counts"),
        ({"counts": np.zeros((2, 0), int)}, "counts"),
        ({"counts": np.zeros((2, 65), int)}, "counts"),
        ({"counts": np.zeros((2, 4))}, "integers"),
        ({"epsilon": 0.0}, "epsilon"),
        ({"epsilon": -1.0}, "epsilon"),
        ({"epsilon": math.nan}, "epsilon"),
        ({"edges": [0, 1, 2, 3]}, "edges"),
        ({"edges": [0, 1, 1, 3, 4]}, "edges"),
        ({"edges": [0.0, 1, 2, 3, 4]}, "edges"),
        ({"threshold_edge": 5}, "threshold_edge"),
        ({"threshold_edge": -1}, "threshold_edge"),
        ({"level": 1.0}, "level"),
        ({"noise_variance": -1.0}, "noise_variance"),
        ({"noise_variance": math.inf}, "noise_variance"),
    ],
)
def test_malformed_arguments_are_refused(changes: dict[str, object], message: str) -> None:
    plain: dict[str, object] = {
        "counts": np.ones((2, 4), int),
        "epsilon": 1.0,
        "edges": [0, 1, 2, 3, 4],
        "threshold_edge": 2,
    }
    with pytest.raises(ValueError, match=message):
        Scorecard.from_counts(**{**plain, **changes})  # type: ignore[arg-type]


def test_lower_bound_refuses_unknown_metrics_and_confidences() -> None:
    result = card(np.ones((2, 4), int))
    with pytest.raises(ValueError, match="metric"):
        result.lower_bound("f1", 0.9)
    for confidence in (0.2, 1.0, math.nan):
        with pytest.raises(ValueError, match="confidence"):
            result.lower_bound("auc", confidence)


def test_group_rates() -> None:
    rates = group_rates([[3, 8], [5, -2], [1, 1]], [[10, 16], [4, 0], [-1, 2]])
    assert rates[0] == GroupRate(0.5, pytest.approx(0.7), None)  # type: ignore[arg-type]
    assert rates[1].sensitivity is None
    assert rates[1].specificity == 0.0  # clipped
    assert rates[1].reason == "the noised total of label 1 is below 1"
    assert rates[2] == GroupRate(0.5, None, "the noised total of label 0 is below 1")
    unknown = group_rates([[1, 2]], None)
    assert unknown == (GroupRate(None, None, "the group totals were not released"),)
    for predicted, totals in (([1, 2], None), ([[1, 2]], [[1, 2], [3, 4]])):
        with pytest.raises(ValueError, match="expected"):
            group_rates(predicted, totals)
