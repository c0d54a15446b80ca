"""Calls that are held until their caller has a task.

One thread waits for all of them: it sleeps until something changed, asks the database once whose
tasks are open, and wakes those. A call that is held costs nothing meanwhile.
"""

import asyncio
import threading
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from clearinghouse.errors import TryAgainError
from clearinghouse.journal import journal
from clearinghouse.rounds.desk import Desk

LOOK_AGAIN_S = 2.0
"""So often the database is asked anyway: another server process may have written a task."""

_log = journal("waits")


@dataclass(frozen=True, slots=True, eq=False)
class _Held:
    """A call's event, and the loop in which it waits."""

    loop: asyncio.AbstractEventLoop
    event: asyncio.Event

    def wake(self) -> None:
        with suppress(RuntimeError):  # its loop has ended, and the call with it
            self.loop.call_soon_threadsafe(self.event.set)


class Waits:
    """The held calls of one server process."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._lock = threading.Lock()
        self._held: defaultdict[str, set[_Held]] = defaultdict(set)
        self._is_watched = False

    async def until_open(self, org_id: str, seen: int, seconds: float) -> None:
        """Wait until an organisation has an open task, or the time is up.

        Args:
            org_id: Whose tasks.
            seen: The bell's count from before the caller saw that there is none.
            seconds: The most to wait.
        """
        held = _Held(asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._held[org_id].add(held)
            if not self._is_watched:
                self._is_watched = True
                threading.Thread(
                    target=self._watch, args=(seen,), name="waits", daemon=True
                ).start()
        try:
            if self._desk.bell.count == seen:  # else it may have come before this call was held
                with suppress(TimeoutError):
                    await asyncio.wait_for(held.event.wait(), seconds)
        finally:
            with self._lock:
                self._held[org_id].discard(held)
                if not self._held[org_id]:
                    del self._held[org_id]

    def _watch(self, seen: int) -> None:
        """Until nobody waits any more."""
        while True:
            before, seen = seen, self._desk.bell.wait(seen, LOOK_AGAIN_S)
            with self._lock:
                waiting = tuple(self._held)
                if not waiting and seen == before:
                    self._is_watched = False
                    return
            if waiting:
                self._wake(waiting)

    def _wake(self, waiting: tuple[str, ...]) -> None:
        try:
            with self._desk.store.read() as tx:
                ready = tx.tasks.with_open(waiting)
        except TryAgainError:
            return  # the calls end by themselves, or the next look finds it
        except Exception as error:  # noqa: BLE001  the calls must not wait for a thread that ended
            _log.error("mistake", kind=type(error).__name__, exc_info=True)
            return
        with self._lock:
            woken = [held for org_id in ready for held in self._held.get(org_id, ())]
        for held in woken:
            held.wake()


async def find_waits(request: Request) -> Waits:
    """The held calls of this process."""
    waits: Waits = request.app.state.waits
    return waits


WaitsOf = Annotated[Waits, Depends(find_waits)]
