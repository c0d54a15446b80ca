"""Three built-in recipes on a schema's public features, and models that come as ONNX files.

Every recipe works on whatever was delivered. Where the records hold one class only, or none came,
the model is the smoothed prior: a constant score that says so honestly, and never a crash.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from clearinghouse.errors import InputError
from clearinghouse.features import FeatureKind, bounds, encode, feature_groups, features
from clearinghouse.model_columns import columns
from clearinghouse.schema import Schema
from clearinghouse.tables import Table
from secure_eval.from_sklearn import from_sklearn
from secure_eval.integer_model import IntegerModel

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

RECIPES = ("logistic", "gam", "trees")
N_TREES = 50
DEPTH = 3
LEARNING_RATE = 0.08


@dataclass(frozen=True, slots=True)
class Trained:
    """A model in floats over all features of a schema.

    Attributes:
        recipe: Which recipe made it.
        estimator: A fitted scikit-learn classifier of classes 0 and 1.
    """

    recipe: str
    estimator: Any

    def predict(self, rows: Floats) -> Floats:
        """Probability of class 1 (n,) for feature vectors (n, F)."""
        if not len(rows):
            return np.zeros(0)
        return np.asarray(self.estimator.predict_proba(rows)[:, 1], dtype=np.float64)


def train(recipe: str, schema: Schema, table: Table | None, seed: int) -> Trained:
    """Fit a built-in recipe.

    Args:
        recipe: "logistic", "gam" or "trees".
        schema: Two label levels; the second one is class 1.
        table: Training records, or None if none came.
        seed: Of the trees' tie-breaking; the same input gives the same model.

    Raises:
        InputError: No such recipe, or the label has not two levels.
    """
    if recipe not in RECIPES:
        raise InputError(f"recipe must be one of {', '.join(RECIPES)}, not {recipe!r}")
    if not schema.label.is_binary:
        raise InputError(f"recipes need a label of two levels; '{schema.label.name}' is none")
    rows = np.zeros((0, len(features(schema)))) if table is None else encode(schema, table)
    labels = np.zeros(0, dtype=np.int64) if table is None else np.asarray(table.labels, np.int64)
    if len(np.unique(labels)) < 2:
        return Trained(recipe, _prior(labels, rows.shape[1]))
    fit = {"logistic": _logistic, "gam": _additive}.get(recipe)
    if fit is not None:
        return Trained(recipe, fit(schema, rows, labels))
    return Trained(recipe, _trees(schema, rows, labels, seed))


def _of_kind(schema: Schema, kinds: set[FeatureKind]) -> NDArray[np.bool_]:
    return np.array([feature.kind in kinds for feature in features(schema)], dtype=np.bool_)


def _prior(labels: Integers, n_features: int) -> LogisticRegression:
    """The constant log-odds of (positives + 1/2) / (records + 1)."""
    positives, n = int(labels.sum()), len(labels)
    odds = log((positives + 0.5) / (n - positives + 0.5))
    return linear_classifier(np.zeros(n_features), odds)


def linear_classifier(weights: Floats, intercept: float) -> LogisticRegression:
    """A logistic regression with given weights (F,), as if it had been fitted."""
    model = LogisticRegression()
    model.classes_ = np.array([0, 1])
    model.coef_ = np.asarray(weights, dtype=np.float64)[None, :]
    model.intercept_ = np.array([intercept], dtype=np.float64)
    model.n_features_in_ = len(weights)
    model.n_iter_ = np.array([0])
    return model


def _logistic(schema: Schema, rows: Floats, labels: Integers) -> LogisticRegression:
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


def _additive(schema: Schema, rows: Floats, labels: Integers) -> LogisticRegression:
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


def _fit_l2(rows: Floats, labels: Integers, strength: float) -> LogisticRegression:
    if not rows.shape[1]:
        return _prior(labels, 0)
    return LogisticRegression(C=strength, max_iter=5000, tol=1e-6).fit(rows, labels)


def _trees(schema: Schema, rows: Floats, labels: Integers, seed: int) -> Any:
    """Gradient boosting that can split on 0/1 features only, as encrypted trees must.

    Values are blanked out rather than dropped, so that tree nodes keep their feature numbers.
    """
    n = len(labels)
    model = GradientBoostingClassifier(
        n_estimators=N_TREES,
        max_depth=DEPTH,
        learning_rate=LEARNING_RATE,
        min_samples_leaf=max(1, min(30, n // 12)),
        max_features=0.3,
        subsample=0.7 if n >= 20 else 1.0,  # a few records must not be left out by chance
        random_state=seed,
    )
    return model.fit(np.where(_of_kind(schema, {"value"}), 0.0, rows), labels)


ModelSource = Callable[[Schema, Table | None], IntegerModel]
"""Makes the model that a developer submits from the records that were delivered, if any."""


def integer_model(trained: Trained, schema: Schema) -> IntegerModel:
    """The trained model in integers over the schema's encrypted columns."""
    return from_sklearn(
        trained.estimator,
        bounds(schema),
        columns=columns(schema),
        groups=feature_groups(schema),
    )


def recipe_source(recipe: str, seed: int) -> ModelSource:
    """Train a built-in recipe on what was delivered."""

    def make(schema: Schema, table: Table | None) -> IntegerModel:
        return integer_model(train(recipe, schema, table, seed), schema)

    return make


def onnx_source(path: Path) -> ModelSource:
    """Submit a finished model whose inputs are the schema's features, in their order."""
    from secure_eval.from_onnx import from_onnx  # needs the onnx extra

    data = path.read_bytes()

    def make(schema: Schema, _table: Table | None) -> IntegerModel:
        return from_onnx(
            data, bounds(schema), columns=columns(schema), groups=feature_groups(schema)
        )

    return make


def publish_bins(
    model: IntegerModel, schema: Schema, table: Table | None, n_bins: int
) -> IntegerModel:
    """Merge the hidden bins into about `n_bins`, equally filled by the training scores.

    Without records the proven range stands in for their scores.
    """
    if n_bins >= model.bins:
        return model
    if table is None or not table.n:
        scores = np.linspace(model.low, model.high, 257).astype(np.int64)
    else:
        scores = model.score(encode(schema, table))
    return model.with_quantile_edges(scores, n_bins)
