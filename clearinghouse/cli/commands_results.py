"""Commands that read what a request left behind: model, run, price, receipt.

Only declarations: what a command needs is imported when it runs.
"""

from pathlib import Path
from typing import Annotated

import typer

from clearinghouse.cli.options import (
    DEFAULT_HOME,
    Home,
    Json,
    Quiet,
    RequestArgument,
    RequestOption,
    Server,
    emit,
    progress,
)

run_app = typer.Typer(no_args_is_help=True, help="Blind scorings.")
price_app = typer.Typer(no_args_is_help=True, help="Prices of sources, with their reasons.")
receipt_app = typer.Typer(no_args_is_help=True, help="Signed scores that anyone can verify.")


def declare(app: typer.Typer, model_app: typer.Typer) -> None:
    """Add the commands to the application; `model_app` holds a developer's other commands."""
    app.add_typer(run_app, name="run")
    app.add_typer(price_app, name="price")
    app.add_typer(receipt_app, name="receipt")
    model_app.command("list")(model_list)
    model_app.command("show")(model_show)


def model_list(
    request_id: RequestArgument = None,
    home: Home = DEFAULT_HOME,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """List the models of a request."""
    from clearinghouse.cli.profile import session
    from clearinghouse.cli.results import list_models

    with session(home, server) as opened:
        emit(as_json, *list_models(opened, request_id))


def model_show(
    model_id: Annotated[str, typer.Argument(help="mod_...")],
    request: RequestOption = None,
    home: Home = DEFAULT_HOME,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Show a model and its run."""
    from clearinghouse.cli.profile import session
    from clearinghouse.cli.results import show_model

    with session(home, server) as opened:
        emit(as_json, *show_model(opened, model_id, request))


@run_app.command("list")
def run_list(
    request_id: RequestArgument = None,
    home: Home = DEFAULT_HOME,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """List the blind scorings of a request."""
    from clearinghouse.cli.profile import session
    from clearinghouse.cli.results import list_runs

    with session(home, server) as opened:
        emit(as_json, *list_runs(opened, request_id))


@run_app.command("show")
def run_show(
    run_id: Annotated[str, typer.Argument(help="run_...")],
    request: RequestOption = None,
    home: Home = DEFAULT_HOME,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Show a blind scoring with its metrics and intervals."""
    from clearinghouse.cli.profile import session
    from clearinghouse.cli.results import show_run

    with session(home, server) as opened:
        emit(as_json, *show_run(opened, run_id, request))


@run_app.command("cancel")
def run_cancel(
    run_id: Annotated[str, typer.Argument(help="run_...")],
    reason: Annotated[str, typer.Option("--reason", help="What the participants will read.")],
    request: RequestOption = None,
    home: Home = DEFAULT_HOME,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """End a blind scoring of your request early.

    The other runs go on; epsilon that was paid for this one stays paid.
    """
    from clearinghouse.cli.profile import session
    from clearinghouse.cli.results import cancel_run

    with session(home, server, role="hospital") as opened:
        emit(as_json, *cancel_run(opened, run_id, reason, request))


@run_app.command("audit")
def run_audit(
    run_id: Annotated[str, typer.Argument(help="run_...")],
    request: RequestOption = None,
    home: Home = DEFAULT_HOME,
    server: Server = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Replay a run of your model bit for bit; exit 3 if refuted.

    The verdict names the first false message and whose fault it is; it is signed, sent and logged.
    """
    from clearinghouse.cli.profile import session
    from clearinghouse.cli.run_audit import audit_run, verdict

    with session(home, server, role="developer") as opened:
        value, words = audit_run(
            opened, run_id, request, lambda told: progress(as_json, quiet, told)
        )
        emit(as_json, value, words)
        verdict(value)


@price_app.command("list")
def price_list(
    request_id: RequestArgument = None,
    home: Home = DEFAULT_HOME,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """List the sources' prices in a request; spends nothing."""
    from clearinghouse.cli.profile import session
    from clearinghouse.cli.results import list_prices

    with session(home, server) as opened:
        emit(as_json, *list_prices(opened, request_id))


@receipt_app.command("show")
def receipt_show(
    receipt_id: Annotated[str, typer.Argument(help="rcp_...")],
    out: Annotated[Path | None, typer.Option("--out", help="Write the receipt here.")] = None,
    home: Home = DEFAULT_HOME,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Fetch a receipt and verify it; --out writes it."""
    from clearinghouse.cli.profile import session
    from clearinghouse.cli.results import show_receipt

    with session(home, server) as opened:
        emit(as_json, *show_receipt(opened, receipt_id, out))
