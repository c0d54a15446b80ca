"""The server's own log: JSON lines of ids, sizes, steps and durations; never values.

Silent until a server process says where it goes, so that a library user or a rehearsal in one
process has a clean terminal.
"""

import logging
import sys
import threading
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

from clearinghouse.cause import current
from clearinghouse.places import frames


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


def _with_error(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> Any:
    """Say of an error what it is and where it came from; its message may quote a value."""
    given = event.pop("exc_info", None)
    error = sys.exc_info()[1] if given is True else given
    if isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        event["error"], event["at"] = type(error).__name__, frames(error)
    return event


class Foreign(logging.Handler):
    """What libraries log, as lines of ours: who, how grave and where; their words are not ours."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        where = f"{record.module}:{record.lineno}"
        journal(record.name).log(record.levelno, "foreign", where=where, exc_info=record.exc_info)


def _uncaught(hook: Any) -> None:
    journal("process").error(
        "uncaught", exc_info=getattr(hook, "exc_value", None), thread=hook.thread.name
    )


def write_logs(stream: TextIO, level: int = logging.INFO) -> None:
    """Write everything from now on to `stream`, one JSON object a line.

    So are the logs and warnings of libraries, and errors that end a thread.
    """
    structlog.configure(
        processors=[
            _with_call,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _with_error,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(file=stream),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[Foreign()], level=max(level, logging.WARNING), force=True)
    logging.captureWarnings(True)
    threading.excepthook = _uncaught
