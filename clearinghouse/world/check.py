"""`check_world`: from outside, everything that must be so whatever crashed, raced or was full.

It reads one state of the database, the folder of blobs, the published checkpoint and, where they
are given, the owners' own ledgers. It writes nothing, uses no step of the market, and trusts no
number that it can recompute.

| part | what must be so |
|---|---|
| log | entries canonical and in order, tree and heads recomputed, every signature, the rules |
| database | rows, money and prices are what the log says: see `compare` |
| budgets | what the log releases is in the owner's ledger, once and for the same epsilon |
| blobs | every blob that is named is there with its bytes; nothing else stays for long |
| receipts | each verifies, and names its entry |
| jobs | nothing that runs is without a deadline, somebody who does it, or a reason |
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clearinghouse.errors import ClearinghouseError
from clearinghouse.log.checkpoint import NoteKey, log_key
from clearinghouse.settings import Settings
from clearinghouse.signing import SigningKey
from clearinghouse.store.store import Store, Tx
from clearinghouse.world import blobs, budgets, compare, heads, receipts, waiting
from clearinghouse.world.trouble import PARTS, Trouble

__all__ = ["PARTS", "Report", "Trouble", "check_world", "read_log_key"]


@dataclass(frozen=True, slots=True)
class Report:
    """What was looked at, and what is wrong.

    Attributes:
        entries: Entries of the log.
        troubles: What is not as it must be, by part; empty if all is well.
        notes: What is lawful and may surprise, such as epsilon that bought nothing.
    """

    entries: int
    troubles: tuple[Trouble, ...]
    notes: tuple[Trouble, ...]

    @property
    def is_well(self) -> bool:
        """Whether nothing is wrong."""
        return not self.troubles


def check_world(
    settings: Settings,
    now_s: float,
    *,
    ledgers: Mapping[str, Sequence[Path | str]] | None = None,
    grace_s: float = blobs.GRACE_S,
    key: NoteKey | None = None,
) -> Report:
    """Check one server's world.

    Args:
        settings: Where its database, blobs and published checkpoint are.
        now_s: Seconds since 1970, for deadlines and grace.
        ledgers: By organisation the ledgers of its tables of patients, where they can be read.
        grace_s: So long a blob that nothing names may lie on the disk.
        key: The log's key from elsewhere; if not given, the public part of the server's own file.

    Raises:
        InputError: There is no such database, or it is of another version.
        TryAgainError: The database is busy or away.
    """
    store = Store(settings.url)
    try:
        with store.read() as tx:
            found = list(_look(tx, settings, now_s, ledgers or {}, grace_s, key))
            size = tx.log.size()
    finally:
        store.close()
    troubles = tuple(item for item in found if not item.is_note)
    return Report(size, troubles, tuple(item for item in found if item.is_note))


def _look(
    tx: Tx,
    settings: Settings,
    now_s: float,
    ledgers: Mapping[str, Sequence[Path | str]],
    grace_s: float,
    key: NoteKey | None,
) -> Iterator[Trouble]:
    key = key or read_log_key(settings)
    log = heads.read_log(tx)
    yield from log.troubles
    yield from heads.check(tx, log, settings.published, key)
    for item in compare.differences(tx, log.entries):
        yield Trouble("database", str(item))
    yield from budgets.check(tx, log.entries, ledgers)
    yield from blobs.check(tx, log.entries, settings.blob_place.open(), now_s, grace_s)
    yield from receipts.check(tx, log.bodies, key)
    yield from waiting.check(tx, now_s)


def read_log_key(settings: Settings) -> NoteKey | None:
    """The public part of the log's key, if its file is here."""
    path = settings.data / "log.key"
    try:
        return log_key(settings.origin, SigningKey.load(path)) if path.exists() else None
    except ClearinghouseError:
        return None
