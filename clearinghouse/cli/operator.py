"""The operator's commands. Nothing here may reach a party's code or the key holder."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path


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
