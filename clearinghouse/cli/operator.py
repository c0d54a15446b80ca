"""The operator's commands. Nothing here may reach a party's code or the key holder."""

import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from clearinghouse.cli.options import Result


def run_server(
    data: Path,
    host: str,
    port: int,
    announce: Callable[[str], None],
    record_bodies: Path | None,
    workers: int | None = None,
) -> None:
    """Serve from `data` until SIGINT or SIGTERM; `announce` gets the address once it listens.

    Raises:
        InputError: The folder belongs to another version or key, or a setting is malformed.
    """
    from clearinghouse.serve import serve
    from clearinghouse.settings import settings_from_environment
    from clearinghouse.traces import trace_to_collector

    settings = settings_from_environment(data)
    if settings.otel:
        trace_to_collector("clearinghouse-api")
    if record_bodies is not None:
        settings = replace(settings, record_bodies=record_bodies)
    if workers is not None:
        settings = replace(settings, workers=workers)
    name = f"[{host}]" if ":" in host else host
    serve(settings, host, port, lambda bound: announce(f"http://{name}:{bound}"))


def rotate_key(data: Path) -> Result:
    """Replace a stopped server's own key; both entries are in its log.

    Raises:
        InputError: There is no server's folder.
        TryAgainError: Models are being scored.
    """
    from clearinghouse.rounds.server_key import rotate_server_key
    from clearinghouse.settings import settings_from_environment

    settings = settings_from_environment(data)
    done = rotate_server_key(settings)
    words = (
        f"{done.key_id} is the server's key from log entry {done.added} on\n"
        f"{done.old_key_id} is refused from log entry {done.revoked} on\n"
        "start the server again, and copy server.key to where you keep the others"
    )
    return asdict(done), words


def run_dev_issuer(port: int, announce: Callable[[str], None]) -> None:
    """Let anybody on this machine sign in as anybody, until SIGINT or SIGTERM."""
    from api.console.dev_issuer import serve

    serve(port, announce)


def run_worker(data: Path, slots: int | None, announce: Callable[[str, int], None]) -> None:
    """Do jobs until SIGINT or SIGTERM; then end those at work, or give them back after a while.

    Args:
        data: Folder whose `blobs` this worker shares with the server; the database is beside it or
            where `CLEARINGHOUSE_DATABASE_URL` says. No key is read or made.
        slots: Jobs at once; as the settings say if None.
        announce: Gets the worker's id and its slots once it takes jobs.

    Raises:
        InputError: The database is of another version, or a setting is malformed.
        TryAgainError: The database is away.
    """
    import sys

    from clearinghouse.clock import SystemClock
    from clearinghouse.errors import InputError
    from clearinghouse.journal import write_logs
    from clearinghouse.rounds.desk import Bell
    from clearinghouse.rounds.pool import Pool
    from clearinghouse.settings import settings_from_environment
    from clearinghouse.store.store import Store
    from clearinghouse.traces import trace_to_collector

    settings = settings_from_environment(data)
    settings = settings if slots is None else replace(settings, workers=slots)
    if settings.workers < 1:
        raise InputError("a worker does at least one job at once: give --slots 1 or more")
    if not settings.database_url and not (data / "clearinghouse.db").is_file():
        raise InputError(
            f"{data} holds no database. Give the server's --data, or CLEARINGHOUSE_DATABASE_URL"
        )
    write_logs(sys.stderr)
    if settings.otel:
        trace_to_collector("clearinghouse-worker")
    store = Store(settings.url)
    pool = Pool(store, settings, SystemClock(), Bell())
    stop = threading.Event()
    _stop_on_signals(stop)
    try:
        pool.start()
        announce(pool.id, settings.workers)
        stop.wait()
        pool.drain(settings.drain_s)
    finally:
        pool.close()
        store.close()


def _stop_on_signals(stop: threading.Event) -> None:
    """The first signal drains; a second one ends the process at once."""
    import signal
    from types import FrameType

    def stopped(number: int, _frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stopped)
