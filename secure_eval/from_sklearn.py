"""Import of fitted scikit-learn estimators and pipelines as integer models.

The float score is the decision function of margin models, the mean probability of class 1 of
forests, and the prediction of regressors; the decision threshold is scikit-learn's own (0 for
margins, 0.5 for probabilities; 0.5 for regressors of 0/1 labels).

Preconditions: rows are float64 without missing values, and hold fitted categories where a
OneHotEncoder reads them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from secure_eval.column_book import check_bounds
from secure_eval.expressions import Smooth, affine, to_float32
from secure_eval.float_model import Decision, FloatLinear, FloatModel, FloatTree, FloatTrees
from secure_eval.integer_model import Column, Group, IntegerModel
from secure_eval.model_checks import MAX_DEPTH
from secure_eval.quantise import quantise
from secure_eval.quantise_residual import quantise_residual
from secure_eval.sklearn_steps import Expressions, fold

MARGIN = Decision(0.0, strict=True)
HALF = Decision(0.5, strict=True)
MISSING_SPLIT = 1e300  # HistGradientBoosting writes larger thresholds for "missing or not"
SUPPORTED = (
    "linear classifiers and regressors, LinearDiscriminantAnalysis, DecisionTreeClassifier, "
    "RandomForestClassifier, ExtraTreesClassifier, GradientBoostingClassifier and "
    "HistGradientBoostingClassifier"
)


def from_sklearn(
    estimator: Any,
    bounds: ArrayLike,
    *,
    score_range: tuple[float, float] | None = None,
    columns: Sequence[Column] | None = None,
    groups: Sequence[Group] | None = None,
) -> IntegerModel:
    """Return the integer model of a fitted binary estimator or pipeline.

    Args:
        estimator: a fitted estimator, or a Pipeline that ends in one.
        bounds: (F, 2) public low and high of each raw feature.
        score_range: declared (low, high) of the float score; see `quantise`.
        columns: the only columns that exist (a sealed validation set's upload).
        groups: ("one_hot" or "monotone", feature indices) of 0/1 features.

    Raises:
        ValueError: something is not supported, naming it and what to use instead.
    """
    table = check_bounds(bounds)
    model = read(estimator, len(table))
    return quantise(model, table, score_range=score_range, columns=columns, groups=groups)


def residual_from_sklearn(
    estimator: Any,
    bounds: ArrayLike,
    label: Column,
    *,
    columns: Sequence[Column] | None = None,
    groups: Sequence[Group] | None = None,
) -> IntegerModel:
    """Return the integer model of a fitted regressor's residual, prediction less label.

    Args:
        estimator: a fitted regressor, or a Pipeline that ends in one.
        bounds: (F, 2) public low and high of each raw feature.
        label: the label's column, feature F; see `quantise_residual.label_column`.
        columns: as for `from_sklearn`.
        groups: as for `from_sklearn`.

    Raises:
        ValueError: something is not supported, naming it and what to use instead.
    """
    table = check_bounds(bounds)
    model = read_regressor(estimator, len(table))
    return quantise_residual(model, table, label, columns=columns, groups=groups)


def read(estimator: Any, n_features: int) -> FloatModel:
    """Return the float model of a fitted binary estimator over n_features raw features."""
    last, inputs = unfolded(estimator, n_features)
    return final(last, inputs)


def read_regressor(estimator: Any, n_features: int) -> FloatModel:
    """Return the float model of a fitted regressor over n_features raw features."""
    last, inputs = unfolded(estimator, n_features)
    if hasattr(last, "classes_"):
        raise ValueError(f"{type(last).__name__} predicts classes; a numeric label needs a number")
    return _regressor(last, inputs)


def unfolded(estimator: Any, n_features: int) -> tuple[Any, Expressions]:
    """Return the last estimator of a pipeline and the expressions that it reads."""
    from sklearn.pipeline import Pipeline

    inputs: Expressions = tuple(Smooth(feature) for feature in range(n_features))
    while isinstance(estimator, Pipeline):
        for name, step in estimator.steps[:-1]:
            inputs = fold(step, inputs, f"step {name!r}")
        estimator = estimator.steps[-1][1]
    expected = getattr(estimator, "n_features_in_", None)
    if expected is None:
        raise ValueError(f"{type(estimator).__name__} is not a fitted estimator; call fit first")
    if expected != len(inputs):
        raise ValueError(
            f"{type(estimator).__name__} expects {expected} features, got {len(inputs)}; "
            "give bounds for every raw feature"
        )
    return estimator, inputs


def final(estimator: Any, inputs: Expressions) -> FloatModel:
    """Return the float model of the last estimator of two classes."""
    from sklearn import ensemble, linear_model, svm, tree
    from sklearn.linear_model._base import LinearClassifierMixin, LinearModel
    from sklearn.linear_model._stochastic_gradient import BaseSGDRegressor

    _require_binary(estimator)
    if isinstance(estimator, LinearClassifierMixin):
        return _linear(estimator, inputs, MARGIN)
    if isinstance(estimator, LinearModel | BaseSGDRegressor | svm.LinearSVR):
        return _linear(estimator, inputs, HALF)
    if isinstance(estimator, tree.DecisionTreeClassifier):
        return forest([estimator], inputs)
    if isinstance(estimator, ensemble.RandomForestClassifier | ensemble.ExtraTreesClassifier):
        return forest(estimator.estimators_, inputs)
    if isinstance(estimator, ensemble.GradientBoostingClassifier):
        return _boosting(estimator, inputs)
    if isinstance(estimator, ensemble.HistGradientBoostingClassifier):
        return histogram_boosting(estimator, inputs)
    advice = f"use one of {SUPPORTED}"
    if hasattr(estimator, "best_estimator_"):
        advice = "pass its best_estimator_"
    elif hasattr(estimator, "get_booster") or hasattr(estimator, "booster_"):
        advice = "export it to ONNX (TreeEnsembleClassifier) and use from_onnx"
    elif hasattr(estimator, "term_scores_"):
        advice = "train with interactions=0, export it with ebm2onnx and use from_onnx"
    elif isinstance(estimator, linear_model.TheilSenRegressor):
        advice = "use Ridge"
    raise ValueError(f"{type(estimator).__name__} is not supported; {advice}")


def _require_binary(estimator: Any) -> None:
    classes = getattr(estimator, "classes_", None)
    if classes is not None and len(classes) != 2:
        raise ValueError(
            f"{type(estimator).__name__} has {len(classes)} classes; train on two classes, or use "
            "classes_from_sklearn for three or more"
        )
    outputs = getattr(estimator, "n_outputs_", 1)
    if outputs != 1:
        raise ValueError(f"{type(estimator).__name__} has {outputs} outputs; train on one")


def _linear(estimator: Any, inputs: Expressions, decision: Decision) -> FloatLinear:
    coefficients = np.asarray(estimator.coef_, dtype=np.float64)
    intercept = np.asarray(estimator.intercept_, dtype=np.float64).ravel()
    if coefficients.size != len(inputs) or intercept.size != 1:
        raise ValueError(
            f"{type(estimator).__name__} has {coefficients.size} weights and {intercept.size} "
            f"intercepts for {len(inputs)} features; train on one output"
        )
    if not (np.isfinite(coefficients).all() and np.isfinite(intercept).all()):
        raise ValueError(f"{type(estimator).__name__} has weights that are not finite")
    return FloatLinear(inputs, coefficients.ravel(), float(intercept[0]), decision)


def single(inputs: Expressions) -> Expressions:
    """Return the inputs as scikit-learn's trees see them: rounded to float32."""
    return tuple(affine(expression, to_float32, 1.0, 0.0) for expression in inputs)


def forest(trees: Sequence[Any], inputs: Expressions, of_class: int = 1) -> FloatTrees:
    """Return the mean probability of a class: values are class fractions of each leaf."""
    read_trees = []
    for index, estimator in enumerate(trees):
        fractions = estimator.tree_.value[:, 0, :]
        share = fractions[:, of_class] / fractions.sum(axis=1) / len(trees)
        read_trees.append(read_tree(estimator.tree_, share, f"tree {index}"))
    return FloatTrees(single(inputs), tuple(read_trees), 0.0, HALF)


def _regressor(estimator: Any, inputs: Expressions) -> FloatModel:
    """Return the prediction of a regressor."""
    from sklearn import ensemble, svm, tree
    from sklearn.linear_model._base import LinearModel
    from sklearn.linear_model._stochastic_gradient import BaseSGDRegressor

    outputs = getattr(estimator, "n_outputs_", 1)
    if outputs != 1:
        raise ValueError(f"{type(estimator).__name__} has {outputs} outputs; train on one")
    if isinstance(estimator, LinearModel | BaseSGDRegressor | svm.LinearSVR):
        return _linear(estimator, inputs, HALF)
    if isinstance(estimator, tree.DecisionTreeRegressor):
        return _averaged([estimator], inputs)
    if isinstance(estimator, ensemble.RandomForestRegressor | ensemble.ExtraTreesRegressor):
        return _averaged(estimator.estimators_, inputs)
    if isinstance(estimator, ensemble.GradientBoostingRegressor):
        return _boosted(estimator, inputs)
    if isinstance(estimator, ensemble.HistGradientBoostingRegressor):
        if estimator.loss not in {"squared_error", "absolute_error", "quantile"}:
            raise ValueError(f"loss={estimator.loss!r} is not supported; use squared_error")
        return histogram_boosting(estimator, inputs)
    raise ValueError(
        f"{type(estimator).__name__} is not supported for a numeric label; use a linear regressor, "
        "DecisionTreeRegressor, RandomForestRegressor, ExtraTreesRegressor, "
        "GradientBoostingRegressor or HistGradientBoostingRegressor"
    )


def _averaged(trees: Sequence[Any], inputs: Expressions) -> FloatTrees:
    """Return the mean of regression trees."""
    read_trees = tuple(
        read_tree(item.tree_, item.tree_.value[:, 0, 0] / len(trees), f"tree {index}")
        for index, item in enumerate(trees)
    )
    return FloatTrees(single(inputs), read_trees, 0.0, HALF)


def _boosted(estimator: Any, inputs: Expressions) -> FloatTrees:
    zeros = np.zeros((1, len(inputs)), dtype=np.float32)
    stages = estimator.estimators_[:, 0]
    rate = estimator.learning_rate
    trees = tuple(
        read_tree(tree.tree_, rate * tree.tree_.value[:, 0, 0], f"tree {index}")
        for index, tree in enumerate(stages)
    )
    grown = sum(float(rate * tree.predict(zeros)[0]) for tree in stages)
    if not isinstance(estimator.init_, str) and type(estimator.init_).__name__ != "DummyRegressor":
        raise ValueError(f"init={type(estimator.init_).__name__} is not supported; leave init=None")
    base = float(estimator.predict(zeros)[0]) - grown
    return FloatTrees(single(inputs), trees, base, HALF)


def _boosting(estimator: Any, inputs: Expressions) -> FloatTrees:
    from sklearn.dummy import DummyClassifier

    start = estimator.init_
    if not isinstance(start, str | DummyClassifier):
        raise ValueError(f"init={type(start).__name__} is not supported; leave init=None")
    trees = tuple(
        read_tree(tree.tree_, estimator.learning_rate * tree.tree_.value[:, 0, 0], f"tree {index}")
        for index, tree in enumerate(estimator.estimators_[:, 0])
    )
    zeros = np.zeros((1, len(inputs)), dtype=np.float32)
    grown = sum(
        float(estimator.learning_rate * tree.predict(zeros)[0])
        for tree in estimator.estimators_[:, 0]
    )
    base = 0.0 if isinstance(start, str) else _prior(estimator, zeros, grown)
    # GradientBoostingClassifier decides for class 1 at a margin of exactly 0.
    return FloatTrees(single(inputs), trees, base, Decision(0.0, strict=False))


def _prior(estimator: Any, zeros: Any, grown: float) -> float:
    """Return the constant that boosting starts from: its score of any row less its trees."""
    return float(estimator.decision_function(zeros)[0]) - grown


def read_tree(tree: Any, value: Any, name: str) -> FloatTree:
    """Return a tree of scikit-learn's with other leaf values (n_nodes,)."""
    if tree.max_depth > MAX_DEPTH:
        raise ValueError(
            f"{name}: depth {tree.max_depth} exceeds {MAX_DEPTH}; train with "
            f"max_depth <= {MAX_DEPTH}"
        )
    inner = tree.children_left >= 0
    if not np.isfinite(tree.threshold[inner]).all():
        raise ValueError(f"{name}: splits on missing values; fill missing values before training")
    return FloatTree(
        name,
        np.where(inner, tree.feature, -1).astype(np.int64),
        np.asarray(tree.threshold, dtype=np.float64),
        np.ones(len(inner), dtype=np.bool_),
        tree.children_left.astype(np.int64),
        tree.children_right.astype(np.int64),
        np.asarray(value, dtype=np.float64),
    )


def histogram_boosting(estimator: Any, inputs: Expressions, of_class: int = 0) -> FloatTrees:
    """Return the raw score of a class (the only one of two classes, or of a regressor)."""
    categorical = estimator.is_categorical_
    if categorical is not None and np.any(categorical):
        raise ValueError(
            f"feature {int(np.argmax(categorical))}: categorical splits are not supported; "
            "put a OneHotEncoder before HistGradientBoostingClassifier"
        )
    trees = tuple(
        histogram_tree(stage[of_class].nodes, f"tree {index}")
        for index, stage in enumerate(estimator._predictors)
    )
    base = float(np.ravel(estimator._baseline_prediction)[of_class])
    return FloatTrees(inputs, trees, base, MARGIN)


def histogram_tree(nodes: Any, name: str) -> FloatTree:
    """Return a tree of HistGradientBoosting's."""
    depth = int(nodes["depth"].max())
    if depth > MAX_DEPTH:
        raise ValueError(
            f"{name}: depth {depth} exceeds {MAX_DEPTH}; train with max_depth <= {MAX_DEPTH}"
        )
    inner = nodes["is_leaf"] == 0
    threshold = nodes["num_threshold"].astype(np.float64)
    if (threshold[inner] >= MISSING_SPLIT).any():
        raise ValueError(f"{name}: splits on missing values; fill missing values before training")
    return FloatTree(
        name,
        np.where(inner, nodes["feature_idx"], -1).astype(np.int64),
        threshold,
        np.ones(len(nodes), dtype=np.bool_),
        nodes["left"].astype(np.int64),
        nodes["right"].astype(np.int64),
        nodes["value"].astype(np.float64),
    )
