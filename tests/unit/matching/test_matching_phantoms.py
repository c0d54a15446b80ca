"""Phantom sources: a table without rows sells nothing, whatever its noise promised."""

import numpy as np
import pytest
from random_markets import MICRO

from matching import clear
from matching.ladder import price_ladders, separated
from matching.target import money, share_cap, supply_counts
from valuation.ladders import earned


def sold_by_phantoms(markets: int) -> tuple[int, int, int]:
    """An empty table among 39 sources on 48 cells at epsilon 1, one market for each draw of noise.

    Returns:
        Markets in which it was admitted, units it was ordered at a low and at a high ask, and
        honest sources that were not admitted.
    """
    rng = np.random.default_rng(48)
    points = rng.random((48, 2)) * 3
    apart = np.linalg.norm(points[:, None] - points[None], axis=2)
    distances = separated(money(apart, MICRO), b"phantom")
    chance = 1 - np.exp(-1)
    admitted, ordered, barred = 0, 0, 0
    for _ in range(markets):
        exact = rng.poisson(2.0, (40, 48))
        exact[0] = 0
        noised = exact + rng.geometric(chance, (40, 48)) - rng.geometric(chance, (40, 48))
        supplies = np.array([supply_counts(row, 1.0) for row in noised])
        target = rng.multinomial(300, np.full(48, 1 / 48))
        asks = rng.integers(MICRO, 3 * MICRO, 40)
        admitted += bool(supplies[0].any())
        barred += int((~supplies[1:].any(axis=1)).sum())
        capped = share_cap(distances, target, supplies, 5_700_000)
        for ask in (0, 5_000_000):
            asks[0] = ask
            plan = clear(distances, target, capped, asks, reserve=5_700_000)
            ordered += int(plan.units[0])
            assert earned(price_ladders(plan)[0], {}) == 0
    return admitted, ordered, barred


def test_a_phantom_source_sells_nothing_and_earns_nothing() -> None:
    admitted, ordered, barred = sold_by_phantoms(30)
    assert (admitted, ordered) == (0, 0)
    assert barred <= 2  # of 1,170 honest sources of about 96 rows


@pytest.mark.long
def test_phantoms_sell_nothing_in_2000_markets() -> None:
    """Odds of one admission are 0.2% by the gate, and the seed is fixed."""
    admitted, ordered, barred = sold_by_phantoms(2000)
    assert (admitted, ordered) == (0, 0)
    assert barred <= 78  # one in a thousand
