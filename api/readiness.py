"""Whether this server can take calls now, and what is not as it should be.

`down` means that calls would fail: the probe answers 503 and a balancer sends them elsewhere.
`degraded` means that calls are taken and stored, but something waits: workers are away, or the
log's head was not signed for long. A probe may come every second and from anybody, so its one write
to the database happens at most every few seconds.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from clearinghouse.clock import seconds_of, timestamp
from clearinghouse.errors import ClearinghouseError
from clearinghouse.log.entries import parse_entry
from clearinghouse.rounds.desk import Desk, free_bytes
from clearinghouse.rounds.queue import PROTOCOL

KEPT_S = 3.0
LATE_ENTRY_S = 10.0
"""No sequencer is at work if an entry waits so long; it takes about a second at most."""

OLD_CHECKPOINT_S = 24 * 3600.0
DIRE_PART = 4
"""With less than a quarter of the reserve left, other calls should go elsewhere too."""

_ORDER = ("ok", "degraded", "down")
_WORDS = {"ok": "ready", "degraded": "degraded", "down": "unready"}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    state: Literal["ok", "degraded", "down"]
    detail: str


class Readiness:
    """Looks, and remembers for a moment what it saw."""

    def __init__(self, desk: Desk, is_at_work: Callable[[], bool]) -> None:
        self._desk, self._is_at_work = desk, is_at_work
        self._lock = threading.Lock()
        self._kept: tuple[float, dict[str, Any]] | None = None

    def look(self) -> dict[str, Any]:
        """Status, number of log entries and every check."""
        with self._lock:
            if self._kept is None or time.monotonic() - self._kept[0] >= KEPT_S:
                self._kept = (time.monotonic(), self._look())
            return self._kept[1]

    def _look(self) -> dict[str, Any]:
        checks = {"disk": self._disk(), "runner": self._runner()}
        entries = None
        try:
            now = timestamp(self._desk.clock.now())
            with self._desk.store.write() as tx:
                tx.set_meta("probe", now)
            checks["database"] = Check("ok", "takes writes")
            entries, checks["checkpoint"], checks["workers"], checks["sequencer"] = self._read()
        except ClearinghouseError as error:
            checks["database"] = Check("down", error.problem_type)
        worst = max((check.state for check in checks.values()), key=_ORDER.index)
        return {
            "status": _WORDS[worst],
            "entries": entries,
            "checks": {name: asdict(check) for name, check in sorted(checks.items())},
        }

    def _disk(self) -> Check:
        free, reserve = free_bytes(self._desk), self._desk.settings.disk_reserve_bytes
        words = f"{free // 2**20} MiB free, {reserve // 2**20} MiB are kept in reserve"
        if free >= reserve:
            return Check("ok", words)
        if free >= reserve // DIRE_PART:
            return Check("degraded", f"{words}: uploads and jobs' results are refused (507)")
        return Check("down", f"{words}: soon nothing can be recorded")

    def _runner(self) -> Check:
        if self._is_at_work():
            return Check("ok", "requests move on")
        return Check("degraded", "a thread of this server has ended; start it again")

    def _read(self) -> tuple[int, Check, Check, Check]:
        with self._desk.store.read() as tx:
            entries, signed = tx.log.size(), tx.log.signed_size()
            late, first = tx.log.waiting(), tx.log.first_waiting()
            workers = [worker for worker in tx.workers.all() if worker.state == "working"]
            waiting = sum(depth.count for depth in tx.jobs.depths() if depth.state == "queued")
        ours = [worker for worker in workers if worker.protocol == PROTOCOL]
        words = f"{len(ours)} workers of protocol {PROTOCOL}, {waiting} jobs wait"
        return (
            entries,
            self._checkpoint(entries, signed),
            Check("ok" if ours else "degraded", words),
            self._sequencer(late, first),
        )

    def _sequencer(self, late: int, first: bytes | None) -> Check:
        if first is None:
            return Check("ok", "no log entry waits for its position")
        age = max(0.0, self._desk.clock.now() - seconds_of(parse_entry(first).time))
        words = f"{late} log entries wait for their position, the oldest for {age:.0f} s"
        return Check("degraded" if age > LATE_ENTRY_S else "ok", words)

    def _checkpoint(self, entries: int, signed: int) -> Check:
        if self._desk.sequencer is None:  # published where it is signed
            return Check("ok", f"the sequencer's covers {signed} of {entries} entries")
        try:
            published = self._desk.settings.published.stat().st_mtime
        except OSError:
            return Check("ok", f"none was published yet, {entries} entries")
        age = max(0.0, time.time() - published)
        is_late = entries > signed and age > OLD_CHECKPOINT_S
        words = f"covers {signed} of {entries} entries, {age:.0f} s old"
        return Check("degraded" if is_late else "ok", words)
