"""Every variant of codebook, level, cap and asks that was tried, by the gap that it closes.

Other strata do not change what is measured: the embedding, the hold-out rows and the random draws
are those of the market as shipped.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from benchmarks import regional, tasks
from benchmarks.rule import MICRO, UNCAPPED_MICRO, Terms, clear_market, split
from clearinghouse.demo import SITES
from clearinghouse.tables import pooled
from matching.baselines import draw_random
from matching.discrepancy import Yardstick, bandwidth
from matching.report import RANDOM_DRAWS, gap_closed

TERMS = {
    "rule": Terms(),
    "no noise": Terms(noise=False),
    "cap 1.25": Terms(share_cap=5 * MICRO // 4),
    "cap 2": Terms(share_cap=2 * MICRO),
    "no cap": Terms(share_cap=UNCAPPED_MICRO),
    "request finer": Terms(finer=1),
    "request coarser": Terms(finer=-1),
    "sources finer": Terms(sources_finer=1),
    "both finer": Terms(finer=1, sources_finer=1),
}
FEW = ("rule", "no noise", "cap 1.25")

HEART_STRATA: list[list[list[str]]] = [
    [["exang"], ["exang", "cp"], ["exang", "cp", "sex"]],
    [["fbs"], ["fbs", "exang"], ["fbs", "exang", "cp"]],
    [["cp"], ["cp", "restecg"], ["cp", "restecg", "exang"]],
    [["restecg"], ["restecg", "chol"], ["restecg", "chol", "exang"]],
    [["chol"], ["chol", "sex"], ["chol", "sex", "cp"]],
    [["chol"], ["chol", "exang"], ["chol", "exang", "cp"]],
    [["chol"], ["chol", "thalach"], ["chol", "thalach", "exang"]],
    [["chol"], ["chol", "fbs"], ["chol", "fbs", "restecg"]],
    [["chol"], ["chol", "restecg"], ["chol", "restecg", "exang"]],
    [["sex"], ["sex", "chol"], ["age", "sex", "chol"]],
    [["sex"], ["sex", "chol"], ["sex", "chol", "exang"]],
    [["sex"], ["sex", "chol"], ["sex", "chol", "restecg"]],
]
DIABETES_STRATA: list[list[list[str]]] = [
    [["diag1"], ["diag1", "age"], ["diag1", "age", "gender"]],
    [["gender"], ["gender", "diag1"], ["gender", "diag1", "age"]],
    [["race"], ["race", "diag1"], ["race", "diag1", "gender"], ["race", "diag1", "gender", "age"]],
    [["age"], ["age", "race"], ["age", "race", "gender"], ["age", "race", "gender", "diag1"]],
]


def gaps(task: tasks.Task, seed: int, terms: Sequence[Terms]) -> list[tuple[float | None, float]]:
    """Gap closed by each variant on one split, as the match report has it; rows over wanted."""
    validation, holdout = split(task, seed)
    embed = task.schema.embedding
    pool = embed(pooled(list(task.sources.values())))
    mine, held = embed(validation), embed(holdout)
    stick = Yardstick(held, bandwidth(pool, held))
    draws = [
        stick.mmd_squared(pool[draw_random(len(pool), task.records, seed + i)])
        for i in range(RANDOM_DRAWS)
    ]
    random, own = float(np.mean(draws)), stick.mmd_squared(mine)
    error = float(np.hypot(stick.jackknife_error(mine), np.std(draws, ddof=1) / len(draws) ** 0.5))
    found: list[tuple[float | None, float]] = []
    for item in terms:
        rows = clear_market(task, validation, seed, item).rows
        closed = stick.mmd_squared(pool[rows]) if len(rows) > 1 else random
        found.append((gap_closed(random, closed, own, error)[0], len(rows) / task.records))
    return found


def tried(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Mean gap of every variant: terms on the shipped strata, then other strata."""
    found = []
    for strata in (None, *HEART_STRATA):
        made = {site: partial(_same, tasks.heart(site, strata)) for site in sorted(SITES)}
        found.append(_row("heart", strata, made, seeds))
    path = tasks.diabetes_path()
    if path is not None:
        for strata in (None, *DIABETES_STRATA):
            maker = partial(tasks.diabetes, tasks.diabetes_table(path, strata))
            found.append(_row("diabetes-130", strata, {"diabetes": maker}, seeds))
    maker = partial(tasks.digits, tasks.digits_table())
    found.append(_row("digits", None, {"digits": maker}, seeds))
    for name, strata, made in regional.markets(path):
        found.append(_row(name, strata, made, seeds))
    return found


def _same(task: tasks.Task, _seed: int) -> tasks.Task:
    return task


def _row(
    name: str,
    strata: list[list[str]] | None,
    makers: Mapping[str, tasks.Maker],
    seeds: Sequence[int],
) -> dict[str, Any]:
    names = list(TERMS) if strata is None else list(FEW)
    terms = [TERMS[item] for item in names]
    runs = {
        customer: [gaps(make(seed), seed, terms) for seed in seeds]
        for customer, make in makers.items()
    }
    means, rows, worst = {}, {}, {}
    for i, item in enumerate(names):
        known = {
            customer: [gap for run in each if (gap := run[i][0]) is not None]
            for customer, each in runs.items()
        }
        means[item] = {customer: float(np.mean(values)) for customer, values in known.items()}
        worst[item] = min(min(values) for values in known.values())
        rows[item] = float(np.mean([run[i][1] for each in runs.values() for run in each]))
    return {"market": name, "strata": strata, "gap_closed": means, "worst": worst, "rows": rows}


def tried_table(rows: Sequence[dict[str, Any]]) -> str:
    """The variants as text: the mean over customers, and the customers in brackets."""
    lines = ["Variants tried, mean gap closed (customers in alphabetical order)"]
    for row in rows:
        strata = "as shipped" if row["strata"] is None else " < ".join(map("/".join, row["strata"]))
        lines.append(f"{row['market']}, strata {strata}")
        for name, customers in row["gap_closed"].items():
            mean = np.mean(list(customers.values()))
            each = " ".join(f"{value:.2f}" for value in customers.values())
            lines.append(
                f"    {name:18} {mean:6.3f}  worst run {row['worst'][name]:5.2f}  "
                f"rows {row['rows'][name]:.2f}" + (f"  [{each}]" if len(customers) > 1 else "")
            )
    return "\n".join(lines)
