"""Commands that act in a market: source, valset, agent, request.

Only declarations: what a command needs is imported when it runs.
"""

from pathlib import Path
from typing import Annotated

import typer

from clearinghouse.cli.commands_consent import Yes, confirm
from clearinghouse.cli.commands_valset import valset_app
from clearinghouse.cli.options import (
    DEFAULT_HOME,
    Home,
    Json,
    RequestArgument,
    Server,
    emit,
    progress,
)
from clearinghouse.consent import DISCLOSURE


def _app(words: str) -> typer.Typer:
    return typer.Typer(no_args_is_help=True, help=words)


APPS = {
    "source": (source_app := _app("A provider's cohort: preview, publish, sell.")),
    "valset": valset_app,
    "agent": (agent_app := _app("The hospital's key agent.")),
    "request": (request_app := _app("A hospital's wish for records and a model.")),
}

SourceYaml = Annotated[
    Path, typer.Argument(metavar="SOURCE.yaml", help="Name, table, schema, price, epsilon.")
]


def declare(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for name, noun in APPS.items():
        app.add_typer(noun, name=name)


# ---------------------------------------------------------------- source


@source_app.command("preview")
def source_preview(
    file: SourceYaml, home: Home = DEFAULT_HOME, server: Server = None, as_json: Json = False
) -> None:
    """Show what registering would publish, cost and match; free."""
    from clearinghouse.cli.profile import session_if_any
    from clearinghouse.cli.provider import preview

    with session_if_any(home, server) as opened:
        emit(as_json, *preview(file, opened))


@source_app.command("register")
def source_register(
    file: SourceYaml,
    yes: Yes = False,
    home: Home = DEFAULT_HOME,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Commit the rows, publish the summary, give the grants, once.

    Afterwards only price_per_record and the table's place may change.
    """
    from clearinghouse.cli.loop import alone
    from clearinghouse.cli.profile import session
    from clearinghouse.cli.provider import register

    with session(home, server, role="provider") as opened, alone(opened.keystore):
        confirm(yes, DISCLOSURE)
        emit(as_json, *register(opened, file))


@source_app.command("list")
def source_list(
    home: Home = DEFAULT_HOME,
    server: Server = None,
    everywhere: Annotated[bool, typer.Option("--all", help="Of every schema.")] = False,
    as_json: Json = False,
) -> None:
    """List the sources that share this home's schema."""
    from clearinghouse.cli.profile import session
    from clearinghouse.cli.provider import listing

    with session(home, server) as opened:
        emit(as_json, *listing(opened, everywhere))


@source_app.command("show")
def source_show(
    source_id: Annotated[str | None, typer.Argument(help="src_...; this home's own.")] = None,
    home: Home = DEFAULT_HOME,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Show a source as everybody sees it."""
    from clearinghouse.cli.profile import session
    from clearinghouse.cli.provider import show

    with session(home, server) as opened:
        emit(as_json, *show(opened, source_id))


@source_app.command("deliver")
def source_deliver(
    watch: Annotated[bool, typer.Option("--watch", help="Go on until Ctrl-C.")] = False,
    home: Home = DEFAULT_HOME,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Answer asks and orders now, or with --watch as they come.

    Commits and reveals the ask, seals exactly the ordered records.
    """
    from clearinghouse.cli.loop import Worker, alone, stopping, teller
    from clearinghouse.cli.profile import session
    from clearinghouse.cli.provider import open_provider

    with (
        stopping() as stop,
        session(home, server, role="provider", pause=stop.wait) as opened,
        alone(opened.keystore),
    ):
        provider = open_provider(opened)
        worker = Worker(provider, teller(as_json))
        if watch:
            progress(as_json, False, f"watching for {provider.source_id}; Ctrl-C stops")
            worker.watch(stop)
        else:
            worker.once(stop)
        count = len(worker.done)
        emit(as_json, {"event": "stopped", "answered": count}, f"{count} tasks answered")


# ---------------------------------------------------------------- agent


@agent_app.command("run")
def agent_run(
    until: Annotated[
        str | None, typer.Option("--until", help="req_...: end when this request has ended.")
    ] = None,
    trust_audits: Annotated[
        list[str] | None,
        typer.Option(
            "--trust-audits",
            metavar="KEY",
            help="key_...: runs that its owner reproduced free the key's openings. Repeatable.",
        ),
    ] = None,
    home: Home = DEFAULT_HOME,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Answer for the hospital until Ctrl-C; only polls.

    It alone holds the secret key. A task that has begun is finished before it stops.
    """
    from clearinghouse.cli.hospital import open_hospital, run_agent
    from clearinghouse.cli.loop import alone, stopping, teller
    from clearinghouse.cli.profile import check_id, session

    with (
        stopping() as stop,
        session(home, server, role="hospital", pause=stop.wait) as opened,
        alone(opened.keystore),
    ):
        if until is not None:
            check_id(until, "req", "request")
        for key in trust_audits or []:
            check_id(key, "key", "auditor's key")
        hospital = open_hospital(opened)
        progress(as_json, False, f"answering for {opened.profile.name}; Ctrl-C stops")
        emit(
            as_json,
            *run_agent(
                opened, hospital, teller(as_json), stop, until=until, trusted=trust_audits or ()
            ),
        )


# ---------------------------------------------------------------- request


@request_app.command("open")
def request_open(
    file: Annotated[
        Path, typer.Argument(metavar="REQUEST.yaml", help="Terms as in market.yaml, and ids.")
    ],
    home: Home = DEFAULT_HOME,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Open a request; the same terms give the same request."""
    from clearinghouse.cli.profile import session
    from clearinghouse.cli.requests import open_request

    with session(home, server, role="hospital") as opened:
        emit(as_json, *open_request(opened, file))


@request_app.command("show")
def request_show(
    request_id: RequestArgument = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow it until it has ended.")] = False,
    timeout: Annotated[
        float | None, typer.Option("--timeout", help="Seconds to wait at most; then exit 5.")
    ] = None,
    home: Home = DEFAULT_HOME,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Show its step, what it waits for and who sold what."""
    from clearinghouse.cli.loop import stopping
    from clearinghouse.cli.profile import session
    from clearinghouse.cli.requests import show
    from clearinghouse.cli.requests import wait as follow
    from clearinghouse.messages.intake import RequestView

    def tell(view: RequestView) -> None:
        waits = "; ".join(view.waiting_for) or view.reason
        progress(as_json, False, f"step {view.step}, {view.state}: {waits}")

    with stopping() as stop, session(home, server, pause=stop.wait) as opened:
        if wait:
            request_id = follow(opened, request_id, tell, stop, timeout)
        emit(as_json, *show(opened, request_id))


@request_app.command("recompute")
def request_recompute(
    request_id: RequestArgument = None,
    log_key: Annotated[
        str | None, typer.Option("--log-key", help="Verifier key of the log, from elsewhere.")
    ] = None,
    home: Home = DEFAULT_HOME,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Compute clearing, prices and payments again, bit for bit."""
    from clearinghouse.cli.profile import session
    from clearinghouse.cli.recompute import run

    with session(home, server) as opened:
        emit(as_json, *run(opened, request_id, log_key))


@request_app.command("simulate")
def request_simulate(
    patients: Annotated[
        int | None, typer.Option("--patients", help="Rows; the sealed set's size if left out.")
    ] = None,
    developers: Annotated[int, typer.Option("--developers", help="Models on offer.")] = 5,
    best: Annotated[float, typer.Option("--best", help="Accuracy of the best model.")] = 0.8,
    gap: Annotated[float, typer.Option("--gap", help="Each is so much worse.")] = 0.01,
    threshold: Annotated[
        float, typer.Option("--threshold", help="Procurement: what a lower bound has to reach.")
    ] = 0.7,
    least_ask: Annotated[
        float, typer.Option("--least-ask", help="Procurement: lowest ask, as part of the purse.")
    ] = 0.3,
    most_ask: Annotated[
        float, typer.Option("--most-ask", help="Procurement: highest ask, as part of the purse.")
    ] = 1.0,
    seed: Annotated[int, typer.Option("--seed", help="Of the simulation.")] = 0,
    home: Home = DEFAULT_HOME,
    as_json: Json = False,
) -> None:
    """Simulate what purses would pay, and to whom; offline, free."""
    from clearinghouse.cli.simulate import run

    asks = (least_ask, most_ask)
    emit(as_json, *run(patients, developers, best, gap, threshold, asks, seed, home))
