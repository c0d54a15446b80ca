"""Blobs that nothing names any more: found, then removed for good.

Three things leave garbage: a party that uploads and then never says what for, a job whose worker
died after it had stored its result, a server that died between a blob and its row. None of them can
be told from something that is just about to be named, but by its age: only what is older than the
grace period is collected, and only if nobody announced or named it since it was looked at.

What is in the index is first taken out of it and written down as doomed, in one transaction; then
nobody can read or name it, and `clearinghouse.rounds.erasure` removes the bytes, also after a crash
in between. A stray blob, which no row knows, is removed under the database's write lock.
"""

import json
import time
from dataclasses import asdict, dataclass

from clearinghouse.blobs import Stored
from clearinghouse.failpoints import reach
from clearinghouse.journal import journal
from clearinghouse.rounds import erasure, uploads
from clearinghouse.rounds.desk import Desk
from clearinghouse.store.cohorts import Indexed

HOUR_S = 3600
LAST = "garbage"
"""The fact in the database that says when the collector ran last, and what it found."""

_log = journal("garbage")


@dataclass(frozen=True, slots=True)
class Garbage:
    """What nothing names.

    Attributes:
        unnamed: Blobs of the index.
        strays: Blobs that no row knows.
        missing: Names that the index has and the store has not: damage, not garbage.
        bytes: Of unnamed and strays.
    """

    unnamed: dict[str, Indexed]
    strays: tuple[Stored, ...]
    missing: tuple[str, ...]
    bytes: int


@dataclass(frozen=True, slots=True)
class Collected:
    """A run of the collector, as numbers; `at` is in seconds since 1970."""

    at: int
    unnamed: int
    strays: int
    missing: int
    bytes: int


def find(desk: Desk) -> Garbage:
    """Look for garbage; nothing is changed."""
    stored = {blob.digest: blob for blob in desk.blobs.listed()}  # first: rows come after bytes
    with desk.store.read() as tx:
        named, index, doomed = tx.references.named(), tx.blobs.all(), set(tx.erasure.doomed())
    unnamed = {
        digest: row
        for digest, row in index.items()
        if digest not in named and digest in stored and _is_old(desk, row, stored[digest])
    }
    strays = tuple(
        blob
        for digest, blob in sorted(stored.items())
        if digest not in index
        and digest not in named
        and digest not in doomed
        and _is_old(desk, None, blob)
    )
    size = sum(row.size for row in unnamed.values()) + sum(blob.size for blob in strays)
    missing = (name for name in index if name not in stored and desk.blobs.find(name) is None)
    return Garbage(unnamed, strays, tuple(sorted(missing)), size)


def _is_old(desk: Desk, row: Indexed | None, blob: Stored) -> bool:
    """Whether the grace period is over; the store has its own clock, the index ours."""
    grace_s = desk.settings.garbage_grace_hours * HOUR_S
    is_quiet = row is None or desk.clock.now() - row.seen >= grace_s
    return is_quiet and time.time() - blob.written >= grace_s


def collect(desk: Desk) -> Collected:
    """Remove what `find` finds; what was announced or named meanwhile stays."""
    uploads.sweep(desk)
    garbage = find(desk)
    unnamed = [digest for digest, row in garbage.unnamed.items() if _doom(desk, digest, row)]
    reach("garbage.doomed")
    strays = [blob for blob in garbage.strays if _remove(desk, blob)]
    erasure.erase(desk)
    freed = sum(garbage.unnamed[digest].size for digest in unnamed)
    freed += sum(blob.size for blob in strays)
    now = int(desk.clock.now())
    done = Collected(now, len(unnamed), len(strays), len(garbage.missing), freed)
    with desk.store.write() as tx:
        tx.guards.forget_nonces(now)
        tx.set_meta(LAST, json.dumps(asdict(done)))
    _log.info("collected", **asdict(done))
    return done


def _doom(desk: Desk, digest: str, row: Indexed) -> bool:
    """Take a blob out of the index, unless somebody announced, sent or named it since."""
    with desk.store.write() as tx:
        found = desk.blobs.find(digest)
        if tx.blobs.find(digest) != row or found is None or not _is_old(desk, row, found):
            return False
        return tx.erasure.doom([digest]) == 1


def _remove(desk: Desk, blob: Stored) -> bool:
    """Remove a stray blob, unless its row has come or it was sent again."""
    with desk.store.write() as tx:
        is_known = tx.blobs.find(blob.digest) is not None or tx.erasure.is_doomed(blob.digest)
        if is_known or desk.blobs.find(blob.digest) != blob:
            return False
        desk.blobs.remove(blob.digest)
    return True


def last(desk: Desk) -> Collected | None:
    """When the collector ran last, and what it found."""
    with desk.store.read() as tx:
        return read_last(tx.meta(LAST))


def read_last(text: str | None) -> Collected | None:
    """Read the fact `LAST`."""
    return None if text is None else Collected(**json.loads(text))


def is_due(desk: Desk) -> bool:
    """Whether the collector should run again."""
    hours, before = desk.settings.garbage_hours, last(desk)
    if not hours:
        return False
    return before is None or desk.clock.now() - before.at >= hours * HOUR_S
