"""Phantom supply: what empty tables sell, and what the gate that stops them costs honest sources.

Set DATA to a folder with diabetes130_compact.csv.gz to include the diabetes sources.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from benchmarks import tasks
from clearinghouse import cells
from clearinghouse.client.provider import SUMMARY_SHARE
from clearinghouse.demo import SITES
from matching.clearing import clear
from matching.ladder import separated
from matching.target import SUPPLY_GATE, money, noise_quantile, share_cap, supply_counts

Ints = NDArray[np.int64]

MICRO = 1_000_000
EPSILON = 1.0
SOURCES, CELLS, RECORDS = 40, 48, 300
RESERVE = 5_700_000
ASKS = (0, 5_000_000)
"""What a phantom asks: nothing, and nearly all that a record may cost."""
BEFORE = 0.98
"""The gate that let one empty table in fifty sell, for comparison."""
ROWS = (8, 12, 16, 20, 24, 28, 32, 40, 48, 64, 96, 128, 256)


def run(quick: bool) -> str:
    """Phantoms in markets, honest tables by size, the rows of real sources; as Markdown."""
    return "\n\n".join(
        [markets(200 if quick else 2000), by_size(200 if quick else 2000), real(quick)]
    )


def two_sided(rng: np.random.Generator, shape: tuple[int, ...]) -> Ints:
    """Noise of the released counts; a generator with a seed, so that figures repeat."""
    chance = -np.expm1(-EPSILON)
    return np.asarray(rng.geometric(chance, shape) - rng.geometric(chance, shape), np.int64)


# ---------------------------------------------------------------- phantoms in markets


def markets(count: int) -> str:
    """Units that one empty table among 39 honest sources is ordered, under both gates."""
    rng = np.random.default_rng(0)
    points = rng.random((CELLS, 2)) * 3
    apart = np.linalg.norm(points[:, None] - points[None], axis=2)
    distances = separated(money(apart, MICRO), b"phantoms")
    lines = [
        "| gate | markets | phantom admitted | its units, ask 0 | its units, ask 5.00 "
        "| honest tables barred |",
        "|---|---|---|---|---|---|",
    ]
    for gate in (BEFORE, SUPPLY_GATE):
        admitted, barred, units = 0, 0, [0, 0]
        for seed in range(count):
            noised, target, asks = market(np.random.default_rng([seed, 48]))
            supplies = np.array([supply_counts(row, EPSILON, gate=gate) for row in noised])
            barred += int((~supplies[1:].any(axis=1)).sum())
            if not supplies[0].any():
                continue
            admitted += 1
            capped = share_cap(distances, target, supplies, RESERVE)
            for place, ask in enumerate(ASKS):
                plan = clear(distances, target, capped, [ask, *asks], reserve=RESERVE)
                units[place] += int(plan.units[0])
        lines.append(
            f"| {gate:.6f} | {count:,} | {admitted} | {units[0]} | {units[1]} "
            f"| {barred} of {count * (SOURCES - 1):,} |"
        )
    head = (
        f"One empty table among {SOURCES - 1} sources of about 96 rows, {CELLS} cells, epsilon 1, "
        f"{RECORDS} records wanted. A table that is not admitted has no supply and sells nothing."
    )
    return "\n".join(["### Phantoms", "", head, "", *lines])


def market(rng: np.random.Generator) -> tuple[Ints, Ints, list[int]]:
    """Noised counts (the first table is empty), wanted records, asks of the honest."""
    exact = rng.poisson(2.0, (SOURCES, CELLS))
    exact[0] = 0
    noised = exact + two_sided(rng, exact.shape)
    target = rng.multinomial(RECORDS, np.full(CELLS, 1 / CELLS))
    return noised, target, rng.integers(MICRO, 3 * MICRO, SOURCES - 1).tolist()


# ---------------------------------------------------------------- honest tables by size


def entries_of(rows: int) -> int:
    """Counts that a table publishes where levels grow by two: at most half its size class."""
    return max(2, 1 << (rows.bit_length() - 1) >> 1)


def by_size(tables: int) -> str:
    """How often a table of so many rows is admitted, and the part of its rows it may sell."""
    lines = [
        "| rows | counts published | needs a noised total above | admitted | may sell of its rows "
        f"| gate {BEFORE}: admitted | may sell |",
        "|---|---|---|---|---|---|---|",
    ]
    for rows in ROWS:
        entries = entries_of(rows)
        rng = np.random.default_rng([rows, 7])
        told = {gate: [0.0, 0.0] for gate in (SUPPLY_GATE, BEFORE)}
        for _ in range(tables):
            exact = rng.multinomial(rows, rng.dirichlet(np.full(entries, 1.0)))
            noised = exact + two_sided(rng, exact.shape)
            for gate, sums in told.items():
                supply = supply_counts(noised, EPSILON, gate=gate)
                sums[0] += bool(supply.any())
                sums[1] += float(np.minimum(supply, exact).sum()) / rows
        new, old = ([value / tables for value in told[gate]] for gate in (SUPPLY_GATE, BEFORE))
        lines.append(
            f"| {rows} | {entries} | {noise_quantile(EPSILON, entries, SUPPLY_GATE)} "
            f"| {new[0]:.1%} | {new[1]:.0%} | {old[0]:.1%} | {old[1]:.0%} |"
        )
    head = f"{tables:,} tables of each size, cells filled by a flat Dirichlet draw, epsilon 1."
    return "\n".join(["### Honest tables by size", "", head, "", *lines])


# ---------------------------------------------------------------- real sources


def real(quick: bool) -> str:
    """Sources barred and rows lost on the tables of the matching benchmark."""
    seeds = range(2 if quick else 20)
    lines = [
        "| sources | tables | fewest rows | barred | rows that may be sold, of all "
        f"| gate {BEFORE}: barred | rows |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in families(seeds).items():
        told = {gate: [0, 0] for gate in (SUPPLY_GATE, BEFORE)}
        tables, rows, fewest = 0, 0, 1 << 40
        for seed, table in found:
            size = 1 << (table.n.bit_length() - 1)
            level = cells.finest_level(
                table.schema, epsilon_micro=MICRO, size_class=size, share=SUMMARY_SHARE
            )
            exact = cells.counts(table, level)
            rng = np.random.default_rng([seed, tables])
            noised = exact + two_sided(rng, exact.shape)
            tables, rows, fewest = tables + 1, rows + table.n, min(fewest, table.n)
            for gate, sums in told.items():
                supply = supply_counts(noised, EPSILON, gate=gate)
                sums[0] += not supply.any()
                sums[1] += int(np.minimum(supply, exact).sum())
        new, old = told[SUPPLY_GATE], told[BEFORE]
        lines.append(
            f"| {name} | {tables} | {fewest} | {new[0]} | {new[1] / rows:.2%} "
            f"| {old[0]} | {old[1] / rows:.2%} |"
        )
    return "\n".join(["### Real sources", "", *lines])


def families(seeds: range) -> Mapping[str, Iterator[tuple[int, tasks.Table]]]:
    """Sources of the matching benchmark with their seed; those whose data are not here left out."""
    _, sites = tasks.heart_tables()
    everyone = tasks.digits_table()
    found: dict[str, Iterator[tuple[int, tasks.Table]]] = {
        "heart, four hospitals": ((seed, sites[name]) for seed in seeds for name in SITES),
        "digits, 20 sites": (
            (seed, table)
            for seed in seeds
            for table in tasks.digits(everyone, seed).sources.values()
        ),
    }
    path = tasks.diabetes_path()
    if path is not None:
        patients = tasks.diabetes_table(path)
        found["diabetes-130, 40 made sites"] = (
            (seed, table)
            for seed in seeds
            for table in tasks.diabetes(patients, seed).sources.values()
        )
    return found
