"""Import from scikit-learn: agreement with the float model, exact thresholds, columns, refusals."""

import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.decomposition import PCA
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
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    PolynomialFeatures,
    RobustScaler,
    SplineTransformer,
    StandardScaler,
)
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from secure_eval.exactness import exactness
from secure_eval.from_sklearn import from_sklearn, read
from secure_eval.integer_model import Column, IntegerModel, hidden_edges

X, Y = load_breast_cancer(return_X_y=True)
BOUNDS = np.stack([X.min(axis=0), X.max(axis=0)], axis=1)


def bins(encode: str = "onehot-dense") -> KBinsDiscretizer:
    return KBinsDiscretizer(6, encode=encode, quantile_method="averaged_inverted_cdf")


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


def float_scores(estimator: Any, rows: np.ndarray) -> np.ndarray:
    if hasattr(estimator, "decision_function"):
        return np.asarray(estimator.decision_function(rows))
    if hasattr(estimator, "predict_proba"):
        return np.asarray(estimator.predict_proba(rows)[:, 1])
    return np.asarray(estimator.predict(rows))


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


def test_score_range_is_filled_with_the_threshold_on_an_edge() -> None:
    estimator = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y + 0)
    model = from_sklearn(estimator, BOUNDS)
    edges = hidden_edges(32)
    assert (model.high - model.low + 1) / (edges[-1] - edges[0]) > 0.87
    assert model.threshold == edges[model.threshold_bin]
    assert model.threshold_bin in model.bin_edges
    zero = (model.threshold - model.offset) / model.scale
    assert zero == pytest.approx(0.0, abs=1e-9)


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


def test_groups_give_a_larger_scale() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 5, 500)
    rows = np.column_stack([np.eye(5)[codes], rng.normal(size=500).clip(-2, 2)])
    labels = (codes + rows[:, 5] > 2).astype(int)
    estimator = LogisticRegression().fit(rows, labels)
    bounds = [[0, 1]] * 5 + [[-2, 2]]
    loose = from_sklearn(estimator, bounds)
    tight = from_sklearn(estimator, bounds, groups=(("one_hot", (0, 1, 2, 3, 4)),))
    assert tight.scale > 1.2 * loose.scale
    assert tight.groups == (("one_hot", (0, 1, 2, 3, 4)),)
    assert (tight.predict(rows) == estimator.predict(rows)).mean() >= 0.995


def test_declared_range_only_moves_published_edges() -> None:
    estimator = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)
    full = from_sklearn(estimator, BOUNDS)
    model = from_sklearn(estimator, BOUNDS, score_range=(-5.0, 5.0))
    assert np.array_equal(model.score(X), full.score(X))
    inside = [
        b
        for b, edge in enumerate(hidden_edges(32).tolist())
        if -5.0 <= (edge - model.offset) / model.scale <= 5.0
    ]
    assert sorted({0, 32, model.threshold_bin, *inside}) == list(model.bin_edges)
    assert len(model.bin_edges) < len(full.bin_edges)
    for bad in ((1.0, 1.0), (2.0, 1.0), (0.0, np.inf), (np.nan, 1.0)):
        with pytest.raises(ValueError, match="score_range"):
            from_sklearn(estimator, BOUNDS, score_range=bad)


def test_rows_outside_the_bounds_are_clipped() -> None:
    estimator = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)
    model = from_sklearn(estimator, BOUNDS)
    wild = X * 50 - 1000
    clipped = np.clip(wild, BOUNDS[:, 0], BOUNDS[:, 1])
    assert np.array_equal(model.score(wild), model.score(clipped))


def test_the_grid_does_not_depend_on_the_weights() -> None:
    estimator = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)
    other = make_pipeline(StandardScaler(), RidgeClassifier()).fit(X, Y)
    assert from_sklearn(estimator, BOUNDS).columns == from_sklearn(other, BOUNDS).columns


UPLOAD = (
    Column.value_of(0, 18.0, 1.0, 80),  # age in years
    *(Column.bit_of(0, float(age)) for age in (30, 40, 50, 60, 70)),
    Column.value_of(1, 0.0, 1.0, 2),  # a 0/1 feature
    Column.value_of(2, 0.0, 0.5, 40),
    Column.bit_of(3, 1.5),
)
UPLOAD_BOUNDS = np.array([[18, 97], [0, 1], [0, 19.5], [0, 3]])


def upload_rows() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    rows = np.column_stack(
        [
            rng.integers(18, 98, 900),
            rng.integers(0, 2, 900),
            rng.integers(0, 40, 900) / 2,
            rng.integers(0, 4, 900),
        ]
    ).astype(float)
    risk = (rows[:, 0] >= 50) + 2 * rows[:, 1] * (rows[:, 2] < 9) + (rows[:, 3] > 1)
    return rows, (risk + rng.normal(size=900) * 0.3 > 1.5).astype(int)


def test_linear_model_on_a_sealed_upload_uses_its_grid() -> None:
    rows, labels = upload_rows()
    estimator = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows[:, :3], labels)
    model = from_sklearn(estimator, UPLOAD_BOUNDS[:3], columns=UPLOAD)
    assert set(model.columns) <= set(UPLOAD)
    assert (model.predict(rows[:, :3]) == estimator.predict(rows[:, :3])).mean() >= 0.995
    whole = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, labels)
    with pytest.raises(ValueError, match="feature 3 has no value column"):
        from_sklearn(whole, UPLOAD_BOUNDS, columns=UPLOAD)


def test_trees_on_a_sealed_upload_use_equivalent_bits() -> None:
    rows, labels = upload_rows()
    coarse = rows.copy()
    coarse[:, 0] = np.digitize(rows[:, 0], [30, 40, 50, 60, 70]) * 10 + 20
    two = coarse[:, [0, 1]]
    estimator = DecisionTreeClassifier(max_depth=3, random_state=0).fit(two, labels)
    with pytest.raises(ValueError, match=r"tree 0 node \d+ .*feature 0 .*nearest available"):
        from_sklearn(estimator, UPLOAD_BOUNDS[:2], columns=UPLOAD)  # cuts at 25, 35, ...: no bit
    # The same splits placed within one grid step of the available bits: 49.5 means x >= 50.
    fine = rows[:, [0, 1]]
    ages = np.array([29, 30, 39, 40, 49, 50, 59, 60, 69, 70])
    narrow = np.isin(fine[:, 0], ages)
    estimator = DecisionTreeClassifier(max_depth=1, random_state=0)
    estimator.fit(fine[narrow], (fine[narrow, 0] >= 50).astype(int))
    model = from_sklearn(estimator, UPLOAD_BOUNDS[:2], columns=UPLOAD)
    assert model.columns == (Column.bit_of(0, 50.0),)
    assert np.array_equal(model.predict(fine), estimator.predict(fine))
    binary = DecisionTreeClassifier(max_depth=1).fit(fine, fine[:, 1])
    model = from_sklearn(binary, UPLOAD_BOUNDS[:2], columns=UPLOAD)
    assert model.columns == (Column.value_of(1, 0.0, 1.0, 2),)
    assert np.array_equal(model.predict(fine), fine[:, 1])


def test_binned_model_on_a_sealed_upload() -> None:
    rows, labels = upload_rows()
    binner = KBinsDiscretizer(6, encode="onehot-dense", strategy="uniform")
    estimator = make_pipeline(binner, LogisticRegression()).fit(rows[:, :1], labels)
    binner.bin_edges_[0][1:-1] = [30, 40, 50, 60, 70]
    model = from_sklearn(estimator, UPLOAD_BOUNDS[:1], columns=UPLOAD)
    assert model.kind == "additive"
    assert {column.threshold for column in model.columns} <= {30, 40, 50, 60, 70}
    assert np.array_equal(model.predict(rows[:, :1]), estimator.predict(rows[:, :1]))


def test_constant_and_one_sided_models() -> None:
    estimator = LogisticRegression().fit(X[:, :2], Y)
    estimator.coef_, estimator.intercept_ = np.array([[0.0, 0.0]]), np.array([0.7])
    model = from_sklearn(estimator, BOUNDS[:2])
    assert model.predict(X[:, :2]).all()
    estimator.intercept_ = np.array([0.0])
    assert not from_sklearn(estimator, BOUNDS[:2]).predict(X[:, :2]).any()  # 0 > 0 is false
    estimator.coef_, estimator.intercept_ = np.array([[1e-3, 0.0]]), np.array([-1e6])
    assert not from_sklearn(estimator, BOUNDS[:2]).predict(X[:, :2]).any()
    estimator.coef_ = np.array([[1e200, -1e-200]])
    assert from_sklearn(estimator, BOUNDS[:2]).predict(X[:, :2]).all()


def test_equal_bounds_fold_into_the_bias() -> None:
    estimator = LogisticRegression().fit(X[:, :2], Y)
    bounds = BOUNDS[:2].copy()
    bounds[1] = 20.0
    model = from_sklearn(estimator, bounds)
    assert [column.feature for column in model.columns] == [0]
    rows = np.column_stack([X[:, 0], np.full(len(X), 20.0)])
    assert (model.predict(rows) == estimator.predict(rows)).mean() >= 0.995


@pytest.mark.parametrize("seed", range(10))
def test_random_linear_models_hold_the_range_law(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 12))
    estimator = LogisticRegression().fit(rng.normal(size=(30, n)), np.arange(30) % 2)
    estimator.coef_ = rng.normal(size=(1, n)) * 10.0 ** rng.integers(-6, 6, n)
    estimator.intercept_ = rng.normal(size=1) * 10.0 ** rng.integers(-3, 6)
    low = rng.normal(size=n) * 100
    bounds = np.stack([low, low + 10.0 ** rng.integers(-3, 4, n)], axis=1)
    model = from_sklearn(estimator, bounds)
    corners = np.where(rng.random((500, n)) < 0.5, -1e308, 1e308)
    rows = np.vstack([corners, rng.uniform(*bounds.T, (500, n))])
    scores = model.score(rows)
    assert hidden_edges(32)[0] <= model.low <= scores.min()
    assert scores.max() <= model.high < hidden_edges(32)[-1]


Builder = Callable[[], tuple[Any, np.ndarray]]


def fitted(estimator: Any) -> Builder:
    return lambda: (estimator.fit(X, Y), BOUNDS)


def _categorical() -> tuple[Any, np.ndarray]:
    rows = np.column_stack([X[:, 0], Y * 2.0])
    boosting = HistGradientBoostingClassifier(max_depth=2, max_iter=2, categorical_features=[1])
    return boosting.fit(rows, Y), np.array([[0, 50], [0, 2]])


def _missing() -> tuple[Any, np.ndarray]:
    rows = X.copy()
    rows[Y == 0, 0] = np.nan
    return HistGradientBoostingClassifier(max_depth=2, max_iter=2).fit(rows, Y), BOUNDS


def _strings() -> tuple[Any, np.ndarray]:
    rows = np.where(Y[:, None] == 1, "yes", "no")
    return make_pipeline(OneHotEncoder(), LogisticRegression()).fit(rows, Y), np.array([[0, 1]])


def _multiclass() -> tuple[Any, np.ndarray]:
    rows, labels = load_iris(return_X_y=True)
    return LogisticRegression(max_iter=2000).fit(rows, labels), np.array([[0, 9]] * 4)


def _infinite() -> tuple[Any, np.ndarray]:
    estimator = LogisticRegression(max_iter=9000).fit(X[:, :2], Y)
    estimator.coef_ = np.array([[np.inf, 1.0]])
    return estimator, BOUNDS[:2]


REFUSED: dict[str, tuple[Builder, str]] = {
    "network": (fitted(MLPClassifier((3,), max_iter=5)), "MLPClassifier is not supported; use"),
    "pca": (fitted(make_pipeline(PCA(3), LogisticRegression())), "PCA is not supported"),
    "splines": (
        fitted(make_pipeline(SplineTransformer(), LogisticRegression(max_iter=9000))),
        "use KBinsDiscretizer",
    ),
    "code": (
        fitted(make_pipeline(FunctionTransformer(np.log1p), LogisticRegression(max_iter=9000))),
        "FunctionTransformer",
    ),
    "products": (
        fitted(make_pipeline(StandardScaler(), PolynomialFeatures(2), LogisticRegression())),
        "shallow trees",
    ),
    "normalizer": (fitted(make_pipeline(Normalizer(), LogisticRegression())), "mixes features"),
    "clip": (
        fitted(make_pipeline(MinMaxScaler(clip=True), LogisticRegression())),
        "clip=True is not supported",
    ),
    "deep tree": (fitted(DecisionTreeClassifier(random_state=0)), "max_depth <= 4"),
    "deep forest": (fitted(RandomForestClassifier(3)), r"tree 0: depth \d+ exceeds 4"),
    "deep boosting": (fitted(HistGradientBoostingClassifier(max_iter=2)), "max_depth <= 4"),
    "search": (
        fitted(GridSearchCV(RidgeClassifier(), {"alpha": [1.0]})),
        "pass its best_estimator_",
    ),
    "start": (
        fitted(GradientBoostingClassifier(n_estimators=1, init=RidgeClassifier())),
        "",
    ),
    "categories": (_categorical, "feature 1: categorical splits"),
    "missing": (_missing, "missing values"),
    "strings": (_strings, "not finite numbers"),
    "classes": (_multiclass, "3 classes"),
    "infinite": (_infinite, "not finite"),
    "unfitted": (lambda: (LogisticRegression(), BOUNDS), "call fit"),
    "not a model": (lambda: ("model.pkl", BOUNDS), "not a fitted estimator"),
    "width": (lambda: (LogisticRegression().fit(X[:, :3], Y), BOUNDS), "expects 3 features"),
    "bounds": (lambda: (LogisticRegression().fit(X[:, :1], Y), [[1, 0]]), "low exceeds high"),
    "nan bounds": (lambda: (LogisticRegression().fit(X[:, :1], Y), [[0, np.nan]]), "finite"),
    "flat bounds": (lambda: (LogisticRegression().fit(X[:, :1], Y), [0, 1]), r"\(features, 2\)"),
}
del REFUSED["start"]  # scikit-learn itself refuses a start without probabilities


@pytest.mark.parametrize("name", REFUSED)
def test_unsupported_models_are_refused_in_one_sentence(name: str) -> None:
    build, message = REFUSED[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # convergence of models that are fitted only to be refused
        estimator, bounds = build()
    start = time.process_time()
    with pytest.raises(ValueError, match=message) as caught:
        from_sklearn(estimator, bounds)
    assert time.process_time() - start < 1.0
    assert "\n" not in str(caught.value)


def test_custom_start_of_boosting_is_refused() -> None:
    start = LogisticRegression(max_iter=9000)
    estimator = GradientBoostingClassifier(n_estimators=1, init=start).fit(X[:, :2], Y)
    with pytest.raises(ValueError, match="leave init=None"):
        from_sklearn(estimator, BOUNDS[:2])


def test_two_cut_tests_count_towards_the_depth() -> None:
    """A test on a middle category needs two bits, so a deep tree of them no longer fits."""
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 6, (3000, 4)).astype(float)
    labels = (rows == 3).sum(axis=1) % 2
    encode = OneHotEncoder(sparse_output=False)
    estimator = make_pipeline(encode, DecisionTreeClassifier(max_depth=4, random_state=0))
    estimator.fit(rows, labels)
    with pytest.raises(ValueError, match="more than 4 splits"):
        from_sklearn(estimator, [[0, 5]] * 4)


def test_binarizer_is_strict() -> None:
    rows = np.array([[1.0], [np.nextafter(1.0, 2)], [0.0], [2.0]])
    estimator = make_pipeline(Binarizer(threshold=1.0), LogisticRegression())
    estimator.fit(rows, [0, 1, 0, 1])
    model = from_sklearn(estimator, [[0, 2]])
    assert model.predict(rows).tolist() == [0, 1, 0, 1]


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
    start = time.process_time()
    model = from_sklearn(estimator, BOUNDS)
    assert time.process_time() - start < 3.0
    assert (model.predict(X) == estimator.predict(X)).all()
    assert len(read(estimator, 30).trees) == len(model.trees) == 300  # type: ignore[union-attr]
