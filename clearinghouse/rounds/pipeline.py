"""The steps in order, and how a request moves through them.

`advance` makes one move: read what it needs, compute without holding anything, write the result
together with its log entries if the request is still as it was read. Every move can be repeated
after a crash: what it draws at random was stored before, what it computes is named by its hash, and
what it writes is there exactly once or not at all.
"""

import time
from itertools import pairwise
from typing import Any

from clearinghouse.cause import because, parse_cause
from clearinghouse.errors import ClearinghouseError, TryAgainError
from clearinghouse.failpoints import reach
from clearinghouse.journal import journal
from clearinghouse.messages.intake import RequestView
from clearinghouse.rounds import audit, clear, deliver, match, rulings, score, settle, views
from clearinghouse.rounds.desk import Desk, JobOpenError
from clearinghouse.rounds.moves import HaltError, Move, Step, no_work
from clearinghouse.rounds.queue import at_move
from clearinghouse.rounds.releases import burn_all
from clearinghouse.store.recall import Recall
from clearinghouse.store.records import Request, RequestState
from clearinghouse.store.store import Tx
from clearinghouse.traces import span

STEPS: tuple[Step, ...] = (
    match.STEP,
    clear.STEP,
    deliver.STEP,
    score.STEP,
    settle.STEP,
    audit.STEP,
)
"""Intake is done when a request is opened; these follow."""

_BY_NAME = {step.name: step for step in STEPS}
_NEXT = {step.name: after.name for step, after in pairwise(STEPS)}

_log = journal("pipeline")


def due(desk: Desk) -> tuple[str, ...]:
    """Mark tasks and jobs whose deadline has passed; return the requests that may now move."""
    now = desk.clock.now()
    with desk.store.read() as tx:
        is_late = tx.tasks.any_late(now) or tx.jobs.any_late(now)
        waiting = tx.requests.due()
        has_lapsed = bool(tx.disputes.late(now))
    if has_lapsed:
        with desk.store.write() as tx:
            rulings.expire(tx, desk)
    if is_late:
        with desk.store.write() as tx:
            for request_id in {*tx.tasks.expire(now), *tx.jobs.expire(now)}:
                tx.requests.mark_due(request_id)
        with desk.store.read() as tx:
            waiting = tx.requests.due()
    return waiting


def advance(desk: Desk, request_id: str) -> bool:
    """Make one move of a request; False if there is none to make now.

    A move whose job is not done yet is passed over for those after it, but for the last of the
    step, which may end it. Where nothing can be made, that is noted, unless something happened to
    the request while it was looked at.
    """
    with desk.store.read() as tx:
        request = tx.requests.get(request_id)
        if request.state != "running":
            return False
        found = _find(Recall(tx), request)
    last = _BY_NAME[request.step].moves[-1]
    with because(parse_cause(request.cause)):
        is_open = False
        for move, ready in found:
            if move is last and is_open:
                continue
            try:
                _make(desk, request, move, ready)
            except JobOpenError as error:
                if error.is_new:
                    return True
                is_open = True
            else:
                return True
    with desk.store.write() as tx:
        tx.requests.rest(request)
    return False


def fail(desk: Desk, request_id: str, reason: str) -> None:
    """End a request with a reason that everybody in it sees."""
    with desk.store.read() as tx:
        request = tx.requests.get(request_id)
    if request.state == "running":
        _fail(desk, request, reason)


def show(tx: Tx, request: Request, now: float) -> RequestView:
    """Where a request stands and what it waits for."""
    words, tx = "to go on", Recall(tx)
    if request.state == "running":
        for move, _ in _find(tx, request):
            words = move.words
            break
    return views.request(tx, request, words, now)


def _find(tx: Tx, request: Request) -> list[tuple[Move[Any, Any], Any]]:
    """The moves of the request's step that are ready, in order, with what each found.

    Those after one that only writes are left out: it will be made. So is the step's last move while
    a job of the request is open: what that brings belongs to the step.
    """
    found: list[tuple[Move[Any, Any], Any]] = []
    moves = _BY_NAME[request.step].moves
    has_jobs = bool(tx.jobs.busy(request.id))
    for move in moves:
        if has_jobs and move is moves[-1]:
            break
        try:
            ready = move.ready(tx, request)
        except HaltError as error:
            found.append((_HALT, str(error)))
            break
        if ready is not None:
            found.append((move, ready))
            if move.work is no_work:
                break
    return found


def _halt(_tx: Tx, _desk: Desk, _request: Request, reason: str, _result: None) -> bool:
    raise HaltError(reason)


_HALT: Move[str, None] = Move("to end the request", lambda _tx, _request: None, no_work, _halt)
"""Stands for a move that can never be ready."""


def _make(desk: Desk, request: Request, move: Move[Any, Any], found: Any) -> None:
    started = time.monotonic()
    try:
        with span("move", request=request.id, step=request.step, move=move.words):
            result = move.work(at_move(desk, request, move.words), request, found)
        reach("move.worked")
    except TryAgainError:
        raise
    except (ClearinghouseError, ValueError) as error:  # ValueError: the numerical packages'
        _log.warning("failed", request=request.id, step=request.step, move=move.words)
        if move.failed is None:
            _fail(desk, request, str(error))
            return
        with desk.store.write() as tx:
            tx.requests.claim(request)
            move.failed(tx, desk, request, found, str(error))
        desk.bell.ring()
        return
    try:
        with desk.store.write() as tx:
            tx.requests.claim(request)
            if move.commit(tx, desk, request, found, result):
                _finish(tx, desk, request)
            reach("move.writing")
    except HaltError as error:
        _fail(desk, request, str(error))
        return
    reach("move.moved")
    seconds = round(time.monotonic() - started, 4)
    _log.info("moved", request=request.id, step=request.step, move=move.words, seconds=seconds)
    desk.bell.ring()


def _finish(tx: Tx, desk: Desk, request: Request) -> None:
    after = _NEXT.get(request.step)
    if after is not None:
        tx.requests.enter(request.id, after, desk.clock.now())
    else:
        tx.jobs.forget(request.id, desk.clock.now())
        tx.requests.close(request.id, "done", "", desk.clock.now())


def _fail(desk: Desk, request: Request, reason: str) -> None:
    """End a request early: what was delivered is paid for, the rest of the escrow goes back."""
    with desk.store.write() as tx:
        tx.requests.claim(request)
        is_over = request.closed is not None  # paid and logged; only cosignatures were missing
        if not is_over:
            burn_all(tx, desk, request, reason)
            settle.wind_up(tx, desk, request)
        tx.tasks.void(request.id)
        tx.jobs.forget(request.id, desk.clock.now())
        if not is_over:
            audit.close(tx, desk, request, "failed")
        state: RequestState = "done" if is_over else "failed"
        tx.requests.close(request.id, state, reason, desk.clock.now())
    _log.warning("request failed", request=request.id, step=request.step)
    desk.bell.ring()
