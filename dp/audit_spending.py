"""Adversaries of a ledger: what someone sees who repeats, crashes or races one owner's releases.

Each schedule turns a ledger into a mechanism: from a count to all that the adversary saw. That
mechanism must be as private as the ledger's limit, so `dp.audit.epsilon_lower_bound` judges it like
any other release path. A ledger that refunds a crashed draw, draws again on a retry, or checks
before it acts shows the adversary several answers for the price of one, and fails.
"""

from collections.abc import Callable
from fractions import Fraction
from threading import Thread
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from dp.ledger import LedgerError
from dp.noise import geometric

Schedule = Literal["repeat", "crash", "race"]


class Releases(Protocol):
    """What a ledger offers: pay, draw, store, answer."""

    def release(
        self, key: str, body_digest: str, cost_micro: int, draw: Callable[[], bytes], purpose: str
    ) -> bytes:
        """One release; raises a `LedgerError` where it is refused."""
        ...


class _CrashError(Exception):
    """The owner's process dies right after the noise was drawn and seen."""


def watched_ledger(
    open_ledger: Callable[[], Releases],
    schedule: Schedule,
    cost_micro: int,
    attempts: int,
) -> Callable[[int], NDArray[np.float64]]:
    """The mechanism that an adversary makes of a ledger; to be audited against the ledger's limit.

    Schedules, each with `attempts` requests for one noisy count:

        repeat  one key again and again; every answer is seen
        crash   the owner dies after each draw, once the adversary has seen it (a side channel, a
                sent packet); then the same key, then fresh keys
        race    different keys, all at once

    Args:
        open_ledger: Opens a fresh ledger whose limit is one release.
        schedule: What the adversary does.
        cost_micro: Millionths of epsilon of one release.
        attempts: Requests, at least 2.

    Returns:
        From the exact count to (how many different draws were seen, how many answers, sum of all
        answers); refusals count as nothing.

    Raises:
        ValueError: Fewer than two attempts or an unknown schedule.
    """
    if attempts < 2 or schedule not in ("repeat", "crash", "race"):
        raise ValueError(f"expected at least 2 attempts of a schedule, got {attempts}, {schedule}")
    epsilon = Fraction(cost_micro, 1_000_000)

    def mechanism(count: int) -> NDArray[np.float64]:
        ledger = open_ledger()
        draws: list[int] = []
        seen: list[int] = []

        def draw() -> bytes:
            value = int(geometric(count, epsilon))
            draws.append(value)
            if schedule == "crash":
                seen.append(value)
                raise _CrashError
            return str(value).encode()

        def ask(key: str) -> None:
            try:
                seen.append(int(ledger.release(key, "body", cost_micro, draw, "audit")))
            except (LedgerError, _CrashError):
                return

        _run(ask, schedule, attempts)
        return np.array([len(draws), len(seen), sum(seen)], np.float64)

    return mechanism


def _run(ask: Callable[[str], None], schedule: Schedule, attempts: int) -> None:
    if schedule == "race":
        threads = [Thread(target=ask, args=(f"key {i}",)) for i in range(attempts)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return
    for attempt in range(attempts):
        fresh = schedule == "crash" and attempt % 2 == 1
        ask(f"key {attempt}" if fresh else "key")
