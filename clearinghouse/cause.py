"""Why something is done: the call that led to it, by its id, and the trace it belongs to.

A call's id goes from the API through the request it concerns to moves, jobs and the workers' logs,
so that one call can be followed over processes and machines. It is an id and never a value.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cause:
    """What led to what is done now.

    Attributes:
        call: Id of the API call, as its X-Request-Id header says.
        trace: W3C traceparent of the span it belongs to; empty without tracing.
    """

    call: str = ""
    trace: str = ""

    @property
    def text(self) -> str:
        """As it is stored."""
        return f"{self.call} {self.trace}".rstrip()


NOTHING = Cause()
_current: ContextVar[Cause] = ContextVar("cause", default=NOTHING)


def parse_cause(text: str) -> Cause:
    """Read a stored cause."""
    call, _, trace = text.partition(" ")
    return Cause(call, trace)


def current() -> Cause:
    """What led to what this thread does now."""
    return _current.get()


@contextmanager
def because(cause: Cause) -> Iterator[None]:
    """Everything inside is done because of this."""
    token = _current.set(cause)
    try:
        yield
    finally:
        _current.reset(token)
