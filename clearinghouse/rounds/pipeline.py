"""The steps in order, and how a request moves through them.

`advance` makes one move: read what it needs, compute without holding anything, write the result
together with its log entries if the request is still as it was read. Every move can be repeated
after a crash: what it draws at random was stored before, what it computes is named by its hash, and
what it writes is there exactly once or not at all.
"""

import time
from itertools import pairwise
from typing import Any

from clearinghouse.errors import ClearinghouseError, TryAgainError
from clearinghouse.journal import journal
from clearinghouse.messages.intake import RequestView
from clearinghouse.rounds import audit, clear, deliver, disputes, match, score, settle, views
from clearinghouse.rounds.desk import Desk
from clearinghouse.rounds.moves import HaltError, Move, Step
from clearinghouse.rounds.releases import burn_all
from clearinghouse.store.records import Request
from clearinghouse.store.store import Tx

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
    """Mark tasks whose deadline has passed, and return the requests that may be able to move."""
    with desk.store.read() as tx:
        is_late = tx.tasks.any_late(desk.clock.now())
        waiting = tx.requests.due()
        has_lapsed = bool(tx.disputes.late(desk.clock.now()))
    if has_lapsed:
        with desk.store.write() as tx:
            disputes.expire(tx, desk)
    if is_late:
        with desk.store.write() as tx:
            for request_id in tx.tasks.expire(desk.clock.now()):
                tx.requests.mark_due(request_id)
        with desk.store.read() as tx:
            waiting = tx.requests.due()
    return waiting


def advance(desk: Desk, request_id: str) -> bool:
    """Make one move of a request; False if there is none to make now."""
    with desk.store.read() as tx:
        request = tx.requests.get(request_id)
        if request.state != "running":
            return False
        try:
            found = _find(tx, request)
        except HaltError as error:
            reason = str(error)
            found = None
        else:
            reason = ""
    if reason:
        _fail(desk, request, reason)
        return True
    if found is None:
        return False
    _make(desk, request, *found)
    return True


def fail(desk: Desk, request_id: str, reason: str) -> None:
    """End a request with a reason that everybody in it sees."""
    with desk.store.read() as tx:
        request = tx.requests.get(request_id)
    if request.state == "running":
        _fail(desk, request, reason)


def rest(desk: Desk, request_id: str) -> None:
    """Note that nothing can be done for a request now, unless something came in between."""
    with desk.store.write() as tx:
        request = tx.requests.get(request_id)
        try:
            is_idle = request.state != "running" or _find(tx, request) is None
        except HaltError:
            is_idle = False
        if is_idle:
            tx.requests.mark_due(request_id, due=False)


def show(tx: Tx, request: Request) -> RequestView:
    """Where a request stands and what it waits for."""
    words = "to go on"
    if request.state == "running":
        try:
            found = _find(tx, request)
        except HaltError:
            found = None
        words = words if found is None else found[0].words
    return views.request(tx, request, words)


def _find(tx: Tx, request: Request) -> tuple[Move[Any, Any], Any] | None:
    """The first move of the request's step that is ready, with what it found."""
    for move in _BY_NAME[request.step].moves:
        ready = move.ready(tx, request)
        if ready is not None:
            return move, ready
    return None


def _make(desk: Desk, request: Request, move: Move[Any, Any], found: Any) -> None:
    started = time.monotonic()
    try:
        result = move.work(desk, request, found)
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
    except HaltError as error:
        _fail(desk, request, str(error))
        return
    seconds = round(time.monotonic() - started, 4)
    _log.info("moved", request=request.id, step=request.step, move=move.words, seconds=seconds)
    desk.bell.ring()


def _finish(tx: Tx, desk: Desk, request: Request) -> None:
    after = _NEXT.get(request.step)
    if after is not None:
        tx.requests.enter(request.id, after, desk.clock.now())
    else:
        tx.requests.close(request.id, "done", "", desk.clock.now())


def _fail(desk: Desk, request: Request, reason: str) -> None:
    """End a request early: what was delivered is paid for, the rest of the escrow goes back."""
    with desk.store.write() as tx:
        tx.requests.claim(request)
        burn_all(tx, desk, request, reason)
        settle.wind_up(tx, desk, request)
        tx.tasks.void(request.id)
        audit.close(tx, desk, request, "failed")
        tx.requests.close(request.id, "failed", reason, desk.clock.now())
    _log.warning("request failed", request=request.id, step=request.step)
    desk.bell.ring()
