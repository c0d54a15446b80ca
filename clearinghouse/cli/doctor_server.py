"""`doctor --data`: what a server's folder, database and workers need, as the operator sees it."""

import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from clearinghouse.blobs import BlobStore
from clearinghouse.cli.doctor import Finding, machine, report
from clearinghouse.cli.options import Result
from clearinghouse.clock import timestamp
from clearinghouse.errors import ClearinghouseError
from clearinghouse.rounds import garbage
from clearinghouse.rounds.queue import PROTOCOL
from clearinghouse.settings import Settings, settings_from_environment
from clearinghouse.store.store import Store, Tx

SILENT_LEASES = 3


def doctor_server(data: Path, *, world: bool = False, owners: Sequence[Path] = ()) -> Result:
    """Check everything that a server needs; with `world` also everything it holds.

    Args:
        data: The server's folder.
        world: Whether to recompute all that it holds.
        owners: With `world`, homes of owners of data whose ledgers are compared with the log.
    """
    try:
        settings = settings_from_environment(data)
    except ClearinghouseError as error:
        return report([Finding("settings", "broken", str(error), "correct the variable")])
    found = _world(data, owners) if world else ()
    return report([*machine(), *_folder(settings), *_database(settings), *found])


def _world(data: Path, owners: Sequence[Path]) -> Iterator[Finding]:
    from clearinghouse.cli.world import look_at_world

    try:
        yield from look_at_world(data, owners)
    except ClearinghouseError as error:
        yield Finding("world", "broken", str(error), "see docs/operate.md, Drills")


def _folder(settings: Settings) -> Iterator[Finding]:
    data = settings.data
    if not data.is_dir():
        yield Finding("data", "broken", f"{data} does not exist", "give the server's --data")
        return
    for name in ("server.key", "log.key"):
        path = data / name
        if not path.exists():
            where = "a worker" if name == "server.key" else "a worker, or a server with a sequencer"
            yield Finding("keys", "note", f"{name} is not here", f"right on the machine of {where}")
        elif stat.S_IMODE(path.stat().st_mode) & 0o077:
            yield Finding("keys", "broken", f"others can read {name}", f"run chmod 600 {path}")
        else:
            yield Finding("keys", "ok", name)
    blobs = settings.blob_place.open()
    yield _place(settings, blobs)
    free, reserve = blobs.staging.free(), settings.disk_reserve_bytes
    words = f"{free / 2**30:.1f} GiB free, {reserve / 2**30:.2f} GiB are kept in reserve"
    yield Finding(
        "disk",
        "ok" if free >= reserve else "broken",
        words,
        "" if free >= reserve else "make room: uploads and jobs' results are refused until then",
    )


def _place(settings: Settings, blobs: BlobStore) -> Finding:
    """Where blobs are, and whether it answers."""
    words = settings.blob_url or str(settings.blob_place.folder)
    try:
        blobs.find("0" * 64)
    except ClearinghouseError as error:
        remedy = "check CLEARINGHOUSE_BLOB_URL, the AWS_ variables and the service"
        return Finding("blob store", "broken", f"{words}: {error}", remedy)
    return Finding("blob store", "ok", words)


def _stored(tx: Tx, settings: Settings) -> Iterator[Finding]:
    """Blobs, unfinished uploads, and when garbage was collected last."""
    count, size = tx.blobs.total()
    yield Finding("blobs", "ok", f"{count}, {size / 1e6:.1f} MB")
    count, announced, received = tx.partials.total()
    words = (
        f"{count} unfinished, {received / 1e6:.1f} of {announced / 1e6:.1f} MB came; room for "
        f"{settings.partial_bytes / 1e6:.0f} MB"
    )
    is_full = announced > 0.9 * settings.partial_bytes
    remedy = "raise CLEARINGHOUSE_PARTIAL_BYTES, or wait until some expire" if is_full else ""
    yield Finding("uploads", "note" if is_full else "ok", words, remedy)
    last = garbage.read_last(tx.meta(garbage.LAST))
    if last is None:
        yield Finding("garbage", "note", "never collected", "clearinghouse store gc --dry-run")
        return
    words = f"{timestamp(last.at)}: {last.unnamed + last.strays} blobs, {last.bytes / 1e6:.1f} MB"
    if last.missing:
        remedy = "restore them; clearinghouse store gc --dry-run --json names them"
        yield Finding("garbage", "broken", f"{words}; {last.missing} blobs are missing", remedy)
    else:
        yield Finding("garbage", "ok", words)


def _database(settings: Settings) -> Iterator[Finding]:
    is_new = not settings.database_url and not (settings.data / "clearinghouse.db").is_file()
    if is_new:
        yield Finding("database", "note", "none yet", "the first start makes it")
        return
    try:
        store = Store(settings.url)
    except ClearinghouseError as error:
        yield Finding("database", "broken", str(error), "see docs/operate.md, Schema versions")
        return
    try:
        with store.read() as tx:
            yield Finding("database", "ok", f"{tx.log.size()} log entries")
            yield from _waiting(tx)
            yield from _workers(tx, settings)
            yield from _jobs(tx)
            yield from _stored(tx, settings)
    finally:
        store.close()


def _waiting(tx: Tx) -> Iterator[Finding]:
    """Entries that have no position yet; on a server at work that is so for about a second."""
    count = tx.log.waiting()
    if count:
        remedy = "is a server or clearinghouse sequencer at work? clearinghouse sequencer --once"
        yield Finding("sequencer", "note", f"{count} log entries wait for it", remedy)


def _workers(tx: Tx, settings: Settings) -> Iterator[Finding]:
    now, workers = time.time(), tx.workers.all()
    if not workers:
        remedy = "start the server or clearinghouse worker"
        yield Finding("workers", "broken", "no worker is alive", remedy)
    for worker in workers:
        silent_s = now - worker.seen
        words = f"{worker.id} on {worker.host}, {worker.slots} slots, {worker.state}"
        if silent_s > SILENT_LEASES * settings.lease_s:
            remedy = "look at its log; its jobs go to others"
            yield Finding("workers", "note", f"{words}, silent for {silent_s:.0f} s", remedy)
        elif worker.protocol != PROTOCOL:
            remedy = f"it leaves jobs of protocol {PROTOCOL}: upgrade it"
            yield Finding("workers", "note", f"{words}, protocol {worker.protocol}", remedy)
        else:
            yield Finding("workers", "ok", words)


def _jobs(tx: Tx) -> Iterator[Finding]:
    open_jobs = tx.jobs.open()
    waiting = [job for job in open_jobs if job.state == "queued"]
    tried = [job for job in open_jobs if job.reason]
    words = f"{len(waiting)} wait, {len(open_jobs) - len(waiting)} at work"
    yield Finding("jobs", "ok", words)
    for job in tried:
        detail = f"{job.id} ({job.kind}), attempt {job.attempts}: {job.reason}"
        yield Finding("jobs", "note", detail, f"clearinghouse job show {job.id}")
    strangers = [job for job in open_jobs if job.protocol != PROTOCOL]
    if strangers:
        words = f"{len(strangers)} of another protocol than {PROTOCOL}"
        yield Finding("jobs", "note", words, "they wait for a worker of their version")
