"""Import from scikit-learn: columns, those of a sealed upload too, and the range of scores."""

import numpy as np
import pytest
from float_models import BOUNDS, X, Y
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from secure_eval.from_sklearn import from_sklearn
from secure_eval.integer_model import Column, hidden_edges


def test_score_range_is_filled_with_the_threshold_on_an_edge() -> None:
    estimator = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y + 0)
    model = from_sklearn(estimator, BOUNDS)
    edges = hidden_edges(32)
    assert (model.high - model.low + 1) / (edges[-1] - edges[0]) > 0.87
    assert model.threshold == edges[model.threshold_bin]
    assert model.threshold_bin in model.bin_edges
    zero = (model.threshold - model.offset) / model.scale
    assert zero == pytest.approx(0.0, abs=1e-9)


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
