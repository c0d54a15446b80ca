"""How large an owner's table is, as far as others may know: declared, or released with noise."""

import json
from dataclasses import dataclass

from clearinghouse.canonical import canonical_bytes
from clearinghouse.client.budget import Budget
from clearinghouse.errors import InputError, RefusedError
from clearinghouse.messages.intake import SizeRelease
from clearinghouse.rows import tree_size
from dp import size


@dataclass(frozen=True, slots=True)
class PublicSize:
    """What is published about the number of rows.

    Attributes:
        size_class: Power of two.
        leaves: Of the tree that commits to the rows.
        release: The noised number that both follow from; None where the class was declared.
    """

    size_class: int
    leaves: int
    release: SizeRelease | None


def declared(size_class: int, rows: int) -> PublicSize:
    """A size class that the owner states."""
    return PublicSize(size_class, tree_size(size_class, rows), None)


def released(budget: Budget, rows_digest: str, rows: int, epsilon_micro: int) -> PublicSize:
    """A noised number of rows, drawn at the first call and replayed ever after.

    Guarantee: epsilon-DP for adding or removing one patient, for all calls together.
    Assumes: one row per patient.
    Proof: `dp.size.noised_size` after the debit; the ledger stores the answer, and class and leaves
    are post-processing of it.

    Raises:
        InputError: The epsilon is too small for a size.
        BudgetExceededError: The budget does not hold it; nothing was drawn.
        ConflictError: Another table's size was released from this ledger.
        RefusedError: The rows do not fit below the noised size: once in 10**9 times.
    """
    if epsilon_micro < size.LEAST_EPSILON_MICRO:
        raise InputError(
            f"a noised size costs at least {size.LEAST_EPSILON_MICRO} millionths of epsilon, "
            f"not {epsilon_micro}"
        )

    def draw() -> bytes:
        return canonical_bytes([size.noised_size(rows, epsilon_micro)])

    body = {"rows": rows_digest, "epsilon": epsilon_micro}
    (noised,) = json.loads(budget.release("size", body, epsilon_micro, draw, "size"))
    leaves = size.room(noised, epsilon_micro)
    if rows > leaves:
        raise RefusedError("the noised size came out too small for the rows; declare a size class")
    release = SizeRelease(noised=noised, epsilon_micro=epsilon_micro)
    return PublicSize(size.size_class(noised, epsilon_micro), leaves, release)
