"""The rehearsal's own oracle: it owns every table and says what nobody in the market may know.

It recomputes in the clear what the encrypted run should have opened.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clearinghouse.model_columns import label_column_of, rows_of
from clearinghouse.schema import Schema
from clearinghouse.tables import Table
from secure_eval.class_models import ClassModels, Model, model_parts
from secure_eval.integer_model import IntegerModel
from secure_eval.quantise_residual import residual_unit

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class World:
    """Every table of the market.

    Attributes:
        schema: Shared by all tables.
        validation: The customer's rows that were sealed.
        holdout: The customer's rows that nothing in the market has seen.
        sources: By name.
    """

    schema: Schema
    validation: Table
    holdout: Table
    sources: Mapping[str, Table]


@dataclass(frozen=True, slots=True)
class PlainCounts:
    """What an exact opening would have shown, in the shape of a release.

    Attributes:
        counts: Rows in each published score bin: (labels, bins), of several classes
            (2 classes, bins).
        groups: Subgroup name to (levels, labels) rows predicted positive; "k:name" of class k.
        reference: Metrics of the unbinned integer scores.
        classes: Reference AUC of each class, where there are several.
    """

    counts: Ints
    groups: Mapping[str, Ints]
    reference: Mapping[str, float]
    classes: tuple[float, ...] = ()


def plain_counts(world: World, model: Model, subgroups: Sequence[str]) -> PlainCounts:
    """Score the validation rows in the clear and count as the protocol does."""
    rows, label = world.validation, world.schema.label
    scored = rows_of(world.schema, rows)
    codes = label.codes(rows.labels)
    if isinstance(model, ClassModels):
        return _of_classes(world, model, scored, codes, subgroups)
    (part,) = model_parts(model)
    scores = part.score(scored)
    counts, groups = _counted(world, part, scores, codes, label.n_classes, subgroups)
    if label.kind == "number":
        column = label_column_of(world.schema)
        unit = 1.0 if column is None else residual_unit(part, column)
        width = label.high - label.low
        residuals = np.clip(scores * unit, -width, width)
        return PlainCounts(counts, groups, _errors(residuals))
    auc, accuracy = _rates(scores, codes, part.threshold)
    return PlainCounts(counts, groups, {"auc": auc, "accuracy": accuracy})


def _of_classes(
    world: World, model: ClassModels, rows: Floats, codes: Ints, subgroups: Sequence[str]
) -> PlainCounts:
    counts, rates = [], []
    groups: dict[str, Ints] = {}
    for k, part in enumerate(model.models):
        scores, mine = part.score(rows), (codes == k).astype(np.int64)
        own, found = _counted(world, part, scores, mine, 2, subgroups)
        counts.append(own)
        groups |= {f"{k}:{name}": table for name, table in found.items()}
        rates.append(_rates(scores, mine, part.threshold))
    auc, accuracy = np.mean(rates, axis=0).tolist()
    right = float(np.mean(model.predict(rows) == codes))
    reference = {"auc": auc, "accuracy": accuracy, "argmax_accuracy": right}
    return PlainCounts(np.vstack(counts), groups, reference, tuple(rate[0] for rate in rates))


def _counted(
    world: World,
    model: IntegerModel,
    scores: Ints,
    labels: Ints,
    n_labels: int,
    subgroups: Sequence[str],
) -> tuple[Ints, dict[str, Ints]]:
    edges = np.asarray(model.edges, dtype=np.int64)
    bins = np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, len(edges) - 2)
    counts = np.zeros((n_labels, len(edges) - 1), dtype=np.int64)
    np.add.at(counts, (labels, bins), 1)
    predicted = bins >= model.bin_edges.index(model.threshold_bin)
    groups = {}
    for name in subgroups:
        codes = world.schema.stratum_codes(world.validation, name)
        groups[name] = np.zeros((len(world.schema.stratum_names(name)), n_labels), dtype=np.int64)
        np.add.at(groups[name], (codes[predicted], labels[predicted]), 1)
    return counts, groups


def _rates(scores: Ints, labels: Ints, threshold: int) -> tuple[float, float]:
    """AUC (0.5 where a class is absent) and accuracy of label 1 against label 0."""
    from sklearn.metrics import roc_auc_score  # here: a market is run before any is examined

    both = 0 < int(labels.sum()) < len(labels)
    auc = float(roc_auc_score(labels, scores)) if both else 0.5
    return auc, float(np.mean((scores >= threshold) == (labels == 1)))


def _errors(residuals: Floats) -> dict[str, float]:
    mse = float(np.mean(residuals**2))
    return {
        "mae": float(np.mean(np.abs(residuals))),
        "mse": mse,
        "rmse": float(np.sqrt(mse)),
        "bias": float(np.mean(residuals)),
    }


def subgroup_shares(schema: Schema, table: Table) -> dict[str, dict[str, float]]:
    """Share of the rows in each level of each subgroup, in words."""
    shares: dict[str, dict[str, float]] = {}
    for name in schema.subgroups:
        names = schema.stratum_names(name)
        codes = schema.stratum_codes(table, name)
        counts = np.bincount(codes, minlength=len(names))
        total = max(1, int(counts.sum()))
        shares[name] = {
            level: round(float(count) / total, 6)
            for level, count in zip(names, counts, strict=True)
        }
    return shares
