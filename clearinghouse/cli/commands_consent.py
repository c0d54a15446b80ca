"""Commands about consent: grant, source withdraw, and the operator's retention.

Only declarations: what a command needs is imported when it runs.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from clearinghouse.cli.options import DEFAULT_HOME, Home, Json, Server, emit
from clearinghouse.consent import DEVELOPERS, DISCLOSURE, PURPOSES
from clearinghouse.errors import RefusedError

grant_app = typer.Typer(no_args_is_help=True, help="Who may get a source's records, for what.")
retention_app = typer.Typer(no_args_is_help=True, help="How long the server keeps ciphertexts.")

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]
Data = Annotated[Path, typer.Option("--data", help="The server's folder.")]


def declare(app: typer.Typer, source_app: typer.Typer, delivery_app: typer.Typer) -> None:
    """Add the commands to the application."""
    delivery_app.command("pass")(delivery_pass)
    delivery_app.command("passed")(delivery_passed)
    app.add_typer(grant_app, name="grant")
    app.add_typer(retention_app, name="retention")
    source_app.command("withdraw")(source_withdraw)


def confirm(yes: bool, sentence: str) -> None:
    """Let a person at a terminal say yes; scripts have said so by running the command.

    Raises:
        RefusedError: They did not.
    """
    if yes or not sys.stdin.isatty():
        return
    if not typer.confirm(f"{sentence} Go on?", err=True):
        raise RefusedError("not confirmed; nothing was done")


@grant_app.command("give")
def grant_give(
    recipient: Annotated[
        str, typer.Option("--recipient", help="org_..., or developers: all that requests admit.")
    ] = DEVELOPERS,
    purpose: Annotated[
        str, typer.Option("--purpose", help=f"One of: {', '.join(PURPOSES)}.")
    ] = PURPOSES[0],
    column: Annotated[
        list[str] | None,
        typer.Option("--column", help="Repeatable; all of the schema if left out."),
    ] = None,
    days: Annotated[int, typer.Option("--days", help="How long it lasts.")] = 365,
    sender: Annotated[
        str | None,
        typer.Option("--sender", help="org_... that may pass records on; the owner if left out."),
    ] = None,
    yes: Yes = False,
    home: Home = DEFAULT_HOME,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Allow a recipient to get records of this home's source."""
    from clearinghouse.cli.grants import give
    from clearinghouse.cli.loop import alone
    from clearinghouse.cli.profile import session

    with session(home, server, role="provider") as opened, alone(opened.keystore):
        confirm(yes, DISCLOSURE)
        emit(as_json, *give(opened, recipient, purpose, column or (), days, sender))


@grant_app.command("list")
def grant_list(home: Home = DEFAULT_HOME, server: Server = None, as_json: Json = False) -> None:
    """List grants with everything that was done under them."""
    from clearinghouse.cli.grants import listing
    from clearinghouse.cli.profile import session

    with session(home, server) as opened:
        emit(as_json, *listing(opened))


@grant_app.command("withdraw")
def grant_withdraw(
    grant_id: Annotated[str, typer.Argument(help="grt_...")],
    home: Home = DEFAULT_HOME,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """End a grant: nobody gets anything by it from now on."""
    from clearinghouse.cli.grants import withdraw
    from clearinghouse.cli.profile import session

    with session(home, server, role="provider") as opened:
        emit(as_json, *withdraw(opened, grant_id))


def delivery_pass(
    order_id: Annotated[str, typer.Argument(help="ord_... that was opened here.")],
    request_id: Annotated[str, typer.Option("--request", help="req_... of the order.")],
    recipient: Annotated[str, typer.Option("--to", help="org_... of another developer.")],
    purpose: Annotated[
        str, typer.Option("--purpose", help=f"One of: {', '.join(PURPOSES)}.")
    ] = PURPOSES[0],
    yes: Yes = False,
    home: Home = DEFAULT_HOME,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Pass received records on; refused unless their owner granted exactly that."""
    from clearinghouse.cli.onward import pass_records
    from clearinghouse.cli.profile import session

    with session(home, server, role="developer") as opened:
        confirm(yes, "Whoever gets the records reads them in clear.")
        emit(as_json, *pass_records(opened, order_id, request_id, recipient, purpose))


def delivery_passed(
    folder: Annotated[
        Path | None, typer.Option("--open", help="Read what was passed on to here into a folder.")
    ] = None,
    home: Home = DEFAULT_HOME,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """List records that were passed on to this home, or by it."""
    from clearinghouse.cli.onward import passed
    from clearinghouse.cli.profile import session

    with session(home, server, role="developer") as opened:
        emit(as_json, *passed(opened, folder))


def source_withdraw(
    yes: Yes = False, home: Home = DEFAULT_HOME, server: Server = None, as_json: Json = False
) -> None:
    """Take this home's source back for good; salts, answers and deliveries are erased.

    Works while `source deliver --watch` runs, which then answers nothing more.
    """
    from clearinghouse.cli.grants import leave
    from clearinghouse.cli.profile import session

    with session(home, server, role="provider") as opened:
        confirm(yes, "Withdrawing cannot be undone: the rows must be registered as a new source.")
        emit(as_json, *leave(opened))


@retention_app.command("show")
def retention_show(data: Data = Path("clearinghouse-data"), as_json: Json = False) -> None:
    """Show what is kept how long, and what is due."""
    from clearinghouse.cli.operator import show_retention

    emit(as_json, *show_retention(data))


@retention_app.command("sweep")
def retention_sweep(data: Data = Path("clearinghouse-data"), as_json: Json = False) -> None:
    """Erase now what was kept long enough, and finish withdrawals; serve does it by itself."""
    from clearinghouse.cli.operator import sweep_retention

    emit(as_json, *sweep_retention(data))
