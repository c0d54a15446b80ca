"""The log's releases against the owners' own ledgers: nothing free, nothing doubled."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from clearinghouse.log.entries import Entry
from clearinghouse.log.entry_types import is_release
from clearinghouse.store.store import Tx
from clearinghouse.world.trouble import Trouble
from dp.ledger import Entry as Paid
from dp.ledger import Ledger, LedgerError

_SIZE = "size"


def check(
    tx: Tx, entries: Sequence[Entry], ledgers: Mapping[str, Sequence[Path | str]]
) -> Iterator[Trouble]:
    """Yield releases that were not paid, or paid otherwise, and what was paid for nothing."""
    for owner, places in ledgers.items():
        paid: dict[str, Paid] = {}
        for place in places:
            try:
                ledger = Ledger(place)
                ledger.balance()
                paid |= {item.key: item for item in ledger.entries() if item.state != "voided"}
            except (LedgerError, ValueError) as error:
                yield _wrong(f"the ledger of {owner} cannot be read: {error}")
        yield from _owner(tx, owner, entries, paid)


def _owner(
    tx: Tx, owner: str, entries: Sequence[Entry], paid: Mapping[str, Paid]
) -> Iterator[Trouble]:
    logged: dict[str, int] = {}
    for index, entry in enumerate(entries):
        if not is_release(entry.type) or entry.objects["owner"] != owner:
            continue
        key = key_of(entry)
        if key in logged:
            yield _wrong(f"entry {index}: {key} of {owner} was released at entry {logged[key]}")
            continue
        logged[key] = index
        found, cost = paid.get(key), _cost(entry)
        if found is None:
            yield _wrong(
                f"entry {index}: {key} was released free: {owner}'s ledger has no such key"
            )
        elif (found.lane, found.cost_micro) != cost:
            yield _wrong(
                f"entry {index}: {key} is logged with {cost[1]} millionths of {cost[0]}, "
                f"{owner} paid {found.cost_micro} of {found.lane}"
            )
    running = {row["id"] for row in tx.plain.rows("run") if row["state"] == "running"}
    for key, item in paid.items():
        if key not in logged and key not in running:
            words = f"{owner} paid {item.cost_micro} millionths for {key}, which was never released"
            yield Trouble("budgets", f"{words} ({item.state})", is_note=True)


def _cost(entry: Entry) -> tuple[str, int]:
    """The lane that pays for a release, and what."""
    return ("rho", entry.rho_micro) if entry.rho_micro else ("epsilon", entry.epsilon_micro)


def key_of(entry: Entry) -> str:
    """The key under which an owner's ledger has a logged release."""
    if entry.type == "summary.released":
        return f"{entry.objects['source']}.summary"
    return _SIZE if entry.type == "size.released" else entry.objects.get("run", "")


def _wrong(words: str) -> Trouble:
    return Trouble("budgets", words)
