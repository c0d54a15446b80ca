"""A few parties in one process, each with a call that the server holds until there is a task.

A thread for each party does nothing but wait for its next tasks. The tasks are done by the caller's
thread, one after the other, as `run_tasks` does them: two of them never run at the same time.
"""

import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from clearinghouse.client.party import BUSY_S, IDLE_S, Emit, Party, Visit
from clearinghouse.errors import TryAgainError
from clearinghouse.messages.tasks import TaskList, TaskView

MOST_HELD = 16
"""So many calls of one process the server is asked to hold; more parties poll."""

_STOP_S = 0.25
"""So soon the end is seen while no task comes."""


@dataclass(slots=True)
class _Line:
    """A party's open call.

    Attributes:
        is_free: Whether what came last is dealt with.
        pause: Before the next call, where a task could not be done just now.
        is_over: No other call is wanted.
    """

    visit: Visit
    is_free: threading.Event = field(default_factory=threading.Event)
    pause: float = 0.0
    is_over: bool = False

    def takes(self) -> bool:
        """Hold the line for what came; False if nobody will deal with it."""
        self.is_free.clear()  # before the look: `end` does the two in the other order
        return not self.is_over

    def end(self) -> None:
        """Let its thread end after the call that is open."""
        self.is_over = True
        self.is_free.set()


@dataclass(frozen=True, slots=True)
class _Arrival:
    line: _Line
    views: Sequence[TaskView] = ()
    error: Exception | None = None


def run_held(parties: Sequence[Party], stop: threading.Event, *, wait_s: int, emit: Emit) -> None:
    """Wait and answer until `stop` is set; calls that are held then are left to end by themselves.

    Args:
        parties: At most `MOST_HELD`.
        stop: Ends the work.
        wait_s: Seconds for which the server holds a call.
        emit: Takes events, also from other threads.

    Raises:
        AuthenticationError: The server does not know a party's key.
        ProtocolError: Its list of tasks cannot be read.
        ForkError: The log showed two histories.
    """
    arrivals: queue.Queue[_Arrival] = queue.Queue()
    lines = [_Line(Visit(party)) for party in parties]
    for line in lines:
        arguments = (line, stop, wait_s, emit, arrivals)
        threading.Thread(target=_wait, args=arguments, name="held", daemon=True).start()
    try:
        while not stop.is_set():
            try:
                arrival = arrivals.get(timeout=_STOP_S)
            except queue.Empty:
                for line in lines:
                    line.visit.watch(emit)
                continue
            if arrival.error is not None:
                raise arrival.error
            _answer(arrival, stop, emit)
    finally:
        for line in lines:
            line.end()


def _answer(arrival: _Arrival, stop: threading.Event, emit: Emit) -> None:
    line = arrival.line
    line.visit.watch(emit)
    if line.visit.work(arrival.views, stop, emit):
        line.pause = 0.0
    else:
        line.pause = min(IDLE_S, max(BUSY_S, line.pause * 1.5))
    line.is_free.set()


def _wait(
    line: _Line,
    stop: threading.Event,
    wait_s: int,
    emit: Emit,
    arrivals: "queue.Queue[_Arrival]",
) -> None:
    """Hand over each list of open tasks, and wait until it is dealt with."""
    party: Any = line.visit.party
    while not (stop.is_set() or line.is_over):
        asked = time.monotonic()
        try:
            views = party.transport.get("/agent/tasks", TaskList, query=f"wait={wait_s}").tasks
        except TryAgainError as error:
            if not stop.is_set():
                emit({"event": "waiting", "org": party.name, "message": str(error)})
            stop.wait(IDLE_S)
            continue
        except Exception as error:  # noqa: BLE001  raised by the thread that does the work
            arrivals.put(_Arrival(line, error=error))
            return
        if views:
            if not line.takes():
                return
            arrivals.put(_Arrival(line, views))
            line.is_free.wait()
            stop.wait(line.pause)
        elif time.monotonic() - asked < BUSY_S:  # a server that holds no calls
            stop.wait(IDLE_S)
