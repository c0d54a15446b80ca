"""Three built-in recipes on a schema's public features, and models that come as ONNX files.

Every recipe works on whatever was delivered. Where the records hold one class only, or none came,
the model is the smoothed prior: a constant score that says so honestly, and never a crash.

Two levels: one classifier. Three or more: one classifier for each class against the rest. A number:
the same forms fitted by squares (`logistic` is then linear).

scikit-learn is imported where something is fitted: that takes a second and more, and processes of
providers and hospitals, which come by here, fit nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from math import log
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clearinghouse.errors import InputError
from clearinghouse.features import FeatureKind, bounds, encode, feature_groups, features
from clearinghouse.model_columns import columns, label_column_of, rows_of
from clearinghouse.schema import Schema
from clearinghouse.score_cards import Task, task_of
from clearinghouse.tables import Table
from secure_eval.class_models import ClassModels, Model, with_equal_bins
from secure_eval.from_sklearn import from_sklearn, residual_from_sklearn
from secure_eval.integer_model import IntegerModel, hidden_edges

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression, Ridge

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

RECIPES = ("logistic", "gam", "trees")
N_TREES = 50
DEPTH = 3
LEARNING_RATE = 0.08
RIDGE = 2.0
RESIDUAL_SPREADS = 3.0
"""Published edges of residuals reach so many root mean squares of the training residuals."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A model in floats over all features of a schema.

    Attributes:
        recipe: Which recipe made it.
        estimator: A fitted scikit-learn classifier of classes 0 and 1, or a regressor; of three
            or more classes a tuple of classifiers, each for its class against the rest.
        task: What the label is.
    """

    recipe: str
    estimator: Any
    task: Task = "binary"

    def predict(self, rows: Floats) -> Floats:
        """Probability of class 1 (n,), of each class (n, classes), or the number (n,).

        Args:
            rows: Feature vectors (n, F).
        """
        if self.task == "classes":
            return np.column_stack([Trained(self.recipe, e).predict(rows) for e in self.estimator])
        if not len(rows):
            return np.zeros(0)
        if self.task == "number":
            return np.asarray(self.estimator.predict(rows), dtype=np.float64)
        return np.asarray(self.estimator.predict_proba(rows)[:, 1], dtype=np.float64)


def train(recipe: str, schema: Schema, table: Table | None, seed: int) -> Trained:
    """Fit a built-in recipe.

    Args:
        recipe: "logistic", "gam" or "trees".
        schema: Of two label levels the second one is class 1.
        table: Training records, or None if none came.
        seed: Of the trees' tie-breaking; the same input gives the same model.

    Raises:
        InputError: No such recipe.
    """
    if recipe not in RECIPES:
        raise InputError(f"recipe must be one of {', '.join(RECIPES)}, not {recipe!r}")
    rows = np.zeros((0, len(features(schema)))) if table is None else encode(schema, table)
    task = task_of(schema.label)
    if task == "number":
        numbers = np.zeros(0) if table is None else np.asarray(table.labels, np.float64)
        return Trained(recipe, _regressor(recipe, schema, rows, numbers, seed), task)
    labels = np.zeros(0, dtype=np.int64) if table is None else np.asarray(table.labels, np.int64)
    if task == "binary":
        return Trained(recipe, _classifier(recipe, schema, rows, labels, seed))
    classes = [(labels == k).astype(np.int64) for k in range(schema.label.n_classes)]
    each = tuple(_classifier(recipe, schema, rows, own, seed) for own in classes)
    return Trained(recipe, each, task)


def _classifier(recipe: str, schema: Schema, rows: Floats, labels: Integers, seed: int) -> Any:
    if len(np.unique(labels)) < 2:
        return _prior(labels, rows.shape[1])
    fit = {"logistic": _logistic, "gam": _additive}.get(recipe)
    return fit(schema, rows, labels) if fit else _trees(schema, rows, labels, seed)


def _regressor(recipe: str, schema: Schema, rows: Floats, labels: Floats, seed: int) -> Any:
    """Least squares on standardised features, or boosted trees on 0/1 features."""
    if len(np.unique(labels)) < 2:
        middle = (schema.label.low + schema.label.high) / 2
        return linear_regressor(np.zeros(rows.shape[1]), labels[0] if len(labels) else middle)
    if recipe == "trees":
        from sklearn.ensemble import GradientBoostingRegressor

        model = GradientBoostingRegressor(**_tree_options(len(labels), seed))
        return model.fit(np.where(_of_kind(schema, {"value"}), 0.0, rows), labels)
    kinds: dict[str, set[FeatureKind]] = {
        "logistic": {"value", "level", "missing"},
        "gam": {"threshold", "level", "missing"},
    }
    used = _of_kind(schema, kinds[recipe])
    weights = np.zeros(rows.shape[1])
    if not used.any():
        return linear_regressor(weights, float(labels.mean()))
    centre, spread = rows[:, used].mean(axis=0), rows[:, used].std(axis=0)
    spread[spread < 1e-9] = 1.0
    from sklearn.linear_model import Ridge

    fitted = Ridge(alpha=RIDGE).fit((rows[:, used] - centre) / spread, labels)
    weights[used] = fitted.coef_ / spread
    return linear_regressor(weights, float(fitted.intercept_ - weights[used] @ centre))


def linear_regressor(weights: Floats, intercept: float) -> "Ridge":
    """A linear regression with given weights (F,), as if it had been fitted."""
    from sklearn.linear_model import Ridge

    model = Ridge()
    model.coef_ = np.asarray(weights, dtype=np.float64)
    model.intercept_ = float(intercept)
    model.n_features_in_ = len(weights)
    return model


def _of_kind(schema: Schema, kinds: set[FeatureKind]) -> NDArray[np.bool_]:
    return np.array([feature.kind in kinds for feature in features(schema)], dtype=np.bool_)


def _prior(labels: Integers, n_features: int) -> "LogisticRegression":
    """The constant log-odds of (positives + 1/2) / (records + 1)."""
    positives, n = int(labels.sum()), len(labels)
    odds = log((positives + 0.5) / (n - positives + 0.5))
    return linear_classifier(np.zeros(n_features), odds)


def linear_classifier(weights: Floats, intercept: float) -> "LogisticRegression":
    """A logistic regression with given weights (F,), as if it had been fitted."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression()
    model.classes_ = np.array([0, 1])
    model.coef_ = np.asarray(weights, dtype=np.float64)[None, :]
    model.intercept_ = np.array([intercept], dtype=np.float64)
    model.n_features_in_ = len(weights)
    model.n_iter_ = np.array([0])
    return model


def _logistic(schema: Schema, rows: Floats, labels: Integers) -> "LogisticRegression":
    """L2 logistic regression on standardised values, levels and missing bits."""
    used = _of_kind(schema, {"value", "level", "missing"})
    centre = rows[:, used].mean(axis=0)
    spread = rows[:, used].std(axis=0)
    spread[spread < 1e-9] = 1.0  # a constant feature is all zero once centred: its weight stays 0
    strength = float(np.clip(len(labels) / 5000, 0.1, 1.0))
    fitted = _fit_l2((rows[:, used] - centre) / spread, labels, strength)
    weights = np.zeros(rows.shape[1])
    weights[used] = fitted.coef_[0] / spread
    return linear_classifier(weights, float(fitted.intercept_[0] - weights[used] @ centre))


def _additive(schema: Schema, rows: Floats, labels: Integers) -> "LogisticRegression":
    """A sum of step functions: L2 logistic regression on threshold, level and missing bits.

    The bits of one number are nested, so a small L2 penalty on their steps keeps each function
    smooth: no step is large unless many records ask for it.
    """
    used = _of_kind(schema, {"threshold", "level", "missing"})
    strength = float(np.clip(len(labels) / 5000, 0.2, 1.0))
    fitted = _fit_l2(rows[:, used], labels, strength)
    weights = np.zeros(rows.shape[1])
    weights[used] = fitted.coef_[0]
    return linear_classifier(weights, float(fitted.intercept_[0]))


def _fit_l2(rows: Floats, labels: Integers, strength: float) -> "LogisticRegression":
    if not rows.shape[1]:
        return _prior(labels, 0)
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=5000, tol=1e-6).fit(rows, labels)


def _trees(schema: Schema, rows: Floats, labels: Integers, seed: int) -> Any:
    """Gradient boosting that can split on 0/1 features only, as encrypted trees must.

    Values are blanked out rather than dropped, so that tree nodes keep their feature numbers.
    """
    from sklearn.ensemble import GradientBoostingClassifier

    model = GradientBoostingClassifier(**_tree_options(len(labels), seed))
    return model.fit(np.where(_of_kind(schema, {"value"}), 0.0, rows), labels)


def _tree_options(n: int, seed: int) -> dict[str, Any]:
    return {
        "n_estimators": N_TREES,
        "max_depth": DEPTH,
        "learning_rate": LEARNING_RATE,
        "min_samples_leaf": max(1, min(30, n // 12)),
        "max_features": 0.3,
        "subsample": 0.7 if n >= 20 else 1.0,  # a few records must not be left out by chance
        "random_state": seed,
    }


ModelSource = Callable[[Schema, Table | None], Model]
"""Makes the model that a developer submits from the records that were delivered, if any."""


def integer_model(trained: Trained, schema: Schema) -> Model:
    """The trained model in integers over the schema's encrypted columns."""
    limits, given, groups = bounds(schema), columns(schema), feature_groups(schema)
    label = label_column_of(schema)
    if label is not None:
        return residual_from_sklearn(
            trained.estimator, limits, label, columns=given[:-1], groups=groups
        )
    if trained.task == "binary":
        return from_sklearn(trained.estimator, limits, columns=given, groups=groups)
    models = [from_sklearn(e, limits, columns=given, groups=groups) for e in trained.estimator]
    return ClassModels(with_equal_bins(models), "one-vs-rest")


def recipe_source(recipe: str, seed: int) -> ModelSource:
    """Train a built-in recipe on what was delivered."""

    def make(schema: Schema, table: Table | None) -> Model:
        return integer_model(train(recipe, schema, table, seed), schema)

    return make


def onnx_source(path: Path) -> ModelSource:
    """Submit a finished model whose inputs are the schema's features, in their order."""
    from clearinghouse.client.onnx_sandbox import import_onnx

    if find_spec("onnx") is None:
        raise ModuleNotFoundError("no module named onnx")

    def make(schema: Schema, _table: Table | None) -> Model:
        return import_onnx(path, schema)

    return make


def publish_bins(model: Model, schema: Schema, table: Table | None, n_bins: int) -> Model:
    """Merge the hidden bins into about `n_bins`, by the scores of the training records.

    Scores of classes are cut at their quantiles, residuals evenly: their size is what counts.
    Without records the proven range stands in for their scores.
    """
    if isinstance(model, ClassModels):
        parts = [_published(part, schema, table, n_bins) for part in model.models]
        return ClassModels(with_equal_bins(parts), model.method)
    return _published(model, schema, table, n_bins)


def _published(
    model: IntegerModel, schema: Schema, table: Table | None, n_bins: int
) -> IntegerModel:
    if len(model.bin_edges) - 1 <= n_bins:
        return model
    if table is None or not table.n:
        scores = np.linspace(model.low, model.high, 257).astype(np.int64)
    else:
        scores = model.score(rows_of(schema, table))
    if schema.label.kind != "number":
        return model.with_quantile_edges(scores, n_bins)
    reach = RESIDUAL_SPREADS * max(float(np.sqrt(np.mean(scores.astype(np.float64) ** 2))), 1.0)
    edges = hidden_edges(model.bins)
    wanted = np.linspace(-reach, reach, n_bins - 1)
    nearest = np.abs(wanted[:, None] - edges[None, 1:-1]).argmin(axis=1) + 1
    return model.with_edges(np.unique([0, model.threshold_bin, *nearest.tolist(), model.bins]))
