"""Money and epsilon as integers: one micro-unit is a millionth of a unit. No float anywhere."""

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from math import floor
from typing import NewType

from clearinghouse.errors import InputError

MicroMoney = NewType("MicroMoney", int)
"""An amount in millionths of the market's currency."""

MICRO = 1_000_000


def parse_money(text: object, *, name: str) -> MicroMoney:
    """Read a decimal such as "2.00" exactly.

    Args:
        text: A string or an int; at most six decimals, not negative, below 10**12 units.
        name: What the amount is, for the message.

    Raises:
        InputError: It is not such a decimal.
    """
    problem = f'{name} must be a decimal such as "2.00" (at most six decimals), not {text!r}'
    if isinstance(text, bool) or not isinstance(text, str | int):
        raise InputError(problem)
    try:
        value = Decimal(str(text))
    except InvalidOperation:
        raise InputError(problem) from None
    if not value.is_finite() or value < 0 or value >= 10**12:
        raise InputError(problem)
    scaled = value * MICRO
    if scaled != scaled.to_integral_value():
        raise InputError(problem)
    return MicroMoney(int(scaled))


def format_money(amount: int) -> str:
    """Show micro-units as a decimal string with at least two and at most six decimals."""
    sign, rest = ("-", -amount) if amount < 0 else ("", amount)
    whole, part = divmod(rest, MICRO)
    digits = f"{part:06d}".rstrip("0").ljust(2, "0")
    return f"{sign}{whole}.{digits}"


def micro_epsilon(epsilon: Fraction | int) -> int:
    """Epsilon in millionths, rounded up so that no charge is ever too small."""
    return -floor(-Fraction(epsilon) * MICRO)


def split(total: int, shares: Sequence[Fraction]) -> tuple[int, ...]:
    """Divide `total` by `shares` (summing to 1): parts sum to it; largest remainder, ties first."""
    if sum(shares, Fraction(0)) != 1:
        raise ValueError(f"shares must sum to 1, not {sum(shares, Fraction(0))}")
    parts = [floor(total * share) for share in shares]  # floor, not int(): refunds are negative
    remainders = [total * share - part for share, part in zip(shares, parts, strict=True)]
    order = sorted(range(len(shares)), key=lambda i: (-remainders[i], i))
    for i in order[: total - sum(parts)]:
        parts[i] += 1
    return tuple(parts)
