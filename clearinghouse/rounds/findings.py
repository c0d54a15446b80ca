"""Evidence by replay: the disputed computation again, from the bytes that were stored then.

A score or target is replayed message by message (`secure_eval.replay`): the verdict names the first
message that does not follow from seed and inputs, and who answers for it. A delivery's proofs are
checked against the source's commitment again, and its blob against the hashes in the log. Neither
opens anything new: no epsilon is spent.
"""

from collections.abc import Mapping
from typing import Any

from clearinghouse.canonical import canonical_bytes
from clearinghouse.errors import ClearinghouseError, TryAgainError
from clearinghouse.messages.deliveries import DeliverAnswer
from clearinghouse.messages.tasks import NonceRevealAnswer, ScoreDigitsTask, TargetCommitTask
from clearinghouse.rounds.desk import Desk, JobOpenError
from clearinghouse.rounds.queue import at_dispute
from clearinghouse.rounds.submissions import sealed_set
from clearinghouse.rounds.turns import turn_of
from clearinghouse.rounds.twins import SAME_AS
from clearinghouse.store.records import Dispute, Order, Request, Run
from clearinghouse.store.store import Tx
from secure_eval.nonces import NO_DEVELOPER

NAMES = {
    "score.score": "score",
    "score.digits.digits": "digits",
    "score.early_checks": "early_checks",
    "score.early.replies": "early_replies",
    "score.shares": "shares",
    "score.characters.characters": "characters",
    "score.final_checks": "final_checks",
    "score.final.replies": "final_replies",
    "score.openings": "openings",
    "score.replies.replies": "replies",
    "target.noise.noise": "noise",
    "target.noise_check": "checks",
    "target.checks.replies": "check_replies",
    "target.openings": "openings",
    "target.replies.replies": "replies",
}
"""Kinds of stored messages by their names in a transcript."""


def examine(desk: Desk) -> bool:
    """Replay the evidence of the oldest dispute that has no finding yet.

    Returns:
        Whether anything was done: False if there is none, or its job is not done yet.
    """
    with desk.store.read() as tx:
        dispute = tx.disputes.unexamined()
        if dispute is None:
            return False
        job, request = _job(tx, dispute), tx.requests.get(dispute.request_id)
    worker = at_dispute(desk, request, dispute.id).worker
    try:
        found = {"verdict": "nothing to replay"} if job is None else worker.run(*job)
    except TryAgainError:
        raise
    except JobOpenError as error:
        return error.is_new
    except (ClearinghouseError, ValueError) as error:
        found = {"verdict": "not possible", "reason": str(error)}
    with desk.store.write() as tx:
        tx.disputes.examined(dispute.id, canonical_bytes(found).decode())
        tx.jobs.forget_about(dispute.id)
    return True


def _job(tx: Tx, dispute: Dispute) -> tuple[str, dict[str, Any]] | None:
    request = tx.requests.get(dispute.request_id)
    for kind in ("score", "target"):
        for run in tx.runs.of(request.id, kind):
            if run.id == dispute.subject:
                return _replay(tx, request, _answering(tx, request, run))
    for order in tx.orders.of(request.id):
        if order.id == dispute.subject:
            return _proofs(tx, request, order)
    return None


def _answering(tx: Tx, request: Request, run: Run) -> Run:
    """The run whose messages answer for this one: itself, or the original of a repeated model."""
    for other in tx.runs.of(request.id, run.kind):
        if other.id == run.model.get(SAME_AS):
            return other
    return run


def _replay(tx: Tx, request: Request, run: Run) -> tuple[str, dict[str, Any]] | None:
    sealed = sealed_set(tx, request)
    messages = {
        NAMES[item.kind]: item.digest
        for item in tx.requests.messages(request.id, run.id)
        if item.kind in NAMES
    }
    if not messages:
        return None
    for task in tx.tasks.of(request.id, "score.digits", "target.commit", subject=run.id):
        if isinstance(task.task, ScoreDigitsTask | TargetCommitTask):
            messages["seed"] = task.task.seed_commitment  # names the protocol's version too
    released: Mapping[str, object] = run.result if run.state == "released" else {}
    common = {
        "run": run.id,
        "seed": run.seed,
        "keys": sealed.keys_blob,
        "upload": list(sealed.upload_blobs),
        "layout": sealed.layout,
        "messages": messages,
        "counts": released.get("counts"),
    }
    if run.kind == "target":
        return "target.replay", common
    return "score.replay", {
        **common,
        "nonces": [run.nonce, _developer_nonce(tx, request, run)],
        "coins": turn_of(tx, request, run, {}).job["coins"],
        "model": run.model["digest"],
        "columns": run.model["columns"],
        "groups": released.get("groups"),
    }


def _developer_nonce(tx: Tx, request: Request, run: Run) -> str:
    """The developer's nonce; zeros, which nothing depends on, before it was opened."""
    for task in tx.tasks.of(request.id, "nonce.reveal", subject=run.id):
        if isinstance(task.answer, NonceRevealAnswer):
            return task.answer.nonce
    return NO_DEVELOPER.hex()


def _proofs(tx: Tx, request: Request, order: Order) -> tuple[str, dict[str, Any]] | None:
    source = tx.cohorts.source(order.source_id)
    for task in tx.tasks.of(request.id, "deliver", subject=order.id):
        if isinstance(task.answer, DeliverAnswer):
            return "delivery.replay", {
                "proofs": task.answer.proofs_blob,
                "sealed": task.answer.sealed_blob,
                "root": source.rows_root,
                "leaves": source.leaves,
                "most": order.units,
                "claimed": task.answer.real,
                "confirmed": order.real or 0,
            }
    return None
