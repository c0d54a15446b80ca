"""Step 5, score: every model blindly on the encrypted rows, one DP release each, one receipt.

Runs of one request overlap: while the hospital answers one, the server computes on another. Each
run moves through the same messages; where it stands follows from the tasks that exist for it:
digits, tests of the digits, the developer's nonce, characters, tests of the characters, sums. What
failed a test gets no further message: its run is burnt, and the hospital suspended until a dispute
is settled. A developer that does not open its nonce ends its own run only.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from clearinghouse.errors import VerificationError
from clearinghouse.messages.tasks import (
    Answer,
    NonceRevealTask,
    ReceiptSignAnswer,
    ReceiptSignTask,
    ScoreCharactersTask,
    ScoreDigitsTask,
    ScoreEarlyTask,
    ScoreFinalTask,
    ScoreRepliesTask,
    Task,
)
from clearinghouse.rounds import bids, twins
from clearinghouse.rounds.begun import committed_nonce, committed_seed, opens
from clearinghouse.rounds.desk import Desk
from clearinghouse.rounds.moves import HaltError, Move, Step, all_closed, no_work, refusal
from clearinghouse.rounds.receipts import countersigned, envelope, issue, signer_keys
from clearinghouse.rounds.releases import burn, catch, record_release
from clearinghouse.rounds.run_audits import ask_if_drawn
from clearinghouse.rounds.submissions import (
    ask_models,
    inspect,
    not_asked,
    refuse_model,
    submitted,
    take_model,
)
from clearinghouse.rounds.turns import (
    Turn,
    next_turn,
    noise_tables,
    reading,
    running_runs,
    turn_of,
)
from clearinghouse.store.records import Request, Run
from clearinghouse.store.store import Tx

__all__ = ["STEP", "noise_tables"]

MOST_IN_FLIGHT = 2
"""Runs of a request that wait for the hospital at the same time."""


# ---------------------------------------------------------------- the messages of a run


def _ready_digits(tx: Tx, request: Request) -> Turn | None:
    running, busy = running_runs(tx, request), tx.jobs.busy(request.id)
    in_flight = sum("score.digits" in tasks or run.id in busy for run, tasks in running)
    waiting = [
        (run, tasks) for run, tasks in running if "score.digits" not in tasks and run.id not in busy
    ]
    if not waiting or in_flight >= MOST_IN_FLIGHT:
        return None
    return turn_of(tx, request, *waiting[0])


def _ready_early(tx: Tx, request: Request) -> Turn | None:
    return next_turn(tx, request, "score.digits", "score.early")


def _ready_verdict(tx: Tx, request: Request) -> Turn | None:
    return next_turn(tx, request, "score.early", "nonce.reveal")


def _ready_characters(tx: Tx, request: Request) -> Turn | None:
    return next_turn(tx, request, "nonce.reveal", "score.characters")


def _ready_final(tx: Tx, request: Request) -> Turn | None:
    return next_turn(tx, request, "score.characters", "score.final")


def _ready_replies(tx: Tx, request: Request) -> Turn | None:
    return next_turn(tx, request, "score.final", "score.replies")


def _ready_release(tx: Tx, request: Request) -> Turn | None:
    return next_turn(tx, request, "score.replies", "receipt.sign")


def _job(name: str) -> Callable[[Desk, Request, Turn], dict[str, Any]]:
    """The work of a move: one job on all that came for the run."""
    return lambda desk, _request, turn: desk.worker.run(name, turn.job)


def _send(
    tx: Tx,
    desk: Desk,
    request: Request,
    turn: Turn,
    kind: str,
    sent: Mapping[str, Any],
    make: Callable[[str], Task],
) -> bool:
    """Send the hospital the next message of a run, unless its last one failed a test."""
    if "failed" in sent:
        catch(tx, desk, request, turn.run, str(sent["failed"]))
        return False
    blob, size = str(sent["blob"]), int(sent["size"])
    tx.blobs.add(blob, size, request.org_id)
    tx.requests.moved(request.id, kind, blob, size, turn.run.id)
    deadline = int(desk.clock.now()) + request.terms.deadlines.agent_s
    tx.tasks.create(request.id, request.org_id, make(blob), subject=turn.run.id, deadline=deadline)
    return False


def _ask_digits(tx: Tx, desk: Desk, request: Request, turn: Turn, sent: dict[str, Any]) -> bool:
    def task(blob: str) -> Task:
        return ScoreDigitsTask(
            run_id=turn.run.id,
            model_id=turn.run.model_id,
            model_digest=str(turn.run.model["digest"]),
            tables=list(turn.tables),
            score_blob=blob,
            seed_commitment=committed_seed(turn.run.seed),
            nonce_commitments=[
                committed_nonce(turn.run.nonce),
                str(turn.run.model["nonce_commitment"]),
            ],
        )

    return _send(tx, desk, request, turn, "score.score", sent, task)


def _ask_early(tx: Tx, desk: Desk, request: Request, turn: Turn, sent: dict[str, Any]) -> bool:
    def task(blob: str) -> Task:
        return ScoreEarlyTask(run_id=turn.run.id, checks_blob=blob)

    return _send(tx, desk, request, turn, "score.early_checks", sent, task)


def _ask_nonce(tx: Tx, desk: Desk, request: Request, turn: Turn, told: dict[str, Any]) -> bool:
    """The digits passed: ask the developer to open its nonce."""
    if "failed" in told:
        catch(tx, desk, request, turn.run, str(told["failed"]))
        return False
    model = turn.run.model
    task = NonceRevealTask(
        run_id=turn.run.id,
        model_digest=str(model["digest"]),
        nonce_commitment=str(model["nonce_commitment"]),
    )
    deadline = int(desk.clock.now()) + request.terms.deadlines.agent_s
    tx.tasks.create(request.id, str(model["org_id"]), task, subject=turn.run.id, deadline=deadline)
    return False


def _compare(desk: Desk, _request: Request, turn: Turn) -> dict[str, Any]:
    """Shares, if the developer's nonce opens its commitment: the hospital would refuse another."""
    if not opens(turn.job["developer_nonce"], str(turn.run.model["nonce_commitment"])):
        return {"unopened": "the nonce does not open its commitment"}
    return desk.worker.run("score.shares", turn.job)


def _ask_characters(tx: Tx, desk: Desk, request: Request, turn: Turn, sent: dict[str, Any]) -> bool:
    if "unopened" in sent:
        _burn_silent(tx, desk, request, turn.run, str(sent["unopened"]))
        return False
    nonces = [turn.run.nonce, turn.job["developer_nonce"]]

    def task(blob: str) -> Task:
        return ScoreCharactersTask(run_id=turn.run.id, shares_blob=blob, nonces=nonces)

    return _send(tx, desk, request, turn, "score.shares", sent, task)


def _ask_final(tx: Tx, desk: Desk, request: Request, turn: Turn, sent: dict[str, Any]) -> bool:
    def task(blob: str) -> Task:
        return ScoreFinalTask(run_id=turn.run.id, checks_blob=blob)

    return _send(tx, desk, request, turn, "score.final_checks", sent, task)


def _ask_replies(tx: Tx, desk: Desk, request: Request, turn: Turn, sent: dict[str, Any]) -> bool:
    def task(blob: str) -> Task:
        return ScoreRepliesTask(run_id=turn.run.id, openings_blob=blob)

    return _send(tx, desk, request, turn, "score.openings", sent, task)


def _burn_turn(tx: Tx, desk: Desk, request: Request, turn: Turn, reason: str) -> None:
    burn(tx, desk, request, turn.run, reason)


# ---------------------------------------------------------------- release and receipt


def _release(desk: Desk, request: Request, turn: Turn) -> dict[str, Any]:
    opened = desk.worker.run("score.release", turn.job)
    if "failed" in opened:
        return opened
    purse = request.terms.purse
    card = desk.worker.run(
        "score.card",
        {
            "run": turn.run.id,
            "counts": opened["counts"],
            "epsilon_micro": turn.tables[0].epsilon_micro,
            "coins": turn.tables[0].coins,
            **reading(turn.run),
            "metric": purse.metric,
            "confidence_micro": purse.confidence_micro,
        },
    )
    return {**opened, "scorecard": card}


def _publish(tx: Tx, desk: Desk, request: Request, turn: Turn, opened: dict[str, Any]) -> bool:
    if "failed" in opened:
        catch(tx, desk, request, turn.run, str(opened["failed"]))
        return False
    released = {"counts": opened["counts"], "groups": opened["groups"]}
    digests = record_release(tx, desk, request, turn.run, released)
    coins = [table.coins for table in turn.tables]
    statement = envelope(tx, desk, request, turn.run, opened["scorecard"], digests, coins)
    tx.runs.release(
        turn.run.id,
        {
            **released,
            **reading(turn.run),
            "tables": [table.model_dump() for table in turn.tables],
            "nonces": [turn.run.nonce, turn.job["developer_nonce"]],
            "epsilon_micro": request.terms.epsilon_score_micro,
            "scorecard": opened["scorecard"],
            "transcript_digest": digests[1],
            "envelope": statement,
        },
    )
    task = ReceiptSignTask(run_id=turn.run.id, payload=statement["payload"])
    deadline = int(desk.clock.now()) + request.terms.deadlines.agent_s
    tx.tasks.create(request.id, request.org_id, task, subject=turn.run.id, deadline=deadline)
    return False


@dataclass(frozen=True, slots=True)
class Unsigned:
    """A released run whose receipt task is closed but not dealt with."""

    run: Run
    answer: Answer | None
    reason: str


def _signed(tx: Tx, request: Request) -> Unsigned | None:
    receipts = tx.runs.receipts(request.id)
    for run in tx.runs.of(request.id, "score"):
        if run.state != "released" or run.id in receipts or run.reason:
            continue
        for task in tx.tasks.of(request.id, "receipt.sign", subject=run.id):
            if task.state != "open":
                reason = refusal(tx, task) if task.answer is None else ""
                return Unsigned(run, task.answer, reason)
    return None


def _issue(tx: Tx, desk: Desk, request: Request, found: Unsigned, _result: None) -> bool:
    """Write the receipt; without a valid signature the score stands, and says why it has none."""
    if not isinstance(found.answer, ReceiptSignAnswer):
        tx.runs.note(found.run.id, found.reason)
        return False
    signers = signer_keys(tx, desk.org.id, request.org_id)
    signed: Any = found.run.result["envelope"]
    try:
        whole = countersigned(signed, found.answer, signers)
    except VerificationError as error:
        tx.runs.note(found.run.id, f"the hospital's signature does not hold: {error}")
        return False
    issue(tx, desk, request, found.run, whole)
    ask_if_drawn(tx, desk, request, found.run, whole)
    return False


# ---------------------------------------------------------------- silence and the end


@dataclass(frozen=True, slots=True)
class Refused:
    """A run that somebody will not go on with; `silent` if it is the developer."""

    run: Run
    reason: str
    silent: bool = False


def _refused(tx: Tx, request: Request) -> Refused | None:
    """A refusal ends the run; silence past the deadline ends the request, as nobody is there.

    A developer's silence ends its own run only.
    """
    for run, tasks in running_runs(tx, request):
        for task in tasks.values():
            if task.org_id != request.org_id and task.state in ("expired", "refused"):
                return Refused(run, refusal(tx, task), silent=True)
            if task.state == "expired":
                raise HaltError(refusal(tx, task))
            if task.state == "refused":
                return Refused(run, refusal(tx, task))
    return None


def _suspended(tx: Tx, request: Request) -> Refused | None:
    """A suspended hospital gets no further message, in none of its runs.

    What it was asked before is waited for: it may be paying its ledger for the answer just now.
    """
    hospital = tx.parties.get(request.org_id)
    if not hospital.suspended:
        return None
    busy = tx.jobs.busy(request.id)
    for run, tasks in running_runs(tx, request):
        if run.id not in busy and all_closed(tuple(tasks.values())):
            return Refused(run, f"{hospital.words} is suspended: {hospital.suspended}")
    return None


def _burn_refused(tx: Tx, desk: Desk, request: Request, found: Refused, _result: None) -> bool:
    if found.silent:
        _burn_silent(tx, desk, request, found.run, found.reason)
    else:
        burn(tx, desk, request, found.run, found.reason)
    return False


def _burn_silent(tx: Tx, desk: Desk, request: Request, run: Run, reason: str) -> None:
    """End a run whose developer did not open its nonce; the log names who is at fault.

    The hospital has paid for the run; nothing was opened of its rows, and nothing is given back.
    """
    org_id = str(run.model["org_id"])
    words = tx.parties.get(org_id).words
    told = f"{reason}; the fault is {words}'s, and the run's epsilon was spent for nothing"
    burn(tx, desk, request, run, told, org_id)


def _all_done(tx: Tx, request: Request) -> bool | None:
    asked = tx.tasks.of(request.id, "model.submit")
    if not asked or not all_closed(asked) or running_runs(tx, request):
        return None
    if any(run.state == "running" for run in tx.runs.of(request.id, "score")):
        return None
    if any(receipt.draft for receipt in tx.runs.receipts(request.id).values()):
        return None
    return True if all_closed(tx.tasks.of(request.id, "receipt.sign", "bid.reveal")) else None


def _end(tx: Tx, desk: Desk, request: Request, _found: bool, _result: None) -> bool:
    bids.record_openings(tx, desk, request)
    return True


STEP = Step(
    "score",
    (
        Move("to ask for models", not_asked, no_work, ask_models),
        Move("to end a refused run", _refused, no_work, _burn_refused),
        Move("to write a receipt", _signed, no_work, _issue),
        Move("to repeat a stored answer", twins.answered, no_work, twins.repeat),
        Move("to release a score", _ready_release, _release, _publish, _burn_turn),
        Move("to end a suspended hospital's run", _suspended, no_work, _burn_refused),
        Move(
            "to sum a blind score", _ready_replies, _job("score.openings"), _ask_replies, _burn_turn
        ),
        Move("to test characters", _ready_final, _job("score.final"), _ask_final, _burn_turn),
        Move(
            "to compare a blind score",
            _ready_characters,
            _compare,
            _ask_characters,
            _burn_turn,
        ),
        Move("to judge digits", _ready_verdict, _job("score.verdict"), _ask_nonce, _burn_turn),
        Move("to test digits", _ready_early, _job("score.early"), _ask_early, _burn_turn),
        Move("to read a model", submitted, inspect, take_model, refuse_model),
        Move(
            "to score a model blindly", _ready_digits, _job("score.begin"), _ask_digits, _burn_turn
        ),
        Move("to open the sealed bids", bids.to_open, no_work, bids.ask),
        Move("to end scoring", _all_done, no_work, _end),
    ),
)
