"""Numbers of the whole clearinghouse for Prometheus, read from the database when it asks.

Work waits in the database and not in a process, so every API process shows the same; what to scale
workers by is `clearinghouse_jobs_queued` and `clearinghouse_job_oldest_seconds`. There are no
labels of organisations, requests or runs.
"""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from clearinghouse.rounds.desk import Desk, free_bytes
from clearinghouse.store.jobs import Depth
from clearinghouse.store.store import Tx
from clearinghouse.store.work_records import WorkerRecord


class Numbers:
    """A collector over the store."""

    def __init__(self, desk: Desk, registry: CollectorRegistry) -> None:
        self._desk = desk
        registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """Nothing is asked of the database before the first scrape."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Read everything in one transaction."""
        now = self._desk.clock.now()
        with self._desk.store.read() as tx:
            metrics = [*_sizes(tx), *_states(tx), *_jobs(tx, now)]
        yield from metrics
        yield _gauge("disk_free_bytes", "Free bytes of the data folder.", free_bytes(self._desk))


def _gauge(name: str, words: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"clearinghouse_{name}", words, value=value)


def _sizes(tx: Tx) -> Iterator[Metric]:
    entries = tx.log.size()
    signed = tx.log.signed_size()
    yield _gauge("log_entries", "Entries of the transparency log.", entries)
    yield _gauge(
        "log_unsigned_entries", "Entries that no signed checkpoint covers.", entries - signed
    )
    yield _gauge(
        "log_waiting_entries", "Entries that the sequencer has not placed yet.", tx.log.waiting()
    )
    yield _gauge("ledger_postings", "Postings of the ledger.", tx.ledger.count())
    blobs, size = tx.blobs.total()
    yield _gauge("blobs", "Stored blobs.", blobs)
    yield _gauge("blob_bytes", "Bytes of stored blobs.", size)


def _states(tx: Tx) -> Iterator[Metric]:
    for name, words, counts in (
        ("requests", "Requests by state.", tx.requests.count_by_state()),
        ("tasks", "Tasks by state.", tx.tasks.count_by_state()),
    ):
        family = GaugeMetricFamily(f"clearinghouse_{name}", words, labels=["state"])
        for state, count in sorted(counts.items()):
            family.add_metric([state], count)
        yield family


def _jobs(tx: Tx, now: float) -> Iterator[Metric]:
    depths = tx.jobs.depths()
    yield _depth("jobs_queued", "Jobs that wait for a worker.", depths, "queued")
    yield _depth("jobs_running", "Jobs at work.", depths, "running")
    oldest = GaugeMetricFamily(
        "clearinghouse_job_oldest_seconds", "Age of the oldest waiting job.", labels=["kind"]
    )
    for depth in depths:
        if depth.state == "queued":
            oldest.add_metric([depth.kind], max(0.0, now - depth.oldest))
    yield oldest
    ended = CounterMetricFamily(
        "clearinghouse_jobs_ended", "Jobs that ended, by how.", labels=["kind", "state"]
    )
    for (kind, state), count in sorted(tx.jobs.count_by_state().items()):
        if state not in ("queued", "running"):
            ended.add_metric([kind, state], count)
    yield ended
    workers = tx.workers.all()
    yield _workers(workers)
    yield _gauge("worker_slots", "Jobs that all workers can do at once.", _slots(workers))
    busy = sum(depth.count for depth in depths if depth.state == "running")
    yield _gauge("worker_slots_busy", "Slots with a job at work.", busy)


def _depth(name: str, words: str, depths: Iterable[Depth], state: str) -> Metric:
    family = GaugeMetricFamily(f"clearinghouse_{name}", words, labels=["kind"])
    for depth in depths:
        if depth.state == state:
            family.add_metric([depth.kind], depth.count)
    return family


def _workers(workers: Iterable[WorkerRecord]) -> Metric:
    family = GaugeMetricFamily(
        "clearinghouse_workers", "Workers by state and protocol.", labels=["state", "protocol"]
    )
    counts: dict[tuple[str, str], int] = {}
    for worker in workers:
        key = (worker.state, worker.protocol)
        counts[key] = counts.get(key, 0) + 1
    for (state, protocol), count in sorted(counts.items()):
        family.add_metric([state, protocol], count)
    return family


def _slots(workers: Iterable[WorkerRecord]) -> int:
    return sum(worker.slots for worker in workers if worker.state == "working")
