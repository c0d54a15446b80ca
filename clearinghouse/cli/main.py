"""`clearinghouse`: noun verb, `--json` everywhere, exit codes 0, 2, 3, 4, 5 as documented.

Commands import what they need when they run: the server's command must never load a party's
secrets, and a party must not need the server's packages.
"""

import errno
import json
import signal
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from clearinghouse.cli import (
    commands_consent,
    commands_developer,
    commands_identity,
    commands_market,
    commands_onsite,
    commands_operator,
    commands_party,
    commands_results,
    commands_settle,
    commands_store,
)
from clearinghouse.cli.options import Json, Quiet, emit
from clearinghouse.errors import ClearinghouseError, InputError
from clearinghouse.places import place

EXIT_CODES = (
    "Exit codes: 0 ok, 2 usage or bad input, 3 refused, "
    "4 an id the server does not know, 5 try again."
)

INTERRUPTED = 130

app = typer.Typer(
    name="clearinghouse",
    help="A hospital gets a model that fits its own patients without anyone seeing them.\n\n"
    + EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


schema_app = typer.Typer(no_args_is_help=True, help="Public columns, bounds, strata and label.")
log_app = typer.Typer(no_args_is_help=True, help="The transparency log.")
app.add_typer(schema_app, name="schema")
app.add_typer(log_app, name="log")

commands_party.declare(app, schema_app)
commands_identity.declare(app, commands_party.org_app)
commands_market.declare(app)
commands_developer.declare(app)
commands_consent.declare(app, commands_market.source_app, commands_developer.delivery_app)
commands_results.declare(app, commands_developer.model_app)
commands_settle.declare(
    app, commands_results.price_app, commands_party.org_app, commands_market.request_app
)
commands_operator.declare(app)
commands_onsite.declare(app)
commands_store.declare(app)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        sys.stdout.write(version("eval-clearinghouse") + "\n")
        raise typer.Exit


@app.callback()
def clearinghouse(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """A hospital gets a model that fits its own patients without anyone seeing them."""


def _rehearse(market: Path, out: Path, as_json: bool, quiet: bool, in_process: bool) -> None:
    # Loaded here: the rehearsal plays every part, so it is the one place that imports them all.
    from clearinghouse.rehearsal.command import run_rehearsal

    run_rehearsal(market, out, as_json=as_json, quiet=quiet, in_process=in_process)


@app.command()
def rehearse(
    market: Annotated[Path, typer.Argument(help="MARKET.yaml: schema, tables and terms.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for report, receipts and log.")],
    as_json: Json = False,
    no_progress: Quiet = False,
    in_process: Annotated[
        bool, typer.Option("--in-process", help="The same code without sockets or processes.")
    ] = False,
) -> None:
    """Run a whole market on local tables.

    It takes the real code paths: server, agent, providers and developers.
    """
    _rehearse(market, out, as_json, no_progress, in_process)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the report.")] = Path(
        "demo-report"
    ),
    as_json: Json = False,
    no_progress: Quiet = False,
) -> None:
    """Rehearse the built-in heart-disease market.

    UCI heart disease: four real hospitals.
    """
    import tempfile

    from clearinghouse.demo import write_market

    with tempfile.TemporaryDirectory(prefix="clearinghouse-demo-") as directory:
        _rehearse(write_market(Path(directory)), out, as_json, no_progress, False)


@app.command()
def serve(
    data: Annotated[
        Path, typer.Option("--data", help="Folder for database, blobs and keys.")
    ] = Path("clearinghouse-data"),
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Port; 0 takes a free one.")] = 8765,
    record_bodies: Annotated[
        Path | None,
        typer.Option("--record-bodies", help="Write every HTTP body here; for privacy tests."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", min=0, help="Jobs at once; 0 leaves them to `clearinghouse worker`."
        ),
    ] = None,
    sequencer: Annotated[
        bool | None,
        typer.Option(
            "--sequencer/--no-sequencer",
            help="PostgreSQL: place log entries here, or leave that to `clearinghouse sequencer`.",
            show_default=False,
        ),
    ] = None,
    parent: Annotated[
        int | None, typer.Option("--parent", help="End with this process, which started us.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run the server.

    API, pipeline, and a pool of capped processes for encrypted arithmetic.
    """
    from clearinghouse.cli.operator import run_server
    from clearinghouse.lifeline import die_with

    if parent is not None:
        die_with(parent)

    def announce(url: str) -> None:
        emit(as_json, {"event": "listening", "url": url}, f"listening on {url}")
        sys.stdout.flush()

    try:
        run_server(data, host, port, announce, record_bodies, workers, sequencer)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise InputError(
            f"port {port} of {host} is taken. Give another --port; 0 takes a free one"
        ) from None


@app.command("dev-issuer")
def dev_issuer(
    port: Annotated[int, typer.Option("--port", help="Port of loopback; 0 takes a free one.")] = 0,
    parent: Annotated[
        int | None, typer.Option("--parent", help="End with this process, which started us.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Sign-in without passwords, for rehearsing the console.

    On this machine only; never for real people.
    """
    from clearinghouse.cli.operator import run_dev_issuer
    from clearinghouse.lifeline import die_with

    if parent is not None:
        die_with(parent)
    run_dev_issuer(
        port, lambda url: emit(as_json, {"event": "listening", "url": url}, f"issuer {url}")
    )


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="A receipt file.")],
    log_key: Annotated[
        str | None, typer.Option("--log-key", help="vkey of the log you trust.")
    ] = None,
    witness: Annotated[
        list[str] | None,
        typer.Option("--witness", help="vkey of a witness you trust; repeatable."),
    ] = None,
    quorum: Annotated[
        int | None, typer.Option("--quorum", help="How many must have cosigned; all if not given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a receipt offline.

    Statement, signatures, inclusion in the log, checkpoint.
    """
    from clearinghouse.cli.audit import verify_file

    value, words = verify_file(file, log_key, witness or (), quorum)
    emit(as_json, value, words)


@app.command()
def witness(
    server: Annotated[str, typer.Argument(help="Address of the server whose log to watch.")],
    folder: Annotated[
        Path, typer.Option("--dir", help="Folder for the witness's key and what it saw.")
    ] = Path("clearinghouse-witness"),
    log_key: Annotated[
        str | None, typer.Option("--log-key", help="vkey of the log, known from elsewhere.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Look once and return.")] = False,
    interval: Annotated[
        float, typer.Option("--interval", min=0.1, help="Seconds between looks.")
    ] = 30.0,
    as_json: Json = False,
) -> None:
    """Watch a log: cosign what extends what was seen, keep evidence of a fork.

    Needs no account. The operator decides whose cosignatures it keeps.
    """
    from clearinghouse.cli.watch import watch

    def report(value: dict[str, object], words: str) -> None:
        emit(as_json, value, words)
        sys.stdout.flush()

    watch(server, folder, log_key, once=once, interval_s=interval, report=report)


@log_app.command("audit")
def log_audit(
    directory: Annotated[
        Path | None, typer.Argument(help="An exported log/ folder.", show_default=False)
    ] = None,
    log_key: Annotated[
        str | None, typer.Option("--log-key", help="vkey of the log you trust.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="A server's folder: compare its database with its log."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Recompute a log from its first entry: an exported one, or a server's with its database."""
    if (directory is None) == (data is None):
        raise InputError("give an exported log/ folder, or --data with a server's folder")
    if directory is not None:
        from clearinghouse.cli.audit import audit_log

        emit(as_json, *audit_log(directory, log_key))
    elif data is not None:
        from clearinghouse.cli.world import audit_database

        emit(as_json, *audit_database(data, log_key))


@schema_app.command("check")
def schema_check(
    file: Annotated[Path, typer.Argument(help="schema.yaml or JSON.")],
    table: Annotated[
        Path | None, typer.Option("--table", help="A CSV or Parquet table to check against it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a schema, and a table against it; nothing is written or sent."""
    from clearinghouse.cli.audit import check_schema

    value, words = check_schema(file, table)
    emit(as_json, value, words)


def _interrupted(signum: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signum)


@cache
def _command() -> Callable[..., object]:
    """The tree of all commands; building it takes longer than most of them."""
    return typer.main.get_command(app)


def run(arguments: list[str] | None, report: Callable[[str], object]) -> int:
    """Run one command; errors become one message through `report` and an exit code."""
    try:
        # typer turns Ctrl-C into an exit code and --help into 0; both come back as numbers
        code = _command()(args=arguments, prog_name="clearinghouse", standalone_mode=False)
    except ClearinghouseError as error:
        report(f"error: {error}")
        return error.exit_code
    except typer.Abort:
        return 2
    except BrokenPipeError:
        return 141
    except OSError as error:  # a file or port that is not there, not ours, or full
        place = f"{error.filename}: " if error.filename else ""
        report(f"error: {place}{error.strerror or error}")
        return InputError.exit_code
    except Exception as error:  # click's usage errors; anything else is our own bug
        if hasattr(error, "exit_code") and hasattr(error, "format_message"):
            report(f"error: {error.format_message()}")
            return 2
        raise
    if code == INTERRUPTED:
        report("interrupted: every process that was started has been stopped")
    return code if isinstance(code, int) else 0


def main() -> None:
    """Entry point of the `clearinghouse` command."""
    signal.signal(signal.SIGTERM, _interrupted)
    arguments = sys.argv[1:]

    def report(message: str) -> None:
        if "--json" in arguments:
            message = json.dumps({"error": message.removeprefix("error: ")})
        sys.stderr.write(message + "\n")

    try:
        code = run(arguments, report)
    except Exception as error:  # noqa: BLE001  our own mistake: its message may quote a value
        report(f"error: the program made a mistake: {place(error, 6)}")
        code = 1
    sys.exit(code)


__all__ = ["InputError", "app", "main"]

if __name__ == "__main__":
    main()
