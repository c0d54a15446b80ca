"""The operator's commands. Nothing here may reach a party's code or the key holder."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearinghouse.errors import InputError

if TYPE_CHECKING:
    from clearinghouse.rounds.desk import Desk

from clearinghouse.cli.options import Result


def run_server(
    data: Path, host: str, port: int, announce: Callable[[str], None], record_bodies: Path | None
) -> None:
    """Serve from `data` until SIGINT or SIGTERM; `announce` gets the address once it listens.

    Raises:
        InputError: The folder belongs to another version or key, or a setting is malformed.
    """
    from clearinghouse.serve import serve
    from clearinghouse.settings import settings_from_environment

    settings = settings_from_environment(data)
    if record_bodies is not None:
        settings = replace(settings, record_bodies=record_bodies)
    name = f"[{host}]" if ":" in host else host
    serve(settings, host, port, lambda bound: announce(f"http://{name}:{bound}"))


# ---------------------------------------------------------------- retention


@contextmanager
def _desk(data: Path) -> "Iterator[Desk]":
    """The server's folder without a server; a running one may work on it meanwhile.

    Raises:
        InputError: There is no server's folder.
    """
    from clearinghouse.rounds.desk import open_desk
    from clearinghouse.settings import settings_from_environment
    from clearinghouse.worker import make_worker

    if not (data / "server.key").is_file():
        raise InputError(f"{data} is no server's folder. Give the one that serve --data names")
    settings = replace(settings_from_environment(data), in_process=True)
    desk = open_desk(settings, make_worker(settings))
    try:
        yield desk
    finally:
        desk.worker.close()
        desk.store.close()


def show_retention(data: Path) -> tuple[dict[str, Any], str]:
    """How long what is kept, and what is due.

    Raises:
        InputError: There is no server's folder.
    """
    from clearinghouse.rounds import erasure

    with _desk(data) as desk:
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

    with _desk(data) as desk:
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
    from clearinghouse.worker import make_worker

    settings = settings_from_environment(data)
    done = rotate_server_key(settings, make_worker(replace(settings, in_process=False)))
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
