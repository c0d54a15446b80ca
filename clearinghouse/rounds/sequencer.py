"""The sequencer: it gives committed entries their positions in the log, and signs the log's heads.

On SQLite an entry has its position when its act is committed, and heads are signed when somebody
asks. On PostgreSQL acts put their entries into an outbox, in their own transaction, so that no
entry is without its act and no act without its entry; one transaction at a time takes what is
committed, in order (`Store.sequence`). Whatever needs a position follows there: receipts are
written, and requests that ended go on to their witnesses.

Every server process does that after each act of its own. Or a process of its own does
(`clearinghouse sequencer`), which alone has the log's key then.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clearinghouse.errors import ClearinghouseError, InputError, TryAgainError
from clearinghouse.failpoints import reach
from clearinghouse.journal import journal
from clearinghouse.log.checkpoint import NoteKey, log_key, parse_vkey
from clearinghouse.rounds import drafts
from clearinghouse.settings import Settings
from clearinghouse.signing import SigningKey
from clearinghouse.store.engine import is_sqlite
from clearinghouse.store.logbook import BATCH
from clearinghouse.store.store import Store, Tx

LOG_KEY = "log.key"
PAUSES_S = (0.005, 0.1)
"""A sequencer of its own rests so long where nothing waits: at first, and in the end."""

_LOG_VKEY = "log_vkey"
_PATIENCE = 30
"""A start waits so many times as long for the first sequencer as an act for one."""

_log = journal("sequencer")


@dataclass(frozen=True, slots=True)
class Sequencer:
    """Has the log's key, and the store whose log that is.

    Attributes:
        origin: The log's name.
    """

    store: Store
    origin: str
    key: SigningKey

    @property
    def note_key(self) -> NoteKey:
        """The log's public key under its name."""
        return log_key(self.origin, self.key)

    def run(self, *, sign: bool = False) -> int:
        """Place everything that waits; return how many entries that were.

        Args:
            sign: Sign the new head in any case, and not only where something needs it.

        Raises:
            TryAgainError: The database is busy or away; what waited still waits.
        """
        count = 0
        while True:
            placed = self.store.sequence(lambda tx, ids: self._follow(tx, ids, sign=sign))
            count += placed
            if placed < BATCH:
                return count

    def catch_up(self) -> None:
        """Place what was left behind, such as by a database that was away after a commit.

        Raises:
            TryAgainError: The database is busy or away.
        """
        if self.has_work():
            self.run()

    def has_work(self) -> bool:
        """Whether an entry waits."""
        with self.store.read() as tx:
            return not tx.log.is_sequenced_at_once and tx.log.first_waiting() is not None

    def head(self) -> str:
        """Return the signed head of the whole log, signing it if that was not done yet."""
        with self.store.read() as tx:
            stored = tx.log.stored_checkpoint()
            is_placed = not tx.log.is_sequenced_at_once
        if stored is not None:
            return stored
        if is_placed:
            self.run(sign=True)
            return last_head(self.store)
        with self.store.write() as tx:
            return self.sign(tx)

    def sign(self, tx: Tx) -> str:
        """Return the signed head of the log as the transaction sees it."""
        return tx.log.checkpoint(self.origin, self.key)

    def _follow(self, tx: Tx, placed: tuple[int, ...], *, sign: bool) -> None:
        """Do what needs the entries' positions, in the transaction that gave them."""
        waiting = tx.runs.drafts()
        if sign or waiting or (placed and tx.requests.have_ended(placed)):
            self.sign(tx)
        for receipt in waiting:
            try:
                if drafts.write(tx, self.note_key, receipt):
                    tx.requests.mark_due(receipt.request_id)
            except ClearinghouseError as error:  # damaged in the database: no other may wait for it
                _log.error("draft", receipt=receipt.id, kind=error.problem_type)
        if placed:
            tx.requests.look_at_ended(placed)
            reach("log.placing")


def last_head(store: Store) -> str:
    """The newest signed head of the log.

    Raises:
        TryAgainError: None was signed yet.
    """
    with store.read() as tx:
        note = tx.log.last_checkpoint()
    if note is None:
        raise TryAgainError("the sequencer has signed no head of the log yet; repeat in a second")
    return note


def open_sequencer(settings: Settings, store: Store) -> Sequencer:
    """The sequencer of a folder that has the log's key; the key is made with the log.

    Raises:
        InputError: The folder has not the key of the database's log.
    """
    settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = settings.data / LOG_KEY
    with store.write() as tx:
        known = tx.meta(_LOG_VKEY)
        if known is not None and not path.exists():
            raise InputError(
                f"{path} is not there, and the database's log is signed by {known}: restore it, or "
                "leave that to the sequencer that has it (CLEARINGHOUSE_SEQUENCER=0)"
            )
        sequencer = Sequencer(store, settings.origin, load_or_make(path))
        vkey = sequencer.note_key.vkey
        if known is None:
            tx.set_meta(_LOG_VKEY, vkey)
        elif known != vkey:
            raise InputError(
                f"{path} with the name {settings.origin} is {vkey}, and the database's log is "
                f"signed by {known}: restore that key, and CLEARINGHOUSE_ORIGIN"
            )
    return sequencer


def key_of_others(settings: Settings, store: Store) -> NoteKey:
    """The public key of a log whose sequencer is another process, once that has started.

    Raises:
        InputError: The log has another name.
        TryAgainError: None has started for a minute (`settings.sequencer_wait_s`).
    """
    until = time.monotonic() + _PATIENCE * settings.sequencer_wait_s
    while True:
        with store.read() as tx:
            found = tx.meta(_LOG_VKEY)
        if found is not None:
            key = parse_vkey(found)
            if key.name != settings.origin:
                raise InputError(
                    f"CLEARINGHOUSE_ORIGIN is {settings.origin}, and the log's name is {key.name}"
                )
            return key
        if time.monotonic() > until:
            raise TryAgainError("no sequencer has started: run clearinghouse sequencer beside this")
        time.sleep(0.2)


def run_sequencer(
    settings: Settings,
    stop: threading.Event,
    announce: Callable[[str], None],
    *,
    once: bool = False,
) -> int:
    """Place entries and sign heads until told to stop; return how many entries were placed.

    Args:
        settings: Of the sequencer's own folder and of the database.
        stop: Ends it.
        announce: Gets the log's public key once it is at work.
        once: Place what waits now, and return.

    Raises:
        InputError: The database is SQLite, where there is nothing to do, or has another key.
        TryAgainError: Once, and the database is busy or away.
    """
    if is_sqlite(settings.url):
        raise InputError(
            "on SQLite an entry has its position with its act; a sequencer is for PostgreSQL "
            "(CLEARINGHOUSE_DATABASE_URL)"
        )
    store = Store(settings.url, settings.published)
    try:
        sequencer = open_sequencer(settings, store)
        announce(sequencer.note_key.vkey)
        if once:
            return sequencer.run(sign=True)
        return _run_on(sequencer, stop)
    finally:
        store.close()


def _run_on(sequencer: Sequencer, stop: threading.Event) -> int:
    """One round after another, with ever longer pauses while nothing waits."""
    count, (pause_s, longest_s) = 0, PAUSES_S
    is_new = True  # the head may be unsigned although nothing waits
    while not stop.is_set():
        placed = 0
        try:
            if is_new or sequencer.has_work():
                placed = sequencer.run(sign=True)
                is_new = False
        except TryAgainError as error:
            _log.warning("again", kind=error.problem_type)
        count += placed
        pause_s = PAUSES_S[0] if placed else min(2 * pause_s, longest_s)
        stop.wait(pause_s)
    return count


def load_or_make(path: Path) -> SigningKey:
    """Read a key file, or make it (mode 0600) at the first start."""
    if path.exists():
        return SigningKey.load(path)
    key = SigningKey.generate()
    key.save(path)
    return key
