"""Ports of loopback for servers that are named before they listen, or stopped and started again.

A port that the system chose and that was closed again may be given to the next call of a test that
runs beside: so these lie below the range that the system gives to calls (32,768 and up on Linux),
and each test process has its own.
"""

import os
import secrets
import socket

LOWEST, EACH = 12_000, 2_000


def free_port() -> int:
    """A port that nobody listens on and no other process of this run asks for."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 10
    while True:
        port = LOWEST + worker * EACH + secrets.randbelow(EACH)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
