"""A worker: takes jobs from the database and does them in capped processes, several at once.

The same code runs inside `serve` and as `clearinghouse worker` on other machines. It needs the
database and the blobs, and no signing key. Each slot is a thread with a process of its own, because
such a process dies with the thread that started it.
"""

import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from clearinghouse.cause import because, parse_cause
from clearinghouse.clock import Clock
from clearinghouse.errors import ClearinghouseError, TryAgainError
from clearinghouse.failpoints import reach
from clearinghouse.ids import new_id
from clearinghouse.journal import journal
from clearinghouse.rounds import here
from clearinghouse.rounds.desk import Bell
from clearinghouse.rounds.leases import Watch
from clearinghouse.rounds.queue import PROTOCOL
from clearinghouse.settings import Settings
from clearinghouse.store.store import Store, Tx
from clearinghouse.store.work_records import Job, WorkerRecord, WorkerState
from clearinghouse.traces import span
from clearinghouse.worker import CrashError, Processor, StoppedError, make_processor

LOOK_S = 0.25
"""How often a worker looks whether its jobs were cancelled."""

BEATS = 4
"""Heartbeats in the length of a lease."""

_PATIENCE_S = 60.0
STORE_PAUSE_S = 5.0
"""Until a job is tried again whose result found no room."""

"""How long a finished job's result is offered to a database that is away."""

_log = journal("pool")


class Pool:
    """One worker process's slots.

    Args:
        store: The database.
        settings: How many slots, leases and limits.
        clock: For times that people read and pauses between attempts.
        bell: Rung when a job was queued in this process.
        done: Called after every job that ended here.
        protocol: Version of jobs that this worker does.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        clock: Clock,
        bell: Bell,
        *,
        done: Callable[[], None] = lambda: None,
        protocol: str = PROTOCOL,
    ) -> None:
        self.id = new_id("wrk")
        self.store, self.settings, self.clock = store, settings, clock
        self.bell, self.done, self.protocol = bell, done, protocol
        self.stopping, self.draining = threading.Event(), threading.Event()
        count = 1 if settings.in_process and settings.workers else settings.workers
        self._slots = [_Slot(self, number) for number in range(count)]
        self._heart = threading.Thread(target=self._beat_on, name="heart", daemon=True)
        self._watch = Watch(store, settings)

    def start(self) -> None:
        """Begin: announce this worker, then take jobs.

        A process that froze while it wrote holds the writers' lock until the database gives up on
        it: whoever comes to help must outwait that.

        Raises:
            TryAgainError: The database is away for long.
        """
        if not self._slots:
            return
        self.write(self._announce)
        self._heart.start()
        for slot in self._slots:
            slot.start()

    def _announce(self, tx: Tx) -> bool:
        tx.workers.add(self._record("working"))
        return True

    def drain(self, seconds: float) -> bool:
        """Take no further job and wait for those at work; whether all have ended in time."""
        self.draining.set()
        self.bell.ring()
        end = time.monotonic() + seconds
        while any(slot.job is not None for slot in self._slots):
            if time.monotonic() >= end:
                return False
            time.sleep(0.05)
        return True

    def close(self) -> None:
        """End: what is at work is given back and does not count as an attempt."""
        self.draining.set()
        self.stopping.set()
        self.bell.ring()
        if not self._slots or not self._heart.is_alive():
            return
        for slot in self._slots:
            slot.close()
        self._heart.join()
        # If this does not succeed, the others see soon enough that it is gone.
        with suppress(ClearinghouseError), self.store.write() as tx:
            tx.workers.remove(self.id)

    @property
    def is_alive(self) -> bool:
        """Whether every thread of this worker runs."""
        return all(slot.is_alive for slot in self._slots)

    def write(self, act: Callable[[Tx], bool]) -> bool:
        """One transaction, offered until the database takes it or patience ends.

        Raises:
            TryAgainError: The database is away for long.
        """
        end = time.monotonic() + _PATIENCE_S
        while True:
            try:
                with self.store.write() as tx:
                    return act(tx)
            except TryAgainError:
                if self.stopping.is_set() or time.monotonic() >= end:
                    raise
                self.stopping.wait(0.2)

    # ---------------------------------------------------------------- the heart

    def _beat_on(self) -> None:
        """Heartbeats of this worker and its jobs, and a look at everybody's."""
        pause, last = min(LOOK_S, self.settings.lease_s / BEATS / 2), 0.0
        while not self.stopping.wait(pause):
            try:
                if time.monotonic() - last >= self.settings.lease_s / BEATS:
                    self._beat()
                    self._watch.look(self.clock.now())
                    last = time.monotonic()
                else:
                    self._check()
            except TryAgainError:
                continue  # the database is away; the next beat comes soon
            except Exception as error:  # noqa: BLE001  a heart must not stop for one mistake
                _log.error("mistake", kind=type(error).__name__, exc_info=True)

    def _beat(self) -> None:
        state: WorkerState = "draining" if self.draining.is_set() else "working"
        held = [(slot, job) for slot in self._slots if (job := slot.job) is not None]
        with self.store.write() as tx:
            is_known = tx.workers.beat(self.id, state, self.clock.now())
            lost = [(slot, job) for slot, job in held if not tx.jobs.beat(job)]
            if not is_known:  # it was frozen so long that it was taken for dead
                tx.workers.add(self._record(state))
        for slot, job in lost:
            slot.abandon(job)

    def _record(self, state: WorkerState) -> WorkerRecord:
        pid, now = os.getpid(), self.clock.now()
        return WorkerRecord(
            self.id,
            here.host(),
            here.place(),
            pid,
            here.begun(pid),
            self.protocol,
            len(self._slots),
            state,
            now,
            now,
        )

    def _check(self) -> None:
        held = [(slot, job) for slot in self._slots if (job := slot.job) is not None]
        if not held:
            return
        with self.store.read() as tx:
            lost = [(slot, job) for slot, job in held if not tx.jobs.still(job)]
        for slot, job in lost:
            slot.abandon(job)


class _Slot:
    """One job at a time."""

    def __init__(self, pool: Pool, number: int) -> None:
        self._pool, self._name = pool, f"{pool.id}/{number}"
        self._processor: Processor = make_processor(pool.settings)
        self._thread = threading.Thread(target=self._loop, name=f"slot-{number}", daemon=True)
        self._lock = threading.Lock()
        self.job: Job | None = None

    def start(self) -> None:
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def close(self) -> None:
        self._processor.close()
        self._thread.join()

    def abandon(self, job: Job) -> None:
        """End a job that was cancelled or given to another: nobody wants its result."""
        with self._lock:
            if self.job is not job:
                return
            self._processor.kill()
        _log.info("abandoned", job=job.kind, id=job.id)

    def _loop(self) -> None:
        pool, seen = self._pool, -1
        while not pool.draining.is_set():
            try:
                job = self._claim()
                if job is not None:
                    with because(parse_cause(job.cause)):
                        self._do(job)
                    continue
            except TryAgainError as error:
                _log.warning("again", kind=error.problem_type)
            except Exception as error:  # noqa: BLE001  one bad job must not end the slot
                _log.error("mistake", kind=type(error).__name__, exc_info=True)
            finally:
                self._hold(None)
            seen = pool.bell.wait(seen, pool.settings.idle_s)

    def _claim(self) -> Job | None:
        pool, now = self._pool, self._pool.clock.now()
        with pool.store.read() as tx:
            if not tx.jobs.line(pool.protocol, now, self._name):
                return None
        with pool.store.write() as tx:
            job = tx.jobs.claim(pool.id, self._name, pool.protocol, now)
            reach("job.claiming")
        self._hold(job)
        if job is not None:
            reach("job.claimed")
        return job

    def _hold(self, job: Job | None) -> None:
        with self._lock:
            self.job = job

    def _do(self, job: Job) -> None:
        started = time.monotonic()
        with span(f"job {job.kind}", job=job.id, request=job.request_id, attempt=job.attempts):
            end = self._work(job)
            reach("job.computed")
            is_ours = self._pool.write(lambda tx: self._end(tx, job, end))
        reach("job.finished")
        seconds = round(time.monotonic() - started, 4)
        event = "finished" if is_ours else "late result refused"
        _log.info(event, job=job.kind, id=job.id, attempt=job.attempts, seconds=seconds)
        self._pool.done()

    def _end(self, tx: Tx, job: Job, end: Callable[[Tx, Job, float], bool]) -> bool:
        is_ours = end(tx, job, self._pool.clock.now())
        reach("job.finishing")
        return is_ours

    def _work(self, job: Job) -> Callable[[Tx, Job, float], bool]:
        """Do a job; returns what is to be written of it."""
        arguments: dict[str, Any] = json.loads(job.arguments)
        try:
            result = self._processor.run(job.kind, arguments)
        except StoppedError:
            return self._again("its worker was stopped", counts=False)
        except TryAgainError as error:  # no room for the result, or the blob store is away
            return self._again(str(error), counts=False, pause_s=STORE_PAUSE_S)
        except CrashError as error:
            return self._again(str(error), counts=True)
        except ClearinghouseError as error:
            kind, reason = type(error).__name__, str(error)
            return lambda tx, job, now: tx.jobs.fail(job, kind, reason, now)
        text = json.dumps(result, separators=(",", ":"))
        return lambda tx, job, now: tx.jobs.finish(job, text, now)

    def _again(
        self, reason: str, *, counts: bool, pause_s: float = 0.0
    ) -> Callable[[Tx, Job, float], bool]:
        most = self._pool.settings.job_attempts

        def give_back(tx: Tx, job: Job, now: float) -> bool:
            return tx.jobs.give_back(job, reason, now, most=most, counts=counts, pause_s=pause_s)

        return give_back
