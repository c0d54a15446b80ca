"""A party's task loop for people: stops between two tasks, and only one runs in a home."""

import fcntl
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from clearinghouse.client.keystore import Keystore
from clearinghouse.client.party import Party, do_task
from clearinghouse.errors import TryAgainError
from clearinghouse.messages.tasks import TaskList, TaskView

WAIT_S = 2
"""How long the server may hold a call back until there is a task."""

PAUSE_S = 0.5
AWAY_S = 3.0

Say = Callable[[dict[str, Any]], None]

DOES = {
    "valset.checks": "opened the tests of the sealed rows",
    "target.commit": "committed to the noise of the target",
    "target.noise": "drew the noise of the target",
    "target.checks": "opened the test of the target's noise",
    "target.replies": "opened the target with its noise",
    "ask.commit": "committed the ask",
    "ask.reveal": "revealed the ask",
    "deliver": "sealed and delivered the ordered records",
    "show": "showed tags of the next rows",
    "delete": "deleted the records of a withdrawn source",
    "receive": "opened and checked the deliveries",
    "model.submit": "submitted the model",
    "bid.reveal": "opened the sealed bid",
    "nonce.reveal": "opened the nonce of the model's noise",
    "score.digits": "answered a blind score",
    "score.early": "opened the tests of the digits",
    "score.characters": "answered the comparison of a blind score",
    "score.final": "opened the tests of the characters",
    "score.replies": "opened a blind score with its noise",
    "receipt.sign": "checked and signed a score receipt",
    "log.cosign": "checked and cosigned the log",
    "run.audit": "replayed a drawn run and sent the verdict",
}


@contextmanager
def stopping() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C or SIGTERM sets; a second one interrupts at once.

    A task that has begun is finished first: a release that broke off would cost its epsilon.
    """
    stop = threading.Event()

    def ask(signum: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt(signum)
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def alone(keystore: Keystore) -> Iterator[None]:
    """Hold the home's lock, so that no task is answered twice with different bytes.

    Raises:
        TryAgainError: Another process of this home is at work.
    """
    handle = os.open(keystore.path("work.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TryAgainError(
                f"another command is at work in {keystore.directory}. Wait for it, or stop it"
            ) from None
        yield
    finally:
        os.close(handle)


class Worker:
    """Answers the tasks of one party, each once."""

    def __init__(self, party: Party, say: Say, kinds: frozenset[str] | None = None) -> None:
        self.party, self.say, self.kinds = party, say, kinds
        self.done: dict[str, TaskView] = {}

    def once(self, stop: threading.Event, wait_s: int = 0) -> int:
        """Answer every open task of these kinds now; how many there were.

        Raises:
            ClearinghouseError: The server is away or does not know the party.
        """
        query = f"wait={wait_s}" if wait_s else ""
        views = self.party.transport.get("/agent/tasks", TaskList, query=query).tasks
        answered = 0
        for view in views:
            wanted = self.kinds is None or view.task.kind in self.kinds
            if stop.is_set() or not wanted or view.id in self.done:
                continue
            if do_task(self.party, view, self.say):
                self.done[view.id] = view
                answered += 1
        return answered

    def watch(self, stop: threading.Event, finished: Callable[[], bool] | None = None) -> None:
        """Answer tasks until `stop` is set or `finished` says so; a server that is away returns."""
        while not stop.is_set():
            began = time.monotonic()
            try:
                busy = self.once(stop, WAIT_S)
                if finished is not None and finished():
                    return
            except TryAgainError as error:
                if not stop.is_set():
                    org = self.party.name
                    self.say({"event": "waiting", "org": org, "message": str(error)})
                stop.wait(AWAY_S)
                continue
            if not busy and time.monotonic() - began < WAIT_S / 2:
                stop.wait(PAUSE_S)  # open tasks that are not for us end the server's waiting


def event_words(event: dict[str, Any]) -> str:
    """An event of `do_task` as a line for people."""
    kind = str(event.get("kind", ""))
    match event["event"]:
        case "task":
            return f"{event['request']}: {DOES.get(kind, kind)} ({event['seconds']:.1f} s)"
        case "refused":
            return f"{event['request']}: REFUSED {event['reason']} [{event['where']}]"
        case "late":
            return f"{event['request']}: too late for {kind}: {event['reason']}"
        case "waiting":
            return f"waiting: {event['message']}"
        case _:
            return str(event.get("message", event["event"]))


def teller(as_json: bool) -> Say:
    """A function that prints each event of a task loop on a line of its own."""

    def say(event: dict[str, Any]) -> None:
        words = event_words(event)
        if "spent" in event:
            words += f"; epsilon {event['spent']} of {event['limit']} spent"
        sys.stdout.write((json.dumps(event) if as_json else words) + "\n")
        sys.stdout.flush()

    return say
