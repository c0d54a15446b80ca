"""Noise of m committed coins: Binomial(m, 1/2) - m / 2 on a count, its privacy, exactly.

Adding or removing one patient moves one count of a table by one. With bounded noise two neighbours
have outputs that only one of them can give, so there is always a delta; it is computed here from
the binomial coefficients in integers and 60-digit decimals, not from a normal approximation.

Guarantee: `delta_of` is the least delta for which the table is (epsilon, delta)-DP under adding or
    removing one patient; `epsilon_of` and `coins_of` never claim more than it gives.
Assumes: the coins are uniform and independent, and unknown to who sees the output.
Proof: the tight delta is the hockey-stick divergence (Balle, Barthe, Gaboardi 2018) of the two
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

    delta = sum over k of max(0, P(k) - exp(epsilon) P(k - 1)) for P of Binomial(coins, 1/2). As
    P(k) / P(k - 1) = (coins - k + 1) / k falls with k, the positive terms are the first ones, so
    that the sum is of whole numbers but for one product.
    """
    count = _checked(coins)
    if epsilon_micro < 0:
        raise ValueError(f"epsilon: expected millionths from 0, got {epsilon_micro}")
    grow = _CONTEXT.exp(_CONTEXT.divide(Decimal(epsilon_micro), Decimal(_MICRO)))
    last = int(_CONTEXT.divide(Decimal(count + 1), _CONTEXT.add(grow, Decimal(1))))
    below, value = 0, 1
    for k in range(last):
        below += value
        value = value * (count - k) // (k + 1)
    lost = _CONTEXT.multiply(grow, Decimal(below))
    return _CONTEXT.divide(_CONTEXT.subtract(Decimal(below + value), lost), Decimal(1 << count))


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


@lru_cache(maxsize=4096)
def coins_of(epsilon_micro: int, delta_micro_micro: int = DELTA_MICRO_MICRO) -> int:
    """Return the least even number of coins that makes one table (epsilon, delta)-DP.

    Raises:
        ValueError: more than 8,192 are needed: they do not fit a ciphertext.
    """
    delta = Decimal(delta_micro_micro) / Decimal(10**12)
    low, high = 1, 16
    while delta_of(2 * high, epsilon_micro) > delta:  # doubled: large numbers are slow to try
        low, high = high + 1, 2 * high
        if 2 * high > MOST_COINS:
            raise ValueError(
                f"coins: an epsilon of {epsilon_micro} millionths a table needs more than "
                f"{MOST_COINS} coins a cell; choose a larger epsilon or the geometric law"
            )
    while low < high:
        middle = (low + high) // 2
        enough = delta_of(2 * middle, epsilon_micro) <= delta
        low, high = (low, middle) if enough else (middle + 1, high)
    return 2 * low


def _checked(coins: int) -> int:
    if not 1 <= coins <= MOST_COINS:
        raise ValueError(f"coins: expected 1 to {MOST_COINS}, got {coins}")
    return coins
