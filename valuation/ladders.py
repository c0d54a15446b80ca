"""What a delivery earns, by the price ladder of its order; integers only, no solver.

A ladder (from `matching.ladder.price_ladders`) gives every ordered unit of every cell its price.
In each cell a source is paid for the dearest rungs, one for each real record. Both who delivers and
who receives knows the real records per cell, the clearinghouse only their number: the two name the
amount, and `bound` is the most that it can be for that number.
"""

from collections.abc import Mapping, Sequence

Rung = tuple[int, int, int]


def fits(ladder: Sequence[Sequence[int]], quota: Sequence[int]) -> bool:
    """Whether a ladder prices exactly the units of every cell, each at 0 or more."""
    units = [0] * len(quota)
    for cell, price, count in ladder:
        if not 0 <= cell < len(quota) or price < 0 or count < 0:
            return False
        units[cell] += count
    return units == list(quota)


def earned(ladder: Sequence[Rung], real: Mapping[int, int]) -> int:
    """Micro-money that the real records earn.

    Args:
        ladder: (cell, price, units) of one order, in any order.
        real: Real records delivered in each cell; a cell that is left out has none.

    Returns:
        The sum of the dearest `real[cell]` prices of every cell.

    Raises:
        ValueError: If a cell has more real records than were ordered or fewer than none.
    """
    ordered: dict[int, int] = {}
    for cell, _, units in ladder:
        ordered[cell] = ordered.get(cell, 0) + units
    for cell, count in real.items():
        if not 0 <= count <= ordered.get(cell, 0):
            raise ValueError(f"expected 0 to {ordered.get(cell, 0)} records, got {count}")
    rest = dict(real)
    total = 0
    for cell, price, units in sorted(ladder, key=lambda rung: -rung[1]):
        paid = min(units, rest.get(cell, 0))
        rest[cell] = rest.get(cell, 0) - paid
        total += price * paid
    return total


def bound(ladder: Sequence[Rung], real: int) -> int:
    """The most that `real` records can earn whatever their cells: the dearest rungs of all.

    Raises:
        ValueError: If there are more real records than were ordered or fewer than none.
    """
    ordered = sum(units for _, _, units in ladder)
    if not 0 <= real <= ordered:
        raise ValueError(f"expected 0 to {ordered} records, got {real}")
    total = 0
    for _, price, units in sorted(ladder, key=lambda rung: -rung[1]):
        paid = min(units, real)
        real -= paid
        total += price * paid
    return total


def settled(ladder: Sequence[Rung], proven: int, claim: int, confirmed: Sequence[int]) -> int:
    """What is paid: the seller's claim, at most what a recipient confirms and what is possible.

    One recipient that lies cannot lower what another one confirms; if none looked, the claim stands
    within its bound.

    Args:
        ladder: The order's ladder.
        proven: Real records proven against the source's commitment.
        claim: What the seller says it earned, micro-money >= 0.
        confirmed: What each recipient that looked says it earned (0 where it refuses the delivery).

    Raises:
        ValueError: If an amount is negative or `proven` does not fit the order.
    """
    if claim < 0 or min(confirmed, default=0) < 0:
        raise ValueError("expected amounts >= 0")
    return min([claim, bound(ladder, proven), *([max(confirmed)] if confirmed else [])])
