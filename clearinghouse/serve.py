"""Running the server: uvicorn in this process, on a port that the system may choose."""

import socket
import sys
from collections.abc import Callable
from typing import TextIO

import uvicorn

from api.app import create_app
from clearinghouse.connections import patient_protocol
from clearinghouse.journal import write_logs
from clearinghouse.settings import Settings

__all__ = ["serve"]

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
    # The protocol is named so that asyncio switches Nagle's algorithm off on accepted connections
    # (it looks at exactly this); otherwise every answer waits 40 ms for an acknowledgement.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        config = uvicorn.Config(
            app,
            http=patient_protocol(settings.stall_s),
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
