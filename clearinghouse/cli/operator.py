"""The operator's commands. Nothing here may reach a party's code or the key holder."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

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
