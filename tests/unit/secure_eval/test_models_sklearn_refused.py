"""Import from scikit-learn: what is not supported is refused in one sentence."""

import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from float_models import BOUNDS, X, Y
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    PolynomialFeatures,
    SplineTransformer,
    StandardScaler,
)
from sklearn.tree import DecisionTreeClassifier

from secure_eval.from_sklearn import from_sklearn

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
    start = time.thread_time()
    with pytest.raises(ValueError, match=message) as caught:
        from_sklearn(estimator, bounds)
    assert time.thread_time() - start < 1.0
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
