"""Import from scikit-learn: thresholds, edges, votes and points are exact."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from float_models import BOUNDS, X, Y, bins, float_scores
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Binarizer, MinMaxScaler, RobustScaler, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from secure_eval.from_sklearn import from_sklearn


def tie_rows(thresholds: np.ndarray, features: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rows whose values are thresholds and their neighbours in float64 and float32."""
    single = thresholds.astype(np.float32)
    near = [thresholds, single.astype(np.float64)]
    for direction in (-np.inf, np.inf):
        near.append(np.nextafter(thresholds, direction))
        near.append(np.nextafter(single, np.float32(direction)).astype(np.float64))
        # Halfway between two singles: where rounding to single precision turns.
        middle = (near[-1] + single) / 2
        near += [middle, np.nextafter(middle, -np.inf), np.nextafter(middle, np.inf)]
    rows = X[rng.integers(0, len(X), 4000)].copy()
    at = rng.integers(0, len(thresholds), (3, len(rows)))
    for choice in at:
        variant = np.stack(near)[rng.integers(0, len(near), len(rows)), choice]
        rows[np.arange(len(rows)), features[choice]] = variant
    return rows


TIED: dict[str, Callable[[], Any]] = {
    "tree": lambda: DecisionTreeClassifier(max_depth=4, random_state=1),
    "standard": lambda: make_pipeline(StandardScaler(), DecisionTreeClassifier(max_depth=4)),
    "minmax": lambda: make_pipeline(MinMaxScaler((-3, 7)), DecisionTreeClassifier(max_depth=4)),
    "robust": lambda: make_pipeline(RobustScaler(), DecisionTreeClassifier(max_depth=4)),
    "histogram": lambda: HistGradientBoostingClassifier(max_depth=4, max_iter=1),
    "stump": lambda: GradientBoostingClassifier(n_estimators=1, max_depth=2),
}


@pytest.mark.parametrize("name", TIED)
def test_thresholds_are_exact_at_ties(name: str) -> None:
    """Every row takes the leaf that scikit-learn takes, at and next to every threshold.

    With one tree an integer score is a leaf, so equal float scores must mean equal integer scores.
    """
    estimator = TIED[name]().fit(X, Y)
    model = from_sklearn(estimator, BOUNDS)
    cuts = np.array([column.threshold for column in model.columns])
    features = np.array([column.feature for column in model.columns])
    rows = tie_rows(cuts, features, np.random.default_rng(0))
    floats, integers = float_scores(estimator, rows), model.score(rows)
    assert len(np.unique(floats)) > 2
    for value in np.unique(floats):
        assert len(np.unique(integers[floats == value])) == 1
    assert len(np.unique(integers)) == len(np.unique(floats))
    assert np.array_equal(model.predict(rows), estimator.predict(rows))


def test_raw_thresholds_of_a_tree_are_the_least_floats_that_go_right() -> None:
    estimator = DecisionTreeClassifier(max_depth=3, random_state=0).fit(X, Y)
    model = from_sklearn(estimator, BOUNDS)
    assert model.columns
    for column in model.columns:
        rows = np.zeros((2, 30))
        rows[:, column.feature] = [np.nextafter(column.threshold, -np.inf), column.threshold]
        nodes = np.flatnonzero(estimator.tree_.feature == column.feature)
        cuts = estimator.tree_.threshold[nodes]
        right = rows[:, [column.feature]].astype(np.float32) > cuts[None]
        assert (right[0] != right[1]).any()


def test_bins_are_exact_at_their_edges() -> None:
    binner = make_pipeline(StandardScaler(), bins()).fit(X)
    estimator = make_pipeline(binner, LogisticRegression()).fit(X, Y)
    model = from_sklearn(estimator, BOUNDS)
    cuts = np.array([column.threshold for column in model.columns])
    features = np.array([column.feature for column in model.columns])
    rows = tie_rows(cuts, features, np.random.default_rng(1))
    codes, integers = binner.transform(rows), model.encode(rows)
    same_codes = (codes[:-1] == codes[1:]).all(axis=1)
    same_bits = (integers[:-1] == integers[1:]).all(axis=1)
    assert np.array_equal(same_codes, same_bits)
    float_score = estimator.decision_function(rows)
    error = np.abs((model.score(rows) - model.offset) / model.scale - float_score)
    assert error.max() * model.scale < len(model.columns) / 2 + 2


def test_tied_votes_are_negative_as_in_scikit_learn() -> None:
    """Two pure trees that disagree give 0.5 exactly: class 0."""
    rows = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    forest = RandomForestClassifier(2, max_depth=1, random_state=0)
    forest.fit(np.repeat(rows, 20, axis=0), np.repeat([0, 0, 1, 1], 20))
    for index, tree in enumerate(forest.estimators_):
        tree.fit(rows, [0, 0, 1, 1] if index == 0 else [0, 1, 0, 1])
    assert sorted(forest.predict_proba(rows)[:, 1].tolist()) == [0.0, 0.5, 0.5, 1.0]
    model = from_sklearn(forest, [[0, 1], [0, 1]])
    assert model.predict(rows).tolist() == forest.predict(rows).tolist() == [0, 0, 0, 1]


def test_points_of_a_scorecard_stay_exact() -> None:
    """Commensurable weights are scaled to integers: the score is exactly affine in the points."""
    estimator = LogisticRegression().fit(np.eye(4), [0, 1, 0, 1])
    estimator.coef_, estimator.intercept_ = np.array([[3.0, -2.0, 1.0, 5.0]]), np.array([-4.0])
    groups = (("one_hot", (0,)), ("one_hot", (1,)), ("one_hot", (2,)), ("one_hot", (3,)))
    model = from_sklearn(estimator, [[0, 1]] * 4, groups=groups)
    rows = np.array([[i >> k & 1 for k in range(4)] for i in range(16)], dtype=float)
    points = rows @ [3, -2, 1, 5] - 4
    unit = model.weights[2]
    assert np.array_equal(model.score(rows), model.threshold - 1 + unit * points.astype(np.int64))
    assert np.array_equal(model.predict(rows), estimator.predict(rows))


def test_binarizer_is_strict() -> None:
    rows = np.array([[1.0], [np.nextafter(1.0, 2)], [0.0], [2.0]])
    estimator = make_pipeline(Binarizer(threshold=1.0), LogisticRegression())
    estimator.fit(rows, [0, 1, 0, 1])
    model = from_sklearn(estimator, [[0, 2]])
    assert model.predict(rows).tolist() == [0, 1, 0, 1]
