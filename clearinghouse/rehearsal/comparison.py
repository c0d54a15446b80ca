"""How the delivered set compares with every honest alternative, on the customer's held-out rows."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clearinghouse import cells
from clearinghouse.rehearsal.drive import Outcome
from clearinghouse.rehearsal.oracle import World, downstream, subgroup_shares
from clearinghouse.rounds import decision
from clearinghouse.rounds.frozen import freeze
from clearinghouse.rounds.terms import reserve_micro
from clearinghouse.store.records import Summary
from clearinghouse.tables import Table, pooled
from matching.baselines import draw_random, label_only, use_all
from matching.report import Cohorts, match_report

Ints = NDArray[np.int64]

NO_NOISE_MICRO = 100_000_000
"""An epsilon of 100: the noise of a count is zero but for one time in 10^43."""

DOWNSTREAM_RECIPE = "logistic"
RANDOM_TRAININGS = 10
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


def baselines(world: World, pool: Pool, rows: int, seed: int) -> dict[str, list[Ints]]:
    """Pool rows of each simple alternative; `random` is drawn several times."""
    size = pool.table.n
    return {
        "random": [draw_random(size, rows, seed + draw) for draw in range(RANDOM_TRAININGS)],
        "use_all": [use_all(size)],
        "label_only": [label_only(*_codes(world, pool), rows, seed)],
    }


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


def compare_downstream(
    world: World, pool: Pool, delivered: Ints, records: int, seed: int
) -> dict[str, dict[str, object]]:
    """The same recipe on the delivered rows and on each alternative, measured on held-out rows.

    `random` is the mean over several draws: one draw would say more about itself than the method.
    """
    rows = len(delivered) if len(delivered) >= LEAST_HOLDOUT else records
    chosen = {"clearinghouse": [delivered], **baselines(world, pool, rows, seed)}
    return {
        name: _mean([_train(world, pool, s, seed) for s in sets]) for name, sets in chosen.items()
    }


def _train(world: World, pool: Pool, rows: Ints, seed: int) -> dict[str, Any]:
    return downstream(world, pool.table.take(rows), DOWNSTREAM_RECIPE, seed)


def _mean(results: Sequence[dict[str, Any]]) -> dict[str, object]:
    known = [result for result in results if result["status"] == "ok"] or list(results)
    losses = [result["log_loss"] for result in known if result["log_loss"] is not None]
    return {
        "auc": round(float(np.mean([result["auc"] for result in known])), 6),
        "log_loss": round(float(np.mean(losses)), 6) if losses else None,
        **{
            name: round(float(np.mean([result[name] for result in known])), 6)
            for name in ("mae", "rmse")
            if all(name in result for result in known)
        },
        "n": results[0]["n"],
        "status": known[0]["status"],
    }
