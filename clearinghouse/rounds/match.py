"""Step 2, match: test the encrypted rows, open the target, freeze all that shapes clearing.

A validation set is tested once, in the first request that needs it, before any epsilon is spent on
it. What fails is never computed on.
"""

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from clearinghouse import cells
from clearinghouse.canonical import canonical_bytes
from clearinghouse.ids import new_id
from clearinghouse.messages.intake import SealValset
from clearinghouse.messages.results import TargetView
from clearinghouse.messages.tasks import (
    TargetChecksAnswer,
    TargetChecksTask,
    TargetCommitTask,
    TargetNoiseAnswer,
    TargetNoiseTask,
    TargetRepliesAnswer,
    TargetRepliesTask,
    Task,
    ValsetChecksAnswer,
    ValsetChecksTask,
)
from clearinghouse.rounds import grants
from clearinghouse.rounds.begun import (
    committed_nonce,
    committed_seed,
    record_begun,
    record_checks,
)
from clearinghouse.rounds.desk import Desk
from clearinghouse.rounds.frozen import freeze
from clearinghouse.rounds.levels import read_schema
from clearinghouse.rounds.moves import HaltError, Move, Step, essential_answer, no_work
from clearinghouse.rounds.releases import catch, record_release
from clearinghouse.schema import Schema
from clearinghouse.store.records import Request, Run, Summary, Valset
from clearinghouse.store.store import Tx


@dataclass(frozen=True, slots=True)
class Sealed:
    """The encrypted rows a run works on, the run, and what came for it so far."""

    run: Run
    sealed: SealValset
    schema: Schema
    noise_blob: str = ""
    checks_blob: str = ""
    """The reply to the noise test."""
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
    record_checks(tx, desk, request, found.valset)
    task = ValsetChecksTask(
        valset_id=found.valset.id,
        checks_blob=blob,
        seed_commitment=committed_seed(found.valset.seed),
    )
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
        HaltError: They failed, the hospital is suspended, or the target was burnt.
    """
    for run in tx.runs.of(request.id, "target"):
        if run.state == "failed":
            raise HaltError(run.reason)
        return None
    valset = tx.cohorts.valset(request.valset_id)
    if valset.verdict == "failed":
        raise HaltError(f"validation set {valset.id} failed its tests: {valset.reason}")
    hospital = tx.parties.get(request.org_id)
    if hospital.suspended:
        raise HaltError(f"{hospital.words} is suspended: {hospital.suspended}")
    return True if valset.verdict == "passed" else None


def _begin(tx: Tx, desk: Desk, request: Request, _found: bool, _result: None) -> bool:
    """Store and log the run with its seed, before anything comes of it; ask for a commitment."""
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
    record_begun(tx, desk, request, run)
    found = _sealed(tx, request)
    if found is None:
        raise ValueError("a run that was stored must be found")
    task = TargetCommitTask(
        run_id=run.id,
        valset_id=request.valset_id,
        cells=cells.codebook(found.schema, found.sealed.level).n_cells,
        labels=cells.n_labels(found.schema),
        epsilon_micro=request.terms.epsilon_target_micro,
        seed_commitment=committed_seed(run.seed),
        nonce_commitment=committed_nonce(run.nonce),
    )
    return _ask(tx, desk, request, run, task)


def _ask(tx: Tx, desk: Desk, request: Request, run: Run, task: Task) -> bool:
    deadline = int(desk.clock.now()) + request.terms.deadlines.agent_s
    tx.tasks.create(request.id, request.org_id, task, subject=run.id, deadline=deadline)
    return False


def _came(tx: Tx, request: Request, done: str, following: str) -> Sealed | None:
    """The target with all that came for it, if `done` is answered and `following` not yet asked."""
    found = _sealed(tx, request)
    if found is None or tx.tasks.of(request.id, following):
        return None
    if essential_answer(tx, request, done, found.run.id) is None:
        return None
    return _with_answers(tx, request, found)


def _with_answers(tx: Tx, request: Request, found: Sealed) -> Sealed:
    noise = essential_answer(tx, request, "target.noise", found.run.id)
    checks = essential_answer(tx, request, "target.checks", found.run.id)
    replies = essential_answer(tx, request, "target.replies", found.run.id)
    return replace(
        found,
        noise_blob=noise.noise_blob if isinstance(noise, TargetNoiseAnswer) else "",
        checks_blob=checks.replies_blob if isinstance(checks, TargetChecksAnswer) else "",
        replies_blob=replies.replies_blob if isinstance(replies, TargetRepliesAnswer) else "",
    )


def _committed(tx: Tx, request: Request) -> Sealed | None:
    return _came(tx, request, "target.commit", "target.noise")


def _noise_came(tx: Tx, request: Request) -> Sealed | None:
    return _came(tx, request, "target.noise", "target.checks")


def _noise_tested(tx: Tx, request: Request) -> Sealed | None:
    return _came(tx, request, "target.checks", "target.replies")


def _reveal(tx: Tx, desk: Desk, request: Request, found: Sealed, _result: None) -> bool:
    """Open the nonce to a hospital that has committed to its key."""
    task = TargetNoiseTask(run_id=found.run.id, nonce=found.run.nonce)
    return _ask(tx, desk, request, found.run, task)


def _job(found: Sealed) -> dict[str, object]:
    """What the worker needs to rebuild the opening from the start."""
    return {
        "run": found.run.id,
        "seed": found.run.seed,
        "keys": found.sealed.keys_blob,
        "upload": list(found.sealed.upload_blobs),
        "layout": found.sealed.layout,
        "noise": found.noise_blob,
        "checked": found.checks_blob,
        "replies": found.replies_blob,
    }


def _target_job(name: str) -> Callable[[Desk, Request, Sealed], dict[str, Any]]:
    """The work of a move: one job on all that came for the target."""
    return lambda desk, _request, found: desk.worker.run(name, _job(found))


def _moved(tx: Tx, request: Request, run: Run, kind: str, sent: Mapping[str, Any]) -> str:
    """Note a message for the hospital; return its blob."""
    blob, size = str(sent["blob"]), int(sent["size"])
    tx.blobs.add(blob, size, request.org_id)
    tx.requests.moved(request.id, kind, blob, size, run.id)
    return blob


def _ask_noise_test(
    tx: Tx, desk: Desk, request: Request, found: Sealed, sent: Mapping[str, Any]
) -> bool:
    blob = _moved(tx, request, found.run, "target.noise_check", sent)
    task = TargetChecksTask(run_id=found.run.id, checks_blob=blob)
    return _ask(tx, desk, request, found.run, task)


def _ask_replies(
    tx: Tx, desk: Desk, request: Request, found: Sealed, sent: Mapping[str, Any]
) -> bool:
    """Send the sums, unless the noise failed its test.

    The run is burnt then and the hospital suspended; the request ends with the next look at it.
    """
    if "failed" in sent:
        catch(tx, desk, request, found.run, str(sent["failed"]))
        return False
    blob = _moved(tx, request, found.run, "target.openings", sent)
    return _ask(
        tx, desk, request, found.run, TargetRepliesTask(run_id=found.run.id, openings_blob=blob)
    )


def _replies_came(tx: Tx, request: Request) -> Opened | None:
    found = _sealed(tx, request)
    if found is None:
        return None
    found = _with_answers(tx, request, found)
    if not found.replies_blob:
        return None
    return Opened(found, (), grants.summaries(tx, request))


def _release(desk: Desk, request: Request, found: Opened) -> TargetView:
    told = desk.worker.run("target.release", _job(found.sealed))
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
        Move("to begin the target", _not_begun, no_work, _begin),
        Move("to ask for the target's noise", _committed, no_work, _reveal),
        Move(
            "to test the target's noise",
            _noise_came,
            _target_job("target.checks"),
            _ask_noise_test,
        ),
        Move(
            "to sum the encrypted rows",
            _noise_tested,
            _target_job("target.openings"),
            _ask_replies,
        ),
        Move("to release the target and to match", _replies_came, _release, _freeze),
    ),
)
