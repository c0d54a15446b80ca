"""Jobs as people read them: what each waits for, who does it, since when."""

from collections.abc import Sequence

from clearinghouse.clock import timestamp
from clearinghouse.messages.jobs import JobView
from clearinghouse.rounds.queue import PROTOCOL
from clearinghouse.store.store import Tx
from clearinghouse.store.work_records import Job


def views(tx: Tx, found: Sequence[Job], now: float) -> list[JobView]:
    """Jobs as participants see them."""
    line = tx.jobs.line(PROTOCOL, now) if any(job.state == "queued" for job in found) else []
    places = {job_id: place for place, job_id in enumerate(line, 1)}
    return [_view(job, places.get(job.id, 0)) for job in found]


def _view(job: Job, position: int) -> JobView:
    since = {"queued": job.enqueued, "running": job.started}.get(job.state, job.finished)
    return JobView(
        id=job.id,
        kind=job.kind,
        subject=job.subject,
        words=job.words,
        state=job.state,
        reason=job.reason,
        position=position if job.state == "queued" else 0,
        attempts=job.attempts,
        worker=job.owner,
        since=timestamp(since if since is not None else job.enqueued),
        deadline=timestamp(job.deadline),
    )


def open_of(tx: Tx, request_id: str, now: float) -> list[JobView]:
    """The jobs of a request that are queued or at work."""
    found = [job for job in tx.jobs.of(request_id) if job.state in ("queued", "running")]
    return views(tx, found, now)


def sentence(tx: Tx, job: JobView) -> str:
    """What a job waits for: "the clearinghouse to score a model blindly (...)"."""
    if job.state == "running":
        how = f"{job.kind} is at work on {job.worker} since {job.since}"
    elif job.position:
        how = f"{job.kind} is number {job.position} in the line since {job.since}"
    else:
        how = f"{job.kind} waits for its next attempt"
    if job.attempts > (job.state == "running"):
        how += f", attempt {job.attempts + (job.state == 'queued')}"
    if job.reason:
        how += f": {job.reason}"
    if not tx.workers.all():
        how += "; no worker is alive"
    return f"the clearinghouse {job.words} ({how})"
