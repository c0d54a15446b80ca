"""Commands about money: dispute, price quote and history, org statement and reputation.

Only declarations: what a command needs is imported when it runs.
"""

from pathlib import Path
from typing import Annotated

import typer

from clearinghouse.cli.options import (
    DEFAULT_HOME,
    Home,
    Json,
    RequestArgument,
    RequestOption,
    Server,
    emit,
)

dispute_app = typer.Typer(no_args_is_help=True, help="Claims that freeze money until decided.")

DisputeId = Annotated[str, typer.Argument(help="dsp_...")]
Words = Annotated[str, typer.Option("--words", help="Why, for people; not in the log.")]
Evidence = Annotated[
    list[Path] | None,
    typer.Option("--evidence", help="A file whose hash is logged; repeatable. It stays here."),
]


def declare(
    app: typer.Typer, price_app: typer.Typer, org_app: typer.Typer, request_app: typer.Typer
) -> None:
    """Add the commands to the application and to the nouns that exist."""
    app.add_typer(dispute_app, name="dispute")
    request_app.command("clear")(request_clear)
    request_app.command("award")(request_award)
    price_app.command("quote")(price_quote)
    price_app.command("history")(price_history)
    org_app.command("statement")(org_statement)
    org_app.command("reputation")(org_reputation)


def request_clear(
    request_id: RequestArgument = None,
    home: Home = DEFAULT_HOME,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Show its clearing: orders, payments, what nobody sells."""
    from clearinghouse.cli.profile import session
    from clearinghouse.cli.requests import show_clearing

    with session(home, server) as opened:
        emit(as_json, *show_clearing(opened, request_id))


def request_award(
    request_id: RequestArgument = None,
    home: Home = DEFAULT_HOME,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Show who won the purse and why."""
    from clearinghouse.cli.profile import session
    from clearinghouse.cli.requests import show_award

    with session(home, server) as opened:
        emit(as_json, *show_award(opened, request_id))


@dispute_app.command("open")
def dispute_open(
    subject: Annotated[str, typer.Argument(help="ord_... or run_...: an order or a scoring.")],
    reason: Annotated[str, typer.Option("--reason", help="delivery, duplicate, payment or score.")],
    words: Words,
    remedy: Annotated[
        str, typer.Option("--remedy", help="refund, forfeit, or pay (for whom it was meant).")
    ] = "refund",
    receipt: Annotated[
        list[str] | None, typer.Option("--receipt", help="rcp_... or dlv_...; repeatable.")
    ] = None,
    evidence: Evidence = None,
    request: RequestOption = None,
    home: Home = DEFAULT_HOME,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Open a dispute; its money is frozen from now on."""
    from clearinghouse.cli.disputes import Claim, open_dispute
    from clearinghouse.cli.profile import session

    told = Claim(subject, reason, remedy, words, tuple(receipt or ()), tuple(evidence or ()))
    with session(home, server) as opened:
        emit(as_json, *open_dispute(opened, told, request))


@dispute_app.command("answer")
def dispute_answer(
    dispute_id: DisputeId,
    words: Words,
    evidence: Evidence = None,
    home: Home = DEFAULT_HOME,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Answer a claim; without an answer it stands after its deadline."""
    from clearinghouse.cli.disputes import answer
    from clearinghouse.cli.profile import session

    with session(home, server) as opened:
        emit(as_json, *answer(opened, dispute_id, words, tuple(evidence or ())))


@dispute_app.command("list")
def dispute_list(home: Home = DEFAULT_HOME, server: Server = None, as_json: Json = False) -> None:
    """List the disputes this home opened or has to answer."""
    from clearinghouse.cli.disputes import list_disputes
    from clearinghouse.cli.profile import session

    with session(home, server) as opened:
        emit(as_json, *list_disputes(opened))


@dispute_app.command("show")
def dispute_show(
    dispute_id: DisputeId, home: Home = DEFAULT_HOME, server: Server = None, as_json: Json = False
) -> None:
    """Show a dispute: claim, answer, what the replay found, ruling."""
    from clearinghouse.cli.disputes import show
    from clearinghouse.cli.profile import session

    with session(home, server) as opened:
        emit(as_json, *show(opened, dispute_id))


@dispute_app.command("resolve")
def dispute_resolve(
    dispute_id: DisputeId,
    outcome: Annotated[str, typer.Option("--outcome", help="refund, pay, forfeit or award.")],
    words: Words,
    data: Annotated[
        Path, typer.Option("--data", help="The server's folder: its key signs the ruling.")
    ] = Path("clearinghouse-data"),
    server: Annotated[
        str, typer.Option("--server", envvar="CLEARINGHOUSE_SERVER", help="The server's address.")
    ] = "http://127.0.0.1:8765",
    reinstate: Annotated[
        bool, typer.Option("--reinstate", help="End the hospital's suspension.")
    ] = False,
    winner: Annotated[
        list[str] | None,
        typer.Option("--winner", help="RUN=AMOUNT: with award, who gets what; repeatable."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Decide a dispute as the operator; moves the frozen money."""
    from clearinghouse.cli.disputes import Ruling, resolve

    told = Ruling(outcome, words, reinstate, tuple(winner or ()))
    emit(as_json, *resolve(data, server, dispute_id, told))


def price_quote(
    source_id: Annotated[
        str | None, typer.Argument(help="src_...; this home's own if left out.")
    ] = None,
    request: RequestOption = None,
    check: Annotated[
        bool, typer.Option("--check", help="Clear the market again here and compare every bit.")
    ] = False,
    home: Home = DEFAULT_HOME,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Explain a source's price in a request; spends nothing."""
    from clearinghouse.cli.prices import quote
    from clearinghouse.cli.profile import session

    with session(home, server) as opened:
        emit(as_json, *quote(opened, source_id, request, check=check))


def price_history(
    source_id: Annotated[
        str | None, typer.Argument(help="src_...; this home's own if left out.")
    ] = None,
    home: Home = DEFAULT_HOME,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """List a source's prices over the requests that this home takes part in."""
    from clearinghouse.cli.prices import history
    from clearinghouse.cli.profile import session

    with session(home, server) as opened:
        emit(as_json, *history(opened, source_id))


def org_statement(
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the printable page (HTML) here.")
    ] = None,
    home: Home = DEFAULT_HOME,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Show every posting of this organisation's accounts."""
    from clearinghouse.cli.disputes import statement
    from clearinghouse.cli.profile import session

    with session(home, server) as opened:
        emit(as_json, *statement(opened, out))


def org_reputation(
    org_id: Annotated[
        str | None, typer.Argument(help="org_...; this home's own if left out.")
    ] = None,
    home: Home = DEFAULT_HOME,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Show what attested outcomes say about an organisation."""
    from clearinghouse.cli.disputes import reputation
    from clearinghouse.cli.profile import session

    with session(home, server) as opened:
        emit(as_json, *reputation(opened, org_id))
