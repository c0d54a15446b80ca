"""Which noise a validation set's runs get: two-sided geometric, or committed coins.

A set has one lifetime budget, and the number of runs is fixed before the first. Geometric noise
adds up epsilon by epsilon, so N runs leave each an N-th; coins are close to a Gaussian, whose noise
need only grow with the square root of N. Few runs are better served by the first law, many by the
second; `choose` takes the one with the smaller standard deviation. Everything here is computed from
declared numbers: no row, no draw.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from dp.coins import coins_of
from dp.cost import MICRO, Cost, epsilon_of, lanes

LawName = Literal["geometric", "coins"]

ORDER = 16.0
"""Largest Renyi order for which coins are accounted; at 128 coins the extreme outcomes, which a
bell curve does not have, begin to count above it."""

DELTA = 1e-6
ENDS = 1e-9
"""The part of delta kept for the coins' ends: outcomes that one of two neighbours cannot give."""

LEAST_COINS = 64
"""A cell in the zCDP lane: a million tables have ends of less than `ENDS` with as many."""

HISTOGRAM_PERCENT = 60
"""The histogram's part of a run's epsilon; the subgroups share the rest equally."""

LEAST_PART_MICRO = 1_000
"""No table is released at less than a thousandth of epsilon."""

_STEP_MICRO = 5_000
"""A run's epsilon under coins is a multiple of this."""

_GRID = 1.01
_FIRST = 1.0001


@dataclass(frozen=True, slots=True)
class Law:
    """One law of noise for all runs of a set.

    Attributes:
        name: "geometric" or "coins".
        runs: Runs that the budget is divided among.
        sd: Standard deviation of the noise of one cell of the histogram.
        each_micro: Millionths of epsilon of one run alone, at `delta` for each of its tables; its
            tables' parts sum to it.
        cost: Taken from the ledger for each run.
        epsilon: What all runs mean together, at `delta`.
        delta: 0 for geometric noise.
    """

    name: LawName
    runs: int
    sd: float
    each_micro: int
    cost: Cost
    epsilon: float
    delta: float
    coins: int = 0
    """A cell; 0 for geometric noise."""


def geometric_sd(epsilon: float) -> float:
    """Standard deviation of two-sided geometric noise: sqrt(2 a) / (1 - a), a = exp(-epsilon)."""
    return math.sqrt(2 * math.exp(-epsilon)) / -math.expm1(-epsilon)


@lru_cache(maxsize=4096)
def coins_micro_rho(coins: int) -> int:
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
    from scipy.special import gammaln  # here: every party reads this module, few ask for coins

    x = np.arange(1, coins + 1)
    log_p = gammaln(coins + 1) - gammaln(x + 1) - gammaln(coins - x + 1) - coins * math.log(2)
    log_ratio = np.log((coins - x + 1) / x)
    steps = math.ceil(math.log((ORDER - 1) / (_FIRST - 1)) / math.log(_GRID))
    orders = 1 + np.minimum((_FIRST - 1) * _GRID ** np.arange(steps + 1), ORDER - 1)
    lost = -math.log1p(-(2.0**-coins))
    sums = np.exp((orders[:, None] - 1) * log_ratio + log_p).sum(axis=1)
    divergence = (np.log(sums) + lost) / (orders - 1)
    before = np.concatenate([[1.0], orders[:-1]])
    return math.ceil(float((divergence / before).max()) * MICRO)


def coins_epsilon(tables: int, coins: int, delta: float = DELTA) -> float:
    """An epsilon such that so many tables of coins together are (epsilon, delta)-DP.

    Raises:
        ValueError: No table, or delta is not between what the coins' ends cost and 1.
    """
    ends = 2 * tables * 2.0**-coins
    if tables < 1 or not ends < delta < 1:
        raise ValueError(f"expected tables and a delta between {ends:.1e} and 1, got {tables}")
    return epsilon_of(tables * coins_micro_rho(coins) / MICRO, delta - ends, ORDER)


def parts(epsilon_micro: int, groups: int, histograms: int = 1) -> tuple[list[int], int]:
    """How the tables of a run share its epsilon: each histogram's part, and every subgroup table's.

    The parts sum to the run's epsilon exactly.

    Args:
        epsilon_micro: Of the run.
        groups: Subgroup attributes.
        histograms: One, or one a class; the subgroup tables are as many for each.
    """
    percent = 100 - HISTOGRAM_PERCENT if groups else 0
    part = epsilon_micro * percent // 100 // max(1, groups * histograms)
    whole = epsilon_micro - part * groups * histograms
    own = [whole // histograms] * (histograms - 1)
    return [*own, whole - sum(own)], part


def run_micro_rho(epsilon_micro: int, groups: int, histograms: int = 1) -> int:
    """Millionths of rho of one run whose tables have the fewest coins for their parts.

    Raises:
        ValueError: A table's part is too small for coins, or so large that it needs too few.
    """
    own, part = parts(epsilon_micro, groups, histograms)
    tables = [*own, *[part] * (groups * histograms)]
    coins = [coins_of(each) for each in tables]
    if min(coins) < LEAST_COINS:
        raise ValueError(f"a table of {min(coins)} coins a cell is not accounted in rho")
    return sum(coins_micro_rho(number) for number in coins)


def geometric_law(runs: int, total_micro: int, groups: int, histograms: int = 1) -> Law:
    """Each run gets an equal part of the total, and its tables share it.

    Raises:
        ValueError: A table would get less than a thousandth of epsilon.
    """
    each = total_micro // runs
    own, part = parts(each, groups, histograms)
    if min(own[0], part if groups else own[0]) < LEAST_PART_MICRO:
        raise ValueError(
            f"{runs} runs leave each table less than epsilon {LEAST_PART_MICRO / MICRO:g}"
        )
    sd = geometric_sd(own[0] / MICRO)
    return Law("geometric", runs, sd, each, Cost(each, 0), runs * each / MICRO, 0.0)


def rho_lane(total_micro: int, pure_micro: int, delta: float = DELTA) -> Cost:
    """Both lanes of a ledger whose runs get coins: what pure releases cost, the rest in rho.

    Guarantee:
        What is spent within both lanes is (total_micro / 10**6, delta)-DP together, with the coins'
        ends: `ENDS` of delta is kept for them.

    Raises:
        ValueError: Pure releases need more than the total, or delta is not above `ENDS`.
    """
    if not delta > ENDS:
        raise ValueError(f"coins need a delta above {ENDS:g}, not {delta:g}")
    return lanes(total_micro, delta - ENDS, pure_micro, ORDER)


def coins_law(
    runs: int, total_micro: int, groups: int, histograms: int = 1, delta: float = DELTA
) -> Law:
    """The fewest coins with which so many runs fit: rho adds, so a cell needs as many as runs.

    Raises:
        ValueError: No number of coins fits, or so few would do that coins are no use.
    """
    lane = rho_lane(total_micro, 0, delta).micro_rho
    low, high = 0, total_micro // _STEP_MICRO
    while low < high:  # the largest epsilon a run that fits; rho grows with it
        middle = (low + high + 1) // 2
        try:
            fits = runs * run_micro_rho(middle * _STEP_MICRO, groups, histograms) <= lane
        except ValueError:  # too many coins, which is far too small an epsilon, or too few
            fits = middle * _STEP_MICRO < MICRO // 2
        low, high = (middle, high) if fits else (low, middle - 1)
    each = low * _STEP_MICRO
    rho = run_micro_rho(each, groups, histograms)
    if runs * rho > lane:
        raise ValueError(f"{runs} runs of coins do not fit epsilon {total_micro / MICRO:g}")
    coins = coins_of(parts(each, groups, histograms)[0][0])
    epsilon = epsilon_of(runs * rho / MICRO, delta - ENDS, ORDER)
    return Law("coins", runs, math.sqrt(coins) / 2, each, Cost(0, rho), epsilon, delta, coins)


def choose(
    runs: int, total_micro: int, *, groups: int = 0, histograms: int = 1, delta: float = DELTA
) -> Law:
    """The law with the smaller noise for so many runs; geometric where they are equal.

    Args:
        runs: Fixed when the set is sealed or the request is opened.
        total_micro: Millionths of epsilon for all runs together.
        groups: Subgroup attributes that each run releases a table of, besides the histogram.
        histograms: Of each run: one, or one a class.
        delta: That coins may use; 0 rules them out.

    Raises:
        ValueError: Nothing fits, or an argument is below 1.
    """
    if min(runs, total_micro, histograms) < 1 or groups < 0:
        raise ValueError("runs, total and histograms must be at least 1")
    plain, refusal = None, ValueError()
    try:
        plain = geometric_law(runs, total_micro, groups, histograms)
    except ValueError as error:
        refusal = error
    if not delta or (plain is not None and plain.sd <= math.sqrt(LEAST_COINS) / 2):
        if plain is None:
            raise refusal
        return plain  # no number of coins is as quiet
    try:
        tossed = coins_law(runs, total_micro, groups, histograms, delta)
    except ValueError:
        if plain is None:
            raise refusal from None
        return plain
    return tossed if plain is None or tossed.sd < plain.sd else plain


def supported_runs(room_micro: int, run_micro: int) -> int:
    """How many runs of a cost fit into what is left of a lane.

    Raises:
        ValueError: A run costs nothing.
    """
    if run_micro < 1:
        raise ValueError(f"a run costs at least a millionth, not {run_micro}")
    return max(0, room_micro) // run_micro
