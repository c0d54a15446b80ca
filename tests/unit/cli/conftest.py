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


class Served:
    """`clearinghouse serve` on a free loopback port, while tests of this folder run.

    It looks for work several times a second, and would do so beside all tests that come after.
    """

    def __init__(self, folder: Path) -> None:
        self.data, self._log = folder / "data", folder / "log"
        self._child: subprocess.Popen[str] | None = None
        self._url = ""

    def start(self) -> str:
        """Its address; it is started if it does not run."""
        if self._child is None:
            arguments = ["serve", "--data", str(self.data), "--port", "0", "--json"]
            arguments += ["--parent", str(os.getpid())]
            with self._log.open("a") as log:
                self._child = subprocess.Popen(
                    COMMAND + arguments,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    env=ENVIRONMENT,
                )
            assert self._child.stdout is not None
            line = self._child.stdout.readline()
            assert line, self._log.read_text()[-2000:]
            self._url = json.loads(line)["url"]
        return self._url

    def stop(self) -> None:
        """End it; its folder stays."""
        child, self._child = self._child, None
        if child is not None:
            child.terminate()
            child.wait(timeout=60)
            if child.stdout is not None:
                child.stdout.close()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Other tests need no server."""
        if Path(__file__).parent not in item.path.parents:
            self.stop()


@pytest.fixture(scope="session")
def served(request, tmp_path_factory) -> Iterator[Served]:
    """The server of these tests."""
    made = Served(tmp_path_factory.mktemp("served"))
    request.config.pluginmanager.register(made)
    yield made
    request.config.pluginmanager.unregister(made)
    made.stop()


@pytest.fixture
def server(served) -> str:
    """The address of the server."""
    return served.start()


@pytest.fixture
def server_data(served, server) -> Path:
    """The folder of the server, with its key."""
    assert (served.data / "server.key").is_file()
    return served.data


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
