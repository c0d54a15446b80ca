"""Step 5, score: every model blindly on the encrypted rows, one DP release each, one receipt.

Runs of one request overlap: while the hospital answers one, the server computes on another. Each
run moves through the same messages; where it stands follows from the tasks that exist for it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clearinghouse import cells
from clearinghouse.errors import VerificationError
from clearinghouse.messages.tasks import (
    Answer,
    NoiseTable,
    ReceiptSignAnswer,
    ReceiptSignTask,
    ScoreCharactersTask,
    ScoreDigitsTask,
    ScoreRepliesTask,
    Task,
)
from clearinghouse.rounds.desk import Desk
from clearinghouse.rounds.moves import HaltError, Move, Step, all_closed, no_work, refusal
from clearinghouse.rounds.receipts import countersigned, envelope, issue, signer_keys
from clearinghouse.rounds.releases import burn, record_release
from clearinghouse.rounds.submissions import (
    ask_models,
    inspect,
    not_asked,
    refuse_model,
    schema_of,
    sealed_set,
    submitted,
    take_model,
)
from clearinghouse.store.records import Request, Run, TaskRecord
from clearinghouse.store.store import Tx

HISTOGRAM_PERCENT = 60
"""The histogram's part of a run's epsilon; the subgroups share the rest equally."""

MOST_IN_FLIGHT = 2
"""Runs of a request that wait for the hospital at the same time."""

_ROUNDS = ("score.digits", "score.characters", "score.replies")


def noise_tables(
    epsilon_micro: int, labels: int, bins: int, groups: Sequence[tuple[str, int]]
) -> list[NoiseTable]:
    """The tables of a release; a patient is in one cell of each, so their epsilons add up.

    Args:
        epsilon_micro: Spent by the whole run; the tables' parts sum to it exactly.
        labels: Label classes.
        bins: Published bins of the model.
        groups: Name and number of levels of each subgroup attribute.
    """
    part = epsilon_micro * (100 - HISTOGRAM_PERCENT) // 100 // max(1, len(groups))
    rest = epsilon_micro - part * len(groups)
    return [
        NoiseTable(name="histogram", cells=labels * bins, epsilon_micro=rest),
        *(
            NoiseTable(name=f"group:{name}", cells=levels * labels, epsilon_micro=part)
            for name, levels in groups
        ),
    ]


# ---------------------------------------------------------------- the messages of a run


@dataclass(frozen=True, slots=True)
class Turn:
    """A run that can move, with all that came for it so far.

    Attributes:
        job: Arguments that rebuild the run in the worker.
        tables: What will be released, with epsilons.
    """

    run: Run
    job: dict[str, Any]
    tables: tuple[NoiseTable, ...]


def _tasks(tx: Tx, request: Request, run: Run) -> dict[str, TaskRecord]:
    return {task.task.kind: task for task in tx.tasks.of(request.id, subject=run.id)}


def _turn(tx: Tx, request: Request, run: Run, tasks: Mapping[str, TaskRecord]) -> Turn:
    sealed, schema = sealed_set(tx, request), schema_of(tx, request)
    groups = [(name, len(schema.stratum_names(name))) for name in schema.subgroups]
    model = run.model
    edges = model["edges"]
    tables = noise_tables(
        request.terms.epsilon_score_micro,
        cells.n_labels(schema),
        len(edges) - 1 if isinstance(edges, list) else 0,
        groups,
    )
    job: dict[str, Any] = {
        "run": run.id,
        "seed": run.seed,
        "nonce": run.nonce,
        "keys": sealed.keys_blob,
        "upload": list(sealed.upload_blobs),
        "layout": sealed.layout,
        "model": model["digest"],
        "columns": model["columns"],
    }
    for kind, field in zip(_ROUNDS, ("digits", "characters", "replies"), strict=True):
        answer = tasks[kind].answer if kind in tasks else None
        if answer is not None:
            job[field] = getattr(answer, f"{field}_blob")
    return Turn(run, job, tuple(tables))


def _running(tx: Tx, request: Request) -> list[tuple[Run, dict[str, TaskRecord]]]:
    return [
        (run, _tasks(tx, request, run))
        for run in tx.runs.of(request.id, "score")
        if run.state == "running"
    ]


def _next(tx: Tx, request: Request, done: str, following: str) -> Turn | None:
    """The first run whose task `done` is answered and that has no `following` task yet."""
    for run, tasks in _running(tx, request):
        if done in tasks and following not in tasks and tasks[done].answer is not None:
            return _turn(tx, request, run, tasks)
    return None


def _ready_digits(tx: Tx, request: Request) -> Turn | None:
    running = _running(tx, request)
    in_flight = sum("score.digits" in tasks for _, tasks in running)
    waiting = [(run, tasks) for run, tasks in running if "score.digits" not in tasks]
    if not waiting or in_flight >= MOST_IN_FLIGHT:
        return None
    return _turn(tx, request, *waiting[0])


def _ready_characters(tx: Tx, request: Request) -> Turn | None:
    return _next(tx, request, "score.digits", "score.characters")


def _ready_replies(tx: Tx, request: Request) -> Turn | None:
    return _next(tx, request, "score.characters", "score.replies")


def _ready_release(tx: Tx, request: Request) -> Turn | None:
    return _next(tx, request, "score.replies", "receipt.sign")


def _score(desk: Desk, _request: Request, turn: Turn) -> dict[str, Any]:
    return desk.worker.run("score.begin", turn.job)


def _shares(desk: Desk, _request: Request, turn: Turn) -> dict[str, Any]:
    return desk.worker.run("score.shares", turn.job)


def _openings(desk: Desk, _request: Request, turn: Turn) -> dict[str, Any]:
    return desk.worker.run("score.openings", turn.job)


def _send(
    tx: Tx, desk: Desk, request: Request, turn: Turn, kind: str, sent: Mapping[str, Any], task: Task
) -> bool:
    blob, size = str(sent["blob"]), int(sent["size"])
    tx.blobs.add(blob, size, request.org_id)
    tx.requests.moved(request.id, kind, blob, size, turn.run.id)
    deadline = int(desk.clock.now()) + request.terms.deadlines.agent_s
    tx.tasks.create(request.id, request.org_id, task, subject=turn.run.id, deadline=deadline)
    return False


def _ask_digits(tx: Tx, desk: Desk, request: Request, turn: Turn, sent: dict[str, Any]) -> bool:
    task = ScoreDigitsTask(
        run_id=turn.run.id,
        model_id=turn.run.model_id,
        model_digest=str(turn.run.model["digest"]),
        tables=list(turn.tables),
        score_blob=sent["blob"],
    )
    return _send(tx, desk, request, turn, "score.score", sent, task)


def _ask_characters(tx: Tx, desk: Desk, request: Request, turn: Turn, sent: dict[str, Any]) -> bool:
    nonces = [turn.run.nonce, str(turn.run.model["nonce"])]
    task = ScoreCharactersTask(run_id=turn.run.id, shares_blob=sent["blob"], nonces=nonces)
    return _send(tx, desk, request, turn, "score.shares", sent, task)


def _ask_replies(tx: Tx, desk: Desk, request: Request, turn: Turn, sent: dict[str, Any]) -> bool:
    task = ScoreRepliesTask(run_id=turn.run.id, openings_blob=sent["blob"])
    return _send(tx, desk, request, turn, "score.openings", sent, task)


def _burn_turn(tx: Tx, desk: Desk, request: Request, turn: Turn, reason: str) -> None:
    burn(tx, desk, request, turn.run, reason)


# ---------------------------------------------------------------- release and receipt


def _release(desk: Desk, request: Request, turn: Turn) -> dict[str, Any]:
    opened = desk.worker.run("score.release", turn.job)
    purse = request.terms.purse
    card = desk.worker.run(
        "score.card",
        {
            "counts": opened["counts"],
            "epsilon_micro": turn.tables[0].epsilon_micro,
            "edges": turn.run.model["edges"],
            "threshold_edge": turn.run.model["threshold_edge"],
            "metric": purse.metric,
            "confidence_micro": purse.confidence_micro,
        },
    )
    return {**opened, "scorecard": card}


def _publish(tx: Tx, desk: Desk, request: Request, turn: Turn, opened: dict[str, Any]) -> bool:
    released = {"counts": opened["counts"], "groups": opened["groups"]}
    digests = record_release(tx, desk, request, turn.run, released)
    statement = envelope(tx, desk, request, turn.run, opened["scorecard"], digests)
    tx.runs.release(
        turn.run.id,
        {
            **released,
            "edges": turn.run.model["edges"],
            "threshold_edge": turn.run.model["threshold_edge"],
            "tables": [table.model_dump() for table in turn.tables],
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
    signers = signer_keys(desk.org, tx.parties.get(request.org_id))
    signed: Any = found.run.result["envelope"]
    try:
        whole = countersigned(signed, found.answer, signers)
    except VerificationError as error:
        tx.runs.note(found.run.id, f"the hospital's signature does not hold: {error}")
        return False
    issue(tx, desk, request, found.run, whole)
    return False


# ---------------------------------------------------------------- silence and the end


@dataclass(frozen=True, slots=True)
class Refused:
    """A run that the hospital will not go on with."""

    run: Run
    reason: str


def _refused(tx: Tx, request: Request) -> Refused | None:
    """A refusal ends the run; silence past the deadline ends the request, as nobody is there."""
    for run, tasks in _running(tx, request):
        for task in tasks.values():
            if task.state == "expired":
                raise HaltError(refusal(tx, task))
            if task.state == "refused":
                return Refused(run, refusal(tx, task))
    return None


def _burn_refused(tx: Tx, desk: Desk, request: Request, found: Refused, _result: None) -> bool:
    burn(tx, desk, request, found.run, found.reason)
    return False


def _all_done(tx: Tx, request: Request) -> bool | None:
    asked = tx.tasks.of(request.id, "model.submit")
    if not asked or not all_closed(asked) or _running(tx, request):
        return None
    return True if all_closed(tx.tasks.of(request.id, "receipt.sign")) else None


def _end(_tx: Tx, _desk: Desk, _request: Request, _found: bool, _result: None) -> bool:
    return True


STEP = Step(
    "score",
    (
        Move("to ask for models", not_asked, no_work, ask_models),
        Move("to end a refused run", _refused, no_work, _burn_refused),
        Move("to write a receipt", _signed, no_work, _issue),
        Move("to release a score", _ready_release, _release, _publish, _burn_turn),
        Move("to sum a blind score", _ready_replies, _openings, _ask_replies, _burn_turn),
        Move("to compare a blind score", _ready_characters, _shares, _ask_characters, _burn_turn),
        Move("to read a model", submitted, inspect, take_model, refuse_model),
        Move("to score a model blindly", _ready_digits, _score, _ask_digits, _burn_turn),
        Move("to end scoring", _all_done, no_work, _end),
    ),
)
