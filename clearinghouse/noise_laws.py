"""Which noise law a request asked for, as numbers that server and agent compute alike."""

import math
from collections.abc import Sequence
from typing import Literal

from clearinghouse.errors import InputError
from clearinghouse.money import MICRO, format_money
from dp.coins import coins_of
from dp.cost import Cost, epsilon_of
from dp.laws import DELTA, ENDS, LEAST_COINS, ORDER, coins_micro_rho

__all__ = [
    "DELTA_WORDS",
    "NoiseLaw",
    "coins_for",
    "epsilon_of_rho",
    "privacy_facts",
    "rho_of",
    "run_cost",
]

NoiseLaw = Literal["geometric", "coins"]

DELTA_WORDS = "delta, a chance of one in a million, is how often the epsilon may not hold"
"""What the delta of the zCDP lane means: outside an event of this chance the epsilon holds."""


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


def rho_of(coins: Sequence[int]) -> int:
    """Millionths of rho of a run whose tables have so many coins a cell.

    Raises:
        InputError: A table has too few coins to be accounted in the zCDP lane.
    """
    if not coins or min(coins) < LEAST_COINS:
        raise InputError(
            f"a run is paid in rho only if each table has {LEAST_COINS} coins a cell or more; one "
            f"has {min(coins, default=0)}. Choose noise_law coins and a smaller epsilon"
        )
    return sum(coins_micro_rho(number) for number in coins)


def run_cost(epsilon_micro: int, rho_micro: int) -> Cost:
    """What one run takes, from the one lane that pays: rho, where the request names a rho."""
    return Cost(0, rho_micro) if rho_micro else Cost(epsilon_micro, 0)


def epsilon_of_rho(rho_micro: int) -> int:
    """Millionths of epsilon that all runs of a zCDP lane mean together at delta 1e-6; rounded up.

    Raises:
        ValueError: rho is negative.
    """
    return math.ceil(epsilon_of(rho_micro / MICRO, DELTA - ENDS, ORDER) * MICRO)


def privacy_facts(coins: Sequence[int], rho_micro: int) -> dict[str, str]:
    """What a receipt says of its run's privacy beside epsilon: nothing under geometric noise.

    The tables of a run share its epsilon, and their deltas add up as well (basic composition).

    Args:
        coins: A cell of each table; 0 under the geometric law.
        rho_micro: Taken from the set's zCDP lane, if that paid for the run.
    """
    tables = sum(number > 0 for number in coins)
    if not tables:
        return {}
    facts = {
        "delta": f"{tables}e-6, 1e-6 for each of {tables} tables under committed coins: "
        "the chance that the epsilon does not hold"
    }
    if rho_micro:
        facts["zcdp lane"] = f"rho {format_money(rho_micro)}, which the runs of a set add up"
    return facts
