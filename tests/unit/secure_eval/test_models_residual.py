"""Residuals of regression models: exact on the label's grid, and what their counts say."""

import numpy as np
import pytest
from sklearn.datasets import load_diabetes
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingRegressor,
    HistGradientBoostingRegressor,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression, Ridge, SGDRegressor
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, StandardScaler
from sklearn.svm import LinearSVR
from sklearn.tree import DecisionTreeRegressor

from secure_eval import Column, IntegerModel
from secure_eval.exactness import residual_exactness
from secure_eval.from_onnx import residual_from_onnx
from secure_eval.from_sklearn import residual_from_sklearn
from secure_eval.integer_model import hidden_edges
from secure_eval.quantise_residual import label_column, residual_unit
from secure_eval.rehearse import rehearse
from secure_eval.residual_scorecard import ResidualScorecard

X, Y = load_diabetes(return_X_y=True, scaled=False)
BOUNDS = np.c_[X.min(axis=0), X.max(axis=0)]
LOW, HIGH = 20.0, 350.0
LABEL = label_column(X.shape[1], LOW, HIGH)

MODELS = {
    "ridge": make_pipeline(StandardScaler(), Ridge(5.0)),
    "stochastic": make_pipeline(StandardScaler(), SGDRegressor(random_state=0)),
    "support vectors": make_pipeline(StandardScaler(), LinearSVR(C=10.0, random_state=0)),
    "bins": make_pipeline(
        KBinsDiscretizer(5, encode="onehot-dense", strategy="uniform"),
        Ridge(5.0),
    ),
    "tree": DecisionTreeRegressor(max_depth=4),
    "forest": RandomForestRegressor(12, max_depth=4, random_state=0),
    "extra trees": ExtraTreesRegressor(12, max_depth=4, random_state=0),
    "boosting": GradientBoostingRegressor(n_estimators=20, max_depth=3, random_state=0),
    "stumps": GradientBoostingRegressor(n_estimators=20, max_depth=1, random_state=0),
    "histogram boosting": HistGradientBoostingRegressor(max_iter=20, max_depth=3),
}


@pytest.mark.parametrize("name", MODELS)
def test_residuals_follow_the_float_model_within_half_a_step_of_the_label(name):
    estimator = MODELS[name].fit(X, Y)
    model = residual_from_sklearn(estimator, BOUNDS, LABEL)
    report = residual_exactness(model, estimator.predict(X), X, Y)
    rounding = 0.02 * LABEL.step * max(len(model.trees), 1)
    if model.kind == "linear" and model.columns[0].size > 2:
        rounding = 2.5 * LABEL.step  # numbers are rounded to the public grid of the features
    assert report.largest_score_error <= LABEL.step / 2 + rounding
    assert report.label_agreement is None
    assert residual_unit(model, LABEL) == pytest.approx(1 / model.scale)
    assert (model.low, model.high) >= (hidden_edges(32)[0], 0)
    perfect = np.column_stack([X, np.clip(estimator.predict(X), LOW, HIGH)])
    inside = (estimator.predict(X) > LOW) & (estimator.predict(X) < HIGH)
    assert np.abs(model.score(perfect)[inside] / model.scale).max() <= LABEL.step / 2 + rounding


def test_the_unit_follows_from_the_weight_and_not_from_what_a_model_says():
    model = residual_from_sklearn(MODELS["ridge"].fit(X, Y), BOUNDS, LABEL)
    boast = model._changed(scale=1e9)
    assert residual_unit(boast, LABEL) == residual_unit(model, LABEL)
    other = label_column(X.shape[1], LOW, HIGH + 1)
    with pytest.raises(ValueError, match="does not read the label"):
        residual_unit(model, other)
    praised = model._changed(weights=-model.weights, bias=-model.bias)
    with pytest.raises(ValueError, match="must be negative"):
        residual_unit(praised, LABEL)


def test_what_predicts_no_number_is_refused_with_what_to_use():
    with pytest.raises(ValueError, match="predicts classes"):
        residual_from_sklearn(LogisticRegression(max_iter=5000).fit(X, Y > 140), BOUNDS, LABEL)
    with pytest.raises(ValueError, match="use a linear regressor"):
        residual_from_sklearn(KNeighborsRegressor().fit(X, Y), BOUNDS, LABEL)
    with pytest.raises(ValueError, match="value column of feature 10"):
        residual_from_sklearn(Ridge().fit(X, Y), BOUNDS, Column.value_of(3, 0.0, 1.0, 10))
    wild = Ridge().fit(X, Y)
    wild.coef_ = wild.coef_ * 1e9
    with pytest.raises(ValueError, match="no scale fits"):
        residual_from_sklearn(wild, BOUNDS, LABEL)


def test_a_tree_may_not_weigh_a_bit_beside_its_splits():
    model = residual_from_sklearn(MODELS["tree"].fit(X, Y), BOUNDS, LABEL)
    weights = model.weights.copy()
    weights[0] = 3
    with pytest.raises(ValueError, match=r"weights\[0\]"):
        model._changed(weights=weights)


def test_text_comes_back():
    model = residual_from_sklearn(MODELS["boosting"].fit(X, Y), BOUNDS, LABEL)
    assert IntegerModel.from_json(model.to_json()) == model


@pytest.mark.parametrize("name", ["ridge", "boosting", "forest", "stumps"])
def test_exports_of_skl2onnx_give_the_same_residuals(name):
    from skl2onnx import to_onnx

    estimator = MODELS[name].fit(X, Y)
    data = to_onnx(estimator, X[:1].astype(np.float32)).SerializeToString()
    model = residual_from_onnx(data, BOUNDS, LABEL)
    own = residual_from_sklearn(estimator, BOUNDS, LABEL)
    single = np.column_stack([X.astype(np.float32).astype(np.float64), Y])
    apart = model.score(single) / model.scale - own.score(single) / own.scale
    assert np.abs(apart).max() < 0.2


@pytest.mark.parametrize("name", ["ridge", "boosting"])
def test_an_encrypted_run_counts_residuals_exactly(name):
    model = residual_from_sklearn(MODELS[name].fit(X, Y), BOUNDS, LABEL)
    half = (X[:, 1] > 1).astype(np.int64)
    rows_per_block = 300 if name == "ridge" else 8192  # blocks are no matter of the kind
    found = rehearse(model, X, Y, groups={"sex": half}, max_rows_per_block=rows_per_block)
    scores = model.score(np.column_stack([X, Y]))
    assert found.counts.tolist() == [np.histogram(scores, bins=model.edges)[0].tolist()]
    over = np.bincount(half[scores >= model.threshold], minlength=2)
    assert found.groups["sex"][:, 0].tolist() == over.tolist()
    assert model.threshold == 0


# ---------------------------------------------------------------- scorecard


def binned(residuals, edges):
    return np.histogram(residuals, bins=edges)[0].astype(np.int64)[None, :]


def test_intervals_of_exact_counts_hold_the_true_errors_however_rows_lie_in_their_bins():
    generator = np.random.default_rng(4)
    edges = np.array([-100.0, -20, -10, -5, 0, 5, 10, 20, 100])
    for _ in range(40):
        residuals = generator.normal(generator.uniform(-4, 4), generator.uniform(2, 12), 4000)
        residuals = np.clip(residuals, -60, 60)
        # the worst case: all rows of a bin at one of its ends
        place = np.digitize(residuals, edges) - 1
        ends = np.stack([edges[place], np.nextafter(edges[place + 1], -np.inf)])
        for rows in (residuals, ends[0], ends[1]):
            card = ResidualScorecard.from_counts(binned(rows, edges), np.inf, edges, 60.0)
            kept = np.clip(rows, -60, 60)
            truths = {"mae": np.abs(kept).mean(), "mse": (kept**2).mean(), "bias": kept.mean()}
            for metric, truth in truths.items():
                low, high = card.intervals[metric]
                assert low - 0.1 <= truth <= high + 0.1, metric


def test_noised_intervals_cover_and_upper_bounds_are_rarely_beaten():
    """Coverage of 90% intervals over noise and sampling, 400 draws: at least 0.9 less 3.3 sd."""
    generator = np.random.default_rng(11)
    edges = np.linspace(-60.0, 60.0, 13)
    hits, safe, draws = {"mae": 0, "mse": 0, "bias": 0}, 0, 400
    for _ in range(draws):
        residuals = np.clip(generator.normal(2.0, 15.0, 200), -59, 59)
        ratio = np.exp(-0.6)
        noise = generator.geometric(1 - ratio, 12) - generator.geometric(1 - ratio, 12)
        card = ResidualScorecard.from_counts(binned(residuals, edges) + noise, 0.6, edges, 60.0)
        truth = {"mae": 12.06, "mse": 228.9, "bias": 2.0}
        for metric, value in truth.items():
            hits[metric] += card.intervals[metric][0] <= value <= card.intervals[metric][1]
        safe += card.upper_bound("mae", 0.9) >= truth["mae"]
    for metric, count in hits.items():
        assert count >= 0.85 * draws, metric
    assert safe >= 0.85 * draws


def test_too_few_rows_say_nothing_and_large_residuals_count_as_the_range():
    edges = np.array([-500.0, -10, 10, 500])
    empty = ResidualScorecard.from_counts(np.array([[-3, 0, 1]]), 1.0, edges, 60.0)
    assert empty.status == "undetermined"
    assert empty.intervals["mae"] == (0.0, 60.0)
    assert (empty.mae, empty.mse) == (60.0, 3600.0)
    far = ResidualScorecard.from_counts(np.array([[0, 0, 50]]), np.inf, edges, 60.0)
    assert far.mae == 35.0
    assert far.intervals["mae"][1] == 60.0
    with pytest.raises(ValueError, match="metric"):
        far.upper_bound("bias", 0.9)
    with pytest.raises(ValueError, match="edges"):
        ResidualScorecard.from_counts(np.array([[1, 2]]), 1.0, [0, 0, 1], 60.0)
