"""A party's epsilon ledger with this project's errors: a release is paid before it is drawn."""

from collections.abc import Callable
from pathlib import Path

from clearinghouse.canonical import digest
from clearinghouse.errors import BudgetExceededError, ConflictError, InputError, RefusedError
from dp import ledger


class Budget:
    """The lifetime budget of the rows of one party."""

    def __init__(self, path: Path, limit_micro: int) -> None:
        """Open the ledger, or make it with this limit.

        Raises:
            InputError: It was made with another limit.
        """
        try:
            self._ledger = ledger.Ledger.open(path, limit_micro=limit_micro)
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

    def has(self, key: str) -> bool:
        """Whether a release of this name was charged."""
        return any(entry.key == key for entry in self._ledger.entries())

    def erase(self) -> None:
        """Forget every stored answer; what was spent stays spent, and nothing is drawn again."""
        self._ledger.erase()

    def release(
        self, key: str, body: object, cost_micro: int, draw: Callable[[], bytes], purpose: str
    ) -> bytes:
        """Pay, then draw, then store; or replay what was stored under the key.

        Args:
            key: Names the release for ever.
            body: What is asked, as JSON without floats; a repeat must be the same.
            cost_micro: Millionths of epsilon, above 0.
            draw: Reads the rows and draws the noise; called once, after the debit is durable.
            purpose: For people who read the ledger.

        Raises:
            BudgetExceededError: The budget does not hold the cost; nothing was drawn.
            ConflictError: The key was used for another body or cost.
            RefusedError: An earlier draw broke off; its cost is lost and it is never drawn again.
        """
        try:
            return self._ledger.release(key, digest(body), cost_micro, draw, purpose)
        except ledger.Refused as error:
            raise BudgetExceededError(str(error)) from None
        except ledger.Conflict as error:
            raise ConflictError(str(error)) from None
        except ledger.LedgerError as error:
            raise RefusedError(str(error)) from None
