"""Commands about a hospital's encrypted validation set: seal, upload, show, audit, reseal.

Only declarations: what a command needs is imported when it runs.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from clearinghouse.cli.options import (
    DEFAULT_HOME,
    Home,
    Json,
    Quiet,
    SchemaOption,
    Server,
    emit,
    progress,
)

valset_app = typer.Typer(no_args_is_help=True, help="A hospital's encrypted validation set.")


@valset_app.command("seal")
def valset_seal(
    table: Annotated[
        Path | None, typer.Argument(help="CSV or Parquet with labels; remembered.")
    ] = None,
    schema: SchemaOption = None,
    size_class: Annotated[
        int | None, typer.Option("--size-class", help="Power of two not above the rows.")
    ] = None,
    epsilon_target: Annotated[
        str | None, typer.Option("--epsilon-target", help="Cost of opening a target; 0.5.")
    ] = None,
    epsilon_size: Annotated[
        str | None,
        typer.Option("--epsilon-size", help="Release the number of rows with noise instead."),
    ] = None,
    limit: Annotated[
        str | None, typer.Option("--limit", help="Most epsilon ever, fixed for life; 3.0.")
    ] = None,
    runs: Annotated[
        int | None,
        typer.Option(
            "--runs", min=1, max=1000, help="Scores ever; picks the noise law with the least noise."
        ),
    ] = None,
    packed: Annotated[
        bool | None,
        typer.Option(
            "--packed/--unpacked",
            help="Up to 585 rows for a fraction of the bytes; no models with trees.",
            show_default=False,
        ),
    ] = None,
    home: Home = DEFAULT_HOME,
    server: Server = None,
    as_json: Json = False,
    no_progress: Quiet = False,
) -> None:
    """Encrypt the rows, upload and register them, once."""
    from clearinghouse.cli.hospital import SealOptions

    options = SealOptions(
        table, schema, size_class, epsilon_target, limit, epsilon_size, runs, packed
    )
    _seal(options, home, server, as_json, no_progress)


@valset_app.command("upload")
def valset_upload(home: Home = DEFAULT_HOME, server: Server = None, as_json: Json = False) -> None:
    """Finish a sealing whose upload broke off."""
    from clearinghouse.cli.hospital import SealOptions

    _seal(SealOptions(None, None, None, None, None), home, server, as_json, False)


def _seal(options: Any, home: Path, server: str | None, as_json: bool, quiet: bool) -> None:
    from clearinghouse.cli.hospital import seal
    from clearinghouse.cli.loop import alone
    from clearinghouse.cli.profile import session

    with session(home, server, role="hospital") as opened, alone(opened.keystore):
        progress(as_json, quiet, "encrypting and uploading; some seconds for each 8192 rows")
        emit(as_json, *seal(opened, options))


@valset_app.command("show")
def valset_show(
    valset_id: Annotated[str | None, typer.Argument(help="val_...; this home's own.")] = None,
    home: Home = DEFAULT_HOME,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Show a sealed validation set."""
    from clearinghouse.cli.hospital import show
    from clearinghouse.cli.profile import session

    with session(home, server) as opened:
        emit(as_json, *show(opened, valset_id))


@valset_app.command("audit")
def valset_audit(
    home: Home = DEFAULT_HOME, server: Server = None, as_json: Json = False, quiet: Quiet = False
) -> None:
    """Replay the set's tests and targets bit for bit; exit 3 if refuted.

    What is reproduced counts no more against the openings that the key may answer.
    """
    from clearinghouse.cli.loop import alone
    from clearinghouse.cli.profile import session
    from clearinghouse.cli.valset import audit, verdict

    with session(home, server, role="hospital") as opened, alone(opened.keystore):
        value, words = audit(opened, lambda told: progress(as_json, quiet, told))
        emit(as_json, value, words)
        verdict(value)


@valset_app.command("reseal")
def valset_reseal(
    abandon: Annotated[
        bool, typer.Option("--abandon", help="Also while a request on the old set is running.")
    ] = False,
    packed: Annotated[
        bool | None,
        typer.Option(
            "--packed/--unpacked",
            help="In the other form than before; unpacked sets score every kind of model.",
            show_default=False,
        ),
    ] = None,
    home: Home = DEFAULT_HOME,
    server: Server = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Encrypt the same rows under a new key, as a new set; epsilon and scored models carry on."""
    from clearinghouse.cli.loop import alone
    from clearinghouse.cli.profile import session
    from clearinghouse.cli.valset import reseal

    with session(home, server, role="hospital") as opened, alone(opened.keystore):
        progress(as_json, quiet, "encrypting and uploading; some seconds for each 8192 rows")
        emit(as_json, *reseal(opened, abandon=abandon, packed=packed))
