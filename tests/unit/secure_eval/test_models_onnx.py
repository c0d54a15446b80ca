"""Import from ONNX: the same integers as from scikit-learn, the runtime's labels."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_graphs import runtime_labels
from skl2onnx import to_onnx
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier, SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    RobustScaler,
    StandardScaler,
)
from sklearn.tree import DecisionTreeClassifier

from secure_eval.from_onnx import from_onnx
from secure_eval.from_sklearn import from_sklearn
from secure_eval.integer_model import Column

X64, Y = load_breast_cancer(return_X_y=True)
X64 = X64[:, :10].copy()
X64[:, 3] = np.digitize(X64[:, 3], [500, 700, 1000])  # a category
X = X64.astype(np.float32).astype(np.float64)
BOUNDS = np.stack([X.min(axis=0), X.max(axis=0)], axis=1)

PAIRS: dict[str, Any] = {
    "logistic": make_pipeline(StandardScaler(), LogisticRegression()),
    "minmax": make_pipeline(MinMaxScaler(), LogisticRegression()),
    "ridge": make_pipeline(StandardScaler(), RidgeClassifier()),
    "margin": make_pipeline(StandardScaler(), SGDClassifier(random_state=0)),
    "log loss": make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss", random_state=0)),
    "lda": make_pipeline(
        StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1)
    ),
    "regressor": make_pipeline(StandardScaler(), Ridge(10.0)),
    "mixed": make_pipeline(
        ColumnTransformer(
            [("scale", StandardScaler(), [0, 1]), ("code", OneHotEncoder(), [3])],
            remainder="passthrough",
        ),
        LogisticRegression(max_iter=5000),
    ),
    "tree": DecisionTreeClassifier(max_depth=4, random_state=0),
    "forest": RandomForestClassifier(30, max_depth=4, random_state=0),
    "extra": ExtraTreesClassifier(10, max_depth=3, random_state=0),
    "boosting": GradientBoostingClassifier(n_estimators=30, random_state=0),
    "stumps": GradientBoostingClassifier(n_estimators=30, max_depth=1, random_state=0),
    "imputed boosting": make_pipeline(
        SimpleImputer(),
        RobustScaler(),
        GradientBoostingClassifier(n_estimators=20, random_state=0),
    ),
    "scaled forest": make_pipeline(
        MaxAbsScaler(), RandomForestClassifier(20, max_depth=3, random_state=0)
    ),
}


@cache
def fitted(name: str) -> tuple[Any, Any, np.ndarray]:
    """A fitted estimator, its integer model as scikit-learn gives it, and what that predicts."""
    estimator = PAIRS[name].fit(X, Y)
    reference = from_sklearn(estimator, BOUNDS)
    return estimator, reference, reference.predict(X)


@pytest.mark.parametrize("zipmap", [True, False])
@pytest.mark.parametrize("name", PAIRS)
def test_same_integer_predictions_as_from_sklearn(name: str, zipmap: bool) -> None:
    estimator, reference, expected = fitted(name)
    last = estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator
    has_map = name not in {"ridge", "regressor"}
    options = {id(last): {"zipmap": zipmap}} if has_map else None
    proto = to_onnx(estimator, X[:1].astype(np.float32), options=options)
    data = proto.SerializeToString()
    model = from_onnx(data, BOUNDS)
    assert model.kind == reference.kind
    assert len(model.columns) == len(reference.columns)
    predicted = model.predict(X)
    assert np.array_equal(predicted, expected)
    assert model.scale == pytest.approx(reference.scale, rel=1e-3)
    limit = 0.995 if model.kind == "linear" else 0.999
    assert (predicted == runtime_labels(data, X)).mean() >= limit


@pytest.mark.parametrize("name", ["tree", "forest", "boosting", "stumps"])
def test_unscaled_trees_give_the_same_columns_and_scores(name: str) -> None:
    estimator, reference, _ = fitted(name)
    model = from_onnx(to_onnx(estimator, X[:1].astype(np.float32)).SerializeToString(), BOUNDS)
    assert np.array_equal(model.encode(X), reference.encode(X))
    apart = (model.score(X) - model.offset) / model.scale
    apart -= (reference.score(X) - reference.offset) / reference.scale
    assert np.abs(apart).max() * model.scale <= max(len(model.trees), len(model.columns)) + 2


def test_thresholds_agree_with_the_runtime_at_ties() -> None:
    estimator = make_pipeline(StandardScaler(), DecisionTreeClassifier(max_depth=4)).fit(X, Y)
    data = to_onnx(estimator, X[:1].astype(np.float32)).SerializeToString()
    model = from_onnx(data, BOUNDS)
    rng = np.random.default_rng(0)
    rows = X[rng.integers(0, len(X), 3000)].copy()
    for column in model.columns:
        chosen = rng.random(len(rows)) < 0.3
        near = np.array([column.threshold], dtype=np.float32)
        near = np.concatenate(
            [near, np.nextafter(near, np.float32(-np.inf)), np.nextafter(near, np.float32(np.inf))]
        )
        rows[chosen, column.feature] = rng.choice(near, int(chosen.sum()))
    assert np.array_equal(model.predict(rows), runtime_labels(data, rows))


def test_path_and_bytes_and_sealed_upload(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(18, 90, (400, 1)).astype(np.float32)
    estimator = DecisionTreeClassifier(max_depth=1).fit(rows, rows[:, 0] >= 50)
    proto = to_onnx(estimator, rows[:1])
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    upload = (Column.value_of(0, 18.0, 1.0, 80), Column.bit_of(0, 50.0))
    model = from_onnx(path, [[18, 97]], columns=upload)
    assert model.columns == upload[1:]
    assert model == from_onnx(str(path), [[18, 97]], columns=upload)
    assert model == from_onnx(proto.SerializeToString(), [[18, 97]], columns=upload)
    with pytest.raises(ValueError, match="nearest available one is 60"):
        from_onnx(path, [[18, 97]], columns=(Column.bit_of(0, 60.0),))
