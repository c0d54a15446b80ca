"""The operator's commands about what is stored.

Only declarations: what a command needs is imported when it runs.
"""

from typing import Annotated

import typer

from clearinghouse.cli.commands_operator import DATA, Data
from clearinghouse.cli.options import Json, emit

store_app = typer.Typer(no_args_is_help=True, help="The server's blobs, for its operator.")


def declare(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(store_app, name="store")


@store_app.command("gc")
def store_gc(
    data: Data = DATA,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would go, and leave it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Remove blobs that nothing names any more; a running server does so every day.

    Only those older than CLEARINGHOUSE_GARBAGE_GRACE_HOURS go, and unfinished uploads whose time is
    over.
    """
    from clearinghouse.cli.storage import collect_garbage

    emit(as_json, *collect_garbage(data, dry_run=dry_run))
