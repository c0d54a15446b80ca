"""A running server, a folder with the heart market's files, and ways to call the command."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clearinghouse.cli.main import run
from clearinghouse.demo import write_market

COMMAND = [sys.executable, "-m", "clearinghouse.cli.main"]
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if "CLEARINGHOUSE" not in name},
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Outcome:
    """What a call of the command left."""

    code: int
    out: str
    errors: list[str]

    @property
    def value(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def cli(capsys, monkeypatch) -> Callable[..., Outcome]:
    """Call the command in this process."""
    for name in ("CLEARINGHOUSE_HOME", "CLEARINGHOUSE_SERVER"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: object) -> Outcome:
        errors: list[str] = []
        code = run([str(item) for item in arguments], errors.append)
        return Outcome(code, capsys.readouterr().out, errors)

    return call


@pytest.fixture(scope="session")
def server_data(server, tmp_path_factory) -> Path:
    """The folder of the server, with its key."""
    (key,) = tmp_path_factory.getbasetemp().glob("served[0-9]*/data/server.key")
    return key.parent


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[str]:
    """The address of `clearinghouse serve` on a free loopback port."""
    folder = tmp_path_factory.mktemp("served")
    arguments = ["serve", "--data", str(folder / "data"), "--port", "0", "--json"]
    arguments += ["--parent", str(os.getpid())]
    with (folder / "log").open("w") as log:
        child = subprocess.Popen(
            COMMAND + arguments, stdout=subprocess.PIPE, stderr=log, text=True, env=ENVIRONMENT
        )
    try:
        assert child.stdout is not None
        line = child.stdout.readline()
        assert line, (folder / "log").read_text()[-2000:]
        yield json.loads(line)["url"]
    finally:
        child.terminate()
        child.wait(timeout=60)
        child.stdout.close()


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> Path:
    """A folder with schema.yaml and the tables of the heart market."""
    folder = tmp_path_factory.mktemp("files")
    write_market(folder)
    return folder


@pytest.fixture
def home(cli, server, tmp_path) -> Callable[..., Path]:
    """Make a registered home of a role."""

    def make(role: str, name: str = "somebody") -> Path:
        path = tmp_path / name
        made = cli("init", "--role", role, "--name", name, "--server", server, "--home", path)
        assert (made.code, made.errors) == (0, [])
        assert cli("org", "register", "--home", path).code == 0
        return path

    return make


@pytest.fixture
def shell() -> Callable[..., Outcome]:
    """Call the command in a process of its own, with an environment and a folder."""

    def call(*arguments: object, cwd: Path | None = None, **environment: str) -> Outcome:
        done = subprocess.run(
            COMMAND + [str(item) for item in arguments],
            capture_output=True,
            text=True,
            timeout=90,
            cwd=cwd,
            env={**ENVIRONMENT, **environment},
        )
        return Outcome(done.returncode, done.stdout, done.stderr.splitlines())

    return call


@pytest.fixture
def start() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start the command and leave it running; what still runs at the end is ended."""
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: object) -> "subprocess.Popen[str]":
        child = subprocess.Popen(
            COMMAND + [str(item) for item in arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        started.append(child)
        return child

    yield begin
    for child in started:
        if child.poll() is None:
            child.kill()
        child.communicate()
