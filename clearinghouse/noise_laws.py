"""Which noise law a request asked for, as numbers that server and agent compute alike."""

from typing import Literal

from clearinghouse.errors import InputError
from dp.coins import coins_of

__all__ = ["NoiseLaw", "coins_for"]

NoiseLaw = Literal["geometric", "coins"]


def coins_for(law: NoiseLaw, epsilon_micro: int) -> int:
    """Committed coins per cell of a table: the fewest for its epsilon at delta 1e-6; 0 if none.

    Raises:
        InputError: Epsilon is too small for coins.
    """
    if law == "geometric":
        return 0
    try:
        return coins_of(epsilon_micro)
    except ValueError as error:
        raise InputError(str(error)) from None
