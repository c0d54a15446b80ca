"""Privacy spent, as the log says: read once from its beginning, then only what is new."""

import threading

from clearinghouse.log.entries import parse_entry
from clearinghouse.log.entry_types import is_release
from clearinghouse.store.store import Tx

BLOCK = 1000


class Tally:
    """Epsilon by organisation and data, in millionths, up to where it has read the log."""

    def __init__(self) -> None:
        self._position = 0
        self._spent: dict[str, dict[str, int]] = {}
        self._turn = threading.Lock()

    def of(self, tx: Tx, org_id: str) -> dict[str, int]:
        """What the releases of an organisation's sources and validation sets have cost so far.

        Returns:
            Id of the data to millionths of epsilon.
        """
        with self._turn:
            while found := tx.log.entries(self._position, BLOCK):
                for body in found:
                    self._add(body)
                self._position += len(found)
            return dict(self._spent.get(org_id, {}))

    def _add(self, body: bytes) -> None:
        entry = parse_entry(body)
        if is_release(entry.type):
            owner = entry.objects["owner"]
            data = entry.objects.get("source") or entry.objects.get("valset") or owner
            spent = self._spent.setdefault(owner, {})
            spent[data] = spent.get(data, 0) + entry.epsilon_micro
