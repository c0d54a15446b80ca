"""The thread that moves requests on whenever something happened to them, and the jobs' pool."""

import threading
import time

from clearinghouse.errors import TryAgainError
from clearinghouse.journal import journal
from clearinghouse.rounds import erasure, findings, garbage, pipeline, uploads
from clearinghouse.rounds.desk import Desk
from clearinghouse.rounds.leases import Watch
from clearinghouse.rounds.pool import Pool

SWEEP_S = 60
"""So often it looks for unfinished uploads whose time is over."""

COLLECT_S = 600
"""So often it asks whether the collector is due."""

ERASE_S = 1.0
"""So often it looks for what a withdrawal left behind; the withdrawal itself erases what it can."""

RETAIN_S = 3600
"""So often the runner looks for what was kept long enough."""

MOST_MISTAKES = 5
"""So often in a row a request may hit a mistake of ours before it is failed, with a reason."""

_log = journal("runner")


class Runner:
    """One for each server process; a second process on the same database does no harm."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._mistakes: dict[str, int] = {}
        self._retained = self._swept = self._erased = -float(RETAIN_S)
        self.pool = Pool(desk.store, desk.settings, desk.clock, desk.job_bell, done=desk.bell.ring)
        self._watch = Watch(desk.store, desk.settings)
        self._collector: threading.Thread | None = None

    def start(self) -> None:
        """Begin; every running request is looked at first."""
        self._stop.clear()
        self.pool.start()
        self._thread = threading.Thread(target=self._loop, name="runner", daemon=True)
        self._thread.start()
        self._collector = threading.Thread(target=self._collect_on, name="garbage", daemon=True)
        self._collector.start()

    def close(self) -> None:
        """End for good; a job at hand is given back and done by whoever comes next."""
        self._stop.set()
        self._desk.bell.ring()
        self.pool.close()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._collector is not None:
            self._collector.join()
        self._desk.store.close()

    @property
    def is_alive(self) -> bool:
        """Whether requests are moved on, and jobs done if this process does any."""
        return self._thread is not None and self._thread.is_alive() and self.pool.is_alive

    def _loop(self) -> None:
        seen, looked = -1, time.monotonic()
        while not self._stop.is_set():
            seen = self._desk.bell.wait(seen, self._desk.settings.idle_s)
            try:
                if self._desk.sequencer is not None:
                    self._desk.sequencer.catch_up()
                for request_id in pipeline.due(self._desk):
                    self._advance(request_id)
                self._erase()
                if findings.examine(self._desk):
                    self._desk.bell.ring()
                if time.monotonic() - looked >= self._desk.settings.lease_s / 4:
                    looked = time.monotonic()
                    self._look()
            except TryAgainError as error:
                _log.warning("again", kind=error.problem_type)
            except Exception as error:  # noqa: BLE001  one bad round must not end the service
                _log.error("mistake", kind=type(error).__name__, exc_info=True)

    def _erase(self) -> None:
        """Finish withdrawals, and now and then forget what was kept long enough."""
        if time.monotonic() - self._retained > RETAIN_S:
            self._retained = time.monotonic()
            erasure.retain(self._desk)
        if time.monotonic() - self._swept > SWEEP_S:
            self._swept = time.monotonic()
            uploads.sweep(self._desk)
        if time.monotonic() - self._erased >= ERASE_S:
            erasure.sweep(self._desk)
            self._erased = time.monotonic()

    def _collect_on(self) -> None:
        """Collect blobs that nothing names, now and then; a large store takes a while."""
        while not self._stop.wait(COLLECT_S):
            try:
                if garbage.is_due(self._desk):
                    garbage.collect(self._desk)
            except TryAgainError as error:
                _log.warning("again", kind=error.problem_type)
            except Exception as error:  # noqa: BLE001  one bad round must not end the service
                _log.error("mistake", kind=type(error).__name__, exc_info=True)

    def _look(self) -> None:
        """Where all workers are elsewhere and gone, nobody else would see it."""
        if not self._desk.settings.workers:
            self._watch.look(self._desk.clock.now())

    def _advance(self, request_id: str) -> None:
        """Make all moves of a request that can be made now."""
        try:
            while not self._stop.is_set() and pipeline.advance(self._desk, request_id):
                pass
            self._mistakes.pop(request_id, None)
        except TryAgainError as error:
            _log.warning("again", request=request_id, kind=error.problem_type)
        except Exception as error:  # noqa: BLE001  other requests must go on
            _log.error("mistake", request=request_id, kind=type(error).__name__, exc_info=True)
            self._mistakes[request_id] = self._mistakes.get(request_id, 0) + 1
            if self._mistakes[request_id] >= MOST_MISTAKES:
                self._mistakes.pop(request_id)
                reason = f"the clearinghouse made a mistake ({type(error).__name__})"
                pipeline.fail(self._desk, request_id, reason)
