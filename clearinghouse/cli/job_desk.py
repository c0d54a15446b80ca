"""Jobs under the operator's eyes and hands, on the server's database."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clearinghouse.cli.options import Result, columns
from clearinghouse.clock import SystemClock, timestamp
from clearinghouse.errors import InputError, RefusedError
from clearinghouse.messages.jobs import JobView
from clearinghouse.rounds import job_views
from clearinghouse.settings import settings_from_environment
from clearinghouse.store.store import Store
from clearinghouse.store.work_records import WorkerRecord


@contextmanager
def opened(data: Path) -> Iterator[Store]:
    """The database of a server's folder.

    Raises:
        InputError: There is none.
    """
    settings = settings_from_environment(data)
    if not settings.database_url and not (data / "clearinghouse.db").is_file():
        raise InputError(f"{data} holds no database. Give the --data of the server")
    store = Store(settings.url)
    try:
        yield store
    finally:
        store.close()


def list_jobs(data: Path, request_id: str | None) -> Result:
    """Open jobs, or all of one request, and the workers."""
    with opened(data) as store, store.read() as tx:
        found = tx.jobs.open() if request_id is None else tx.jobs.of(request_id)
        jobs = job_views.views(tx, found, SystemClock().now())
        workers = tx.workers.all()
    value = {
        "jobs": [job.model_dump() for job in jobs],
        "workers": [_worker(worker) for worker in workers],
    }
    rows = [["job", "kind", "state", "line", "tries", "since", "worker", "reason"]]
    rows += [_row(job) for job in jobs]
    lines = [columns(rows) if jobs else "no job is open"]
    lines += [
        f"{worker.id}: {worker.state} on {worker.host} (process {worker.pid}), "
        f"{worker.slots} slots, protocol {worker.protocol}, last heard of {timestamp(worker.seen)}"
        for worker in workers
    ]
    return value, "\n".join(lines if workers else [*lines, "no worker is alive"])


def _row(job: JobView) -> list[str]:
    return [
        job.id,
        job.kind,
        job.state,
        str(job.position or "-"),
        str(job.attempts),
        job.since,
        job.worker or "-",
        job.reason or "-",
    ]


def _worker(worker: WorkerRecord) -> dict[str, Any]:
    return {
        "id": worker.id,
        "host": worker.host,
        "pid": worker.pid,
        "slots": worker.slots,
        "state": worker.state,
        "protocol": worker.protocol,
        "seen": timestamp(worker.seen),
    }


def show_job(data: Path, job_id: str) -> Result:
    """One job.

    Raises:
        NotFoundError: There is none.
    """
    with opened(data) as store, store.read() as tx:
        job = tx.jobs.get(job_id)
        view = job_views.views(tx, [job], SystemClock().now())[0]
        words = job_views.sentence(tx, view) if job.finished is None else view.state
    value = view.model_dump() | {"request_id": job.request_id, "protocol": job.protocol}
    lines = [f"{job.id}: {job.kind} of {job.request_id} about {job.subject}", f"  {words}"]
    lines += [f"  {view.reason}"] if view.reason else []
    lines.append(f"  {job.attempts} attempts, deadline {view.deadline}, protocol {job.protocol}")
    return value, "\n".join(lines)


def cancel_job(data: Path, job_id: str, reason: str) -> Result:
    """Cancel an open job.

    Raises:
        NotFoundError: There is none.
        RefusedError: It has ended.
    """
    with opened(data) as store, store.write() as tx:
        job = tx.jobs.get(job_id)
        told = f"the operator cancelled it: {reason}"
        if not tx.jobs.cancel_one(job.id, told, SystemClock().now()):
            raise RefusedError(f"{job.id} is {job.state}: it has ended already")
    value = {"id": job.id, "request_id": job.request_id, "state": "cancelled"}
    return value, f"{job.id}: cancelled; its process is ended within a second"


def retry_job(data: Path, job_id: str) -> Result:
    """Have an open job tried again now.

    Raises:
        NotFoundError: There is none.
        RefusedError: It has ended.
    """
    with opened(data) as store, store.write() as tx:
        job = tx.jobs.get(job_id)
        if not tx.jobs.retry(job.id):
            raise RefusedError(f"{job.id} is {job.state}: it has ended and cannot be retried")
    value = {"id": job.id, "request_id": job.request_id, "state": "queued"}
    return value, f"{job.id}: stands in the line again"
