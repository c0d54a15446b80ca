"""Who still works on what: heartbeats, and taking jobs from workers that fell silent.

No two machines' clocks are compared. A worker counts its heartbeats up; whoever watches notes, by
its own monotonic clock, since when a count stands still. Where it could not look itself for so
long (it was frozen, the database was away) it begins anew. A worker on this very machine whose
process is gone is not waited for.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from clearinghouse.journal import journal
from clearinghouse.rounds import here
from clearinghouse.settings import Settings
from clearinghouse.store.store import Store
from clearinghouse.store.work_records import Job, WorkerRecord

_log = journal("leases")


@dataclass(frozen=True, slots=True)
class _Seen:
    """A count of heartbeats, and when it was first seen."""

    count: tuple[int, int]
    at: float


class Watch:
    """Looks after everybody's leases; any number of processes may do so at once."""

    def __init__(
        self, store: Store, settings: Settings, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._store, self._settings, self._monotonic = store, settings, monotonic
        self._place = here.place()
        self._seen: dict[str, _Seen] = {}
        self._looked = monotonic()

    def look(self, now: float) -> int:
        """Give back the jobs of silent workers, and strike off the workers; how many jobs."""
        with self._store.read() as tx:
            workers = {worker.id: worker for worker in tx.workers.all()}
            running = [job for job in tx.jobs.open() if job.state == "running"]
        if self._monotonic() - self._looked >= self._settings.lease_s:
            self._seen.clear()
        self._looked = self._monotonic()
        gone = {worker.id for worker in workers.values() if self._is_gone(worker)}
        silent = [
            job
            for job in running
            if job.owner not in workers or job.owner in gone or self._is_silent(job)
        ]
        known = {*workers, *(job.id for job in running)}
        self._seen = {name: seen for name, seen in self._seen.items() if name in known}
        if not silent and not gone:
            return 0
        return self._take(silent, gone, now)

    def _take(self, silent: list[Job], gone: set[str], now: float) -> int:
        most, taken = self._settings.job_attempts, 0
        with self._store.write() as tx:
            for job in silent:
                reason = "its worker fell silent"
                # A heartbeat that came in between is respected.
                if tx.jobs.get(job.id).beats == job.beats:
                    taken += tx.jobs.give_back(job, reason, now, most=most, counts=True)
            for worker_id in gone:
                tx.workers.remove(worker_id)
        for job in silent:
            _log.warning("lease expired", job=job.kind, id=job.id, worker=job.owner)
        return taken

    def _is_gone(self, worker: WorkerRecord) -> bool:
        if worker.place == self._place and self._place:
            return here.begun(worker.pid) != worker.begun
        return self._stands(worker.id, (0, worker.beats))

    def _is_silent(self, job: Job) -> bool:
        return self._stands(job.id, (job.token, job.beats))

    def _stands(self, name: str, count: tuple[int, int]) -> bool:
        """Whether a count has not moved for the length of a lease."""
        seen = self._seen.get(name)
        if seen is None or seen.count != count:
            self._seen[name] = _Seen(count, self._monotonic())
            return False
        return self._monotonic() - seen.at >= self._settings.lease_s
