"""Import of fitted scikit-learn estimators of three or more classes: one integer model a class."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from secure_eval.class_models import ClassModels, Method, with_equal_bins
from secure_eval.column_book import check_bounds
from secure_eval.float_model import Decision, FloatLinear, FloatModel, FloatTrees
from secure_eval.from_sklearn import (
    MARGIN,
    final,
    forest,
    histogram_boosting,
    read_tree,
    single,
    unfolded,
)
from secure_eval.integer_model import Column, Group
from secure_eval.quantise import quantise
from secure_eval.sklearn_steps import Expressions

__all__ = ["classes_from_sklearn", "contrasts", "quantised_classes", "read_classes"]


def classes_from_sklearn(
    estimator: Any,
    bounds: ArrayLike,
    *,
    columns: Sequence[Column] | None = None,
    groups: Sequence[Group] | None = None,
) -> ClassModels:
    """Return one integer model for each class of a fitted estimator or pipeline.

    What a class's score is depends on how the estimator was trained; see `class_models`.

    Args:
        estimator: a fitted classifier of 3 to 16 classes, or a Pipeline that ends in one.
        bounds: (F, 2) public low and high of each raw feature.
        columns: the only columns that exist (a sealed validation set's upload).
        groups: ("one_hot" or "monotone", feature indices) of 0/1 features.

    Raises:
        ValueError: something is not supported, naming it and what to use instead.
    """
    table = check_bounds(bounds)
    models, method = read_classes(estimator, len(table))
    return quantised_classes(models, method, table, columns, groups)


def quantised_classes(
    models: Sequence[FloatModel],
    method: Method,
    bounds: ArrayLike,
    columns: Sequence[Column] | None,
    groups: Sequence[Group] | None,
) -> ClassModels:
    """Return the integer models of float models, one a class; errors name the class."""
    made = []
    for index, model in enumerate(models):
        try:
            made.append(quantise(model, bounds, columns=columns, groups=groups))
        except ValueError as error:
            raise ValueError(f"class {index}: {error}") from error
    return ClassModels(with_equal_bins(made), method)


def read_classes(estimator: Any, n_features: int) -> tuple[list[FloatModel], Method]:
    """Return the float model of each class over n_features raw features, and what they score."""
    from sklearn import ensemble, tree
    from sklearn.linear_model._base import LinearClassifierMixin
    from sklearn.multiclass import OneVsRestClassifier

    last, inputs = unfolded(estimator, n_features)
    name = type(last).__name__
    count = len(getattr(last, "classes_", ()))
    if not 3 <= count <= 16:
        raise ValueError(f"{name} has {count} classes; expected 3 to 16")
    if isinstance(last, OneVsRestClassifier):
        if len(last.estimators_) != count:
            raise ValueError(f"{name} has {len(last.estimators_)} estimators for {count} classes")
        return [_one_against_rest(item, inputs) for item in last.estimators_], "one-vs-rest"
    if isinstance(last, LinearClassifierMixin):
        margins = _margins(last, inputs)
        return (contrasts(margins), "contrast") if _is_softmax(last) else (margins, "one-vs-rest")
    if isinstance(last, tree.DecisionTreeClassifier):
        return [forest([last], inputs, k) for k in range(count)], "probability"
    if isinstance(last, ensemble.RandomForestClassifier | ensemble.ExtraTreesClassifier):
        return [forest(last.estimators_, inputs, k) for k in range(count)], "probability"
    if isinstance(last, ensemble.GradientBoostingClassifier):
        return contrasts(_boosting(last, inputs)), "contrast"
    if isinstance(last, ensemble.HistGradientBoostingClassifier):
        found = [histogram_boosting(last, inputs, k) for k in range(count)]
        return contrasts(found), "contrast"
    raise ValueError(
        f"{name} with {count} classes is not supported; put a supported two-class estimator into "
        "OneVsRestClassifier, or use a linear classifier, a forest or gradient boosting"
    )


def _one_against_rest(estimator: Any, inputs: Expressions) -> FloatModel:
    from sklearn.pipeline import Pipeline

    if isinstance(estimator, Pipeline):
        raise ValueError(
            "OneVsRestClassifier of a Pipeline is not supported; put the preprocessing before it"
        )
    return final(estimator, inputs)


def _is_softmax(estimator: Any) -> bool:
    """Say whether probabilities come from one softmax over all classes."""
    name = type(estimator).__name__
    if name == "LinearSVC":
        return bool(estimator.multi_class == "crammer_singer")
    if name in {"LogisticRegression", "LogisticRegressionCV"}:
        one_each = getattr(estimator, "multi_class", "auto") == "ovr"
        return not one_each and estimator.solver != "liblinear"
    return name == "LinearDiscriminantAnalysis"


def _margins(estimator: Any, inputs: Expressions) -> list[FloatModel]:
    weights = np.asarray(estimator.coef_, dtype=np.float64)
    count = len(estimator.classes_)
    intercepts = np.broadcast_to(np.ravel(estimator.intercept_).astype(np.float64), (count,))
    if weights.shape != (count, len(inputs)):
        raise ValueError(
            f"{type(estimator).__name__} has weights {weights.shape} for {count} classes and "
            f"{len(inputs)} features"
        )
    if not (np.isfinite(weights).all() and np.isfinite(intercepts).all()):
        raise ValueError(f"{type(estimator).__name__} has weights that are not finite")
    pairs = zip(weights, intercepts.tolist(), strict=True)
    return [FloatLinear(inputs, row, intercept, MARGIN) for row, intercept in pairs]


def _boosting(estimator: Any, inputs: Expressions) -> list[FloatModel]:
    """Return the raw scores of GradientBoostingClassifier, one a class."""
    if not isinstance(estimator.init_, str) and type(estimator.init_).__name__ != "DummyClassifier":
        raise ValueError(f"init={type(estimator.init_).__name__} is not supported; leave init=None")
    zeros = np.zeros((1, len(inputs)), dtype=np.float32)
    start, rate = np.ravel(estimator.decision_function(zeros)), estimator.learning_rate
    found: list[FloatModel] = []
    for k, stages in enumerate(estimator.estimators_.T):
        trees = tuple(
            read_tree(tree.tree_, rate * tree.tree_.value[:, 0, 0], f"class {k}, tree {index}")
            for index, tree in enumerate(stages)
        )
        grown = sum(float(rate * tree.predict(zeros)[0]) for tree in stages)
        found.append(FloatTrees(single(inputs), trees, float(start[k]) - grown, MARGIN))
    return found


def contrasts(models: Sequence[FloatModel]) -> list[FloatModel]:
    """Return each model less the mean of all; they must be of one form over the same inputs."""
    share = np.eye(len(models)) - 1.0 / len(models)
    return [_mixed(models, row) for row in share]


def _mixed(models: Sequence[FloatModel], shares: NDArray[np.float64]) -> FloatModel:
    """Return the sum of shares (k,) times models (k)."""
    decision = Decision(0.0, strict=True)
    linear = [model for model in models if isinstance(model, FloatLinear)]
    if len(linear) == len(models):
        rows = np.array([model.coefficients for model in linear])
        base = float(shares @ np.array([model.intercept for model in linear]))
        return FloatLinear(linear[0].expressions, shares @ rows, base, decision)
    parts = [model for model in models if isinstance(model, FloatTrees)]
    if len(parts) != len(models):
        raise ValueError("the classes' models are of different forms; train one kind for all")
    trees = tuple(
        replace(tree, value=share * tree.value)
        for model, share in zip(parts, shares.tolist(), strict=True)
        for tree in model.trees
    )
    base = float(shares @ np.array([model.base for model in parts]))
    return FloatTrees(parts[0].expressions, trees, base, decision)
