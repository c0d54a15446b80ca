"""The thread that moves requests on whenever something happened to them."""

import threading

import structlog

from clearinghouse.errors import ClearinghouseError, TryAgainError
from clearinghouse.rounds import pipeline
from clearinghouse.rounds.desk import Desk

_log = structlog.get_logger("runner")


class Runner:
    """One for each server process; a second process on the same database does no harm."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; every running request is looked at first."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._loop, name="runner", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End for good; a job at hand is given up and repeated after the next start."""
        self._stop.set()
        self._desk.bell.ring()
        self._desk.worker.close()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._desk.store.close()

    def _loop(self) -> None:
        seen = -1
        while not self._stop.is_set():
            seen = self._desk.bell.wait(seen, self._desk.settings.idle_s)
            try:
                self._round()
            except TryAgainError as error:
                _log.warning("again", reason=error.problem_type)
            except ClearinghouseError as error:
                _log.error("round", error=type(error).__name__)
            except Exception as error:  # noqa: BLE001  one bad round must not end the service
                _log.error("round", error=type(error).__name__, exc_info=True)

    def _round(self) -> None:
        for request_id in pipeline.due(self._desk):
            while not self._stop.is_set() and pipeline.advance(self._desk, request_id):
                pass
