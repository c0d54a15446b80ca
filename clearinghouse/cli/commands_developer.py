"""Commands of a developer: delivery, model.

Only declarations: what a command needs is imported when it runs.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from clearinghouse.cli.options import (
    DEFAULT_HOME,
    Home,
    Json,
    SchemaOption,
    Server,
    emit,
    progress,
)
from clearinghouse.errors import InputError

delivery_app = typer.Typer(no_args_is_help=True, help="Records that were sealed to a developer.")
model_app = typer.Typer(no_args_is_help=True, help="A developer's model.")

Seed = Annotated[int, typer.Option("--seed", help="Of training only; never of noise or keys.")]
MODEL_HELP = "A path to an .onnx file, or a recipe: logistic, gam, trees."


def declare(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(delivery_app, name="delivery")
    app.add_typer(model_app, name="model")


@delivery_app.command("list")
def delivery_list(home: Home = DEFAULT_HOME, server: Server = None, as_json: Json = False) -> None:
    """List deliveries to open and training sets made."""
    from clearinghouse.cli.developer import list_deliveries
    from clearinghouse.cli.profile import session

    with session(home, server, role="developer") as opened:
        emit(as_json, *list_deliveries(opened))


@delivery_app.command("open")
def delivery_open(
    schema: SchemaOption = None,
    home: Home = DEFAULT_HOME,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Open and check deliveries, keep the records."""
    from clearinghouse.cli.developer import open_deliveries
    from clearinghouse.cli.loop import alone
    from clearinghouse.cli.profile import session

    with session(home, server, role="developer") as opened, alone(opened.keystore):
        # the result is one JSON document; events would make it several
        emit(as_json, *open_deliveries(opened, schema, lambda _event: None))


@model_app.command("preflight")
def model_preflight(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    schema: Annotated[Path, typer.Option("--schema", help="The public schema.yaml.")],
    seed: Seed = 7,
    as_json: Json = False,
) -> None:
    """Import a model, run it encrypted on made-up rows; free."""
    _check_file(model, schema)
    from clearinghouse.cli.preflight import preflight

    emit(as_json, *preflight(model, schema, seed))


def _check_file(model: str, schema: Path | None) -> None:
    """Read a file before what scores it is loaded: a bad one is refused at once.

    Raises:
        InputError: It is no ONNX file, or cannot be imported for the schema.
    """
    path = Path(model)
    kind = path.suffix.lower()
    if kind and (kind != ".onnx" or not path.is_file()):
        reason = "does not exist" if kind == ".onnx" else "is no model"
        if kind in (".pkl", ".pickle", ".joblib"):
            reason = "is a pickle, which could run code and is never read: export it (skl2onnx)"
        from clearinghouse.documents import shown

        raise InputError(
            f"{shown(model)} {reason}. Give the path of an .onnx file, or one of the recipes "
            "logistic, gam, trees"
        )
    if kind and schema is not None and find_spec("onnx") is not None:
        from clearinghouse.client.onnx_sandbox import import_onnx
        from clearinghouse.schema import load_schema

        import_onnx(path, load_schema(schema))


@model_app.command("submit")
def model_submit(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    schema: SchemaOption = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Of the model; its file's name if left out.")
    ] = None,
    seed: Seed = 7,
    wait: Annotated[
        bool,
        typer.Option("--wait", help="Wait until a request took the model and its nonce."),
    ] = False,
    request: Annotated[
        str | None, typer.Option("--request", help="With --wait: this request.")
    ] = None,
    ask: Annotated[
        str | None, typer.Option("--ask", help="Sealed bid for procurements: the least you take.")
    ] = None,
    home: Home = DEFAULT_HOME,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Submit a model to the requests that ask for one.

    Their deliveries are opened first; a recipe is trained on them.
    """
    _check_file(model, schema)
    from clearinghouse.cli.developer import open_developer, submit
    from clearinghouse.cli.loop import alone, stopping, teller
    from clearinghouse.cli.profile import check_id, session

    with (
        stopping() as stop,
        session(home, server, role="developer", pause=stop.wait) as opened,
        alone(opened.keystore),
    ):
        if request is not None:
            check_id(request, "req", "request")
        developer = open_developer(opened, model, schema, seed, name, ask)
        if wait:
            progress(as_json, False, "waiting for a request; Ctrl-C stops")
        emit(as_json, *submit(developer, teller(as_json), stop, wait=wait, request=request))
