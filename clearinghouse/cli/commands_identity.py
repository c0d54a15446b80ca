"""Commands about who acts and reads for an organisation: key, apikey, org invite and dismiss.

Only declarations: what a command needs is imported when it runs.
"""

from pathlib import Path
from typing import Annotated

import typer

from clearinghouse.cli.options import DEFAULT_HOME, Home, Json, Server, emit

key_app = typer.Typer(no_args_is_help=True, help="The keys that sign for this organisation.")
apikey_app = typer.Typer(no_args_is_help=True, help="Tokens for programs that only read.")

KeyArgument = Annotated[str, typer.Argument(help="key_..., as `key list` shows it.")]
Email = Annotated[str, typer.Argument(help="The address the person signs in with.")]


def declare(app: typer.Typer, org_app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(key_app, name="key")
    app.add_typer(apikey_app, name="apikey")
    org_app.command("invite")(invite)
    org_app.command("dismiss")(dismiss)
    org_app.command("people")(people)


@key_app.command("rotate")
def key_rotate(
    keep_old: Annotated[
        bool, typer.Option("--keep-old", help="Leave the old key valid until it is revoked.")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Operator: a stopped server's folder, whose own key changes."),
    ] = None,
    home: Home = DEFAULT_HOME,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Replace this home's signing key and revoke the old one.

    Again finishes a rotation that broke off.
    """
    if data is not None:
        from clearinghouse.cli.operator import rotate_key

        emit(as_json, *rotate_key(data))
        return
    from clearinghouse.cli.identity import rotate_key as rotate
    from clearinghouse.cli.profile import session

    with session(home, server) as opened:
        emit(as_json, *rotate(opened, keep_old))


@key_app.command("revoke")
def key_revoke(
    key_id: KeyArgument, home: Home = DEFAULT_HOME, server: Server = None, as_json: Json = False
) -> None:
    """Revoke a key of this organisation, from its log entry on."""
    from clearinghouse.cli.identity import revoke_key
    from clearinghouse.cli.profile import session

    with session(home, server) as opened:
        emit(as_json, *revoke_key(opened, key_id))


@key_app.command("list")
def key_list(home: Home = DEFAULT_HOME, server: Server = None, as_json: Json = False) -> None:
    """List all keys this organisation has or had."""
    from clearinghouse.cli.identity import list_keys
    from clearinghouse.cli.profile import session

    with session(home, server) as opened:
        emit(as_json, *list_keys(opened))


@apikey_app.command("create")
def apikey_create(
    name: Annotated[str, typer.Option("--name", help="What it is for, as `apikey list` shows.")],
    scope: Annotated[list[str], typer.Option("--scope", help="Such as prices:read; repeatable.")],
    days: Annotated[int, typer.Option("--days", help="Days until it ends, up to 366.")] = 90,
    home: Home = DEFAULT_HOME,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Make an API key; its token is shown this once."""
    from clearinghouse.cli.identity import create_api_key
    from clearinghouse.cli.profile import session

    with session(home, server) as opened:
        emit(as_json, *create_api_key(opened, name, scope, days))


@apikey_app.command("revoke")
def apikey_revoke(
    key_id: Annotated[str, typer.Argument(help="apk_..., as `apikey list` shows it.")],
    home: Home = DEFAULT_HOME,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Revoke an API key at once."""
    from clearinghouse.cli.identity import revoke_api_key
    from clearinghouse.cli.profile import session

    with session(home, server) as opened:
        emit(as_json, *revoke_api_key(opened, key_id))


@apikey_app.command("list")
def apikey_list(home: Home = DEFAULT_HOME, server: Server = None, as_json: Json = False) -> None:
    """List this organisation's API keys."""
    from clearinghouse.cli.identity import list_api_keys
    from clearinghouse.cli.profile import session

    with session(home, server) as opened:
        emit(as_json, *list_api_keys(opened))


def invite(
    email: Email, home: Home = DEFAULT_HOME, server: Server = None, as_json: Json = False
) -> None:
    """Let a person look at this organisation's part of the console."""
    from clearinghouse.cli.identity import invite as run
    from clearinghouse.cli.profile import session

    with session(home, server) as opened:
        emit(as_json, *run(opened, email))


def dismiss(
    email: Email, home: Home = DEFAULT_HOME, server: Server = None, as_json: Json = False
) -> None:
    """Let a person in no more; open sessions end at once."""
    from clearinghouse.cli.identity import dismiss as run
    from clearinghouse.cli.profile import session

    with session(home, server) as opened:
        emit(as_json, *run(opened, email))


def people(home: Home = DEFAULT_HOME, server: Server = None, as_json: Json = False) -> None:
    """List the people this organisation lets into the console."""
    from clearinghouse.cli.identity import people as run
    from clearinghouse.cli.profile import session

    with session(home, server) as opened:
        emit(as_json, *run(opened))
