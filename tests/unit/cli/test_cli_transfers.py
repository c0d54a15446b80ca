"""How far a large upload or download is: on a terminal, and nowhere else."""

import io
import os
import pty
import subprocess
import sys

import pytest

from clearinghouse.cli.transfers import Transfers

MEGABYTE = 10**6
SAY = (
    "from clearinghouse.cli.transfers import transfers\n"
    "with transfers() as shown:\n"
    "    shown('sent', 500_000, 1_000_000)\n"
)


def test_one_line_grows_and_is_said_once():
    stream = io.StringIO()
    with Transfers(stream) as shown:
        for arrived in (8, 8, 400, 500):
            shown("sent", arrived * MEGABYTE, 500 * MEGABYTE)
    first, second, last = stream.getvalue().removeprefix("\r").split("\r")
    assert first == "sent 8.0 of 500.0 MB, 1 %"
    assert second.rstrip() == "sent 400.0 of 500.0 MB, 80 %"
    assert last.rstrip(" ") == "sent 500.0 of 500.0 MB, 100 %\n"


def test_a_line_that_breaks_off_is_ended():
    stream = io.StringIO()

    def broken():
        with Transfers(stream) as shown:
            shown("received", 1, 4)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken()
    assert stream.getvalue().endswith("25 %\n")


def on_a_terminal(*arguments):
    """What a command with these arguments says on its standard error, a terminal."""
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-c", SAY, *arguments], stderr=theirs, check=True)
    os.close(theirs)
    said = b""
    try:
        while part := os.read(ours, 1000):
            said += part
    except OSError:  # Linux says so at the end of a terminal
        pass
    os.close(ours)
    return said.decode()


def test_a_terminal_is_told_and_a_script_is_not():
    assert on_a_terminal() == "\rsent 0.5 of 1.0 MB, 50 %\r\n"
    assert on_a_terminal("--json") == on_a_terminal("--no-progress") == ""
    piped = subprocess.run([sys.executable, "-c", SAY], capture_output=True, check=True)
    assert (piped.stdout, piped.stderr) == (b"", b"")


def test_a_commands_transport_has_the_line(home, monkeypatch):
    from clearinghouse.cli.profile import session

    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(sys, "argv", ["clearinghouse", "valset", "upload"])
    with session(home("hospital"), None) as opened:
        opened.transport.progress("sent", 1, 2)
    assert "50 %" in stream.getvalue()
