"""Noise of m committed coins: Binomial(m, 1/2) - m / 2 on a count, its privacy, exactly.

Adding or removing one patient moves one count of a table by one. With bounded noise two neighbours
have outputs that only one of them can give, so there is always a delta; it is computed here from
the binomial coefficients in integers and 60-digit decimals, not from a normal approximation.

Guarantee: `delta_of` is the least delta for which the table is (epsilon, delta)-DP under adding or
    removing one patient; `epsilon_of` and `coins_of` never claim more than it gives.
Assumes: the coins are uniform and independent, and unknown to who sees the output.
Source: the tight delta is the hockey-stick divergence (Balle, Barthe, Gaboardi 2018) of the two
    neighbours' outputs, of which one is the other moved by one; both directions are the same by
    the symmetry of fair coins.
"""

from decimal import Context, Decimal
from functools import lru_cache
from math import sqrt

__all__ = ["DELTA_MICRO_MICRO", "coins_of", "delta_of", "epsilon_of", "standard_deviation"]

DELTA_MICRO_MICRO = 1_000_000
"""The delta of an agreed epsilon: 1e-6, in 1e-12ths."""

MOST_COINS = 8192
_CONTEXT = Context(prec=60)
_MICRO = 1_000_000


def standard_deviation(coins: int) -> float:
    """Return the exact standard deviation of one cell's noise, in counts."""
    return sqrt(_checked(coins)) / 2


def delta_of(coins: int, epsilon_micro: int) -> Decimal:
    """Return the exact delta of one table at an epsilon in millionths.

    delta = sum over k of max(0, P(k) - exp(epsilon) P(k - 1)) for P of Binomial(coins, 1/2).
    """
    count = _checked(coins)
    if epsilon_micro < 0:
        raise ValueError(f"epsilon: expected millionths from 0, got {epsilon_micro}")
    grow = _CONTEXT.exp(_CONTEXT.divide(Decimal(epsilon_micro), Decimal(_MICRO)))
    total = Decimal(0)
    before = 0
    for coefficient in _coefficients(count):
        gap = _CONTEXT.subtract(Decimal(coefficient), _CONTEXT.multiply(grow, Decimal(before)))
        if gap <= 0:
            break  # P(k) / P(k - 1) = (coins - k + 1) / k falls with k
        total = _CONTEXT.add(total, gap)
        before = coefficient
    return _CONTEXT.divide(total, Decimal(1 << count))


def epsilon_of(coins: int, delta_micro_micro: int = DELTA_MICRO_MICRO) -> int:
    """Return the least epsilon, in millionths, of one table at a delta in 1e-12ths.

    Raises:
        ValueError: the coins are too few for that delta at any epsilon up to 100.
    """
    delta = Decimal(delta_micro_micro) / Decimal(10**12)
    low, high = 0, 100 * _MICRO
    if delta_of(coins, high) > delta:
        raise ValueError(f"coins: {coins} are too few for a delta of {delta}")
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if delta_of(coins, middle) <= delta else (middle + 1, high)
    return low


@lru_cache(maxsize=64)
def coins_of(epsilon_micro: int, delta_micro_micro: int = DELTA_MICRO_MICRO) -> int:
    """Return the least even number of coins that makes one table (epsilon, delta)-DP.

    Raises:
        ValueError: more than 8,192 are needed: they do not fit a ciphertext.
    """
    delta = Decimal(delta_micro_micro) / Decimal(10**12)
    if delta_of(MOST_COINS, epsilon_micro) > delta:
        raise ValueError(
            f"coins: an epsilon of {epsilon_micro} millionths a table needs more than "
            f"{MOST_COINS} coins a cell; choose a larger epsilon or the geometric law"
        )
    low, high = 1, MOST_COINS // 2
    while low < high:
        middle = (low + high) // 2
        enough = delta_of(2 * middle, epsilon_micro) <= delta
        low, high = (low, middle) if enough else (middle + 1, high)
    return 2 * low


def _checked(coins: int) -> int:
    if not 1 <= coins <= MOST_COINS:
        raise ValueError(f"coins: expected 1 to {MOST_COINS}, got {coins}")
    return coins


def _coefficients(coins: int) -> list[int]:
    found, value = [], 1
    for k in range(coins // 2 + 2):
        found.append(value)
        value = value * (coins - k) // (k + 1)
    return found
