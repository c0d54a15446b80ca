"""Models for a request: asked of the developers, read in the worker, stored before they score."""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clearinghouse.ids import new_id
from clearinghouse.messages.intake import SealValset
from clearinghouse.messages.tasks import ModelSubmitAnswer, ModelSubmitTask
from clearinghouse.rounds import bids, training
from clearinghouse.rounds.begun import record_begun
from clearinghouse.rounds.desk import Desk
from clearinghouse.rounds.levels import read_schema
from clearinghouse.rounds.moves import HaltError
from clearinghouse.rounds.twins import SAME_AS, original_of
from clearinghouse.schema import Schema
from clearinghouse.score_bins import published_bins
from clearinghouse.store.records import Request, Run
from clearinghouse.store.store import Tx
from secure_eval.nonces import NONCE_BYTES

UNREADABLE = "unreadable"
"""The kind of a model that is not scored: it cannot be read, or no run is left for it."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """A model that came, with what is needed to read it."""

    org_id: str
    position: int
    answer: ModelSubmitAnswer
    schema: Schema
    bins: int
    packed: bool


def sealed_set(tx: Tx, request: Request) -> SealValset:
    """The sealed validation set of a request."""
    return SealValset.model_validate(json.loads(tx.cohorts.valset(request.valset_id).body))


def _is_packed(tx: Tx, request: Request) -> bool:
    return "strips" in sealed_set(tx, request).layout


def schema_of(tx: Tx, request: Request) -> Schema:
    """The schema of a request."""
    return read_schema(tx.cohorts.schema(tx.cohorts.valset(request.valset_id).schema_id))


def not_asked(tx: Tx, request: Request) -> bool | None:
    """True until the developers are asked."""
    return None if tx.tasks.of(request.id, "model.submit") else True


def ask_models(tx: Tx, desk: Desk, request: Request, _found: bool, _result: None) -> bool:
    """Ask every developer that opened its deliveries; one that did not has nothing to train on."""
    received = {
        task.org_id for task in tx.tasks.of(request.id, "receive") if task.state == "answered"
    }
    task = ModelSubmitTask(
        schema_id=tx.cohorts.valset(request.valset_id).schema_id,
        published_bins=published_bins(sealed_set(tx, request).size_class),
        bid=bids.is_wanted(request),
        packed=_is_packed(tx, request),
    )
    deadline = int(desk.clock.now()) + request.terms.deadlines.model_s
    for org_id in request.terms.developer_ids:
        if org_id in received:
            tx.tasks.create(request.id, org_id, task, subject=request.id, deadline=deadline)
    if not received:
        raise HaltError("no developer opened its deliveries")
    return False


def submitted(tx: Tx, request: Request) -> Submitted | None:
    """The first model that came, has no run yet and is not being read."""
    busy = tx.jobs.busy(request.id)
    known = {run.model["org_id"] for run in tx.runs.of(request.id, "score")}
    for task in tx.tasks.of(request.id, "model.submit"):
        if task.org_id not in known and isinstance(task.answer, ModelSubmitAnswer):
            if task.answer.model_blob in busy:
                continue
            return Submitted(
                task.org_id,
                request.terms.developer_ids.index(task.org_id),
                task.answer,
                schema_of(tx, request),
                published_bins(sealed_set(tx, request).size_class),
                _is_packed(tx, request),
            )
    return None


def inspect(desk: Desk, _request: Request, found: Submitted) -> dict[str, Any]:
    """Kind, edges and columns of a model, read in the worker.

    Raises:
        ClearinghouseError: The model cannot be read or used here.
    """
    return desk.worker.run(
        "model.inspect",
        {
            "model": found.answer.model_blob,
            "schema": found.schema.to_dict(),
            "published_bins": found.bins,
            "packed": found.packed,
        },
    )


def _run_of(request: Request, found: Submitted, details: Mapping[str, Any]) -> Run:
    model = {
        "org_id": found.org_id,
        "name": found.answer.name,
        "digest": found.answer.model_blob,
        "nonce_commitment": found.answer.nonce_commitment,
        **details,
    }
    return Run(
        new_id("run"),
        request.id,
        "score",
        found.position,
        "running",
        "",
        secrets.token_hex(32),
        secrets.token_hex(NONCE_BYTES),
        new_id("mod"),
        model,
        {},
    )


def take_model(
    tx: Tx, desk: Desk, request: Request, found: Submitted, details: dict[str, Any]
) -> bool:
    """Store and log the run with its seed before anything comes of it; none beyond the quota.

    Run N + 1 of a request is refused: N was fixed when it was opened. A model that came before gets
    the stored answer, which costs nothing more; such a twin sends nothing.
    """
    quota = request.terms.scores_per_owner
    if tx.runs.count_of_owner(request.valset_id, found.org_id) >= quota:
        words = f"{quota} models of this developer were scored on this validation set: its quota"
        refuse_model(tx, desk, request, found, words)
        return False
    original = original_of(tx, request, found.answer.model_blob)
    most = request.terms.most_runs
    if original is None and runs_used(tx, request) >= most:
        refuse_model(tx, desk, request, found, f"all {most} runs of this request are taken")
        return False
    twin = {} if original is None else {SAME_AS: original.id}
    run = _run_of(request, found, {**details, **twin})
    tx.runs.add(run)
    developer = tx.parties.get(found.org_id)
    training.taken(tx, desk, request, developer.id)
    desk.record(
        tx,
        "model.submitted",
        developer,
        objects={"model": run.model_id, "owner": developer.id, "request": request.id},
        hashes={"model": found.answer.model_blob},
    )
    if original is None:
        record_begun(tx, desk, request, run)
    commitment = found.answer.bid_commitment
    if bids.is_wanted(request) and commitment is not None:
        bids.record_commitment(tx, desk, request, run, commitment)
    return False


def runs_used(tx: Tx, request: Request) -> int:
    """Models of a request that were or are scored; neither unreadable ones nor repeated ones."""
    return sum(
        run.model["kind"] != UNREADABLE and SAME_AS not in run.model
        for run in tx.runs.of(request.id, "score")
    )


def refuse_model(tx: Tx, _desk: Desk, request: Request, found: Submitted, reason: str) -> None:
    """A model that cannot be read is a run that failed before it began."""
    run = _run_of(request, found, {"kind": UNREADABLE, "edges": [], "threshold_edge": 0})
    tx.runs.add(run)
    tx.runs.fail(run.id, reason)
