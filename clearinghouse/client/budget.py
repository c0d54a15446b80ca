"""A party's epsilon ledger with this project's errors: a release is paid before it is drawn."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from clearinghouse.canonical import canonical_bytes, digest
from clearinghouse.client.keystore import Keystore
from clearinghouse.errors import (
    BudgetExceededError,
    ConflictError,
    InputError,
    RefusedError,
    TryAgainError,
)
from clearinghouse.failpoints import reach
from clearinghouse.tables import Table
from dp import ledger
from dp.cost import Cost
from dp.ledger import Lane


class Budget:
    """The lifetime budget of the rows of one party: a pure lane, and a zCDP lane if it has one."""

    def __init__(
        self, where: Path | str, limit_micro: int, rho_limit_micro: int = 0, unit: str = ""
    ) -> None:
        """Open the ledger, or make it with these limits.

        Raises:
            InputError: It was made with other limits.
            TryAgainError: Its database does not answer.
        """
        try:
            self._ledger = ledger.Ledger.open(
                where, limit_micro=limit_micro, rho_limit_micro=rho_limit_micro, unit=unit
            )
        except ledger.Unavailable as error:
            raise TryAgainError(str(error)) from None
        except ValueError as error:
            raise InputError(str(error)) from None

    @property
    def spent(self) -> int:
        """Millionths of epsilon spent so far."""
        return self._ledger.balance()[0]

    @property
    def limit(self) -> int:
        """Millionths of epsilon that may ever be spent."""
        return self._ledger.balance()[1]

    @property
    def left(self) -> Cost:
        """What both lanes still hold."""
        pure, rho = self._ledger.balance("epsilon"), self._ledger.balance("rho")
        return Cost(pure[1] - pure[0], rho[1] - rho[0])

    def has(self, key: str) -> bool:
        """Whether a release of this name was charged."""
        return any(entry.key == key for entry in self._ledger.entries())

    def erase(self) -> None:
        """Forget every stored answer; what was spent stays spent, and nothing is drawn again."""
        self._ledger.erase()

    def release(
        self,
        key: str,
        body: object,
        cost: int | Cost,
        draw: Callable[[], bytes],
        purpose: str,
    ) -> bytes:
        """Pay, then draw, then store; or replay what was stored under the key.

        Args:
            key: Names the release for ever.
            body: What is asked, as JSON without floats; a repeat must be the same.
            cost: Millionths of epsilon above 0, or a cost in one of the lanes.
            draw: Reads the rows and draws the noise; called once, after the debit is durable.
            purpose: For people who read the ledger.

        Raises:
            BudgetExceededError: The budget does not hold the cost; nothing was drawn.
            ConflictError: The key was used for another body or cost.
            RefusedError: An earlier draw broke off; its cost is lost and it is never drawn again.
            TryAgainError: The ledger's database does not answer.
            ValueError: The cost is in both lanes or in none.
        """
        lane, amount = _lane(cost)

        def charged() -> bytes:
            reach("agent.charged")
            answer = draw()
            reach("agent.drawn")
            return answer

        try:
            return self._ledger.release(key, digest(body), amount, charged, purpose, lane=lane)
        except ledger.Refused as error:
            raise BudgetExceededError(str(error)) from None
        except ledger.Conflict as error:
            raise ConflictError(str(error)) from None
        except ledger.Unavailable as error:
            raise TryAgainError(str(error)) from None
        except ledger.LedgerError as error:
            raise RefusedError(str(error)) from None


def _lane(cost: int | Cost) -> tuple[Lane, int]:
    """The one lane that pays, and what."""
    found = cost if isinstance(cost, Cost) else Cost(cost, 0)
    if bool(found.micro_epsilon) == bool(found.micro_rho):
        raise ValueError(f"a release is paid from one lane, not {found}")
    return ("epsilon", found.micro_epsilon) if found.micro_epsilon else ("rho", found.micro_rho)


def unit_of(table: Table) -> str:
    """The name of a table of patients: a hash of its rows in whatever order they come."""
    rows = sorted(canonical_bytes(record) for record in table.records())
    return hashlib.sha256(b"\n".join(rows)).hexdigest()


def open_budget(
    keystore: Keystore, table: Table, limit_micro: int, rho_limit_micro: int = 0
) -> Budget:
    """The budget of a table: in the party's home, or in the owner's database under its unit.

    In the database two homes with the same patients meet the same budget, so that a new key or
    campaign does not start a new one.
    """
    where = keystore.ledger_place
    if isinstance(where, Path):
        return Budget(where, limit_micro, rho_limit_micro)
    known = keystore.recall("unit")
    unit = unit_of(table) if known is None else str(known["unit"])
    keystore.remember("unit", {"unit": unit})
    return Budget(where, limit_micro, rho_limit_micro, unit)


def erase_answers(keystore: Keystore, limit_micro: int) -> None:
    """Forget every released answer of a home; the table itself need not be there any more."""
    where, known = keystore.ledger_place, keystore.recall("unit")
    if isinstance(where, Path):
        Budget(where, limit_micro).erase()
    elif known is not None:  # without a unit nothing was ever released into that database
        Budget(where, limit_micro, unit=str(known["unit"])).erase()
