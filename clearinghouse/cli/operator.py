"""The operator's commands. Nothing here may reach a party's code or the key holder."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearinghouse.collector import collect_rarely
from clearinghouse.errors import InputError

if TYPE_CHECKING:
    from clearinghouse.rounds.desk import Desk

from clearinghouse.cli.options import Result


def run_server(
    data: Path,
    host: str,
    port: int,
    announce: Callable[[str], None],
    record_bodies: Path | None,
    workers: int | None = None,
    sequencer: bool | None = None,
) -> None:
    """Serve from `data` until SIGINT or SIGTERM; `announce` gets the address once it listens.

    Raises:
        InputError: The folder belongs to another version or key, or a setting is malformed.
    """
    from clearinghouse.serve import serve
    from clearinghouse.settings import settings_from_environment
    from clearinghouse.traces import trace_to_collector

    collect_rarely()
    settings = settings_from_environment(data)
    if settings.otel:
        trace_to_collector("clearinghouse-api")
    if record_bodies is not None:
        settings = replace(settings, record_bodies=record_bodies)
    if workers is not None:
        settings = replace(settings, workers=workers)
    if sequencer is not None:
        settings = replace(settings, sequencer=sequencer)
    name = f"[{host}]" if ":" in host else host
    serve(settings, host, port, lambda bound: announce(f"http://{name}:{bound}"))


# ---------------------------------------------------------------- retention


@contextmanager
def open_data(data: Path) -> "Iterator[Desk]":
    """The server's folder without a server; a running one may work on it meanwhile.

    Raises:
        InputError: There is no server's folder.
    """
    from clearinghouse.rounds.desk import open_desk
    from clearinghouse.settings import settings_from_environment

    if not (data / "server.key").is_file():
        raise InputError(f"{data} is no server's folder. Give the one that serve --data names")
    desk = open_desk(settings_from_environment(data))
    try:
        yield desk
    finally:
        desk.store.close()


def show_retention(data: Path) -> tuple[dict[str, Any], str]:
    """How long what is kept, and what is due.

    Raises:
        InputError: There is no server's folder.
    """
    from clearinghouse.rounds import erasure

    with open_data(data) as desk:
        due = erasure.due(desk)
        with desk.store.read() as tx:
            waiting = len(tx.erasure.doomed()) + len(tx.erasure.unerased())
        settings = desk.settings
    value = {
        "keep_ciphertexts_days": settings.keep_ciphertexts_days,
        "keep_deliveries_days": settings.keep_deliveries_days,
        "due": list(due),
        "withdrawals_waiting": waiting,
    }
    words = (
        f"ciphertexts of a finished request stay {settings.keep_ciphertexts_days} days, deliveries "
        f"{settings.keep_deliveries_days} (CLEARINGHOUSE_KEEP_CIPHERTEXTS_DAYS, "
        "CLEARINGHOUSE_KEEP_DELIVERIES_DAYS)\n"
        f"{len(due)} requests are due; {waiting} withdrawals or blobs wait to leave the disk"
    )
    return value, words


def sweep_retention(data: Path) -> tuple[dict[str, Any], str]:
    """Erase what is due now.

    Raises:
        InputError: There is no server's folder.
    """
    from clearinghouse.rounds import erasure

    with open_data(data) as desk:
        blobs = erasure.retain(desk)
        is_clean = erasure.erase(desk)
        erasure.sweep(desk)
    value = {"blobs": blobs, "clean": is_clean}
    rest = "" if is_clean else "; a reader kept some of it alive: run this again"
    return value, f"{blobs} blobs were kept long enough and are erased{rest}"


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

    collect_rarely()
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


def run_sequencer(data: Path, announce: Callable[[str], None], *, once: bool) -> int:
    """Give log entries their positions and sign the log's heads, until SIGINT or SIGTERM.

    Args:
        data: Folder of the log's key and of the last published checkpoint beside it.
        announce: Gets the log's public key once it is at work.
        once: Place what waits now, and return.

    Returns:
        How many entries were placed.

    Raises:
        InputError: The database is SQLite, or of another version, or its log has another key.
        TryAgainError: The database is away.
    """
    import sys

    from clearinghouse.journal import write_logs
    from clearinghouse.rounds import sequencer
    from clearinghouse.settings import settings_from_environment

    write_logs(sys.stderr)
    stop = threading.Event()
    _stop_on_signals(stop)
    settings = settings_from_environment(data)
    return sequencer.run_sequencer(settings, stop, announce, once=once)


def _stop_on_signals(stop: threading.Event) -> None:
    """The first signal drains; a second one ends the process at once."""
    import signal
    from types import FrameType

    def stopped(number: int, _frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stopped)
