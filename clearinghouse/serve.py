"""Running the server: uvicorn in this process, on a port that the system may choose."""

import logging
import socket
import sys
from collections.abc import Callable
from typing import TextIO

import structlog
import uvicorn

from api.app import create_app
from clearinghouse.settings import Settings

GRACE_S = 3
"""Seconds that open calls get when the server is told to stop."""


def serve(
    settings: Settings,
    host: str = "127.0.0.1",
    port: int = 0,
    announce: Callable[[int], None] | None = None,
    log: TextIO | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        settings: What the operator chose.
        host: Address to listen on.
        port: 0 lets the system choose a free one.
        announce: Called with the bound port once the server takes calls.
        log: Where the server's log goes, as JSON lines; standard error by default.

    Raises:
        InputError: The data folder belongs to another version or key.
        OSError: The port is taken.
    """
    write_logs(log or sys.stderr)
    app = create_app(settings)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="on",
            ws="none",
            timeout_graceful_shutdown=GRACE_S,
        )
        _Server(config, announce, int(bound.getsockname()[1])).run(sockets=[bound])


class _Server(uvicorn.Server):
    """Says when it is ready."""

    def __init__(
        self, config: uvicorn.Config, announce: Callable[[int], None] | None, port: int
    ) -> None:
        super().__init__(config)
        self._announce, self._port = announce, port

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then announce the port."""
        await super().startup(sockets)
        if self.started and self._announce is not None:
            self._announce(self._port)


def write_logs(stream: TextIO) -> None:
    """Write JSON lines that hold ids, sizes, names of steps and durations; never values."""
    structlog.configure(
        processors=[
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
