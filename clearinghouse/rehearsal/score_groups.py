"""What a score says of subgroups and of single classes, from noised counts only."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clearinghouse import cells
from clearinghouse.client.agreed import HISTOGRAM
from clearinghouse.messages.results import RunView, TargetView
from clearinghouse.rehearsal.oracle import PlainCounts
from clearinghouse.schema import Schema
from clearinghouse.score_cards import task_of
from secure_eval.noise import noise_variance
from secure_eval.scorecard import METRICS, group_rates

Ints = NDArray[np.int64]


def class_scores(
    schema: Schema, cards: Sequence[Mapping[str, Any]], plain: PlainCounts | None
) -> list[dict[str, Any]]:
    """Each class against the rest: metrics with intervals, and the AUC in the clear."""
    found = []
    for index, (level, card) in enumerate(zip(schema.label.levels, cards, strict=True)):
        entry: dict[str, Any] = {"level": level, "status": card["status"]}
        entry |= {metric: float(card[metric]) for metric in METRICS}
        entry["intervals"] = {
            metric: [float(end) for end in ends] for metric, ends in card["intervals"].items()
        }
        if plain is not None:
            entry["plaintext_auc"] = round(plain.classes[index], 6)
        found.append(entry)
    return found


def residual_bins(schema: Schema, run: RunView) -> dict[str, Any]:
    """Noised counts by residual, prediction less label, and the noise's standard deviation.

    Edges are in units of the label; residuals beyond its range lie in the outermost bins.
    """
    table = next(item for item in run.tables if item["name"] == HISTOGRAM)
    variance = noise_variance(int(table["epsilon_micro"]), int(table["coins"]))
    counts = np.asarray(run.counts, np.int64)
    width, unit = schema.label.high - schema.label.low, float(run.unit)
    return {
        "label": schema.label.name,
        "edges": [round(min(max(edge * unit, -width), width), 6) for edge in run.edges],
        "counts": counts.sum(axis=0).tolist(),
        "noise_sd": round(float(np.sqrt(len(counts) * variance)), 6),
    }


def subgroup_rates(schema: Schema, target: TargetView, run: RunView) -> dict[str, Any]:
    """By attribute and level: sensitivity and specificity, or how often a number is overestimated.

    A run opens who is predicted positive; how many rows a level has follows from the target's
    release where its strata hold the attribute, and is unknown otherwise. Of several classes each
    has its own figures, and the level has their means.
    """
    task = task_of(schema.label)
    noised = np.asarray(target.noised, np.int64).reshape(target.cells, target.labels)
    found: dict[str, Any] = {}
    released = {table.rpartition(":")[2] for table in run.groups}
    for name in schema.subgroups:
        if name not in released:
            continue
        totals = (
            cells.marginal(schema, target.level, noised, name) if name in target.level else None
        )
        names = schema.stratum_names(name)
        if task == "number":
            rows = _overestimates(run.groups[name], totals)
        elif task == "binary":
            rows = _rates(run.groups[name], totals)
        else:
            each = [
                _rates(run.groups[f"{k}:{name}"], _against_rest(totals, k))
                for k in range(schema.label.n_classes)
            ]
            rows = [_mean_rates(schema.label.levels, own) for own in zip(*each, strict=True)]
        found[name] = dict(zip(names, rows, strict=True))
    return found


def _rates(counts: Sequence[Sequence[int]], totals: Ints | None) -> list[dict[str, Any]]:
    return [
        {
            "false_positives": row[0],
            "true_positives": row[1],
            "sensitivity": _rounded(rate.sensitivity),
            "specificity": _rounded(rate.specificity),
            "status": rate.reason or "ok",
        }
        for row, rate in zip(counts, group_rates(counts, totals), strict=True)
    ]


def _against_rest(totals: Ints | None, of_class: int) -> Ints | None:
    if totals is None:
        return None
    mine = totals[:, of_class]
    return np.column_stack([totals.sum(axis=1) - mine, mine])


def _mean_rates(levels: Sequence[str], own: Sequence[dict[str, Any]]) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "false_positives": sum(one["false_positives"] for one in own),
        "true_positives": sum(one["true_positives"] for one in own),
    }
    for metric in ("sensitivity", "specificity"):
        values = [one[metric] for one in own]
        known = [value for value in values if value is not None]
        entry[metric] = _rounded(float(np.mean(known))) if len(known) == len(values) else None
    lacking = [one["status"] for one in own if one["status"] != "ok"]
    return {
        **entry,
        "status": lacking[0] if lacking else "ok",
        "classes": dict(zip(levels, own, strict=True)),
    }


def _overestimates(counts: Sequence[Sequence[int]], totals: Ints | None) -> list[dict[str, Any]]:
    """Rows whose prediction is not below the label, and their share of the level's rows."""
    found = []
    for index, row in enumerate(counts):
        total = None if totals is None else int(totals[index].sum())
        known = total is not None and total >= 1
        share = min(max(sum(row) / total, 0.0), 1.0) if known and total else None
        reason = "the group totals were not released" if total is None else "its total is below 1"
        found.append(
            {
                "overestimated": sum(row),
                "overestimated_share": _rounded(share),
                "status": "ok" if known else reason,
            }
        )
    return found


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
