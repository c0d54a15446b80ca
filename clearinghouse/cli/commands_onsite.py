"""Commands of on-site evaluation. Only declarations: what a command needs is imported then."""

from pathlib import Path
from typing import Annotated

import typer

from clearinghouse.cli.options import DEFAULT_HOME, Home, Json, emit

onsite_app = typer.Typer(
    no_args_is_help=True, help="Run any ONNX model on a hospital's own rows, through PySyft."
)

Email = Annotated[
    str | None, typer.Option("--email", help="Of this party in its SyftBox; remembered.")
]
BoxFolder = Annotated[
    Path | None, typer.Option("--box", help="This party's SyftBox folder; remembered.")
]
JobName = Annotated[str, typer.Argument(help="Name of the job.")]
From = Annotated[
    str | None, typer.Option("--from", help="Email of the developer, where names are equal.")
]


def declare(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(onsite_app, name="onsite")


@onsite_app.command("publish")
def publish(
    developer: Annotated[str, typer.Option("--to", help="Email of a developer to admit.")],
    table: Annotated[
        Path | None, typer.Argument(help="The patients' rows; this home's own if left out.")
    ] = None,
    schema: Annotated[Path | None, typer.Option("--schema", help="schema.yaml, once.")] = None,
    dataset: Annotated[str, typer.Option("--dataset", help="Its name.")] = "validation",
    epsilon: Annotated[str, typer.Option("--epsilon", help="Of one evaluation.")] = "1.0",
    limit: Annotated[
        str | None, typer.Option("--limit", help="Epsilon these patients may ever cost.")
    ] = None,
    size_class: Annotated[
        int | None, typer.Option("--size-class", help="Power of two, not above the rows.")
    ] = None,
    email: Email = None,
    box: BoxFolder = None,
    home: Home = DEFAULT_HOME,
    as_json: Json = False,
) -> None:
    """Hospital: publish made-up rows of the schema; no real row leaves the table."""
    from clearinghouse.cli import onsite
    from clearinghouse.cli.hospital import SealOptions

    place = onsite.open_place(home, "hospital", email, box)
    seal = SealOptions(table, schema, size_class, None, limit)
    options = onsite.PublishOptions(dataset, developer, epsilon, seal)
    emit(as_json, *onsite.publish(place, options))


@onsite_app.command("submit")
def submit(
    model: Annotated[Path, typer.Argument(help="An .onnx file.")],
    hospital: Annotated[str, typer.Option("--hospital", help="Its email.")],
    job: Annotated[str, typer.Option("--job", help="Name of the job.")],
    dataset: Annotated[str, typer.Option("--dataset", help="The hospital's dataset.")] = (
        "validation"
    ),
    cuts: Annotated[
        str | None, typer.Option("--cuts", help="Inner edges of the bins, such as 0.1,0.5,0.9.")
    ] = None,
    threshold: Annotated[
        str, typer.Option("--threshold", help="Score from which a row counts as positive.")
    ] = "0.5",
    repeat: Annotated[
        int, typer.Option("--repeat", min=0, help="Ask afresh for the same model; costs again.")
    ] = 0,
    email: Email = None,
    box: BoxFolder = None,
    home: Home = DEFAULT_HOME,
    as_json: Json = False,
) -> None:
    """Developer: try a model on the made-up rows and submit it."""
    from clearinghouse.cli import onsite
    from clearinghouse.onsite.developer import Wish

    place = onsite.open_place(home, "developer", email, box)
    edge = onsite.fraction_option(threshold, "--threshold")
    wish = Wish(hospital, dataset, job, onsite.cuts_option(cuts), edge, repeat)
    emit(as_json, *onsite.submit(place, model, wish))


@onsite_app.command("review")
def review(
    job: Annotated[str | None, typer.Argument(help="A job; all if left out.")] = None,
    developer: From = None,
    home: Home = DEFAULT_HOME,
    as_json: Json = False,
) -> None:
    """Hospital: see what came, or what one job is."""
    from clearinghouse.cli import onsite

    place = onsite.open_place(home, "hospital")
    found = onsite.inbox(place) if job is None else None
    emit(as_json, *(found or onsite.review(place, str(job), developer, approve=False)))


@onsite_app.command("approve")
def approve(
    job: JobName, developer: From = None, home: Home = DEFAULT_HOME, as_json: Json = False
) -> None:
    """Hospital: keep a copy of a job; this copy is what runs."""
    from clearinghouse.cli import onsite

    place = onsite.open_place(home, "hospital")
    emit(as_json, *onsite.review(place, job, developer, approve=True))


@onsite_app.command("reject")
def reject(
    job: JobName,
    reason: Annotated[str, typer.Option("--reason", help="The developer reads it.")] = "rejected",
    developer: From = None,
    home: Home = DEFAULT_HOME,
    as_json: Json = False,
) -> None:
    """Hospital: say that a job is not run."""
    from clearinghouse.cli import onsite

    place = onsite.open_place(home, "hospital")
    emit(as_json, *onsite.reject(place, job, developer, reason))


@onsite_app.command("run")
def run(
    job: JobName, developer: From = None, home: Home = DEFAULT_HOME, as_json: Json = False
) -> None:
    """Hospital: run an approved job; nothing is spent or released."""
    from clearinghouse.cli import onsite

    place = onsite.open_place(home, "hospital")
    emit(as_json, *onsite.run(place, job, developer))


@onsite_app.command("share")
def share(
    job: JobName, developer: From = None, home: Home = DEFAULT_HOME, as_json: Json = False
) -> None:
    """Hospital: pay epsilon, draw the noise, sign the counts, give them to the developer."""
    from clearinghouse.cli import onsite

    place = onsite.open_place(home, "hospital")
    emit(as_json, *onsite.share(place, job, developer))


@onsite_app.command("carry")
def carry(
    give: Annotated[
        Path | None, typer.Option("--out", help="Copy what the other side may have into it.")
    ] = None,
    take: Annotated[
        Path | None, typer.Option("--in", help="Copy what the other side sent out of it.")
    ] = None,
    developer: Annotated[
        str | None, typer.Option("--for", help="Email of the developer a hospital's --out is for.")
    ] = None,
    email: Email = None,
    box: BoxFolder = None,
    home: Home = DEFAULT_HOME,
    as_json: Json = False,
) -> None:
    """Move jobs and releases by a folder instead of a network."""
    from clearinghouse.cli import onsite

    place = onsite.open_place(home, None, email, box)
    emit(as_json, *onsite.carry_files(place, give, take, developer))


@onsite_app.command("collect")
def collect(
    job: JobName,
    hospital: Annotated[str, typer.Option("--hospital", help="Its email.")],
    home: Home = DEFAULT_HOME,
    as_json: Json = False,
) -> None:
    """Developer: verify what a hospital released, and show the scores."""
    from clearinghouse.cli import onsite

    place = onsite.open_place(home, "developer")
    emit(as_json, *onsite.collect(place, hospital, job))
