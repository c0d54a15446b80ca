"""How many openings a key answers before somebody has replayed what was opened.

A clearinghouse that deviates reads 12 ternary coefficients of the secret key with each opening, and
nothing that the key agent sees tells such an opening from an honest one (docs/protocol.md, section
9). A replay refutes it. So the agent counts what no replay has cleared yet, reserves a run's
openings before it pays for the run, and refuses what would go beyond the limit.
"""

from collections.abc import Mapping

from clearinghouse.client.keystore import Keystore
from clearinghouse.errors import RefusedError

__all__ = ["OPENING_LIMIT", "UPLOAD", "OpeningQuota"]

OPENING_LIMIT = 340
"""Half a key: 340 openings show at most 12.604 x 340 = 4,285 of its 8,192 coefficients."""

UPLOAD = "upload"
"""The name under which the tests of the sealed set are counted."""

_FILE = "private/openings"


class OpeningQuota:
    """The openings of one key that no replay has cleared, by run."""

    def __init__(self, keystore: Keystore, limit: int = OPENING_LIMIT) -> None:
        self._keystore, self.limit = keystore, limit

    def reserved(self) -> dict[str, int]:
        """Openings of each run, target or test of the key that are not cleared."""
        found: Mapping[str, int] = self._keystore.recall(_FILE) or {}
        return {name: count for name, count in found.items() if count}

    @property
    def used(self) -> int:
        """All of them together."""
        return sum(self.reserved().values())

    def check(self, name: str, openings: int) -> dict[str, int]:
        """Check that a run fits, before it is paid for; return what is counted so far.

        Raises:
            RefusedError: The limit does not hold its openings.
        """
        known = dict(self._keystore.recall(_FILE) or {})
        if name in known:
            return known
        used = sum(known.values())
        if used + openings > self.limit:
            raise RefusedError(
                f"{name} needs {openings} openings; this key has answered {used} of {self.limit} "
                "that no replay has cleared. Replay tests and targets (clearinghouse valset "
                "audit), have runs audited (agent run --trust-audits), or seal the set under a new "
                "key (clearinghouse valset reseal)"
            )
        return known

    def reserve(self, name: str, openings: int) -> None:
        """Count the openings of a run before its first one; again is the same.

        Raises:
            RefusedError: The limit does not hold them.
        """
        known = self.check(name, openings)
        self._keystore.remember(_FILE, {name: openings, **known})

    def clear(self, name: str) -> None:
        """A replay reproduced every message of this run: its openings were honest.

        Raises:
            RefusedError: No such run was opened with this key.
        """
        known = dict(self._keystore.recall(_FILE) or {})
        if name not in known:
            raise RefusedError(f"{name} was not opened with this key")
        self._keystore.remember(_FILE, {**known, name: 0})
