"""Commands of every party: init, doctor, org, schema infer, budget, completion.

Only declarations: what a command needs is imported when it runs.
"""

import os
from pathlib import Path
from typing import Annotated

import typer

from clearinghouse.cli.options import DEFAULT_HOME, Home, Json, Server, emit
from clearinghouse.errors import InputError

SHELLS = ("bash", "zsh", "fish", "powershell")

org_app = typer.Typer(no_args_is_help=True, help="This organisation, and others by their id.")
budget_app = typer.Typer(no_args_is_help=True, help="The lifetime privacy budget of this home.")


def declare(app: typer.Typer, schema_app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(init)
    app.command()(doctor)
    app.command()(completion)
    app.add_typer(org_app, name="org")
    app.add_typer(budget_app, name="budget")
    schema_app.command("infer")(schema_infer)


def init(
    role: Annotated[str, typer.Option("--role", help="hospital, provider, developer or auditor.")],
    name: Annotated[str, typer.Option("--name", help="As other organisations see you.")],
    home: Home = DEFAULT_HOME,
    server: Server = None,
    ledger: Annotated[
        str | None,
        typer.Option("--ledger", help="postgresql:// URL of the owner's ledgers; else a file."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a home: keys, server, name and role."""
    from clearinghouse.cli.party import init as run

    emit(as_json, *run(home, role, name, server, ledger))


def doctor(
    home: Home = DEFAULT_HOME,
    server: Server = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Check a server's folder, as its operator.")
    ] = None,
    world: Annotated[
        bool,
        typer.Option("--world", help="With --data: recompute log, money, blobs and receipts."),
    ] = False,
    owner: Annotated[
        list[Path] | None,
        typer.Option("--owner", help="With --world: an owner's home; its ledger is compared too."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check this machine, home and server; exit 3 if broken."""
    from clearinghouse.cli.doctor import doctor as run
    from clearinghouse.cli.doctor import verdict

    if data is not None:
        from clearinghouse.cli.doctor_server import doctor_server

        if owner and not world:
            raise InputError("--owner is compared by --world: give both")
        value, words = doctor_server(data, world=world, owners=owner or ())
    else:
        value, words = run(home, server)
    emit(as_json, value, words)
    verdict(value)


def completion(
    shell: Annotated[str, typer.Argument(help="bash, zsh, fish or powershell.")] = "bash",
) -> None:
    """Print a shell's completion script.

    For bash: eval "$(clearinghouse completion bash)"
    """
    from clearinghouse.cli.main import app

    if shell not in SHELLS:
        raise InputError(f"SHELL must be one of {', '.join(SHELLS)}, not '{shell}'")
    # typer writes the script when this variable asks for it
    os.environ["_CLEARINGHOUSE_COMPLETE"] = f"source_{shell}"
    app(args=[], prog_name="clearinghouse", standalone_mode=False)


@org_app.command("register")
def org_register(home: Home = DEFAULT_HOME, server: Server = None, as_json: Json = False) -> None:
    """Register with the server; again gives the same id."""
    from clearinghouse.cli.party import register
    from clearinghouse.cli.profile import session

    with session(home, server) as opened:
        emit(as_json, *register(opened))


@org_app.command("show")
def org_show(
    org_id: Annotated[
        str | None, typer.Argument(help="org_...; this home's own if left out.")
    ] = None,
    home: Home = DEFAULT_HOME,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Show an organisation: name, role and key."""
    from clearinghouse.cli.party import show_org
    from clearinghouse.cli.profile import session

    with session(home, server) as opened:
        emit(as_json, *show_org(opened, org_id))


@budget_app.command("show")
def budget_show(home: Home = DEFAULT_HOME, as_json: Json = False) -> None:
    """Show the epsilon spent and what it means; offline."""
    from clearinghouse.cli.budget import budget

    emit(as_json, *budget(home))


@budget_app.command("attacks")
def budget_attacks(
    table: Annotated[
        Path | None, typer.Option("--table", help="Another table than this home's own.")
    ] = None,
    schema: Annotated[Path | None, typer.Option("--schema", help="Its schema.yaml.")] = None,
    epsilon: Annotated[str, typer.Option("--epsilon", help="Of each release.")] = "1.0",
    runs: Annotated[int, typer.Option("--runs", min=1, help="Score runs that are paid for.")] = 2,
    full: Annotated[bool, typer.Option("--full", help="Ten times the trials.")] = False,
    home: Home = DEFAULT_HOME,
    as_json: Json = False,
) -> None:
    """Attack what this home's table would publish; offline, free.

    Prints how often each attack succeeds beside the most that theory allows; exit 3 if more.
    """
    from clearinghouse.cli.attacks import attacks, verdict
    from clearinghouse.cli.hospital import epsilon_option

    value, words = attacks(
        home,
        table=table,
        schema=schema,
        epsilon_micro=epsilon_option(epsilon, "--epsilon"),
        runs=runs,
        full=full,
    )
    emit(as_json, value, words)
    verdict(value)


def schema_infer(
    table: Annotated[Path, typer.Argument(help="A CSV or Parquet table; it is only read.")],
    label: Annotated[
        str | None, typer.Option("--label", help="The column that models predict.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the draft here instead of stdout.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Draft a schema.yaml from a table, to be finished by a person."""
    from clearinghouse.cli.schema_draft import infer

    value, words = infer(table, label)
    if out is not None:
        if out.exists():
            raise InputError(f"{out} exists already. Give another --out, or remove it first")
        out.write_text(words + "\n", encoding="utf-8")
        value = {**value, "file": str(out)}
        words = (
            f"{out}: draft written. Its bounds and levels come from private rows: replace every "
            "line marked FROM ROWS by public knowledge before anyone else sees it"
        )
    emit(as_json, value, words)
