"""The rehearsal's processes: started, listened to, and never left behind.

Each child prints JSON lines on stdout and writes what it has to complain about to a file. A child
that ends early ends the rehearsal with its name and its last words; whatever happens, every child
is stopped before control returns (children also ask the kernel to die with this process).
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clearinghouse.errors import ClearinghouseError

_LAST_WORDS = 600
_SETTING = "CLEARINGHOUSE_"


class PartyProcessError(ClearinghouseError):
    """A process of the rehearsal ended or fell silent; the message says which and why."""

    problem_type = "party-process"
    exit_code = 5


def rehearsal_environment(found: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child: an operator's settings must not lead into a real database.

    `CLEARINGHOUSE_REHEARSAL_DATABASE_URL`, where set, is the one database a rehearsal may use.
    """
    kept = {name: value for name, value in found.items() if not name.startswith(_SETTING)}
    kept |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    database = found.get(f"{_SETTING}REHEARSAL_DATABASE_URL")
    if database:
        kept[f"{_SETTING}DATABASE_URL"] = database
    return kept


class Child:
    """One process that speaks JSON lines."""

    def __init__(
        self, name: str, argv: Sequence[str], directory: Path, before: Sequence[str] = ()
    ) -> None:
        """Start `before... python -m argv...`; its stderr goes to `directory/name.log`.

        `before` is a command that becomes the next one, such as `ip netns exec NAME`.
        """
        self.name = name
        self.log = directory / f"{name}.log"
        environment = rehearsal_environment(os.environ)
        with self.log.open("wb") as errors:
            self.process = subprocess.Popen(
                [*before, sys.executable, "-m", *argv],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches the rehearsal, which stops its children
            )
        if self.process.stdin is None or self.process.stdout is None:
            raise PartyProcessError(f"the {name} process could not be connected")
        self._stdin, self._stdout = self.process.stdin, self.process.stdout
        self.events: queue.Queue[dict[str, Any]] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True, name=f"read-{name}")
        self._reader.start()

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self.process.pid

    def _read(self) -> None:
        for line in self._stdout:
            try:
                event = json.loads(line)
            except ValueError:
                continue  # not ours: a library's chatter
            if isinstance(event, dict):
                self.events.put(event)

    def send(self, message: dict[str, Any]) -> None:
        """Write one JSON line to the child's stdin."""
        try:
            self._stdin.write(json.dumps(message).encode() + b"\n")
            self._stdin.flush()
        except BrokenPipeError:
            self.check()
            raise PartyProcessError(f"the {self.name} process closed its input") from None

    def check(self) -> None:
        """Raise unless the child is still running.

        Raises:
            PartyProcessError: It ended.
        """
        code = self.process.poll()
        if code is None:
            return
        self._reader.join(timeout=2)
        raise PartyProcessError(
            f"the {self.name} process (pid {self.pid}) {_ended(code)}{self._last_words()}. "
            "The rehearsal was stopped and nothing was written; run it again"
        )

    def _last_words(self) -> str:
        spoken = [event for event in _drain(self.events) if event.get("event") == "error"]
        if spoken:
            return f": {spoken[-1].get('message', '')}"
        try:
            lines = self.log.read_text(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        return f": {lines[-1][-_LAST_WORDS:]}" if lines else ""

    def expect(self, event: str, timeout_s: float) -> dict[str, Any] | None:
        """Wait for an event of that name; events before it are dropped.

        Returns:
            The event, or None if it does not come in time.

        Raises:
            PartyProcessError: The child ended or reported an error.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            try:
                message = self.events.get(timeout=0.1)
            except queue.Empty:
                self.check()
                continue
            if message.get("event") == event:
                return message
            if message.get("event") == "error":
                raise PartyProcessError(f"the {self.name} process: {message.get('message')}")
        return None

    def stop(self, grace_s: float = 5.0) -> None:
        """Close its input, ask it to end, and end it by force after the grace."""
        with contextlib.suppress(OSError):  # it may be gone already
            self._stdin.close()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(grace_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._reader.join(timeout=2)
        self._stdout.close()


def _drain(events: "queue.Queue[dict[str, Any]]") -> Iterator[dict[str, Any]]:
    while True:
        try:
            yield events.get_nowait()
        except queue.Empty:
            return


def _ended(code: int) -> str:
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


@contextmanager
def children() -> Iterator[list[Child]]:
    """A list to put children in; all of them are stopped when the block is left."""
    started: list[Child] = []
    try:
        yield started
    finally:
        # The server last, so that parties can still say goodbye.
        for child in reversed(started):
            child.stop()
