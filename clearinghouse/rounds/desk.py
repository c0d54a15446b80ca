"""What every step works with: the store, the blobs, the clock, the server's keys, the worker."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from clearinghouse.blobs import BlobStore
from clearinghouse.clock import Clock, SystemClock
from clearinghouse.errors import AuthenticationError, InputError
from clearinghouse.ids import new_id
from clearinghouse.log.checkpoint import NoteKey
from clearinghouse.log.entries import make_entry
from clearinghouse.log.entry_types import is_release
from clearinghouse.rounds.sequencer import (
    Sequencer,
    key_of_others,
    last_head,
    load_or_make,
    open_sequencer,
)
from clearinghouse.settings import Settings
from clearinghouse.signing import SigningKey
from clearinghouse.store.engine import is_sqlite
from clearinghouse.store.records import Org
from clearinghouse.store.store import Store, Tx

SERVER_KEY = "server.key"
NEXT_KEY = "server.key.next"


class Worker(Protocol):
    """Has heavy jobs on hostile bytes done, elsewhere."""

    def run(self, job: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The result of a job; arguments and result are JSON values, bytes travel as blobs.

        Raises:
            JobOpenError: It is not done yet.
            ClearinghouseError: It failed.
        """
        ...


class JobOpenError(Exception):
    """A move's job is not done yet: the move is made when it is.

    Not a ClearinghouseError: no step may take it for a fault of what a party sent.
    """

    def __init__(self, job_id: str, *, is_new: bool) -> None:
        super().__init__(f"{job_id} is not done yet")
        self.job_id, self.is_new = job_id, is_new


class _NoWorker:
    """Only a move has jobs done; the pipeline gives it a worker of its own."""

    def run(self, job: str, _arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Refuse."""
        raise InputError(f"the job {job} belongs to no move")


class Bell:
    """Rings when something changed, so that those who wait need not ask the database."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self.count = 0

    def ring(self) -> None:
        """Wake everybody who waits."""
        with self._condition:
            self.count += 1
            self._condition.notify_all()

    def wait(self, seen: int, timeout_s: float) -> int:
        """Wait until it has rung more than `seen` times, or the time is up; return the count."""
        with self._condition:
            self._condition.wait_for(lambda: self.count > seen, timeout_s)
            return self.count


@dataclass(frozen=True, slots=True)
class Desk:
    """The server's tools and its own identity.

    Attributes:
        key: Signs receipts and log entries' acts; its organisation is `org`.
        note_key: The log's public key under its name.
        sequencer: Signs the log's heads; None where another process does.
        worker: Has the jobs of the move at hand done.
        bell: Rings after every commit that others may wait for.
        job_bell: Rings when a job is queued.
    """

    settings: Settings
    store: Store
    blobs: BlobStore
    clock: Clock
    key: SigningKey
    note_key: NoteKey
    sequencer: Sequencer | None
    org: Org
    worker: Worker = field(default_factory=_NoWorker)
    bell: Bell = field(default_factory=Bell)
    job_bell: Bell = field(default_factory=Bell)

    @property
    def vkey(self) -> str:
        """The log's public key as text."""
        return self.note_key.vkey

    def record(
        self,
        tx: Tx,
        entry_type: str,
        actor: Org,
        *,
        objects: Mapping[str, str],
        hashes: Mapping[str, str] | None = None,
        amounts: Mapping[str, int | str] | None = None,
        commit: str | None = None,
    ) -> int:
        """Append a log entry to the transaction and return its id.

        Raises:
            AuthenticationError: The actor's key was revoked meanwhile: no entry may name it, or
                the whole log would not verify any more.
        """
        if tx.parties.by_key(actor.key_id) is None:
            raise AuthenticationError(f"the key {actor.key_id} of {actor.words} was revoked")
        entry = make_entry(
            entry_type,
            now_s=self.clock.now(),
            actor=actor.id,
            key=actor.key_id,
            objects=objects,
            hashes=hashes,
            amounts=amounts,
            commit=commit,
        )
        entry_id = tx.log.append(entry.data)
        if is_release(entry_type):
            tx.releases.add(entry_id, entry)
        return entry_id

    def head(self) -> str:
        """Return the signed head of the log; not in a transaction.

        Raises:
            TryAgainError: The sequencer is another process and has signed none yet.
        """
        return last_head(self.store) if self.sequencer is None else self.sequencer.head()


def open_desk(settings: Settings, clock: Clock | None = None) -> Desk:
    """Open or make the server's folder: database, blobs, keys, and the server's own registration.

    Raises:
        InputError: The folder belongs to another version, or database and key file do not fit.
    """
    if not settings.sequencer and is_sqlite(settings.url):
        raise InputError(
            "on SQLite an entry has its position with its act, and no other process can give it: "
            "leave out --no-sequencer and CLEARINGHOUSE_SEQUENCER=0"
        )
    clock = clock or SystemClock()
    settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    blobs = settings.blob_place.open()
    blobs.staging.sweep(time.time())
    store = Store(settings.url, settings.published)
    try:
        return _open_desk(settings, store, blobs, clock)
    except BaseException:
        store.close()
        raise


def _open_desk(settings: Settings, store: Store, blobs: BlobStore, clock: Clock) -> Desk:
    finish_rotation(settings.data, store)
    key = load_or_make(settings.data / SERVER_KEY)
    sequencer = None
    if settings.sequencer:
        sequencer = open_sequencer(settings, store)
        note_key = sequencer.note_key
        store.sequencer = sequencer.run
    else:
        note_key = key_of_others(settings, store)
        store.sequencer, store.sequencer_wait_s = None, settings.sequencer_wait_s
    with store.write() as tx:
        org = _own_org(tx, settings, key)
        desk = Desk(settings, store, blobs, clock, key, note_key, sequencer, org)
        if tx.parties.by_key(key.key_id) is None:
            tx.parties.add(org)
            tx.set_meta("server_org", org.id)
            registered = desk.record(
                tx,
                "org.registered",
                org,
                objects={"org": org.id},
                hashes={"public_key": key.verify_key.digest},
            )
            tx.parties.date_key(key.key_id, registered)
        tx.requests.mark_all_due()
    if sequencer is not None:
        sequencer.run()  # what was committed right before a crash
    return desk


def finish_rotation(data: Path, store: Store) -> None:
    """Use the server's next key where its log entry is written but its file is not in place yet."""
    waiting = data / NEXT_KEY
    if waiting.exists():
        with store.read() as tx:
            is_valid = tx.parties.by_key(SigningKey.load(waiting).key_id) is not None
        if is_valid:
            waiting.replace(data / SERVER_KEY)


def free_bytes(desk: Desk) -> int:
    """Bytes that are free where uploads arrive: the data folder's disk, if nothing is mounted."""
    return desk.blobs.staging.free()


def _own_org(tx: Tx, settings: Settings, key: SigningKey) -> Org:
    known = tx.meta("server_org")
    if known is None:
        return Org(
            new_id("org"),
            settings.name,
            "clearinghouse",
            key.key_id,
            key.verify_key.base64,
            None,
        )
    org = tx.parties.get(known)
    if org.key_id != key.key_id:
        raise InputError("server.key is not the key that this database knows; restore it")
    return org
