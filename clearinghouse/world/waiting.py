"""What runs: open jobs and tasks have a deadline ahead, and every request waits for something.

Neither does a log entry wait for the sequencer for long.
"""

from collections.abc import Iterator

from clearinghouse.clock import seconds_of
from clearinghouse.errors import InputError, VerificationError
from clearinghouse.log.entries import parse_entry
from clearinghouse.store.store import Tx
from clearinghouse.world.trouble import Trouble

OPEN = ("queued", "running")
LATE_S = 120.0
"""So long after its deadline something may still be open: deadlines are looked at now and then."""

_AFTERWARDS = ("delete", "run.audit")
"""Tasks that may outlive their request; nothing waits for them."""


def check(tx: Tx, now_s: float) -> Iterator[Trouble]:
    """Yield what is stuck, or ended without a reason."""
    requests = {row["id"]: row for row in tx.plain.rows("request")}
    ended = {name for name, row in requests.items() if row["state"] != "running"}
    waits = {name for name, row in requests.items() if row["due"]}
    workers = {row["id"] for row in tx.plain.rows("worker")}
    yield from _outbox(tx, now_s)
    waits |= {row["request_id"] for row in tx.plain.rows("receipt") if row["draft"] is not None}
    waits |= {
        name
        for name, row in requests.items()
        if row["closed"] is not None and tx.log.place(row["closed"]) is None
    }
    for row in tx.plain.rows("job"):
        yield from _job(row, workers, now_s)
        if row["state"] in OPEN:
            waits.add(row["request_id"])
    for row in tx.plain.rows("task"):
        if row["state"] != "open":
            continue
        if row["kind"] in _AFTERWARDS:
            continue
        waits.add(row["request_id"])
        if row["request_id"] in ended:
            yield _wrong(f"task {row['id']} ({row['kind']}) is open and its request has ended")
        elif row["deadline"] < now_s - LATE_S:
            yield _wrong(f"task {row['id']} ({row['kind']}) is open after its deadline")
    for name, row in requests.items():
        if row["state"] == "running" and name not in waits:
            yield _wrong(f"{name} runs in step {row['step']} and waits for nothing: it is stuck")
        if row["state"] == "failed" and not row["reason"]:
            yield _wrong(f"{name} failed without a reason")
    for row in tx.plain.rows("run"):
        if row["state"] == "failed" and not row["reason"]:
            yield _wrong(f"{row['id']} failed without a reason")
        if row["state"] == "running" and row["request_id"] in ended:
            yield _wrong(f"{row['id']} runs and its request has ended")


def _outbox(tx: Tx, now_s: float) -> Iterator[Trouble]:
    """The entry that waits for the sequencer longest; a sequencer at work takes it in a second."""
    first = tx.log.first_waiting()
    if first is None:
        return
    try:
        age = now_s - seconds_of(parse_entry(first).time)
    except (VerificationError, InputError):
        return  # that it is no entry is said elsewhere
    if age > LATE_S:
        yield _wrong(f"{tx.log.waiting()} log entries wait for the sequencer, one for {age:.0f} s")


def _job(row: dict[str, object], workers: set[str], now_s: float) -> Iterator[Trouble]:
    words = f"job {row['id']} ({row['kind']})"
    state, deadline = row["state"], row["deadline"]
    if state in ("failed", "cancelled") and not row["reason"]:
        yield _wrong(f"{words} {state} without a reason")
    if state not in OPEN:
        return
    if isinstance(deadline, int) and deadline < now_s - LATE_S:
        yield _wrong(f"{words} is {state} after its deadline")
    if state == "running" and row["owner"] not in workers:
        yield _wrong(f"{words} is at work at {row['owner']}, which is no worker any more")


def _wrong(words: str) -> Trouble:
    return Trouble("jobs", words)
