"""How the delivered set compares with every honest alternative, on the customer's held-out rows."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clearinghouse import cells
from clearinghouse.market import Market
from clearinghouse.rehearsal import held_out
from clearinghouse.rehearsal.drive import Outcome
from clearinghouse.rehearsal.held_out import Choice
from clearinghouse.rehearsal.oracle import World, subgroup_shares
from clearinghouse.rounds import decision
from clearinghouse.rounds.frozen import freeze
from clearinghouse.rounds.terms import reserve_micro
from clearinghouse.store.records import Summary
from clearinghouse.tables import Table, pooled
from matching.baselines import draw_random, label_only, use_all
from matching.paired import LEVEL
from matching.report import Cohorts, match_report

Ints = NDArray[np.int64]

NO_NOISE_MICRO = 100_000_000
"""An epsilon of 100: the noise of a count is zero but for one time in 10^43."""

ALTERNATIVES = (
    "random",
    "use_all",
    "label_only",
    "points_ot",
    "best_source",
    "importance",
    "greedy_mmd",
)
LEAST_HOLDOUT = 2


@dataclass(frozen=True, slots=True)
class Pool:
    """All rows of all sources, one after the other.

    Attributes:
        table: The rows.
        names: Sources in order.
        starts: First row of each source, and the number of rows at the end.
    """

    table: Table
    names: tuple[str, ...]
    starts: Ints

    @classmethod
    def of(cls, world: World) -> "Pool":
        """Pool the world's sources."""
        names = tuple(world.sources)
        tables = [world.sources[name] for name in names]
        starts = np.concatenate([[0], np.cumsum([table.n for table in tables])]).astype(np.int64)
        return cls(pooled(tables), names, starts)

    def find(self, delivered: Mapping[str, Table]) -> Ints:
        """Pool rows that equal the delivered records of each source, each used once."""
        records = self.table.records()
        found: list[int] = []
        for name, table in delivered.items():
            index = self.names.index(name)
            free: dict[tuple[str | None, ...], list[int]] = defaultdict(list)
            for row in range(int(self.starts[index + 1]) - 1, int(self.starts[index]) - 1, -1):
                free[tuple(records[row].values())].append(row)
            found.extend(free[tuple(record.values())].pop() for record in table.records())
        return np.array(found, dtype=np.int64)


def noise_free_rows(world: World, pool: Pool, outcome: Outcome, seed: int) -> Ints:
    """Pool rows that the same rule would have delivered from exact counts.

    The same levels, terms and asks; only the counts of the target and of the sources are exact.
    """
    terms, level = outcome.request.terms, tuple(outcome.target.level)
    asks = {order.source_id: order.ask_micro for order in outcome.clearing.orders}
    schema = world.schema
    counted = {}
    for source in terms.source_ids:
        published = outcome.published[source]
        counts = cells.counts(world.sources[outcome.names[source]], published)
        counted[source] = Summary(
            source, published, tuple(counts.tolist()), NO_NOISE_MICRO, "0" * 64
        )
    exact = cells.counts(world.validation, level).tolist()
    free = terms.model_copy(update={"epsilon_target_micro": NO_NOISE_MICRO})
    target = freeze("run_" + "0" * 20, free, "0" * 64, schema, tuple(level), exact, counted)
    view = decision.decide(
        decision.Market(
            target,
            reserve_micro(free),
            tuple(terms.source_ids),
            tuple(asks.get(source) for source in terms.source_ids),
            (),
        )
    )
    generator = np.random.default_rng(seed)
    found: list[Ints] = []
    for order in view.orders:
        name = outcome.names[order.source_id]
        start = int(pool.starts[pool.names.index(name)])
        where = cells.places(world.sources[name], level, by_label=target.label_cost_applied)
        for cell in np.flatnonzero(order.quota):
            members = np.flatnonzero(where == cell)
            take = min(order.quota[cell], len(members))
            found.append(start + generator.choice(members, take, replace=False))
    return np.concatenate(found).astype(np.int64) if found else np.zeros(0, np.int64)


def _codes(world: World, pool: Pool) -> tuple[Ints, Ints]:
    """Label classes of the pool and of the validation rows; of a number its strata."""
    label = world.schema.label
    return label.codes(pool.table.labels), label.codes(world.validation.labels)


def compare(
    world: World, pool: Pool, selections: Mapping[str, Ints], *, records: int, seed: int
) -> dict[str, Any]:
    """Match figures of every method, with subgroup shares where its rows are one fixed set.

    Returns:
        `matching.report.match_report`'s values; where the hold-out has fewer than two rows every
        figure is null with that reason.
    """
    schema = world.schema
    if world.holdout.n < LEAST_HOLDOUT:
        found = _unknown(selections, f"the hold-out has {world.holdout.n} rows, fewer than two")
    else:
        cohorts = Cohorts(
            schema.embedding(pool.table),
            schema.embedding(world.validation),
            schema.embedding(world.holdout),
            *_codes(world, pool),
            pool_sources=np.repeat(np.arange(len(pool.names)), np.diff(pool.starts)),
        )
        found = match_report(cohorts, selections, records=records, seed=seed)
    everything = subgroup_shares(schema, pool.table)
    for name, entry in found["methods"].items():
        entry["subgroup_shares"] = everything if name in ("random", "use_all") else {}
        if name in selections:
            entry["subgroup_shares"] = subgroup_shares(schema, pool.table.take(selections[name]))
    return found


def _unknown(selections: Mapping[str, Ints], reason: str) -> dict[str, Any]:
    names = (*selections, *ALTERNATIVES)
    empty = {"w2": None, "mmd": None, "mmd_squared": None, "gap_closed": None, "reason": reason}
    methods: dict[str, Any] = {
        name: {**empty, "rows": len(selections.get(name, ()))} for name in names
    }
    methods["random"]["gap_sd"] = None
    return {"methods": methods, "denominator": None, "denominator_error": None, "subsampled": []}


def redrawn(kinds: Ints, rows: Ints, seed: int) -> Ints:
    """As many pool rows of each kind as were delivered, drawn afresh.

    Args:
        kinds: Kind of each pool row (N,): its source and its cell.
        rows: Delivered pool rows.
        seed: Of the draw.
    """
    generator = np.random.default_rng(seed)
    again = [
        generator.choice(np.flatnonzero(kinds == kind), units, replace=False)
        for kind, units in zip(*np.unique(kinds[rows], return_counts=True), strict=True)
    ]
    return np.concatenate(again).astype(np.int64) if again else rows


def compare_downstream(
    world: World, pool: Pool, delivered: Ints, outcome: Outcome, market: Market
) -> dict[str, Any]:
    """`downstream` and `downstream_pairing`: one recipe on the delivered rows and on alternatives.

    `random` and `label_only` are means over several draws: one draw would say more about itself
    than the method.
    """
    rows = len(delivered) if len(delivered) >= LEAST_HOLDOUT else market.records
    size, kinds = pool.table.n, _kinds(world, pool, outcome)
    codes = _codes(world, pool)
    seeds = range(market.seed, market.seed + held_out.SEEDS)
    choices = {
        "clearinghouse": Choice([delivered], [redrawn(kinds, delivered, seed) for seed in seeds]),
        "random": Choice.of_draws([draw_random(size, rows, seed) for seed in seeds]),
        "use_all": Choice.fixed(use_all(size)),
        "label_only": Choice.of_draws([label_only(*codes, rows, seed) for seed in seeds]),
    }
    return {
        "downstream": held_out.compare_choices(world, pool.table, choices, market.seed),
        "downstream_pairing": {
            "recipe": held_out.RECIPE,
            "seeds": list(seeds),
            "level": LEVEL,
            "held_out_rows": world.holdout.n,
            "words": held_out.PAIRING,
        },
    }


def _kinds(world: World, pool: Pool, outcome: Outcome) -> Ints:
    """Source and cell of each pool row, as the orders tell them apart."""
    level, by_label = tuple(outcome.target.level), outcome.target.label_cost_applied
    width = cells.n_places(world.schema, level, by_label=by_label)
    where = cells.places(pool.table, level, by_label=by_label)
    source = np.repeat(np.arange(len(pool.names)), np.diff(pool.starts))
    return np.asarray(source * width + where, dtype=np.int64)
