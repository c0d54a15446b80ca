"""Import from scikit-learn: agreement with the float model."""

import time
from typing import Any

import numpy as np
import pytest
from float_models import BOUNDS, X, Y, bins, float_scores
from sklearn.compose import ColumnTransformer
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import (
    LinearRegression,
    LogisticRegression,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
    SGDRegressor,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from secure_eval.exactness import exactness
from secure_eval.from_sklearn import from_sklearn, read
from secure_eval.integer_model import Column, IntegerModel

LINEAR: dict[str, Any] = {
    "logistic": make_pipeline(StandardScaler(), LogisticRegression()),
    "svm": make_pipeline(MinMaxScaler(), LinearSVC(random_state=0)),
    "ridge": make_pipeline(RobustScaler(), RidgeClassifier()),
    "sgd": make_pipeline(MaxAbsScaler(), SGDClassifier(random_state=0)),
    "lda": make_pipeline(StandardScaler(), LinearDiscriminantAnalysis()),
    "selected": make_pipeline(SelectKBest(k=9), StandardScaler(), LogisticRegression()),
    "imputed": make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()),
}
REGRESSORS: dict[str, Any] = {
    "least squares": make_pipeline(StandardScaler(), Ridge(10.0)),
    "plain": LinearRegression(),
    "sgd": make_pipeline(StandardScaler(), SGDRegressor(random_state=0)),
}
TREES: dict[str, Any] = {
    "tree": DecisionTreeClassifier(max_depth=4, random_state=0),
    "forest": RandomForestClassifier(60, max_depth=4, random_state=0),
    "extra": ExtraTreesClassifier(40, max_depth=4, random_state=0),
    "boosting": GradientBoostingClassifier(n_estimators=60, random_state=0),
    "zero start": GradientBoostingClassifier(n_estimators=20, init="zero", random_state=0),
    "exponential": GradientBoostingClassifier(n_estimators=20, loss="exponential", random_state=0),
    "histogram": HistGradientBoostingClassifier(max_depth=4, max_iter=40),
    "scaled": make_pipeline(
        StandardScaler(), GradientBoostingClassifier(n_estimators=30, random_state=0)
    ),
    "binned": make_pipeline(bins(), DecisionTreeClassifier(max_depth=2, random_state=0)),
    "ordinal": make_pipeline(bins("ordinal"), DecisionTreeClassifier(max_depth=4, random_state=0)),
}


@pytest.mark.parametrize("name", LINEAR)
def test_linear_models_agree(name: str) -> None:
    estimator = LINEAR[name].fit(X, Y)
    model = from_sklearn(estimator, BOUNDS)
    assert model.kind == "linear"
    assert (model.predict(X) == estimator.predict(X)).mean() >= 0.995
    scores = float_scores(estimator, X)
    report = exactness(model, scores, X, labels=Y)
    assert report.label_agreement >= 0.995
    assert abs(report.auc_change) < 1e-3
    assert report.largest_score_error < 0.05 * np.ptp(scores)
    assert report.headroom < 0.13
    assert report.bits_used == 19


@pytest.mark.parametrize("name", REGRESSORS)
def test_regressors_are_cut_at_one_half(name: str) -> None:
    estimator = REGRESSORS[name].fit(X, Y)
    model = from_sklearn(estimator, BOUNDS)
    assert (model.predict(X) == (estimator.predict(X) > 0.5)).mean() >= 0.993


@pytest.mark.parametrize("name", TREES)
def test_tree_models_agree(name: str) -> None:
    estimator = TREES[name].fit(X, Y)
    model = from_sklearn(estimator, BOUNDS)
    assert model.kind == "trees"
    agreement = (model.predict(X) == estimator.predict(X)).mean()
    assert agreement >= 0.999
    scores = float_scores(estimator, X)
    report = exactness(model, scores, X)
    assert report.label_agreement == 1.0
    assert report.auc_change == pytest.approx(0.0, abs=1e-4)
    # Each leaf is rounded by at most half a unit, and ties shift by one unit.
    assert report.largest_score_error * model.scale <= len(model.trees) / 2 + 2


def test_boosted_stumps_are_additive() -> None:
    estimator = GradientBoostingClassifier(max_depth=1, random_state=0).fit(X, Y)
    model = from_sklearn(estimator, BOUNDS)
    assert model.kind == "additive"
    assert not model.trees
    assert all(column.kind == "bit" for column in model.columns)
    assert (model.predict(X) == estimator.predict(X)).mean() >= 0.999


@pytest.mark.parametrize("encode", ["onehot", "onehot-dense", "ordinal"])
def test_binned_linear_models_are_additive(encode: str) -> None:
    estimator = make_pipeline(bins(encode), LogisticRegression()).fit(X, Y)
    model = from_sklearn(estimator, BOUNDS)
    assert model.kind == "additive"
    assert (model.predict(X) == estimator.predict(X)).mean() >= 0.999
    report = exactness(model, estimator.decision_function(X), X)
    assert report.largest_score_error * model.scale <= len(model.columns) / 2 + 2


def test_one_hot_categories_and_passthrough() -> None:
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.integers(0, 4, 400) * 2.0, rng.normal(size=400), X[:400, 0]])
    labels = (rows[:, 0] == 4) ^ (rows[:, 1] > 0.3)
    mixed = ColumnTransformer(
        [("code", OneHotEncoder(drop="first"), [0]), ("scale", StandardScaler(), slice(1, 2))],
        remainder="passthrough",
    )
    estimator = make_pipeline(mixed, LogisticRegression(max_iter=2000)).fit(rows, labels)
    model = from_sklearn(estimator, np.stack([rows.min(0), rows.max(0)], axis=1))
    assert model.kind == "linear"
    assert {c.threshold for c in model.columns if c.kind == "bit"} == {2.0, 4.0, 6.0}
    assert (model.predict(rows) == estimator.predict(rows)).mean() >= 0.995
    trees = make_pipeline(OneHotEncoder(sparse_output=False), DecisionTreeClassifier(max_depth=2))
    trees.fit(rows[:, :1], labels)
    tree_model = from_sklearn(trees, [[0, 6]])
    assert np.array_equal(tree_model.predict(rows[:, :1]), trees.predict(rows[:, :1]))


def test_exactness_report() -> None:
    model = IntegerModel(
        kind="linear",
        columns=(Column.value_of(0, 0.0, 1.0, 11),),
        weights=np.array([10]),
        bias=-50,
        n_features=1,
        scale=10.0,
        offset=-50.0,
    )
    rows = np.arange(11.0)[:, None]
    truth = (rows[:, 0] > 5).astype(int)
    report = exactness(model, rows[:, 0], rows, labels=truth)
    assert (report.largest_score_error, report.label_agreement, report.auc_change) == (0, 1, 0)
    assert report.bits_used == 7
    assert report.headroom == pytest.approx(1 - 101 / 516_096)
    shifted = exactness(model, rows[:, 0] - 2.0, rows, labels=truth)
    assert shifted.largest_score_error == pytest.approx(2.0)
    assert shifted.label_agreement == pytest.approx(1 - 2 / 11)
    reversed_report = exactness(model, -rows[:, 0], rows, labels=truth)
    assert reversed_report.auc_change == pytest.approx(1.0)
    with pytest.raises(ValueError, match="one score per row"):
        exactness(model, rows[:3, 0], rows)


def test_many_trees_import_quickly() -> None:
    estimator = GradientBoostingClassifier(n_estimators=300, max_depth=4, random_state=0).fit(X, Y)
    start = time.thread_time()
    model = from_sklearn(estimator, BOUNDS)
    assert time.thread_time() - start < 3.0
    assert (model.predict(X) == estimator.predict(X)).all()
    assert len(read(estimator, 30).trees) == len(model.trees) == 300  # type: ignore[union-attr]
