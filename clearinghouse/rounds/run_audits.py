"""Replay of a scoring run by its model's owner: the transcript, the verdict, the draw.

Everything here is read from what the run itself stored; nothing is computed or opened again. The
owner replays on its own machine, so this server cannot make a verdict.
"""

from collections.abc import Mapping
from typing import Any

from clearinghouse.canonical import canonical_bytes, digest
from clearinghouse.errors import (
    ConflictError,
    NotFoundError,
    RefusedError,
    VerificationError,
)
from clearinghouse.log.audit_claim import AuditClaim, read_audit
from clearinghouse.log.audit_draw import is_drawn
from clearinghouse.log.receipt import read_claim
from clearinghouse.messages.audits import (
    ANSWERS,
    AuditRun,
    AuditView,
    RunAuditAnswer,
    RunAuditTask,
    Seed,
    SeedList,
    SentMessage,
    TranscriptView,
)
from clearinghouse.messages.disputes import AnswerDispute
from clearinghouse.rounds import disputes, rulings
from clearinghouse.rounds.audit_views import audit, stored_as
from clearinghouse.rounds.desk import Desk
from clearinghouse.rounds.findings import NAMES
from clearinghouse.rounds.receipts import signer_keys
from clearinghouse.rounds.releases import transcript_digest
from clearinghouse.rounds.submissions import sealed_set
from clearinghouse.rounds.turns import turn_of
from clearinghouse.rounds.twins import SAME_AS
from clearinghouse.store.records import Org, Request, Run
from clearinghouse.store.store import Tx

__all__ = ["ask_if_drawn", "seeds", "take", "transcript"]


def transcript(tx: Tx, caller: Org, request_id: str, run_id: str) -> TranscriptView:
    """Everything a replay of a run needs; its blobs may be read by the caller from now on.

    Raises:
        NotFoundError: The caller has no such run in such a request.
        RefusedError: It has not ended, or nothing was opened in it.
    """
    request, run = _own(tx, request_id, run_id, caller)
    _check_ended(tx, request, run)
    sealed, turn = sealed_set(tx, request), turn_of(tx, request, run, {})
    sent = [
        SentMessage(name=NAMES[item.kind], digest=item.digest, size=item.size)
        for item in tx.requests.messages(request.id, run.id)
        if item.kind in NAMES
    ]
    answers = [item.digest for item in sent if item.name in ANSWERS]
    for blob in (sealed.keys_blob, *sealed.upload_blobs, *answers):
        tx.blobs.allow(blob, caller.id)
    released: Mapping[str, Any] = run.result if run.state == "released" else {}
    return TranscriptView(
        request_id=request.id,
        run_id=run.id,
        model_id=run.model_id,
        model_digest=str(run.model["digest"]),
        state=run.state,  # type: ignore[arg-type]
        seed=run.seed,
        nonce=run.nonce,
        valset_id=request.valset_id,
        sealed=sealed,
        tables=list(turn.tables),
        messages=sent,
        counts=released.get("counts"),
        groups=released.get("groups"),
    )


def seeds(tx: Tx, caller: Org, valset_id: str) -> SeedList:
    """The seeds of the tests and targets of an own validation set that have ended.

    Raises:
        NotFoundError: The caller has no such set.
    """
    valset = tx.access.own_valset(valset_id, caller.id)
    found = [Seed(of=run.id, seed=run.seed) for run in tx.runs.ended_targets(valset.id)]
    if valset.verdict != "untested":
        found.insert(0, Seed(of=valset.id, seed=valset.seed))
    return SeedList(seeds=found)


def take(
    tx: Tx, desk: Desk, caller: Org, request_id: str, run_id: str, message: AuditRun
) -> AuditView:
    """Keep and log a verdict; a refuted run is disputed. The identical verdict changes nothing.

    Raises:
        NotFoundError: The caller has no such run in such a request.
        RefusedError: It has not ended, or the verdict is about other bytes than were stored.
        VerificationError: The caller has not signed it.
        ConflictError: The run has another verdict.
    """
    request, run = _own(tx, request_id, run_id, caller)
    _check_ended(tx, request, run)
    claim = read_audit(message.envelope, tuple(signer_keys(tx, caller.id).values()))
    _check(tx, request, run, caller, claim)
    body = canonical_bytes(_document(claim, message.envelope)).decode()
    known = tx.requests.document(request.id, stored_as(run.id))
    if known is not None and known != body:
        raise ConflictError(f"run {run.id} has another verdict already")
    if known is None:
        tx.requests.keep(request.id, stored_as(run.id), body)
        _record(tx, desk, request, run, caller, claim, message.envelope)
        _close_task(tx, desk, request, run, caller, digest(message.envelope))
        if not claim.reproduced:
            _dispute(tx, desk, request, run, caller, claim, digest(message.envelope))
    return audit(tx, request, run, tx.runs.receipts(request.id).get(run.id))


def ask_if_drawn(
    tx: Tx, desk: Desk, request: Request, run: Run, envelope: Mapping[str, Any]
) -> None:
    """Ask the model's owner to replay a run whose fully signed statement is drawn.

    The request does not wait for it, and may end before.
    """
    claim = read_claim(envelope, signer_keys(tx, desk.org.id, request.org_id))
    if is_drawn(claim, envelope):
        task = RunAuditTask(run_id=run.id, model_digest=str(run.model["digest"]))
        owner = str(run.model["org_id"])
        deadline = int(desk.clock.now()) + request.terms.deadlines.model_s
        tx.tasks.create(request.id, owner, task, subject=run.id, deadline=deadline)


def _own(tx: Tx, request_id: str, run_id: str, caller: Org) -> tuple[Request, Run]:
    if tx.requests.is_party(request_id, caller.id):
        for run in tx.runs.of(request_id, "score"):
            if run.id == run_id and run.model["org_id"] == caller.id:
                return tx.requests.get(request_id), run
    raise NotFoundError(f"no run {run_id} of a model of this organisation")


def _check_ended(tx: Tx, request: Request, run: Run) -> None:
    if SAME_AS in run.model:
        raise RefusedError(f"run {run.id} only repeats the answer of {run.model[SAME_AS]}")
    if run.state == "running":
        raise RefusedError(f"run {run.id} has not ended yet: its seed stays secret until then")
    if not any(item.run_id == run.id for item in tx.releases.of(request.org_id)):
        raise RefusedError(f"run {run.id} failed before the hospital answered: nothing to replay")


def _check(tx: Tx, request: Request, run: Run, caller: Org, claim: AuditClaim) -> None:
    if (claim.request, claim.run, claim.model) != (request.id, run.id, run.model_id):
        raise RefusedError("the verdict is about another run")
    if claim.auditor != caller.id:
        raise VerificationError("the verdict names another auditor than who signed it")
    if claim.transcript_sha256 != transcript_digest(tx, request, run):
        raise RefusedError("the verdict is about other messages than this run's")


def _document(claim: AuditClaim, envelope: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "state": "reproduced" if claim.reproduced else "refuted",
        "auditor": claim.auditor,
        "message": claim.message,
        "fault": claim.fault,
        "reason": claim.reason,
        "digest": digest(dict(envelope)),
        "envelope": dict(envelope),
    }


def _record(
    tx: Tx,
    desk: Desk,
    request: Request,
    run: Run,
    caller: Org,
    claim: AuditClaim,
    envelope: Mapping[str, Any],
) -> None:
    objects = {
        "request": request.id,
        "run": run.id,
        "model": run.model_id,
        "owner": caller.id,
    }
    if claim.fault != "none":
        # the record is kept by this server, so bytes that are missing are its fault too
        objects["fault"] = request.org_id if claim.fault == "key holder" else desk.org.id
    desk.record(
        tx,
        "run.audited",
        caller,
        objects=objects,
        hashes={"verdict": digest(dict(envelope))},
        amounts={"reproduced": int(claim.reproduced)},
    )


def _close_task(tx: Tx, desk: Desk, request: Request, run: Run, caller: Org, verdict: str) -> None:
    now = desk.clock.now()
    for task in tx.tasks.of(request.id, "run.audit", subject=run.id):
        if task.state == "open" and task.deadline >= int(now):
            tx.tasks.answer(task.id, caller.id, RunAuditAnswer(verdict=verdict), now)


def _dispute(
    tx: Tx,
    desk: Desk,
    request: Request,
    run: Run,
    caller: Org,
    claim: AuditClaim,
    verdict: str,
) -> None:
    """Open the dispute of a refuted run, unless it is disputed already or long past.

    The verdict is one party's word: the operator answers at once with the replay of its own that
    every dispute of a run gets, so that nothing is decided by silence.
    """
    is_known = any(known.subject == run.id for known in tx.disputes.pending(request.id))
    if is_known or not disputes.is_in_time(tx, desk, request):
        return
    opened = disputes.open_dispute(
        tx,
        desk,
        request,
        run.id,
        "score",
        {"audit": verdict, "transcript": claim.transcript_sha256},
        opener=caller,
        respondent_id=request.org_id if claim.fault == "key holder" else desk.org.id,
        remedy="refund",
        words=f"an audit refuted the run: {claim.reason}",
    )
    if opened.respondent_id == desk.org.id:
        words = "the stored bytes are replayed here too: see the finding"
        rulings.answer(tx, desk, desk.org, opened, AnswerDispute(words=words))
