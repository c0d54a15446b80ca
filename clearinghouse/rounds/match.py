"""Step 2, match: open the target from the encrypted rows, then freeze all that shapes clearing."""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from clearinghouse import cells
from clearinghouse.canonical import canonical_bytes
from clearinghouse.ids import new_id
from clearinghouse.messages.intake import SealValset
from clearinghouse.messages.results import TargetView
from clearinghouse.messages.tasks import (
    TargetNoiseAnswer,
    TargetNoiseTask,
    TargetRepliesAnswer,
    TargetRepliesTask,
)
from clearinghouse.rounds.desk import Desk
from clearinghouse.rounds.frozen import freeze
from clearinghouse.rounds.levels import read_schema
from clearinghouse.rounds.moves import Move, Step, essential_answer, no_work
from clearinghouse.rounds.releases import record_release
from clearinghouse.schema import Schema
from clearinghouse.store.records import Request, Run, Summary
from clearinghouse.store.store import Tx


@dataclass(frozen=True, slots=True)
class Sealed:
    """The encrypted rows a run works on, and the run."""

    run: Run
    sealed: SealValset
    schema: Schema
    noise_blob: str = ""
    replies_blob: str = ""


@dataclass(frozen=True, slots=True)
class Opened:
    """A released target with the summaries of all admitted sources."""

    sealed: Sealed
    noised: tuple[int, ...]
    summaries: Mapping[str, Summary]


# ---------------------------------------------------------------- opening


def _sealed(tx: Tx, request: Request) -> Sealed | None:
    runs = tx.runs.of(request.id, "target")
    if not runs:
        return None
    valset = tx.cohorts.valset(request.valset_id)
    sealed = SealValset.model_validate(json.loads(valset.body))
    return Sealed(runs[0], sealed, read_schema(tx.cohorts.schema(valset.schema_id)))


def _not_begun(tx: Tx, request: Request) -> bool | None:
    return None if tx.runs.of(request.id, "target") else True


def _begin(tx: Tx, desk: Desk, request: Request, _found: bool, _result: None) -> bool:
    """Store the run with its seed, before anything comes of it, and ask for the noise."""
    run = Run(
        new_id("run"),
        request.id,
        "target",
        0,
        "running",
        "",
        secrets.token_hex(32),
        secrets.token_hex(16),
        "",
        {},
        {},
    )
    tx.runs.add(run)
    found = _sealed(tx, request)
    if found is None:
        raise ValueError("a run that was stored must be found")
    task = TargetNoiseTask(
        run_id=run.id,
        valset_id=request.valset_id,
        cells=cells.codebook(found.schema, found.sealed.level).n_cells,
        labels=cells.n_labels(found.schema),
        epsilon_micro=request.terms.epsilon_target_micro,
        nonces=[run.nonce],
    )
    deadline = int(desk.clock.now()) + request.terms.deadlines.agent_s
    tx.tasks.create(request.id, request.org_id, task, subject=run.id, deadline=deadline)
    return False


def _noise_came(tx: Tx, request: Request) -> Sealed | None:
    found = _sealed(tx, request)
    if found is None or tx.tasks.of(request.id, "target.replies"):
        return None
    answer = essential_answer(tx, request, "target.noise", found.run.id)
    if not isinstance(answer, TargetNoiseAnswer):
        return None
    return Sealed(found.run, found.sealed, found.schema, answer.noise_blob)


def _job(request: Request, found: Sealed) -> dict[str, object]:
    """What the worker needs to rebuild the opening from the start."""
    return {
        "run": found.run.id,
        "seed": found.run.seed,
        "nonces": [found.run.nonce],
        "keys": found.sealed.keys_blob,
        "upload": list(found.sealed.upload_blobs),
        "layout": found.sealed.layout,
        "epsilon_micro": request.terms.epsilon_target_micro,
        "noise": found.noise_blob,
        "replies": found.replies_blob,
    }


def _open(desk: Desk, request: Request, found: Sealed) -> tuple[str, int]:
    told = desk.worker.run("target.openings", _job(request, found))
    return str(told["blob"]), int(told["size"])


def _ask_replies(
    tx: Tx, desk: Desk, request: Request, found: Sealed, blob: tuple[str, int]
) -> bool:
    tx.blobs.add(*blob, request.org_id)
    tx.requests.moved(request.id, "target.openings", *blob, found.run.id)
    task = TargetRepliesTask(run_id=found.run.id, openings_blob=blob[0])
    deadline = int(desk.clock.now()) + request.terms.deadlines.agent_s
    tx.tasks.create(request.id, request.org_id, task, subject=found.run.id, deadline=deadline)
    return False


def _replies_came(tx: Tx, request: Request) -> Opened | None:
    found = _sealed(tx, request)
    if found is None:
        return None
    noise = essential_answer(tx, request, "target.noise", found.run.id)
    replies = essential_answer(tx, request, "target.replies", found.run.id)
    if not isinstance(noise, TargetNoiseAnswer) or not isinstance(replies, TargetRepliesAnswer):
        return None
    found = Sealed(found.run, found.sealed, found.schema, noise.noise_blob, replies.replies_blob)
    return Opened(found, (), tx.cohorts.summaries(request.terms.source_ids))


def _release(desk: Desk, request: Request, found: Opened) -> TargetView:
    told = desk.worker.run("target.release", _job(request, found.sealed))
    noised = tuple(int(value) for value in told["counts"])
    return freeze(
        found.sealed.run.id,
        request.terms,
        request.terms_digest,
        found.sealed.schema,
        tuple(found.sealed.sealed.level),
        noised,
        found.summaries,
    )


def _freeze(tx: Tx, desk: Desk, request: Request, found: Opened, target: TargetView) -> bool:
    tx.requests.keep(request.id, "target", canonical_bytes(target.model_dump()).decode())
    tx.runs.release(found.sealed.run.id, {"noised": target.noised})
    record_release(tx, desk, request, found.sealed.run, {"counts": target.noised})
    desk.record(
        tx,
        "inputs.frozen",
        desk.org,
        objects={"request": request.id},
        hashes={"inputs": target.frozen_digest},
    )
    return True


STEP = Step(
    "match",
    (
        Move("to ask for the target's noise", _not_begun, no_work, _begin),
        Move("to sum the encrypted rows", _noise_came, _open, _ask_replies),
        Move("to release the target and to match", _replies_came, _release, _freeze),
    ),
)
