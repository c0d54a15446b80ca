"""The market's own rule on a task, without processes and ciphertexts.

Levels, counts, freezing, caps, clearing and payments are the product's functions; only messages are
left out. Noise has the law of the encrypted openings (`secure_eval.noise`), from a key that follows
from the seed, so that a benchmark can be repeated; a market's keys are fresh randomness.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.tasks import Task
from clearinghouse import cells
from clearinghouse.client.hospital import MOST_PLACES, TARGET_SHARE
from clearinghouse.client.provider import SUMMARY_SHARE
from clearinghouse.messages.intake import OpenRequest, Purse
from clearinghouse.messages.results import ClearingView, TargetView
from clearinghouse.rounds.decision import Market, decide, payment_micro
from clearinghouse.rounds.frozen import freeze
from clearinghouse.rounds.terms import reserve_micro
from clearinghouse.store.records import Summary
from clearinghouse.tables import Table, stratified_split
from secure_eval.noise import Table as NoisedTable
from secure_eval.noise import table_noise

Ints = NDArray[np.int64]

MICRO = 1_000_000
NO_NOISE_MICRO = 100 * MICRO
UNCAPPED_MICRO = 1000 * MICRO


@dataclass(frozen=True, slots=True)
class Terms:
    """What a run may vary; the defaults are the market's.

    Attributes:
        epsilon_source: Millionths, of each source's summary.
        epsilon_target: Millionths, of the customer's target.
        share_cap: Millionths; `UNCAPPED_MICRO` in effect switches the cap off.
        noise: Whether counts are noised; levels stay those of the epsilons either way.
        equal_asks: Whether every source asks the mean ask.
        by_label: Whether labels are matched; None leaves it to the rule.
        finer: Levels by which the request is finer (or coarser, below 0) than the rule says.
        sources_finer: The same for the sources' summaries.
    """

    epsilon_source: int = MICRO
    epsilon_target: int = MICRO // 2
    share_cap: int = 3 * MICRO // 2
    noise: bool = True
    equal_asks: bool = False
    by_label: bool | None = None
    finer: int = 0
    sources_finer: int = 0


@dataclass(frozen=True, slots=True)
class Cleared:
    """One cleared market.

    Attributes:
        rows: Delivered rows as positions in all sources' rows, one after the other.
        ordered: Units that were ordered.
        paid: Payments for what was delivered, micro-money.
        level: Strata level of the request.
        by_label: Whether labels were matched.
        largest_share: Share of the delivered rows that came from one source.
    """

    rows: Ints
    ordered: int
    paid: int
    level: tuple[str, ...]
    by_label: bool
    largest_share: float


def split(task: Task, seed: int) -> tuple[Table, Table]:
    """Validation and hold-out rows of the customer: two halves, stratified by label."""
    holdout, validation = stratified_split(task.customer.labels, 0.5, seed)
    return task.customer.take(validation), task.customer.take(holdout)


def clear_market(task: Task, validation: Table, seed: int, terms: Terms) -> Cleared:
    """Publish, freeze, clear and deliver."""
    names = {f"src_{i:020d}": name for i, name in enumerate(task.sources)}
    request = _request(task, tuple(names), terms)
    summaries = {
        source: _summary(task, source, name, seed, terms) for source, name in names.items()
    }
    level = cells.finest_level(
        task.schema,
        epsilon_micro=terms.epsilon_target,
        size_class=_size_class(validation.n),
        share=TARGET_SHARE,
        most=MOST_PLACES,
    )
    level = _shifted(task, level, terms.finer)
    noised = cells.counts(validation, level) + _noise(
        f"{task.name}|{seed}|target",
        cells.n_places(task.schema, level),
        terms.epsilon_target,
        terms,
    )
    target = freeze(
        "run_" + "0" * 20,
        request,
        hashlib.sha256(f"{task.name}|{seed}".encode()).hexdigest(),
        task.schema,
        level,
        noised.tolist(),
        summaries,
        by_label=terms.by_label,
    )
    asks = [task.asks[name] for name in names.values()]
    if terms.equal_asks:
        asks = [sum(asks) // len(asks)] * len(asks)
    view = decide(Market(target, reserve_micro(request), tuple(names), tuple(asks), ()))
    return _deliver(task, target, view, names, seed)


def _deliver(
    task: Task, target: TargetView, view: ClearingView, names: dict[str, str], seed: int
) -> Cleared:
    """Uniform rows of every place that was sold, as many as there really are."""
    rng = np.random.default_rng([seed, 1])
    start, taken, paid, ordered, most = 0, [np.zeros(0, np.int64)], 0, 0, 0
    orders = {order.source_id: order for order in view.orders}
    for source, name in names.items():
        order, table = orders[source], task.sources[name]
        where = cells.places(table, target.level, by_label=target.label_cost_applied)
        real = 0
        for place in np.flatnonzero(order.quota):
            members = np.flatnonzero(where == place)
            picked = rng.choice(members, min(order.quota[place], len(members)), replace=False)
            taken.append(start + picked)
            real += len(picked)
        if order.units:
            paid += payment_micro(order) * real // order.units
        ordered, most = ordered + order.units, max(most, real)
        start += table.n
    rows = np.sort(np.concatenate(taken)).astype(np.int64)
    return Cleared(
        rows,
        ordered,
        paid,
        tuple(target.level),
        target.label_cost_applied,
        most / max(1, len(rows)),
    )


def _summary(task: Task, source: str, name: str, seed: int, terms: Terms) -> Summary:
    table = task.sources[name]
    level = cells.finest_level(
        task.schema,
        epsilon_micro=terms.epsilon_source,
        size_class=_size_class(table.n),
        share=SUMMARY_SHARE,
    )
    level = _shifted(task, level, terms.sources_finer)
    counts = cells.counts(table, level) + _noise(
        f"{task.name}|{seed}|{name}",
        cells.n_places(task.schema, level),
        terms.epsilon_source,
        terms,
    )
    epsilon = terms.epsilon_source if terms.noise else NO_NOISE_MICRO
    return Summary(source, level, tuple(counts.tolist()), epsilon, "0" * 64)


def _shifted(task: Task, level: tuple[str, ...], by: int) -> tuple[str, ...]:
    levels = task.schema.strata_levels()
    return levels[int(np.clip(levels.index(level) + by, 0, len(levels) - 1))]


def _noise(label: str, n: int, epsilon_micro: int, terms: Terms) -> Ints:
    if not terms.noise:
        return np.zeros(n, np.int64)
    key = hashlib.sha256(label.encode()).digest()
    return table_noise(
        key, "benchmark", (bytes(16), bytes(16)), [NoisedTable("counts", n, epsilon_micro)]
    )


def _request(task: Task, source_ids: tuple[str, ...], terms: Terms) -> OpenRequest:
    return OpenRequest(
        valset_id="val_" + "0" * 20,
        source_ids=list(source_ids),
        developer_ids=["org_" + "0" * 20],
        records=task.records,
        currency="EUR",
        tariff_micro=6 * MICRO,
        distance_price_micro=MICRO,
        share_cap_micro=terms.share_cap,
        fee_micro=MICRO // 20,
        epsilon_target_micro=terms.epsilon_target if terms.noise else NO_NOISE_MICRO,
        epsilon_score_micro=MICRO,
        purse=Purse(
            kind="acceptance",
            amount_micro=0,
            metric="auc",
            threshold_micro=700_000,
            confidence_micro=900_000,
        ),
    )


def _size_class(n: int) -> int:
    """The default of a market file: the largest power of two not above the rows."""
    return 1 << (n.bit_length() - 1)
