"""What all tests share: databases, and one honest line for what this machine cannot run."""

import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import buckets
import databases
import pytest
import requires
from hypothesis import HealthCheck, settings

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # onnxruntime 1.29 and later call their maker otherwise
# A shell's background job ignores Ctrl-C and so would the programs that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
# One thread for linear algebra, here and in every program that is started: two workers keep two
# cores busy, and threads that wait for one another in a busy loop cost more than the tests.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
# A run starts some hundred programs: without compiled modules each would compile all that it loads,
# and each worker rewrite every test.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
_PROGRAMS = databases.find_programs()
_HAS_POSTGRES = requires.need("postgres", _PROGRAMS is not None)


# No test fails by chance: nothing is timed, and the default run tries the same examples each time.
# The long runs (`-m long`) draw their own.
_UNTIMED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("default run", derandomize=True, **_UNTIMED)
settings.register_profile("long run", derandomize=False, print_blob=True, **_UNTIMED)


def pytest_configure(config: pytest.Config) -> None:
    """Choose how hypothesis draws, before any test module is read."""
    is_long = config.getoption("markexpr") == "long"
    settings.load_profile("long run" if is_long else "default run")


def pytest_collection_finish() -> None:
    """Tests and modules stay until the end: the collector need not look at them again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(scope="session")
def postgres() -> Iterator[databases.PostgresServer]:
    """A PostgreSQL server for this process's tests; it need not survive a power cut."""
    assert _PROGRAMS is not None
    server = databases.PostgresServer(
        _PROGRAMS, fsync="off", synchronous_commit="off", full_page_writes="off"
    )
    yield server
    server.close()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[buckets.S3Server]:
    """A real S3 server: OpenStack Swift, Debian's package, on loopback."""
    server = buckets.S3Server()
    yield server
    server.close()


@pytest.fixture
def bucket_url(s3_server: buckets.S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """`s3://bucket/prefix` of a prefix that nobody else uses; the environment knows the rest."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server.fresh()


@pytest.fixture(scope="session")
def postgres_template(postgres: databases.PostgresServer) -> str:
    """A database with our tables, from which others are copied (that is quicker)."""
    from clearinghouse.store import migrate

    url = postgres.make()
    migrate.upgrade(url)
    return url.rpartition("/")[2]


@pytest.fixture
def empty_postgres(postgres: databases.PostgresServer) -> Iterator[str]:
    """URL of an empty PostgreSQL database."""
    url = postgres.make()
    yield url
    postgres.drop(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty database, SQLite and PostgreSQL in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'test.db'}"
    url: str = request.getfixturevalue("empty_postgres")
    return url


@pytest.fixture
def ready_postgres(postgres: databases.PostgresServer, postgres_template: str) -> Iterator[str]:
    """URL of a PostgreSQL database with our tables."""
    url = postgres.make(postgres_template)
    yield url
    postgres.drop(url)


@pytest.fixture
def server_folder(tmp_path: Path) -> Path:
    """A folder for a server of its own, whose tables are there already."""
    folder = tmp_path / "server"
    databases.fresh_sqlite(folder / "clearinghouse.db")
    return folder


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a database without rows, SQLite and PostgreSQL in turn."""
    if request.param == "sqlite":
        return databases.fresh_sqlite(tmp_path / "test.db")
    url: str = request.getfixturevalue("ready_postgres")
    return url


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what this machine cannot run."""
    if not _HAS_POSTGRES:
        dropped = [item for item in items if _needs_postgres(item)]
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if item not in dropped]
    if not requires.has("s3"):
        dropped = [item for item in items if _needs_s3(item)]
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if item not in dropped]
    requires.leave_out(config, items)


def _needs_postgres(item: pytest.Item) -> bool:
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    fixtures = getattr(item, "fixturenames", ())
    return "postgresql" in parameters.values() or "postgres" in fixtures


def _needs_s3(item: pytest.Item) -> bool:
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    return "s3" in parameters.values() or "bucket_url" in getattr(item, "fixturenames", ())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was left out."""
    for line in requires.lines():
        terminalreporter.write_line(line)
