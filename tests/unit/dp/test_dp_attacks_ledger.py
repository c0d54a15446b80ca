"""Ledgers under adversaries: the real one stays within its limit, planted faults do not.

The function that audits noise also judges a ledger: all that a schedule shows the adversary is one
mechanism, and its epsilon must not exceed the limit. Confidence 1 - 1e-6 throughout.
"""

import shutil
import threading
from collections.abc import Callable
from itertools import count

import pytest
from accusing import CAUGHT, SURE

from dp.audit import epsilon_lower_bound
from dp.audit_spending import watched_ledger
from dp.ledger import Ledger, Refused

MICRO = 1_000_000
ATTEMPTS = 8
PAIR = (4, 5)
NUMBERS = count()


@pytest.fixture
def open_ledger(in_memory) -> Callable[[], Ledger]:
    """Fresh ledgers of one release: copies of an empty one."""
    blank = in_memory / "blank.sqlite"
    if not blank.exists():
        Ledger.open(blank, limit_micro=MICRO).balance()

    def fresh() -> Ledger:
        place = in_memory / f"{next(NUMBERS)}.sqlite"
        shutil.copyfile(blank, place)
        return Ledger.open(place, limit_micro=MICRO)

    return fresh


@pytest.mark.parametrize("schedule", ["repeat", "crash", "race"])
def test_the_ledger_shows_one_draw_whatever_the_adversary_does(open_ledger, schedule) -> None:
    mechanism = watched_ledger(open_ledger, schedule, MICRO, ATTEMPTS)
    draws: list[float] = []

    def watched(count: int):
        seen = mechanism(count)
        draws.append(seen[0])
        return seen

    assert epsilon_lower_bound(watched, *PAIR, 120, SURE) <= 1
    assert set(draws) == {1.0}


class RefundsCrashes:
    """Gives the cost back when the draw breaks off, though its noise was seen."""

    def __init__(self) -> None:
        self.left = 1

    def release(self, key, body_digest, cost_micro, draw, purpose) -> bytes:
        if not self.left:
            raise Refused("spent")
        self.left -= 1
        try:
            return draw()
        except Exception:
            self.left += 1
            raise


class DrawsAgain:
    """Pays once for a key, and draws anew whenever the key is asked again."""

    def __init__(self) -> None:
        self.paid: set[str] = set()

    def release(self, key, body_digest, cost_micro, draw, purpose) -> bytes:
        if key not in self.paid:
            if self.paid:
                raise Refused("spent")
            self.paid.add(key)
        return draw()


class ChecksThenActs:
    """Reads the balance, then spends: everybody who read in time is served."""

    def __init__(self) -> None:
        self.left = 1
        self.meeting = threading.Barrier(ATTEMPTS)

    def release(self, key, body_digest, cost_micro, draw, purpose) -> bytes:
        enough = self.left > 0
        self.meeting.wait()  # the worst moment for a task switch
        if not enough:
            raise Refused("spent")
        self.left -= 1
        return draw()


@pytest.mark.parametrize(
    ("faulty", "schedule", "n"),
    [(RefundsCrashes, "crash", 2500), (DrawsAgain, "repeat", 2500), (ChecksThenActs, "race", 1200)],
)
def test_planted_faults_of_a_ledger_are_caught(faulty, schedule, n) -> None:
    """Eight draws for one: epsilon 8 against a claimed 1."""
    mechanism = watched_ledger(faulty, schedule, MICRO, ATTEMPTS)
    assert mechanism(4)[0] == ATTEMPTS
    assert epsilon_lower_bound(mechanism, *PAIR, n, CAUGHT) > 1


def test_a_fault_shows_only_under_the_schedule_that_meets_it() -> None:
    """The audit accuses nobody wrongly: racing different keys, this ledger serves one."""
    mechanism = watched_ledger(DrawsAgain, "race", MICRO, 4)
    assert mechanism(4)[0] == 1
    assert epsilon_lower_bound(mechanism, *PAIR, 300, SURE) <= 1


def test_unknown_schedules_and_single_attempts_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        watched_ledger(DrawsAgain, "repeat", MICRO, 1)
    with pytest.raises(ValueError, match="schedule"):
        watched_ledger(DrawsAgain, "guess", MICRO, 4)
