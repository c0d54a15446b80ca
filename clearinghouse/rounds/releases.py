"""What was opened of encrypted rows, in the log: every release counts, also one that went wrong.

A hospital's ledger is charged before its first answer in a run, whatever follows. So a run that
fails after that is logged as a release too, with the hash of "failed" instead of counts.
"""

import hashlib
from collections.abc import Mapping

from clearinghouse.canonical import digest
from clearinghouse.messages.tasks import TargetCommitAnswer
from clearinghouse.noise_laws import run_cost
from clearinghouse.rounds import disputes
from clearinghouse.rounds.desk import Desk
from clearinghouse.store.records import Request, Run
from clearinghouse.store.store import Tx
from dp.cost import Cost

_FIRST = {"target": "target.noise", "score": "score.digits"}


def transcript_digest(tx: Tx, request: Request, run: Run) -> str:
    """SHA-256 over the hashes of every blob of a run, in the order they came."""
    whole = hashlib.sha256()
    for message in tx.requests.messages(request.id, run.id):
        whole.update(bytes.fromhex(message.digest))
    return whole.hexdigest()


def record_release(
    tx: Tx,
    desk: Desk,
    request: Request,
    run: Run,
    released: Mapping[str, object],
    fault: str = "",
) -> tuple[str, str]:
    """Log a release with its epsilon; return the digests of release and transcript.

    `fault` names the organisation that answers for a run that failed.
    """
    release = digest({"run": run.id, **released})
    transcript = transcript_digest(tx, request, run)
    objects = {
        "request": request.id,
        "owner": request.org_id,
        "run": run.id,
        "valset": request.valset_id,
    }
    if fault:
        objects["fault"] = fault
    hashes = {"release": release, "transcript": transcript}
    if run.kind == "score":
        objects["model"] = run.model_id
        hashes["model"] = str(run.model["digest"])
        terms = request.terms
        entry_type, cost = (
            "run.released",
            run_cost(terms.epsilon_score_micro, terms.rho_score_micro),
        )
    else:
        entry_type, cost = "target.released", Cost(request.terms.epsilon_target_micro, 0)
        for task in tx.tasks.of(request.id, "target.commit", subject=run.id):
            if isinstance(task.answer, TargetCommitAnswer):
                hashes["noise"] = task.answer.noise_commitment
    amounts = {"epsilon_micro": cost.micro_epsilon}
    if cost.micro_rho:
        amounts["rho_micro"] = cost.micro_rho
    desk.record(tx, entry_type, desk.org, objects=objects, hashes=hashes, amounts=amounts)
    return release, transcript


def burn(tx: Tx, desk: Desk, request: Request, run: Run, reason: str, fault: str = "") -> None:
    """Fail a run; it is never drawn again, and its epsilon is logged if it was spent.

    It was if the hospital answered the first round that pays for the run, or says that it had paid
    when it refused one.
    """
    tx.runs.fail(run.id, reason)
    tx.tasks.void(request.id, [run.id])
    tx.jobs.cancel(request.id, run.id, reason, desk.clock.now())
    begun = tx.tasks.of(request.id, _FIRST[run.kind], subject=run.id)
    later = tx.tasks.of(request.id, subject=run.id)
    paid = any(task.state == "answered" for task in begun)
    if paid or any(task.spent_micro for task in later if task.org_id == request.org_id):
        record_release(tx, desk, request, run, {"failed": True}, fault)


def catch(tx: Tx, desk: Desk, request: Request, run: Run, reason: str) -> None:
    """Burn a run in which the hospital failed a test, suspend it, and open its dispute.

    The hospital may answer, the run is replayed, and a ruling can reinstate it.
    """
    hospital = tx.parties.get(request.org_id)
    burn(tx, desk, request, run, f"{hospital.words} failed a test: {reason}", hospital.id)
    tx.parties.suspend(hospital.id, f"{run.id}: {reason}")
    disputes.open_dispute(
        tx,
        desk,
        request,
        run.id,
        "test",
        {"transcript": transcript_digest(tx, request, run)},
        respondent_id=hospital.id,
        remedy="forfeit",
        words=f"a test of the hospital's answers failed: {reason}",
    )


def burn_all(tx: Tx, desk: Desk, request: Request, reason: str) -> None:
    """Fail every run of a request that has not ended."""
    for kind in ("target", "score"):
        for run in tx.runs.of(request.id, kind):
            if run.state == "running":
                burn(tx, desk, request, run, reason)
