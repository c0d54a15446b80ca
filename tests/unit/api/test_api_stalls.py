"""Connections that stop are ended; those that go on, and calls that wait, are not."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

import pytest

STALL_S = 2
PATIENCE_S = 60
"""How long a test waits for what must happen at last; the times themselves are not judged."""

HEAD = b"POST /v1/orgs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    """A server in a process of its own that allows two seconds."""
    data = tmp_path_factory.mktemp("server") / "data"
    arguments = ["serve", "--data", str(data), "--port", "0", "--json", "--parent"]
    child = subprocess.Popen(
        [sys.executable, "-m", "clearinghouse.cli.main", *arguments, str(os.getpid())],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "CLEARINGHOUSE_STALL_S": str(STALL_S)},
    )
    try:
        yield urlsplit(json.loads(child.stdout.readline())["url"]).port
    finally:
        child.terminate()
        child.wait(timeout=PATIENCE_S)
        child.stdout.close()


def connect(port):
    made = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
    made.settimeout(PATIENCE_S)
    return made


def rest(connection):
    """All that comes until the server ends the connection."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def drip(connection, piece, stop):
    """Send a piece ten times a second until the server has enough."""
    with contextlib.suppress(OSError):
        while not stop.is_set():
            connection.sendall(piece)
            time.sleep(0.1)


def test_a_connection_that_says_nothing_ends(port):
    with connect(port) as connection:
        assert rest(connection) == b""


@pytest.mark.parametrize("start", [b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"])
def test_a_head_that_never_ends_is_cut(port, start):
    """Also that of a second request on a connection that was used well."""
    with connect(port) as connection:
        stop = threading.Event()
        if start:
            connection.sendall(start)
            assert b"200 OK" in connection.recv(65536)
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        thread = threading.Thread(target=drip, args=(connection, b"X-A: b\r\n", stop))
        thread.start()
        assert b"200 OK" not in rest(connection)
        stop.set()
        thread.join()


def test_a_body_that_stops_is_answered_with_408(port):
    with connect(port) as connection:
        connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n{")
        answer = rest(connection)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"application/problem+json" in answer


def test_a_body_that_drips_is_answered_with_408(port):
    with connect(port) as connection:
        stop = threading.Event()
        connection.sendall(HEAD + b"Content-Length: 100000\r\n\r\n{")
        thread = threading.Thread(target=drip, args=(connection, b" ", stop))
        thread.start()
        assert rest(connection).startswith(b"HTTP/1.1 408 ")
        stop.set()
        thread.join()


def test_a_body_in_pieces_arrives(port):
    """Slow is not stalled: the pieces come in time and there is nothing else wrong."""
    with connect(port) as connection:
        connection.sendall(HEAD + b"Content-Length: 10000\r\nConnection: close\r\n\r\n")
        for _ in range(10):
            connection.sendall(b"{" * 1000)
            time.sleep(0.25)
        answer = rest(connection)
        assert answer.startswith(b"HTTP/1.1 422 "), answer  # read to its end, and no JSON
