"""The rehearsal's own oracle: it owns every table and says what nobody in the market may know.

It recomputes in the clear what the encrypted run should have opened, and how the delivered set
compares with every honest alternative on rows the market never touched.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import log_loss, roc_auc_score

from clearinghouse.client.recipes import train
from clearinghouse.features import encode
from clearinghouse.schema import Schema
from clearinghouse.tables import Table
from secure_eval.integer_model import IntegerModel

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
    """What an exact opening would have shown.

    Attributes:
        counts: (labels, bins) rows in each published score bin.
        groups: Subgroup name to (levels, labels) rows predicted positive.
        auc: Of the unbinned integer scores; None where a class is absent.
        accuracy: At the decision threshold.
    """

    counts: Ints
    groups: Mapping[str, Ints]
    auc: float | None
    accuracy: float


def plain_counts(world: World, model: IntegerModel, subgroups: Sequence[str]) -> PlainCounts:
    """Score the validation rows in the clear and count as the protocol does."""
    rows, labels = world.validation, np.asarray(world.validation.labels, dtype=np.int64)
    scores = model.score(encode(world.schema, rows))
    edges = np.asarray(model.edges, dtype=np.int64)
    bins = np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, len(edges) - 2)
    counts = np.zeros((len(world.schema.label.levels), len(edges) - 1), dtype=np.int64)
    np.add.at(counts, (labels, bins), 1)
    predicted = bins >= model.bin_edges.index(model.threshold_bin)
    groups = {}
    for name in subgroups:
        codes = world.schema.stratum_codes(rows, name)
        shape = (len(world.schema.stratum_names(name)), counts.shape[0])
        groups[name] = np.zeros(shape, dtype=np.int64)
        np.add.at(groups[name], (codes[predicted], labels[predicted]), 1)
    both = 0 < int(labels.sum()) < len(labels)
    auc = float(roc_auc_score(labels, scores)) if both else None
    return PlainCounts(counts, groups, auc, float(np.mean(predicted == (labels == 1))))


def downstream(world: World, training: Table, recipe: str, seed: int) -> dict[str, object]:
    """Train one recipe on a set and measure it on the customer's held-out rows.

    Returns:
        auc, log_loss, n (training rows) and status; auc is 0.5 and log_loss None where a side
        has fewer than two classes.
    """
    labels = np.asarray(world.holdout.labels, dtype=np.int64)
    if training.n == 0:
        return {"auc": 0.5, "log_loss": None, "n": 0, "status": "undetermined"}
    model = train(recipe, world.schema, training, seed)
    chance = np.clip(model.predict(encode(world.schema, world.holdout)), 1e-6, 1 - 1e-6)
    one_class = len(np.unique(labels)) < 2 or len(np.unique(training.labels)) < 2
    return {
        "auc": 0.5 if one_class else round(float(roc_auc_score(labels, chance)), 6),
        "log_loss": round(float(log_loss(labels, chance, labels=[0, 1])), 6),
        "n": training.n,
        "status": "undetermined" if one_class else "ok",
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
