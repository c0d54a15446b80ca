"""The server's own log: JSON lines of ids, sizes, steps and durations; never values.

Silent until a server process says where it goes, so that a library user or a rehearsal in one
process has a clean terminal.
"""

import logging
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

from clearinghouse.cause import current


def journal(name: str) -> Any:
    """A logger; what it is given must be ids, sizes, names of steps or durations."""
    if not structlog.is_configured():
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    return structlog.get_logger(name)


def _with_call(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> Any:
    """Add the id of the call that led to this, on whatever machine."""
    call = current().call
    if call:
        event["call"] = call
    return event


def write_logs(stream: TextIO) -> None:
    """Write everything from now on to `stream`, one JSON object a line.

    Tracebacks carry no local variables: those could hold what parties sent.
    """
    structlog.configure(
        processors=[
            _with_call,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.ExceptionRenderer(
                structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
            ),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(file=stream),
        cache_logger_on_first_use=False,
    )
