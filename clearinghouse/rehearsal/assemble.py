"""report.json: what happened, for machines, and for the page and the story made from it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clearinghouse import cells
from clearinghouse.market import Market
from clearinghouse.messages.results import ClearingView, RunView
from clearinghouse.money import MICRO, format_money
from clearinghouse.rehearsal import score_groups
from clearinghouse.rehearsal.drive import Outcome
from clearinghouse.rehearsal.oracle import PlainCounts, World
from clearinghouse.schema import Schema
from clearinghouse.score_cards import RESIDUAL_METRICS, task_of
from clearinghouse.tables import Table
from matching.shares import share_intervals

SCORE_METRICS = ("auc", "accuracy", "sensitivity", "specificity", "brier")

STEP_OF_NOUN = {"valset": "intake", "target": "match", "model": "score"}
"""Messages are named by what they carry; the report sorts them by step."""

WHO_SAW_WHAT = (
    (
        "clearinghouse",
        "number of blocks, noised counts, codeword distances, asks after they closed, "
        "model weights while scoring, the number of real records each source delivers",
        "any row, any exact count, the number of patients, the hospital's key, delivered records",
    ),
    (
        "hospital",
        "uniform masked values; its own exact histogram, since it knows its noise",
        "model weights beyond what that histogram reveals",
    ),
    (
        "developer",
        "its noised metrics and receipt; the delivered records it holds a grant for",
        "any validation row, any exact metric",
    ),
    (
        "provider",
        "its quota and payment, the noised target",
        "validation rows, other providers' rows, asks before they closed",
    ),
    (
        "anyone later",
        "the log, receipts, prices and how they were computed",
        "personal data: the log holds salted commitments only",
    ),
)


def clearing_part(outcome: Outcome, market: Market) -> dict[str, Any]:
    """`clearing`: by source name, money as decimal strings, real payments."""
    view, names = outcome.clearing, outcome.names
    orders = {names[order.source_id]: order for order in view.orders}
    again = {names[order.source_id]: order for order in view.offered_again}
    payments = {
        name: (order.paid_micro or 0) + (again[name].paid_micro or 0 if name in again else 0)
        for name, order in orders.items()
    }
    pot = _credits(outcome, "pot")
    fee = sum(
        p.amount_micro for p in outcome.statement.postings if p.account.startswith("platform:")
    )
    pays = sum(payments.values()) + sum(pot.values()) + fee
    worth = view.objective_micro + sum(
        (order.ask_micro or 0) * order.units for order in view.orders
    )
    gross = worth * (MICRO + outcome.request.terms.fee_micro) // MICRO
    return {
        "objective": format_money(view.objective_micro),
        "quotas": {name: order.units for name, order in orders.items()},
        "delivered": {
            name: (order.real or 0) + (again[name].real or 0 if name in again else 0)
            for name, order in orders.items()
        },
        "payments": {name: format_money(paid) for name, paid in payments.items()},
        "asks": {
            name: format_money(order.ask_micro)
            for name, order in orders.items()
            if order.ask_micro is not None
        },
        "customer_pays": format_money(pays),
        "customer_surplus": format_money(max(0, gross - pays)),
        "fee": format_money(fee),
        "pot": {name: format_money(pot.get(name, 0)) for name in orders if market.fairness_pot},
        "method": view.method,
        "monopoly_bound": [name for name, order in orders.items() if order.monopoly_bound],
        "disputed": [name for name, order in orders.items() if order.disputed],
        "deposits_lost": {
            names[posting.transfer.rpartition(":")[2]]: format_money(posting.amount_micro)
            for posting in outcome.statement.postings
            if ":forfeit:" in posting.transfer and posting.amount_micro > 0
        },
    }


def _credits(outcome: Outcome, transfer: str) -> dict[str, int]:
    """Amounts that reached organisations in transfers of one kind, by name."""
    found: dict[str, int] = {}
    for posting in outcome.statement.postings:
        kind, _, org = posting.account.partition(":")
        if posting.transfer.split(":")[1] == transfer and kind == "org":
            name = outcome.names[org]
            found[name] = found.get(name, 0) + posting.amount_micro
    return found


def values_part(outcome: Outcome) -> dict[str, Any]:
    """`values`: every source's price with interval and information values."""
    return {
        outcome.names[price.source_id]: {
            "price": format_money(price.point_micro),
            "low": format_money(price.low_micro),
            "high": format_money(price.high_micro),
            "shapley": format_money(price.shapley_micro),
            "leave_one_out": format_money(price.leave_one_out_micro),
            "marginal": format_money(price.marginal_micro),
            "status": price.status,
            "components": {k: format_money(v) for k, v in price.components.items()},
            "counterfactual": {k: format_money(v) for k, v in price.counterfactual.items()},
        }
        for price in outcome.prices.prices
    }


def uncovered_part(
    schema: Schema, level: Sequence[str], view: ClearingView
) -> list[dict[str, Any]]:
    """Target cells that nobody serves within the tariff, in words."""
    book = cells.codebook(schema, level)
    missing = np.asarray(view.unserved).reshape(book.n_cells, -1).sum(axis=1)
    total = sum(view.unserved) + sum(order.units for order in view.orders)
    codes = book.codes()
    found = []
    for cell in np.argsort(-missing, kind="stable"):
        if not missing[cell]:
            break
        share = float(missing[cell]) / total
        where = schema.cell_words(tuple(level), tuple(int(code) for code in codes[cell]))
        words = f"{share:.0%} of your {schema.unit}s ({where}) are not to be had within the tariff"
        found.append({"cell": int(cell), "share": round(share, 6), "words": words})
    return found


def subgroups_part(
    world: World, outcome: Outcome, delivered: Table | None, pool: Table
) -> dict[str, list[dict[str, Any]]]:
    """Share of each subgroup level in the DP target, in the delivered set, in all sources.

    The interval is of the sealed patients' true share, from the target as it was opened.
    """
    schema, level = world.schema, tuple(outcome.target.level)
    found: dict[str, list[dict[str, Any]]] = {}
    for name in schema.subgroups:
        names = schema.stratum_names(name)
        wanted: Sequence[float | None] = [None] * len(names)
        ranges: Sequence[list[float] | None] = [None] * len(names)
        if name in level:
            asked = np.asarray(outcome.target.wanted, np.int64)
            asked = asked.reshape(outcome.target.cells, -1)
            wanted = _shares(cells.marginal(schema, level, asked, name).sum(axis=1))
            ranges = _target_intervals(schema, outcome, name)
        tables = [delivered, pool]
        got, available = (
            [None] * len(names)
            if table is None or not table.n
            else _shares(np.bincount(schema.stratum_codes(table, name), minlength=len(names)))
            for table in tables
        )
        found[name] = [
            {"level": words, "target": a, "interval": own, "delivered": b, "available": c}
            for words, a, own, b, c in zip(names, wanted, ranges, got, available, strict=True)
        ]
    return found


def _target_intervals(schema: Schema, outcome: Outcome, name: str) -> list[list[float]]:
    """90% intervals of the target's shares by one attribute of its level."""
    target = outcome.target
    noised = np.asarray(target.noised, np.int64).reshape(target.cells, target.labels)
    sums = cells.marginal(schema, target.level, noised, name).sum(axis=1)
    epsilon = outcome.request.terms.epsilon_target_micro / MICRO
    found = share_intervals(sums, noised.size // len(sums), epsilon)
    return [[round(float(end), 6) for end in ends] for ends in found]


def _shares(counts: Any) -> list[float | None]:
    total = max(1, int(np.sum(counts)))
    return [round(float(count) / total, 6) for count in counts]


def score_entry(
    world: World, outcome: Outcome, run: RunView, plain: PlainCounts | None, exact: bool | None
) -> dict[str, Any]:
    """One element of `scores`. A run that failed keeps its place, without figures."""
    developer = outcome.names[run.org_id]
    card = run.scorecard
    entry: dict[str, Any] = {
        "developer": developer,
        "model": run.model_name,
        "kind": run.model_kind,
        "task": task_of(world.schema.label),
        "rows": world.validation.n,
        "status": card.get("status", "failed") if run.state == "released" else "failed",
        "reason": run.reason,
        "epsilon": run.epsilon_micro / MICRO,
        "exact_counts_match": exact,
        "receipt": f"receipts/{developer}.txt" if run.receipt else None,
    }
    given = card.get("intervals", {})
    # a number has no AUC: the report's fields stay, and say nothing
    for metric in SCORE_METRICS:
        entry[metric] = float(card[metric]) if metric in card else 0.5
    entry["intervals"] = {
        metric: [float(end) for end in given.get(metric, ("0", "1"))] for metric in SCORE_METRICS
    }
    for metric in RESIDUAL_METRICS:
        if metric in given:
            entry[metric] = float(card[metric])
            entry["intervals"][metric] = [float(end) for end in given[metric]]
    if run.unit and run.state == "released":
        entry["residuals"] = score_groups.residual_bins(world.schema, run)
    if "classes" in card:
        entry["classes"] = score_groups.class_scores(world.schema, card["classes"], plain)
    entry["subgroups"] = score_groups.subgroup_rates(world.schema, outcome.target, run)
    if plain is not None:
        known = {"auc": 0.5, "accuracy": 0.5, **plain.reference}
        entry["plaintext_reference"] = {name: round(value, 6) for name, value in known.items()}
    return entry


def roc_part(schema: Schema, outcome: Outcome) -> dict[str, list[list[float]]]:
    """`roc`: the curve of each model by developer, of each class where there are several."""
    found = {}
    for run in outcome.runs.runs:
        name = outcome.names[run.org_id]
        if "roc" in run.scorecard:
            found[name] = _points(run.scorecard["roc"])
        for level, one in zip(schema.label.levels, run.scorecard.get("classes", ()), strict=False):
            found[f"{name}: {level}"] = _points(one["roc"])
    return found


def _points(texts: Sequence[Sequence[str]]) -> list[list[float]]:
    return [[float(x), float(y)] for x, y in texts]


def bytes_part(outcome: Outcome) -> dict[str, int]:
    """`bytes`: size of each kind of message, named by the step it belongs to."""
    found: dict[str, int] = {}
    for kind, size in outcome.request.message_bytes.items():
        noun, _, rest = kind.partition(".")
        step = STEP_OF_NOUN.get(noun, noun)
        found[f"{step}.{rest}" if step == noun else f"{step}.{kind}"] = size
    return found


def ledger_part(outcome: Outcome) -> dict[str, Any]:
    """`ledger` and `statement`."""
    return {"balanced": outcome.statement.balanced, "entries": len(outcome.statement.postings)}


def statement_part(outcome: Outcome) -> list[dict[str, str]]:
    """Balance of each account under its people's names."""
    lines = []
    for account, amount in sorted(outcome.statement.balances.items()):
        kind, _, ident = account.partition(":")
        name = outcome.names.get(ident, ident)
        lines.append({"account": f"{kind} {name}".strip(), "amount": format_money(amount)})
    return lines


def purse_part(outcome: Outcome, market: Market) -> dict[str, Any]:
    """The purse and who got it."""
    award = outcome.statement.award
    owners = {run.id: outcome.names[run.org_id] for run in outcome.runs.runs}
    winners = [owners[winner["run_id"]] for winner in award.get("winners", [])]
    return {
        "kind": market.purse.kind,
        "amount": format_money(market.purse.amount),
        "metric": market.purse.metric,
        "threshold": float(market.purse.threshold),
        "confidence": float(market.purse.confidence),
        "awarded_to": ", ".join(winners) or None,
        "paid": format_money(sum(item["amount_micro"] for item in award.get("winners", []))),
        "paid_to": {
            owners[item["run_id"]]: format_money(item["amount_micro"])
            for item in award.get("winners", [])
        },
        "reason": str(award.get("reason", "")),
    }


def names_of_epsilon(logged: Mapping[str, int], names: Mapping[str, str]) -> dict[str, int]:
    """Logged epsilon by name instead of organisation id."""
    found: dict[str, int] = {}
    for org, amount in logged.items():
        found[names.get(org, org)] = found.get(names.get(org, org), 0) + amount
    return found
