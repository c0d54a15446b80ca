"""Matching: the market rule end to end against every alternative, an epsilon sweep, solver scale.

Set DATA to a folder with diabetes130_compact.csv.gz to include the diabetes markets. Figures of
every run go to a JSON file beside the printed table; its path is printed last.
"""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import fit, solvers, tasks, variants
from benchmarks.fit import METRICS, Run
from benchmarks.rule import MICRO, Terms
from clearinghouse.demo import SITES
from matching.paired import mean_interval

SEEDS, QUICK_SEEDS = 20, 4
SWEEP = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
OUTPUT_VARIABLE = "BENCHMARK_OUT"


@dataclass(frozen=True, slots=True)
class Family:
    """Markets of one kind: a maker for each customer, and what the mean gap has to reach."""

    name: str
    makers: Mapping[str, tasks.Maker]
    least: float


def families() -> tuple[list[Family], str]:
    """All markets whose data are here, and a line about those left out."""
    everyone = tasks.digits_table()
    found = [
        Family(
            "heart",
            {site: partial(_heart, site) for site in sorted(SITES)},
            0.15,
        ),
        Family("digits", {"digits": lambda seed: tasks.digits(everyone, seed)}, 0.8),
    ]
    path = tasks.diabetes_path()
    if path is None:
        return found, (
            f"diabetes-130 left out: set {tasks.DATA_VARIABLE} to the folder of "
            f"{tasks.DIABETES_FILE}"
        )
    patients = tasks.diabetes_table(path)
    made = {"diabetes": lambda seed: tasks.diabetes(patients, seed)}
    found.insert(1, Family("diabetes-130, synthetic sites", made, 0.45))
    return found, ""


def _heart(site: str, _seed: int) -> tasks.Task:
    return tasks.heart(site)


def run(quick: bool) -> str:
    """Measure and tabulate; writes the figures of every run as JSON."""
    seeds = range(QUICK_SEEDS if quick else SEEDS)
    everything, left_out = families()
    parts, document = [left_out] if left_out else [], {}
    for family in everything:
        runs = [
            fit.measure(make(seed), seed, fit.variants(Terms()), downstream=True)
            for make in family.makers.values()
            for seed in seeds
        ]
        document[family.name] = [fit.as_dict(item) for item in runs]
        parts.append(_family_table(family, runs))
    sweep = epsilon_sweep(everything[0], seeds)
    scale = solvers.scale(quick)
    tried = [] if quick else variants.tried(seeds)
    document |= {"epsilon sweep": sweep, "variants": tried, "scale": scale}
    parts += [variants.tried_table(tried)] if tried else []
    parts += [_sweep_table(sweep), "Solvers, CPU time\n" + solvers.scale_table(scale)]
    path = _write(document)
    return "\n\n".join([*parts, f"figures of every run: {path}"])


def _write(document: Mapping[str, Any]) -> Path:
    folder = os.environ.get(OUTPUT_VARIABLE) or tempfile.mkdtemp(prefix="benchmark-matching-")
    path = Path(folder) / "matching.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, allow_nan=False), encoding="utf-8")
    return path


# ---------------------------------------------------------------- means over seeds


def gap_interval(runs: Sequence[Run], method: str) -> tuple[float, float, float, int]:
    """Mean gap with its interval, and in how many runs there was one."""
    known = [(gap, item.seed) for item in runs if (gap := item.gaps.get(method)) is not None]
    if not known:
        return float("nan"), float("nan"), float("nan"), 0
    gaps, seeds = zip(*known, strict=True)
    return (*mean_interval(gaps, seeds), len(known))


def _pooled_gap(runs: Sequence[Run], method: str) -> float:
    """Sum of what was closed over the sum of what there was to close, over all runs."""
    closed = [item.room[2] - float(item.mmd_squared[method] or 0) for item in runs]
    return sum(closed) / sum(item.room[0] for item in runs)


def _family_table(family: Family, runs: Sequence[Run]) -> str:
    names = [*fit.variants(Terms()), "random", "label_only", "use_all", "best_source"]
    names += ["importance", "greedy_mmd", "points_ot"]
    lines = [
        f"{family.name}: {len(family.makers)} customer(s) x {len(runs) // len(family.makers)} "
        "splits; 90% intervals; differences are clearinghouse minus method, paired",
        f"{'method':21} {'gap closed':>22} {'pooled':>6} {'one run 5-95%':>15} {'rows':>6} "
        f"{'W2':>5} " + " ".join(f"{m:>8} {'difference':>21}" for m in METRICS),
    ]
    for name in names:
        mean, low, high, _ = gap_interval(runs, name)
        gaps = [gap for item in runs if (gap := item.gaps[name]) is not None]
        spread = np.percentile(gaps, [5, 95]) if gaps else (np.nan, np.nan)
        rows, w2 = (np.mean([x[name] or 0 for x in part]) for part in _columns(runs))
        lines.append(
            f"{name:21} {mean:6.3f} [{low:6.3f},{high:6.3f}] {_pooled_gap(runs, name):6.3f} "
            f"[{spread[0]:6.2f},{spread[1]:6.2f}] {rows:6.0f} {w2:5.2f} "
            + " ".join(_metric_words(runs, name, metric) for metric in METRICS)
        )
    return "\n".join([*lines, *_market_lines(runs), *_verdict(family, runs)])


def _columns(runs: Sequence[Run]) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    return [item.rows for item in runs], [item.w2 for item in runs]


def _metric_words(runs: Sequence[Run], name: str, metric: str) -> str:
    pairs = [
        (mine, theirs, item.seed)
        for item in runs
        if (mine := item.downstream["clearinghouse"][metric]) is not None
        and (theirs := item.downstream[name][metric]) is not None
    ]
    if not pairs:
        return f"{'-':>8} {'':21}"
    mean = np.mean([theirs for _, theirs, _ in pairs])
    if name == "clearinghouse":
        return f"{mean:8.3f} {'':21}"
    d, low, high = mean_interval([a - b for a, b, _ in pairs], [seed for *_, seed in pairs])
    return f"{mean:8.3f} {d:+.3f} [{low:+.3f},{high:+.3f}]"


def _market_lines(runs: Sequence[Run]) -> list[str]:
    lines = []
    for customer in sorted({item.task for item in runs}):
        mine = [item for item in runs if item.task == customer]
        main = [item.cleared["clearinghouse"] for item in mine]
        mean, low, high, known = gap_interval(mine, "clearinghouse")
        lines.append(
            f"  {customer}: gap {mean:.3f} [{low:.3f}, {high:.3f}] in {known} of {len(mine)} runs, "
            f"room {np.mean([x.room[0] for x in mine]):.4f} +- "
            f"{np.mean([x.room[1] for x in mine]):.4f}, "
            f"level {'/'.join(main[0].level) or 'root'}, labels matched in "
            f"{sum(x.by_label for x in main)}, delivered "
            f"{np.mean([len(x.rows) / max(1, x.ordered) for x in main]):.2f} of ordered, "
            f"largest source {np.mean([x.largest_share for x in main]):.2f} of rows, paid "
            f"{np.mean([x.paid / max(1, len(x.rows)) for x in main]) / MICRO:.2f} a row"
        )
    return lines


def _verdict(family: Family, runs: Sequence[Run]) -> list[str]:
    mean, low, high, known = gap_interval(runs, "clearinghouse")
    lines = [
        f"  {'MET' if mean >= family.least else 'NOT MET'}: mean gap closed {mean:.3f} "
        f"[{low:.3f}, {high:.3f}] in {known} of {len(runs)} runs, wanted {family.least}"
    ]
    below = [
        item
        for item in runs
        if (gap := item.gaps["clearinghouse"]) is not None
        and gap < -0.02 - 1.64 * (item.gap_sd or 0)
    ]
    lines.append(
        f"  {'MET' if not below else 'NOT MET'}: {len(below)} single runs are below "
        "-.02 - 1.64 random.gap_sd"
        + "".join(f"; {x.task} seed {x.seed}: {x.gaps['clearinghouse']:.3f}" for x in below[:5])
    )
    means = {
        customer: gap_interval([x for x in runs if x.task == customer], "clearinghouse")[0]
        for customer in sorted({item.task for item in runs})
    }
    low_means = {name: value for name, value in means.items() if not value >= -0.02}
    lines.append(
        f"  {'MET' if not low_means else 'NOT MET'}: no customer's mean below -.02 "
        f"({len(runs) // len(family.makers)} splits each)"
        + "".join(f"; {name}: {value:.3f}" for name, value in low_means.items())
    )
    return lines


# ---------------------------------------------------------------- epsilon sweep


def epsilon_sweep(family: Family, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Gap over source epsilon, the target's being half of it, on one family."""
    found = []
    for epsilon in SWEEP:
        terms = Terms(epsilon_source=int(epsilon * MICRO), epsilon_target=int(epsilon * MICRO / 2))
        runs = [
            fit.measure(
                make(seed), seed, {"clearinghouse": terms}, downstream=False, everything=False
            )
            for make in family.makers.values()
            for seed in seeds
        ]
        mean, low, high, known = gap_interval(runs, "clearinghouse")
        cleared = [item.cleared["clearinghouse"] for item in runs]
        found.append(
            {
                "epsilon_source": epsilon,
                "epsilon_target": epsilon / 2,
                "gap_closed": [mean, low, high],
                "runs": known,
                "pooled_gap": _pooled_gap(runs, "clearinghouse"),
                "rows_delivered": float(np.mean([len(item.rows) / 150 for item in cleared])),
                "levels": sorted({"/".join(item.level) or "root" for item in cleared}),
            }
        )
    return found


def _sweep_table(sweep: Sequence[Mapping[str, Any]]) -> str:
    lines = ["Heart, epsilon sweep", "source  target  gap closed [90%]        rows  levels"]
    for item in sweep:
        mean, low, high = item["gap_closed"]
        lines.append(
            f"{item['epsilon_source']:6.2f}  {item['epsilon_target']:6.3f}  {mean:6.3f} "
            f"[{low:6.3f},{high:6.3f}]  {item['rows_delivered']:4.2f}  {', '.join(item['levels'])}"
        )
    return "\n".join(lines)
