"""A real PostgreSQL server for tests: Debian's package, a fresh folder, a port of loopback.

PostgreSQL refuses to run as root; then it runs as the user `postgres` that the package made.
"""

import ctypes
import functools
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
from ports import free_port
from psycopg import sql

PACKAGES = Path("/usr/lib/postgresql")
START_S = 60.0
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


@functools.cache
def _sqlite_template() -> bytes:
    """A database file with our tables and no rows, made once in a process."""
    from clearinghouse.store import migrate

    with tempfile.TemporaryDirectory(prefix="clearinghouse-sqlite-") as folder:
        path = Path(folder) / "template.db"
        migrate.upgrade(f"sqlite:///{path}")
        return path.read_bytes()


def fresh_sqlite(path: Path) -> str:
    """URL of a SQLite database with our tables, copied: fifty times quicker than migrating.

    That migrations give these tables is what `test_store_migrate` is for.
    """
    if not path.exists():  # else another server has it already
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_bytes(_sqlite_template())
        path.chmod(0o600)
    return f"sqlite:///{path}"


def find_programs() -> Path | None:
    """The folder of the newest installed server's programs, or None."""
    for folder in sorted(PACKAGES.glob("*/bin"), key=lambda path: -int(path.parent.name)):
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    found = shutil.which("postgres")
    return None if found is None else Path(found).resolve().parent


def _die_with_us() -> None:
    """In the child: ask the kernel for a fast shutdown when the tests' process ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


class PostgresServer:
    """One server with its own folder; databases are made on request."""

    def __init__(self, programs: Path, **settings: str) -> None:
        """Make the folder and start.

        Args:
            programs: Where `initdb` and `postgres` are.
            settings: Further settings of the server.
        """
        self.programs = programs
        self.folder = Path(tempfile.mkdtemp(prefix="clearinghouse-pg-"))
        self._password = secrets.token_hex(16)
        self._settings = settings
        self._as: dict[str, Any] = {"cwd": self.folder}
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            self._as |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            os.chown(self.folder, user.pw_uid, user.pw_gid)
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        try:
            self._make()
            self.start()
        except BaseException:
            self.close()
            raise

    def _make(self) -> None:
        secret = self.folder / "password"
        secret.write_text(self._password)
        if os.geteuid() == 0:
            os.chown(secret, self._as["user"], self._as["group"])
        # A language that orders text unlike Python: what the store gets must not depend on it.
        command = [self.programs / "initdb", "-D", self.folder / "data", "-U", "postgres"]
        command += ["--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync", "--encoding=UTF8"]
        command += ["--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US"]
        subprocess.run(command, check=True, capture_output=True, timeout=START_S, **self._as)

    def start(self) -> None:
        """Start and wait until it answers."""
        command = [str(self.programs / "postgres"), "-D", str(self.folder / "data")]
        settings: Mapping[str, str] = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.folder),
            "max_connections": "120",
            "shared_buffers": "32MB",
            "max_wal_size": "64MB",  # small, since it is made and thrown away
            "min_wal_size": "32MB",
            **self._settings,
        }
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, preexec_fn=_die_with_us, **self._as
            )
        deadline = time.monotonic() + START_S
        while True:
            try:
                psycopg.connect(self._address("postgres"), connect_timeout=2).close()
            except psycopg.OperationalError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((self.folder / "log").read_text()[-2000:]) from None
                time.sleep(0.05)
            else:
                return

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it by its pid: SIGINT is a fast stop, SIGQUIT an immediate one, as in a crash."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(timeout=START_S)
            self.process = None

    def close(self) -> None:
        """Stop and remove everything."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def make(self, template: str = "template1") -> str:
        """Make a fresh database and return its URL."""
        name = f"t{secrets.token_hex(8)}"
        with psycopg.connect(self._address("postgres"), autocommit=True) as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                    sql.Identifier(name), sql.Identifier(template)
                )
            )
        return f"postgresql+psycopg://postgres:{self._password}@127.0.0.1:{self.port}/{name}"

    def drop(self, url: str) -> None:
        """Remove a database, whoever is connected."""
        name = url.rpartition("/")[2]
        with psycopg.connect(self._address("postgres"), autocommit=True) as connection:
            connection.execute(
                sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
            )

    def _address(self, database: str) -> str:
        return (
            f"host=127.0.0.1 port={self.port} dbname={database} user=postgres "
            f"password={self._password}"
        )
