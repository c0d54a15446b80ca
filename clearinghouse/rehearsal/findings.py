"""What a finished market amounts to: evidence first, then the comparison, then the report."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clearinghouse.blobs.disk import DiskStore
from clearinghouse.client.developer import read_training_set, source_column
from clearinghouse.errors import VerificationError
from clearinghouse.log.entries import epsilon_by_owner, parse_entry
from clearinghouse.log.verify import verify_receipt
from clearinghouse.market import Market
from clearinghouse.messages.results import CheckpointView, RunView
from clearinghouse.money import micro_epsilon
from clearinghouse.rehearsal import assemble
from clearinghouse.rehearsal.budgets import check_epsilon, ledger_balances, report_budget
from clearinghouse.rehearsal.comparison import (
    Pool,
    compare,
    compare_downstream,
    noise_free_rows,
)
from clearinghouse.rehearsal.drive import STEP_WORDS, Outcome
from clearinghouse.rehearsal.oracle import PlainCounts, World, plain_counts
from clearinghouse.tables import Table
from secure_eval.class_models import read_model

MAX_MODEL_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything a rehearsal writes down.

    Attributes:
        report: Contents of report.json.
        evidence: Contents of evidence.json.
        training_set: Bytes of training_set.parquet.
        receipts: Receipt text by developer.
        entries: Canonical log entries.
        checkpoint: The log's signed checkpoint and key.
    """

    report: dict[str, Any]
    evidence: dict[str, Any]
    training_set: bytes
    receipts: Mapping[str, str]
    entries: tuple[str, ...]
    checkpoint: CheckpointView


def examine(market: Market, world: World, outcome: Outcome, directory: Path) -> Findings:
    """Check and compare everything, while the parties' folders are still there.

    Raises:
        VerificationError: Log, ledgers and report disagree, or a receipt does not verify.
    """
    receipts = {
        outcome.names[run.org_id]: outcome.receipts[run.id]
        for run in outcome.runs.runs
        if run.id in outcome.receipts
    }
    for text in receipts.values():
        verify_receipt(text.encode(), trusted_log_key=outcome.checkpoint.vkey)
    budget = _budget(market, outcome, directory)
    evidence, scores = _scores(market, world, outcome, directory)
    delivered, training_set = _training_set(market, world, outcome, directory)
    report = {
        "market": {
            "name": market.name,
            "schema": market.schema.name,
            "customer": market.customer.name,
            "n_sources": len(market.sources),
            "n_developers": len(market.developers),
            "records_wanted": market.records,
            "currency": market.currency,
        },
        **_match(market, world, outcome, delivered),
        "clearing": assemble.clearing_part(outcome, market),
        "values": assemble.values_part(outcome),
        "scores": scores,
        "roc": assemble.roc_part(market.schema, outcome),
        "purse": assemble.purse_part(outcome, market),
        "budget": budget,
        "ledger": assemble.ledger_part(outcome),
        "statement": assemble.statement_part(outcome),
        "log": {
            "entries": len(outcome.entries),
            "checkpoint": outcome.checkpoint.checkpoint,
            "verified": _log_verified(outcome),
        },
        "timings_s": {step: outcome.seconds[step] for step in STEP_WORDS},
        "bytes": assemble.bytes_part(outcome),
        "who_saw_what": [
            {"party": party, "learned": learned, "never": never}
            for party, learned, never in assemble.WHO_SAW_WHAT
        ],
        "verify": [
            "clearinghouse log audit log",
            *(f"clearinghouse verify receipts/{name}.txt" for name in receipts),
        ],
    }
    return Findings(report, evidence, training_set, receipts, outcome.entries, outcome.checkpoint)


def _budget(market: Market, outcome: Outcome, directory: Path) -> dict[str, dict[str, float]]:
    """The report's budget, once log, ledgers and report agree."""
    customer = market.customer.name
    owners = {
        customer: (f"agent/{customer}", micro_epsilon(market.budget_limits.customer)),
        **{
            source.name: (f"providers/{source.name}", micro_epsilon(market.budget_limits.source))
            for source in market.sources
        },
    }
    balances = ledger_balances(directory, owners)
    reported = report_budget(balances)
    logged = epsilon_by_owner(parse_entry(entry.encode()) for entry in outcome.entries)
    check_epsilon(assemble.names_of_epsilon(logged, outcome.names), balances, reported)
    return reported


def _log_verified(outcome: Outcome) -> bool:
    """Whether the entries hash to the signed checkpoint, and tell a market by the rules."""
    from clearinghouse.log import merkle
    from clearinghouse.log.replay import verify_replay
    from clearinghouse.log.verify import verify_entries

    lines = "".join(entry + "\n" for entry in outcome.entries).encode()
    leaves = "".join(merkle.leaf_hash(entry.encode()).hex() + "\n" for entry in outcome.entries)
    view = outcome.checkpoint
    try:
        found = verify_entries(lines, leaves.encode(), view.checkpoint.encode(), view.vkey)
        verify_replay(found.entries)
    except VerificationError:
        return False
    return True


def _has_table(run: RunView, name: str) -> bool:
    """Whether a run released a table of a subgroup attribute: small sets release fewer."""
    return any(table.rpartition(":")[2] == name for table in run.groups)


def _scores(
    market: Market, world: World, outcome: Outcome, directory: Path
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """`evidence.json`, and `scores` with `exact_counts_match` as the evidence shows it."""
    blobs = DiskStore(directory / "server" / "blobs", max_bytes=MAX_MODEL_BYTES)
    evidence: dict[str, Any] = {}
    scores = []
    for run in outcome.runs.runs:
        plain, exact = None, None
        if run.state == "released":
            model = read_model(blobs.get(run.model_digest))
            kept = [name for name in market.schema.subgroups if _has_table(run, name)]
            plain = plain_counts(world, model, kept)
            name = outcome.names[run.org_id]
            folder = directory / "agent" / market.customer.name
            evidence[name] = _evidence(run, plain, folder)
            exact = _matches(evidence[name])
        scores.append(assemble.score_entry(world, outcome, run, plain, exact))
    return evidence, scores


def _evidence(run: RunView, plain: PlainCounts, agent: Path) -> dict[str, Any]:
    """Opened counts beside the agent's own noise and the oracle's plaintext counts."""
    record = json.loads((agent / "private" / "runs" / f"{run.same_as or run.id}.json").read_bytes())
    noise = {table["name"]: table["noise"] for table in record["tables"]}
    drawn = [noise[name] for name in noise if name.partition(":")[0] == "histogram"]
    histogram = np.concatenate(drawn).reshape(np.shape(run.counts))
    groups = {
        name: {
            "opened": counts,
            "noise": np.asarray(noise[f"group:{name}"]).reshape(np.shape(counts)).tolist(),
            "plaintext": plain.groups[name].tolist(),
        }
        for name, counts in run.groups.items()
    }
    return {
        "opened": run.counts,
        "noise": histogram.tolist(),
        "plaintext": plain.counts.tolist(),
        "groups": groups,
    }


def _matches(evidence: Mapping[str, Any]) -> bool:
    """Whether every opened count is the plaintext count plus the noise, in every table."""
    tables = [evidence, *evidence["groups"].values()]
    return all(
        np.array_equal(
            np.asarray(table["opened"]), np.asarray(table["noise"]) + np.asarray(table["plaintext"])
        )
        for table in tables
    )


def _training_set(
    market: Market, world: World, outcome: Outcome, directory: Path
) -> tuple[dict[str, Table], bytes]:
    """Delivered records by source name, and the training set with names instead of ids."""
    for developer in market.developers:
        path = directory / "developers" / developer.name / "training_set.parquet"
        if path.exists():
            break
    else:
        return {}, b""
    written = pq.read_table(path)
    column = source_column(market.schema)
    names = [outcome.names[source] for source in written.column(column).to_pylist()]
    place = written.column_names.index(column)
    renamed = written.set_column(place, column, pa.array(names, pa.string()))
    buffer = io.BytesIO()
    pq.write_table(renamed, buffer)
    table = read_training_set(market.schema, path)
    if table is None:
        return {}, buffer.getvalue()
    where = np.array(names)
    delivered = {
        name: table.take(np.flatnonzero(where == name)) for name in world.sources if name in names
    }
    return delivered, buffer.getvalue()


def _match(
    market: Market, world: World, outcome: Outcome, delivered: Mapping[str, Table]
) -> dict[str, Any]:
    """`match`, `subgroups`, `records`, `downstream` and how it is paired."""
    pool = Pool.of(world)
    rows = pool.find(delivered)
    selections = {
        "clearinghouse": rows,
        "noise_free": noise_free_rows(world, pool, outcome, market.seed),
    }
    found = compare(world, pool, selections, records=market.records, seed=market.seed)
    level = outcome.target.level
    ordered = sum(order.units for order in outcome.clearing.orders)
    both = (*outcome.clearing.orders, *outcome.clearing.offered_again)
    real = sum(order.real or 0 for order in both)
    training = pool.table.take(rows) if len(rows) else None
    return {
        "match": {
            "codebook_cells": outcome.target.cells,
            "level": list(level),
            "label_cost_applied": outcome.target.label_cost_applied,
            "target": outcome.target.wanted,
            **found,
            "uncovered": assemble.uncovered_part(market.schema, level, outcome.clearing),
        },
        "records": {
            "wanted": market.records,
            "ordered": ordered,
            "delivered": real,
            "real": real,
            "dummy": max(0, ordered - real),
        },
        "subgroups": assemble.subgroups_part(world, outcome, training, pool.table),
        **compare_downstream(world, pool, rows, outcome, market),
    }
