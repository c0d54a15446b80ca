"""Exactness: opened counts against the integer model, its labels against the float model."""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine, make_classification
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, OneHotEncoder, StandardScaler

from clearinghouse.client.recipes import RECIPES, integer_model, train
from clearinghouse.demo import write_market
from clearinghouse.features import encode
from clearinghouse.market import load_market, load_tables
from clearinghouse.tables import pooled
from secure_eval.class_models import ClassModels
from secure_eval.exactness import class_exactness, exactness, residual_exactness
from secure_eval.from_onnx import from_onnx
from secure_eval.from_sklearn import from_sklearn, residual_from_sklearn
from secure_eval.integer_model import IntegerModel
from secure_eval.quantise_residual import label_column
from secure_eval.rehearse import rehearse
from secure_eval.rehearse_classes import rehearse_classes
from secure_eval.sklearn_classes import classes_from_sklearn

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

HEAD = (
    "| table | rows | model | kind | counts equal | label agreement | largest score error "
    "| AUC change | bits | headroom |",
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
)


@dataclass(frozen=True, slots=True)
class Case:
    """One model on one table.

    Attributes:
        table: name of the table.
        name: the model and where it came from.
        model: its integer form.
        scores: (n,) float scores on the integer model's scale, (n, classes) of several classes, or
            predictions of a number.
        rows: (n, F).
        labels: (n,) codes, or numbers.
        group: (n,) codes of two levels.
    """

    table: str
    name: str
    model: IntegerModel | ClassModels
    scores: Floats
    rows: Floats
    labels: NDArray[Any]
    group: Integers


def run(quick: bool) -> str:
    """Measure every case; a count that differs anywhere ends the benchmark.

    Args:
        quick: leave out the synthetic table of 20,000 rows (three blocks).
    """
    lines, cells, started = [*HEAD], 0, time.process_time()
    for case in _cases(quick):
        counted, wanted = _opened(case)
        if len(counted) != len(wanted) or (counted != wanted).any():
            raise RuntimeError(f"{case.table}, {case.name}: opened counts differ")
        cells += len(counted)
        lines.append(_line(case, len(counted)))
    took = time.process_time() - started
    return "\n".join([*lines, f"{cells} cells compared, {took:.0f} CPU-s"])


def _line(case: Case, cells: int) -> str:
    if isinstance(case.model, ClassModels):
        report = class_exactness(case.model, case.scores, case.rows, labels=case.labels)
    elif case.labels.dtype.kind == "f":
        report = residual_exactness(case.model, case.scores, case.rows, case.labels)
    else:
        report = exactness(case.model, case.scores, case.rows, labels=case.labels)
    agreement = report.label_agreement
    change = report.auc_change
    shown = [
        case.table,
        f"{len(case.rows):,}",
        case.name,
        case.model.kind,
        f"{cells} of {cells}",
        "-" if agreement is None else f"{100 * agreement:.2f}%",
        f"{report.largest_score_error:.2g}",
        "-" if change is None else f"{change:+.1e}",
        str(report.bits_used),
        f"{100 * report.headroom:.0f}%",
    ]
    return f"| {' | '.join(shown)} |"


# ---------------------------------------------------------------- counts


def _opened(case: Case) -> tuple[Integers, Integers]:
    """Every opened cell (bins by label, groups) and what the integer model gives in the clear."""
    groups = {"group": (case.group, 2)}
    if isinstance(case.model, ClassModels):
        found = rehearse_classes(case.model, case.rows, case.labels, groups=groups)
        opened, wanted = [], []
        for k, (part, histogram) in enumerate(zip(case.model.models, found.classes, strict=True)):
            opened += [histogram.counts, histogram.groups["group"]]
            own = (case.labels == k).astype(np.int64)
            wanted += _counted(part, part.score(case.rows), own, 2, case.group)
        return _flat(opened), _flat(wanted)
    one = rehearse(case.model, case.rows, case.labels, groups=groups)
    rows, labels, count = case.rows, case.labels, 2
    if labels.dtype.kind == "f":
        rows, count = np.column_stack([rows, labels]), 1
        labels = np.zeros(len(rows), np.int64)
    scores = case.model.score(rows)
    wanted = _counted(case.model, scores, labels, count, case.group)
    return _flat([one.counts, one.groups["group"]]), _flat(wanted)


def _counted(
    model: IntegerModel, scores: Integers, labels: Integers, count: int, group: Integers
) -> list[Integers]:
    counts = np.zeros((count, len(model.edges) - 1), np.int64)
    np.add.at(counts, (labels, np.searchsorted(model.edges, scores, side="right") - 1), 1)
    levels = np.zeros((2, count), np.int64)
    positive = scores >= model.threshold
    np.add.at(levels, (group[positive], labels[positive]), 1)
    return [counts, levels]


def _flat(parts: list[Integers]) -> Integers:
    return np.concatenate([part.reshape(-1) for part in parts])


# ---------------------------------------------------------------- tables and models


def _cases(quick: bool) -> Iterator[Case]:
    yield from _heart()
    rows, labels = load_breast_cancer(return_X_y=True)
    yield from _general("breast cancer", rows, labels.astype(np.int64), onnx=True)
    yield from _others()
    if not quick:
        rows, labels = make_classification(
            20_000, 16, n_informative=8, n_classes=2, flip_y=0.1, random_state=7
        )
        yield from _general("synthetic", rows, labels.astype(np.int64), onnx=True)


def _heart() -> Iterator[Case]:
    """The market's recipes on the packaged heart disease table, on the schema's own columns."""
    with tempfile.TemporaryDirectory() as folder:
        market = load_market(write_market(Path(folder)))
        table = pooled(list(load_tables(market).values()))
    rows = encode(market.schema, table)
    labels = np.asarray(table.labels, np.int64)
    group = market.schema.stratum_codes(table, market.schema.subgroups[0]) % 2
    for recipe in RECIPES:
        trained = train(recipe, market.schema, table, 7)
        model = integer_model(trained, market.schema)
        scores = trained.estimator.decision_function(rows)
        yield Case("heart disease", f"recipe {recipe}", model, scores, rows, labels, group)


def _general(table: str, rows: Floats, labels: Integers, *, onnx: bool) -> Iterator[Case]:
    # as single precision has them: what ONNX files and scikit-learn's trees read
    rows = rows.astype(np.float32).astype(np.float64)
    rows = np.column_stack([rows, np.digitize(rows[:, 0], np.quantile(rows[:, 0], [0.3, 0.7]))])
    bounds = np.c_[rows.min(axis=0), rows.max(axis=0)]
    group = (rows[:, 1] > np.median(rows[:, 1])).astype(np.int64)
    numbers = list(range(rows.shape[1] - 1))
    mixed = ColumnTransformer(
        [
            ("number", make_pipeline(SimpleImputer(), StandardScaler()), numbers),
            ("code", OneHotEncoder(), [rows.shape[1] - 1]),
        ]
    )
    bins = KBinsDiscretizer(6, encode="onehot-dense", strategy="uniform")
    boosting = GradientBoostingClassifier(n_estimators=50, max_depth=3, random_state=0)
    models: dict[str, Any] = {
        "imputer, scaler, one-hot, logistic": make_pipeline(mixed, LogisticRegression()),
        "bins, logistic": make_pipeline(bins, LogisticRegression(max_iter=2000)),
        "boosted stumps": GradientBoostingClassifier(n_estimators=60, max_depth=1, random_state=0),
        "gradient boosting, depth 3": boosting,
        "histogram boosting, depth 4": HistGradientBoostingClassifier(max_iter=30, max_depth=4),
        "random forest, depth 4": RandomForestClassifier(40, max_depth=4, random_state=0),
    }
    for name, estimator in models.items():
        estimator.fit(rows, labels)
        scores = _scores(estimator, rows)
        yield Case(table, name, from_sklearn(estimator, bounds), scores, rows, labels, group)
    for name in ("gradient boosting, depth 3", "random forest, depth 4") if onnx else ():
        model = from_onnx(_exported(models[name], rows), bounds)
        yield Case(table, f"ONNX {name}", model, _scores(models[name], rows), rows, labels, group)
    if onnx:
        plain = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, labels)
        model = from_onnx(_exported(plain, rows), bounds)
        scores = _scores(plain, rows)
        yield Case(table, "ONNX scaler, logistic", model, scores, rows, labels, group)


def _others() -> Iterator[Case]:
    """Three classes and a number."""
    rows, codes = load_wine(return_X_y=True)
    bounds = np.c_[rows.min(axis=0), rows.max(axis=0)]
    group = (rows[:, 0] > 13).astype(np.int64)
    softmax = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, codes)
    boosted = GradientBoostingClassifier(n_estimators=15, max_depth=2, random_state=0)
    for name, estimator in (("softmax", softmax), ("boosting", boosted.fit(rows, codes))):
        raw = estimator.decision_function(rows)
        scores = raw - raw.mean(axis=1, keepdims=True)
        model = classes_from_sklearn(estimator, bounds)
        yield Case("wine, 3 classes", name, model, scores, rows, codes.astype(np.int64), group)
    rows, numbers = load_diabetes(return_X_y=True, scaled=False)
    bounds = np.c_[rows.min(axis=0), rows.max(axis=0)]
    label = label_column(rows.shape[1], 20.0, 350.0)
    group = (rows[:, 1] > 1).astype(np.int64)
    grown = GradientBoostingRegressor(n_estimators=40, max_depth=3, random_state=0)
    for name, made in (("ridge", make_pipeline(StandardScaler(), Ridge())), ("boosting", grown)):
        residual = residual_from_sklearn(made.fit(rows, numbers), bounds, label)
        scores = made.predict(rows)
        yield Case("diabetes, a number", name, residual, scores, rows, numbers, group)


def _scores(estimator: Any, rows: Floats) -> Floats:
    if hasattr(estimator, "decision_function"):
        return np.asarray(estimator.decision_function(rows), dtype=np.float64)
    return np.asarray(estimator.predict_proba(rows)[:, 1], dtype=np.float64)


def _exported(estimator: Any, rows: Floats) -> bytes:
    from skl2onnx import to_onnx

    return bytes(to_onnx(estimator, rows[:1].astype(np.float32)).SerializeToString())
