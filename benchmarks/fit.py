"""One market, one seed: the rule and every alternative, measured on held-out rows."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from benchmarks.rule import UNCAPPED_MICRO, Cleared, Terms, clear_market, split
from benchmarks.tasks import Task
from clearinghouse.client.recipes import train
from clearinghouse.features import encode
from clearinghouse.rehearsal.held_out import FIGURES as METRICS
from clearinghouse.rehearsal.held_out import figures
from clearinghouse.tables import Table, pooled
from matching.baselines import draw_random
from matching.report import Cohorts, baselines, match_report

Ints = NDArray[np.int64]

RANDOM_TRAININGS = 5


@dataclass(frozen=True, slots=True)
class Run:
    """What was measured on one market with one seed.

    Attributes:
        task: Name of the market.
        seed: Of split, noise and draws.
        gaps: Gap closed by method; None where the report refuses to divide.
        mmd_squared: Unbiased MMD^2 by method.
        w2: W2 by method.
        rows: Rows by method.
        downstream: Method to metrics of a logistic model on the hold-out rows.
        gap_sd: Spread of one random draw in units of the gap, or None.
        room: (random - validation) MMD^2, its standard error, and random itself.
        cleared: What the market did, by variant.
    """

    task: str
    seed: int
    gaps: Mapping[str, float | None]
    mmd_squared: Mapping[str, float | None]
    w2: Mapping[str, float | None]
    rows: Mapping[str, int]
    downstream: Mapping[str, Mapping[str, float | None]]
    gap_sd: float | None
    room: tuple[float, float, float]
    cleared: Mapping[str, Cleared]


def variants(terms: Terms) -> dict[str, Terms]:
    """The rule, and what noise, cap, asks and the label switch do to it."""
    return {
        "clearinghouse": terms,
        "noise_free": replace(terms, noise=False),
        "uncapped": replace(terms, share_cap=UNCAPPED_MICRO),
        "uncapped, noise_free": replace(terms, share_cap=UNCAPPED_MICRO, noise=False),
        "equal asks": replace(terms, equal_asks=True),
        "labels always": replace(terms, by_label=True),
        "labels never": replace(terms, by_label=False),
    }


def measure(
    task: Task, seed: int, terms: Mapping[str, Terms], *, downstream: bool, everything: bool = True
) -> Run:
    """Clear the market in every variant and compare with the alternatives.

    Args:
        task: The market.
        seed: Of split, noise and draws.
        terms: Variants by name; "clearinghouse" is the one that alternatives are held against.
        downstream: Whether models are trained.
        everything: Whether the alternatives are measured too.
    """
    validation, holdout = split(task, seed)
    cleared = {name: clear_market(task, validation, seed, item) for name, item in terms.items()}
    pool = pooled(list(task.sources.values()))
    embed = task.schema.embedding
    cohorts = Cohorts(
        embed(pool),
        embed(validation),
        embed(holdout),
        pool.labels,
        validation.labels,
        np.repeat(np.arange(len(task.sources)), [table.n for table in task.sources.values()]),
    )
    chosen = {name: item.rows for name, item in cleared.items()}
    report = match_report(cohorts, chosen, records=task.records, seed=seed)
    kept = set(report["methods"]) if everything else set(chosen) | {"random"}
    entries = {name: entry for name, entry in report["methods"].items() if name in kept}
    scores: dict[str, dict[str, float | None]] = {}
    if downstream:
        rows = max(2, len(chosen["clearinghouse"]))
        sets = {name: [index] for name, index in chosen.items()}
        sets |= {name: [index] for name, index in baselines(cohorts, rows, seed).items()}
        sets["random"] = [draw_random(pool.n, rows, seed + i) for i in range(RANDOM_TRAININGS)]
        scores = {
            name: _mean([_score(pool.take(index), holdout, seed) for index in indices])
            for name, indices in sets.items()
        }
    return Run(
        task.name,
        seed,
        {name: entry["gap_closed"] for name, entry in entries.items()},
        {name: entry["mmd_squared"] for name, entry in entries.items()},
        {name: entry["w2"] for name, entry in entries.items()},
        {name: entry["rows"] for name, entry in entries.items()},
        scores,
        report["methods"]["random"]["gap_sd"],
        (
            report["denominator"],
            report["denominator_error"],
            report["methods"]["random"]["mmd_squared"],
        ),
        cleared,
    )


def _score(training: Table, holdout: Table, seed: int) -> dict[str, float | None]:
    """A logistic model on the hold-out rows; AUC is one class against the rest for many classes."""
    labels = np.asarray(holdout.labels, np.int64)
    classes = len(training.schema.label.levels)
    if len(np.unique(training.labels)) < 2:
        return dict.fromkeys(METRICS)
    if training.schema.label.is_binary:
        model = train("logistic", training.schema, training, seed)
        chance = model.predict(encode(training.schema, holdout))
    else:
        embed = training.schema.embedding
        fitted = LogisticRegression(max_iter=2000).fit(embed(training), training.labels)
        chance = np.zeros((holdout.n, classes))  # classes the training set lacks stay zero
        chance[:, fitted.classes_] = fitted.predict_proba(embed(holdout))
    return figures(training.schema.label, chance, labels)


def _mean(results: list[dict[str, float | None]]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for metric in METRICS:
        known = [value for result in results if (value := result[metric]) is not None]
        found[metric] = float(np.mean(known)) if known else None
    return found


def as_dict(run: Run) -> dict[str, Any]:
    """Plain JSON values."""
    return {
        "task": run.task,
        "seed": run.seed,
        "gap_closed": dict(run.gaps),
        "mmd_squared": dict(run.mmd_squared),
        "w2": dict(run.w2),
        "rows": dict(run.rows),
        "downstream": {name: dict(found) for name, found in run.downstream.items()},
        "gap_sd": run.gap_sd,
        "denominator": run.room[0],
        "denominator_error": run.room[1],
        "random_mmd_squared": run.room[2],
        "market": {
            name: {
                "ordered": item.ordered,
                "delivered": len(item.rows),
                "paid_micro": item.paid,
                "level": list(item.level),
                "labels_matched": item.by_label,
                "largest_share": item.largest_share,
            }
            for name, item in run.cleared.items()
        },
    }
