"""Step 2, match: test the encrypted rows, open the target, freeze all that shapes clearing.

A validation set is tested once, in the first request that needs it, before any epsilon is spent on
it. What fails is never computed on.
"""

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

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
    ValsetChecksAnswer,
    ValsetChecksTask,
)
from clearinghouse.rounds import grants
from clearinghouse.rounds.desk import Desk
from clearinghouse.rounds.frozen import freeze
from clearinghouse.rounds.levels import read_schema
from clearinghouse.rounds.moves import HaltError, Move, Step, essential_answer, no_work
from clearinghouse.rounds.releases import record_release
from clearinghouse.schema import Schema
from clearinghouse.store.records import Request, Run, Summary, Valset
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


# ---------------------------------------------------------------- tests of the sealed rows


@dataclass(frozen=True, slots=True)
class Untested:
    """A validation set without a verdict, and what came for its tests."""

    valset: Valset
    sealed: SealValset
    schema: Schema
    replies_blob: str = ""


def _untested(tx: Tx, request: Request, replies_blob: str = "") -> Untested | None:
    valset = tx.cohorts.valset(request.valset_id)
    if valset.verdict != "untested":
        return None
    sealed = SealValset.model_validate(json.loads(valset.body))
    schema = read_schema(tx.cohorts.schema(valset.schema_id))
    return Untested(valset, sealed, schema, replies_blob)


def _not_sent(tx: Tx, request: Request) -> Untested | None:
    if tx.tasks.of(request.id, "valset.checks"):
        return None
    return _untested(tx, request)


def _tests_came(tx: Tx, request: Request) -> Untested | None:
    if not tx.tasks.of(request.id, "valset.checks") or _untested(tx, request) is None:
        return None
    answer = essential_answer(tx, request, "valset.checks", request.valset_id)
    if not isinstance(answer, ValsetChecksAnswer):
        return None
    return _untested(tx, request, answer.replies_blob)


def _tests(name: str) -> Callable[[Desk, Request, Untested], dict[str, Any]]:
    """The work of a move: one job on a sealed set."""

    def work(desk: Desk, _request: Request, found: Untested) -> dict[str, Any]:
        job = {
            "valset": found.valset.id,
            "seed": found.valset.seed,
            "schema": found.schema.to_dict(),
            "level": found.sealed.level,
            "keys": found.sealed.keys_blob,
            "upload": list(found.sealed.upload_blobs),
            "layout": found.sealed.layout,
            "replies": found.replies_blob,
        }
        return desk.worker.run(name, job)

    return work


def _ask_tests(
    tx: Tx, desk: Desk, request: Request, found: Untested, sent: Mapping[str, Any]
) -> bool:
    blob, size = str(sent["blob"]), int(sent["size"])
    tx.blobs.add(blob, size, request.org_id)
    tx.requests.moved(request.id, "valset.checks", blob, size)
    task = ValsetChecksTask(valset_id=found.valset.id, checks_blob=blob)
    deadline = int(desk.clock.now()) + request.terms.deadlines.agent_s
    tx.tasks.create(request.id, request.org_id, task, subject=found.valset.id, deadline=deadline)
    return False


def _judge(
    tx: Tx, _desk: Desk, _request: Request, found: Untested, told: Mapping[str, Any]
) -> bool:
    tx.cohorts.judge_valset(found.valset.id, str(told.get("failed", "")))
    return False


# ---------------------------------------------------------------- opening


def _sealed(tx: Tx, request: Request) -> Sealed | None:
    runs = tx.runs.of(request.id, "target")
    if not runs:
        return None
    valset = tx.cohorts.valset(request.valset_id)
    sealed = SealValset.model_validate(json.loads(valset.body))
    return Sealed(runs[0], sealed, read_schema(tx.cohorts.schema(valset.schema_id)))


def _not_begun(tx: Tx, request: Request) -> bool | None:
    """True once the rows passed their tests.

    Raises:
        HaltError: They failed, or the hospital is suspended.
    """
    if tx.runs.of(request.id, "target"):
        return None
    valset = tx.cohorts.valset(request.valset_id)
    if valset.verdict == "failed":
        raise HaltError(f"validation set {valset.id} failed its tests: {valset.reason}")
    hospital = tx.parties.get(request.org_id)
    if hospital.suspended:
        raise HaltError(f"{hospital.words} is suspended: {hospital.suspended}")
    return True if valset.verdict == "passed" else None


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
    return Opened(found, (), grants.summaries(tx, request))


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
        Move(
            "to prepare the tests of the encrypted rows",
            _not_sent,
            _tests("valset.checks"),
            _ask_tests,
        ),
        Move("to judge the encrypted rows", _tests_came, _tests("valset.verdict"), _judge),
        Move("to ask for the target's noise", _not_begun, no_work, _begin),
        Move("to sum the encrypted rows", _noise_came, _open, _ask_replies),
        Move("to release the target and to match", _replies_came, _release, _freeze),
    ),
)
