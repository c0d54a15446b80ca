"""What runs: open jobs and tasks have a deadline ahead, and every request waits for something."""

from collections.abc import Iterator

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
