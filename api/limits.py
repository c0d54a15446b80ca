"""How often an organisation may call, and how much it may upload at once.

Rates are counted in each server process: with n processes behind a proxy an organisation gets up to
n times as many calls. What must be exact (stored bytes, running requests) is counted in the
database instead (`clearinghouse.store.quotas`).
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil

from clearinghouse.errors import RateError
from clearinghouse.settings import Settings

BURST_S = 5
"""A bucket holds what so many seconds fill in, so that a quiet caller may hurry for a moment."""

MOST_BUCKETS = 10_000


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled: float


class Buckets:
    """Token buckets by name, all of one rate."""

    def __init__(self, rate: int, now: Callable[[], float]) -> None:
        self._rate, self._size, self._now = rate, float(rate * BURST_S), now
        self._buckets: dict[str, _Bucket] = {}
        self._turn = threading.Lock()

    def take(self, name: str, what: str) -> None:
        """Use up one token.

        Raises:
            RateError: There is none.
        """
        with self._turn:
            now = self._now()
            bucket = self._buckets.get(name)
            if bucket is None:
                self._forget_full(now)
                bucket = self._buckets[name] = _Bucket(self._size, now)
            bucket.tokens = min(self._size, bucket.tokens + (now - bucket.filled) * self._rate)
            bucket.filled = now
            if bucket.tokens < 1:
                wait = ceil((1 - bucket.tokens) / self._rate)
                raise RateError(f"more than {self._rate} {what} a second; try again later", wait)
            bucket.tokens -= 1

    def _forget_full(self, now: float) -> None:
        """A bucket that is full again is as good as none."""
        if len(self._buckets) < MOST_BUCKETS:
            return
        full_s = self._size / self._rate
        self._buckets = {
            name: bucket for name, bucket in self._buckets.items() if now - bucket.filled < full_s
        }


class Limits:
    """The limits of one server process; the clock runs evenly, whatever the time of day does."""

    def __init__(self, settings: Settings, now: Callable[[], float] = time.monotonic) -> None:
        self._reads = Buckets(settings.reads_per_s, now)
        self._writes = Buckets(settings.writes_per_s, now)
        self._key_reads = Buckets(settings.key_reads_per_s, now)
        self._most = settings.inflight_bytes
        self._inflight: dict[str, int] = {}
        self._turn = threading.Lock()

    def count(self, org_id: str, method: str) -> None:
        """Count a signed call.

        Raises:
            RateError: There were too many.
        """
        if method in ("GET", "HEAD"):
            self._reads.take(org_id, "reads")
        else:
            self._writes.take(org_id, "signed writes")

    def count_key(self, key_id: str, org_id: str) -> None:
        """Count a call with an API key: against the key's own limit and its organisation's.

        Raises:
            RateError: There were too many.
        """
        self._key_reads.take(key_id, "reads with an API key")
        self._reads.take(org_id, "reads")

    @contextmanager
    def uploading(self, org_id: str, size: int) -> Iterator[None]:
        """Count an upload's bytes against what its organisation may have in flight.

        Raises:
            RateError: Too many bytes are on their way already.
        """
        with self._turn:
            waiting = self._inflight.get(org_id, 0)
            if waiting and waiting + size > self._most:
                raise RateError(
                    f"{waiting} bytes are being uploaded for {org_id}, {size} more are too many "
                    "at once; let an upload end first",
                    5,
                )
            self._inflight[org_id] = waiting + size
        try:
            yield
        finally:
            with self._turn:
                self._inflight[org_id] -= size
                if not self._inflight[org_id]:
                    del self._inflight[org_id]
