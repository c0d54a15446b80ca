"""Time is an argument: the system's clock in production, a fixed one in tests."""

import time
from datetime import UTC, datetime
from typing import Protocol

_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


class Clock(Protocol):
    """Seconds since the epoch."""

    def now(self) -> float:
        """Return the current time in seconds since 1970-01-01 UTC."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Return the current time in seconds since 1970-01-01 UTC."""
        return time.time()


class FixedClock:
    """A clock that moves only when told to."""

    def __init__(self, start: float = 1_800_000_000.0) -> None:
        self._now = start

    def now(self) -> float:
        """Return the time set last."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move forward by `seconds`."""
        self._now += seconds


def timestamp(seconds: float) -> str:
    """RFC 3339 in UTC with whole seconds, as log entries carry it."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime(_FORMAT)


def seconds_of(text: str) -> float:
    """Seconds since 1970 of what `timestamp` wrote.

    Raises:
        ValueError: It is no such text.
    """
    return datetime.strptime(text, _FORMAT).replace(tzinfo=UTC).timestamp()
