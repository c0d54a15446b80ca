"""The operator's commands: worker, sequencer, job. They work on the database, not through the API.

Only declarations: what a command needs is imported when it runs.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from clearinghouse.cli.options import Json, emit

job_app = typer.Typer(
    no_args_is_help=True, help="The server's long work, for its operator, on its database."
)

Data = Annotated[Path, typer.Option("--data", help="The server's folder; its settings apply.")]
DATA = Path("clearinghouse-data")
JobArgument = Annotated[str, typer.Argument(help="job_...")]


def declare(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(worker)
    app.command()(sequencer)
    app.add_typer(job_app, name="job")


def worker(
    data: Data = DATA,
    slots: Annotated[
        int | None, typer.Option("--slots", min=1, help="Jobs at once; one a core if left out.")
    ] = None,
    parent: Annotated[
        int | None, typer.Option("--parent", help="End with this process, which started us.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Do a server's jobs, here or on another machine.

    It needs the database (CLEARINGHOUSE_DATABASE_URL) and the server's blobs folder, and no key.
    SIGTERM lets the jobs at work end first.
    """
    from clearinghouse.cli.operator import run_worker
    from clearinghouse.lifeline import die_with

    if parent is not None:
        die_with(parent)

    def announce(worker_id: str, count: int) -> None:
        value = {"event": "working", "worker": worker_id, "slots": count}
        emit(as_json, value, f"{worker_id}: takes up to {count} jobs at once")
        sys.stdout.flush()

    run_worker(data, slots, announce)


def sequencer(
    data: Annotated[
        Path, typer.Option("--data", help="Folder of the log's key; no server needs it.")
    ] = DATA,
    once: Annotated[bool, typer.Option("--once", help="Place what waits now, and end.")] = False,
    parent: Annotated[
        int | None, typer.Option("--parent", help="End with this process, which started us.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Give log entries their positions and sign the log's heads, for servers on PostgreSQL.

    For servers that run with --no-sequencer: the log's key is here alone then. More than one may
    run; they take turns.
    """
    from clearinghouse.cli.operator import run_sequencer
    from clearinghouse.lifeline import die_with

    if parent is not None:
        die_with(parent)

    def announce(vkey: str) -> None:
        if not once:
            emit(as_json, {"event": "sequencing", "vkey": vkey}, f"sequencing the log of {vkey}")
            sys.stdout.flush()

    placed = run_sequencer(data, announce, once=once)
    if once:
        emit(as_json, {"placed": placed}, f"{placed} entries placed")


@job_app.command("list")
def job_list(
    data: Data = DATA,
    request: Annotated[
        str | None, typer.Option("--request", help="req_...: all jobs of this one.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List open jobs with what each waits for, and the workers."""
    from clearinghouse.cli.job_desk import list_jobs

    emit(as_json, *list_jobs(data, request))


@job_app.command("show")
def job_show(job_id: JobArgument, data: Data = DATA, as_json: Json = False) -> None:
    """Show a job: attempts, worker, deadline, reason."""
    from clearinghouse.cli.job_desk import show_job

    emit(as_json, *show_job(data, job_id))


@job_app.command("cancel")
def job_cancel(
    job_id: JobArgument,
    reason: Annotated[str, typer.Option("--reason", help="What its parties will read.")],
    data: Data = DATA,
    as_json: Json = False,
) -> None:
    """Cancel a job and end its process.

    Its run fails with the reason; a job that a whole request needs ends the request.
    """
    from clearinghouse.cli.job_desk import cancel_job

    emit(as_json, *cancel_job(data, job_id, reason))


@job_app.command("retry")
def job_retry(job_id: JobArgument, data: Data = DATA, as_json: Json = False) -> None:
    """Take an open job from its worker, or end its pause; it is tried again at once."""
    from clearinghouse.cli.job_desk import retry_job

    emit(as_json, *retry_job(data, job_id))
