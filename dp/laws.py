"""Which noise a validation set's runs get: two-sided geometric, or committed coins.

A set has one lifetime budget, and the number of runs is fixed before the first. Geometric noise
adds up epsilon by epsilon, so N runs leave each an N-th; coins are close to a Gaussian, whose noise
need only grow with the square root of N. Few runs are better served by the first law, many by the
second; `choose` takes the one with the smaller standard deviation. Everything here is computed from
declared numbers: no row, no draw.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from scipy.special import gammaln, logsumexp

from dp.cost import MICRO, Cost, epsilon_of

LawName = Literal["geometric", "coins"]

COINS = 128
"""Fair coins a cell."""

ORDER = 16.0
"""Largest Renyi order for which coins are accounted; at 128 coins the extreme outcomes, which a
bell curve does not have, begin to count above it."""

DELTA = 1e-6
HISTOGRAM_PERCENT = 60
"""The histogram's part of a run's epsilon; the subgroups share the rest equally."""

LEAST_PART_MICRO = 1_000
"""No table is released at less than a thousandth of epsilon."""

_GRID = 1.001
_FIRST = 1.0001


@dataclass(frozen=True, slots=True)
class Law:
    """One law of noise for all runs of a set.

    Attributes:
        name: "geometric" or "coins".
        runs: Runs that the budget is divided among.
        sd: Standard deviation of the noise of one cell of the histogram.
        cost: Taken from the ledger for each run.
        epsilon: What all runs mean together, at `delta`.
        delta: 0 for geometric noise.
    """

    name: LawName
    runs: int
    sd: float
    cost: Cost
    epsilon: float
    delta: float
    coins: int = 0
    """A cell; 0 for geometric noise."""


def geometric_sd(epsilon: float) -> float:
    """Standard deviation of two-sided geometric noise: sqrt(2 a) / (1 - a), a = exp(-epsilon)."""
    return math.sqrt(2 * math.exp(-epsilon)) / -math.expm1(-epsilon)


@lru_cache(maxsize=16)
def coins_micro_rho(coins: int = COINS) -> int:
    """Millionths of rho of one table of committed coins, rounded up.

    Guarantee:
        A table of counts, each with Binomial(coins, 1/2) - coins/2 added, is (rho, ORDER)-truncated
        zCDP but for a chance of 2**-coins, under adding or removing one patient, who is in one
        cell.
    Assumes:
        The coins are fair and independent: each is the exclusive or of a bit that the key holder
        committed to and a bit that it could not know then.
    Proof:
        The neighbours' laws are a binomial and the same one shifted by 1; each has mass 2**-coins
        where the other has none, which is the approximation (Bun and Steinke 2016, definition 8.1).
        On the common support the Renyi divergence D(a) is a finite sum. D grows with the order, so
        for a between two points of a grid D(a) / a is at most D(next point) / (point before); the
        largest such ratio up to ORDER is rho. Tables and runs add (lemma 8.2 there).

    Args:
        coins: A cell, at least 16.

    Raises:
        ValueError: Too few coins.
    """
    if coins < ORDER:
        raise ValueError(f"a cell needs at least {ORDER:.0f} coins, got {coins}")
    x = np.arange(1, coins + 1)
    log_p = gammaln(coins + 1) - gammaln(x + 1) - gammaln(coins - x + 1) - coins * math.log(2)
    log_q = gammaln(coins + 1) - gammaln(x) - gammaln(coins - x + 2) - coins * math.log(2)
    steps = math.ceil(math.log((ORDER - 1) / (_FIRST - 1)) / math.log(_GRID))
    orders = 1 + np.minimum((_FIRST - 1) * _GRID ** np.arange(steps + 1), ORDER - 1)
    lost = -math.log1p(-(2.0**-coins))
    sums = logsumexp(orders[:, None] * log_p + (1 - orders[:, None]) * log_q, axis=1) + lost
    divergence = sums / (orders - 1)
    before = np.concatenate([[1.0], orders[:-1]])
    return math.ceil(float((divergence / before).max()) * MICRO)


def coins_epsilon(tables: int, coins: int = COINS, delta: float = DELTA) -> float:
    """An epsilon such that so many tables of coins together are (epsilon, delta)-DP.

    Raises:
        ValueError: No table, or delta is not between what the coins' ends cost and 1.
    """
    ends = 2 * tables * 2.0**-coins
    if tables < 1 or not ends < delta < 1:
        raise ValueError(f"expected tables and a delta between {ends:.1e} and 1, got {tables}")
    return epsilon_of(tables * coins_micro_rho(coins) / MICRO, delta - ends, ORDER)


def geometric_law(runs: int, total_micro: int, groups: int) -> Law:
    """Each run gets an equal part of the total, and its tables share it.

    Raises:
        ValueError: A table would get less than a thousandth of epsilon.
    """
    each = total_micro // runs
    part = each * (100 - HISTOGRAM_PERCENT) // 100 // groups if groups else 0
    histogram = each - part * groups
    if min(histogram, part if groups else histogram) < LEAST_PART_MICRO:
        raise ValueError(
            f"{runs} runs leave each table less than epsilon {LEAST_PART_MICRO / MICRO:g}"
        )
    sd = geometric_sd(histogram / MICRO)
    return Law("geometric", runs, sd, Cost(each, 0), runs * each / MICRO, 0.0)


def coins_law(runs: int, groups: int, coins: int = COINS, delta: float = DELTA) -> Law:
    """Every table of every run gets the same coins, whatever the total."""
    tables = 1 + groups
    cost = Cost(0, tables * coins_micro_rho(coins))
    epsilon = coins_epsilon(runs * tables, coins, delta)
    return Law("coins", runs, math.sqrt(coins) / 2, cost, epsilon, delta, coins)


def choose(
    runs: int,
    total_micro: int,
    *,
    labels: int,
    bins: int,
    groups: int = 0,
    coins: Sequence[int] = (COINS,),
    delta: float = DELTA,
) -> Law:
    """The law with the smaller noise for so many runs; geometric where they are equal.

    Args:
        runs: Fixed when the request is opened.
        total_micro: Millionths of epsilon for all runs together.
        labels: Label classes.
        bins: Published bins; the histogram has labels x bins cells.
        groups: Subgroup tables of each run, besides the histogram.
        coins: Numbers of coins a cell that the market offers; none for geometric noise only.
        delta: That coins may use; 0 rules them out.

    Raises:
        ValueError: Nothing fits, or an argument is below 1.
    """
    if min(runs, total_micro, labels, bins) < 1 or groups < 0:
        raise ValueError("runs, total, labels and bins must be at least 1")
    tossed = [coins_law(runs, groups, number, delta) for number in coins if delta]
    laws = [law for law in tossed if law.epsilon <= total_micro / MICRO]
    try:
        laws.insert(0, geometric_law(runs, total_micro, groups))
    except ValueError:
        if not laws:
            raise
    return min(laws, key=lambda law: law.sd)


def supported_runs(room_micro: int, run_micro: int) -> int:
    """How many runs of a cost fit into what is left of a lane.

    Raises:
        ValueError: A run costs nothing.
    """
    if run_micro < 1:
        raise ValueError(f"a run costs at least a millionth, not {run_micro}")
    return max(0, room_micro) // run_micro
