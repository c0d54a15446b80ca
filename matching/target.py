"""From noisy counts to what is wanted, what may be sold, and at what cost.

Everything here is post-processing of counts that were already released with two-sided geometric
noise, P(z) proportional to exp(-epsilon |z|), so it spends no privacy. Nothing here reads an ask:
what these functions return is frozen and hashed before the first ask is revealed, and the clearing
stays truthful in price.
"""

import math
from fractions import Fraction
from functools import lru_cache
from statistics import NormalDist
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from matching.inputs import Integers

Floats = NDArray[np.float64]

LABEL_COST = 4
SHARE_CAP = 1.5
SUPPLY_GATE = 1 - 1e-6
"""Passed by an empty table once in a million: of 40 in each of 1,000 requests one does in 4%."""
# Above this many terms the sum of the noise is normal to far better than one count in its spread.
_EXACT_TERMS = 2_000_000
_RESOLUTION = 2.0**40


def project(noisy: ArrayLike, total: float | None = None) -> Floats:
    """Nearest non-negative numbers (L2) with the given total.

    Measured: better than clipping at zero, which inflates the total where noise is large.
    Duchi et al., "Efficient projections onto the l1-ball", ICML 2008, figure 1.

    Args:
        noisy: Numbers of any shape.
        total: What the result sums to, >= 0; by default the numbers' own sum, or 0 if negative.

    Returns:
        float64 of the same shape, >= 0; all zero where the total is 0.

    Raises:
        ValueError: If there is no number, one is not finite, or the total is negative.
    """
    values = np.asarray(noisy, np.float64)
    if values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"expected finite counts, at least one, got shape {values.shape}")
    wanted = max(float(values.sum()), 0.0) if total is None else float(total)
    if not (math.isfinite(wanted) and wanted >= 0):
        raise ValueError(f"total: expected a number >= 0, got {wanted}")
    if wanted == 0:
        return np.zeros(values.shape)
    falling = np.sort(values, axis=None)[::-1]
    excess = (np.cumsum(falling) - wanted) / np.arange(1, falling.size + 1)
    cut = excess[np.flatnonzero(falling > excess)[-1]]
    return cast(Floats, np.maximum(values - cut, 0.0))


def round_to(values: ArrayLike, total: int) -> Integers:
    """Integers in proportion to the values that sum to `total` exactly (largest remainder).

    Shares are taken to 2^-40 first, so that the result does not hang on the last bits of a float,
    and divided in exact integers from there. Equal remainders go to the earlier entry.

    Args:
        values: Non-negative finite numbers of any shape, not all zero unless `total` is 0.
        total: Sum of the result, >= 0.

    Returns:
        int64 of the same shape; every entry within 1 of its exact share.

    Raises:
        ValueError: If a value is negative or not finite, or all are zero with a total above 0.
    """
    shares = np.asarray(values, np.float64)
    if total < 0 or not np.isfinite(shares).all() or (shares < 0).any():
        raise ValueError(f"expected finite values >= 0 and a total >= 0, got total {total}")
    if total == 0:
        return np.zeros(shares.shape, np.int64)
    whole = float(shares.sum())
    if whole <= 0:
        raise ValueError(f"expected a positive value to share {total} units, got zeros")
    weights = [int(weight) for weight in np.rint(shares.ravel() * (_RESOLUTION / whole))]
    divisor = sum(weights)
    given = [total * weight // divisor for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda i: (-(total * weights[i] % divisor), i))
    for i in by_remainder[: total - sum(given)]:
        given[i] += 1
    return np.array(given, np.int64).reshape(shares.shape)


def target_counts(noisy: ArrayLike, records: int) -> Integers:
    """Records wanted per (cell, label), from the noisy counts of the validation rows.

    The nearest non-negative counts with the same total, scaled to `records` by largest remainder.
    Shrinkage towards pooled supply was measured and gained nothing. Where noise has left no
    positive total, nothing is known of the target and every cell is wanted alike.

    Args:
        noisy: (K, L) released counts, possibly negative.
        records: Records wanted, >= 1.

    Returns:
        (K, L) int64 that sums to `records`.

    Raises:
        ValueError: If `records` < 1 or the counts are not finite.
    """
    if records < 1:
        raise ValueError(f"records: expected at least 1, got {records}")
    counts = np.asarray(noisy, np.float64)
    shares = project(counts)
    return round_to(shares if shares.any() else np.ones(counts.shape), records)


def supply_counts(
    noisy: ArrayLike,
    epsilon: float,
    *,
    noise_entries: int | None = None,
    gate: float = SUPPLY_GATE,
) -> Integers:
    """Records that a source may sell per (cell, label), from its released counts.

    The nearest non-negative counts with the same total, rounded to it. A table whose noisy total
    is not above the `gate` quantile of the sum of its own noise sells nothing, so an empty table
    sells nothing but once in a million, whatever its cells. The price is paid by small sources: at
    epsilon 1 and the level that a size class allows, half of those with 24 to 32 rows pass and all
    from about 48 (`benchmarks.phantoms`). A margin per number instead would take 20% of all supply.

    Args:
        noisy: (K, L) integers; sums of released counts (coarser cells, pooled labels) are fine.
        epsilon: Privacy loss of the release, > 0.
        noise_entries: How many released counts, each with its own noise, the total is made of; by
            default the size of `noisy`.
        gate: Quantile of the noise total that has to be exceeded; 0 switches the gate off.

    Returns:
        (K, L) int64 >= 0.

    Raises:
        ValueError: If a number is out of range.
    """
    counts = np.asarray(noisy)
    if counts.dtype.kind not in "iu":
        raise ValueError(f"noisy: expected integer counts, got {counts.dtype}")
    total = int(counts.sum())
    entries = counts.size if noise_entries is None else noise_entries
    if total <= 0 or (gate > 0 and total <= noise_quantile(epsilon, entries, gate)):
        return np.zeros(counts.shape, np.int64)
    return round_to(project(counts, total), total)


def noise_variance(epsilon: float) -> float:
    """Variance of one released count: 2a / (1 - a)^2 with a = exp(-epsilon)."""
    if not epsilon > 0:
        raise ValueError(f"epsilon: expected > 0, got {epsilon}")
    return 2 * math.exp(-epsilon) / math.expm1(-epsilon) ** 2


@lru_cache(maxsize=4096)
def noise_quantile(epsilon: float, entries: int, level: float) -> int:
    """Smallest z with P(sum of `entries` independent noises <= z) >= level, for level >= 0.5.

    Exact as `noise_below`; only where that takes more than two million terms (tiny epsilon, many
    entries) the normal approximation of the same variance is used instead.

    Raises:
        ValueError: If a number is out of range.
    """
    if entries < 1 or not 0.5 <= level < 1:
        raise ValueError(f"expected entries >= 1 and 0.5 <= level < 1, got {entries}, {level}")
    spread = math.sqrt(entries * noise_variance(epsilon))
    guess = math.ceil(NormalDist().inv_cdf(level) * spread)
    if _terms(epsilon, entries) > _EXACT_TERMS:
        return guess
    low, high = -1, max(guess, 1)  # P(sum <= -1) < 1/2 <= level by symmetry
    while noise_below(epsilon, entries, high) < level:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if noise_below(epsilon, entries, middle) >= level:
            high = middle
        else:
            low = middle
    return high


def noise_below(epsilon: float, entries: int, z: int) -> float:
    """P(sum of `entries` independent noises <= z).

    Two-sided geometric noise is the difference of two geometric numbers, so the sum is the
    difference of two negative binomials with `entries` successes each; its distribution is summed
    until what is left out is below 1e-12. Beyond two million terms it is taken as normal.

    Raises:
        ValueError: If a number is out of range.
    """
    if entries < 1:
        raise ValueError(f"expected entries >= 1, got {entries}")
    if _terms(epsilon, entries) > _EXACT_TERMS:
        return NormalDist(0, math.sqrt(entries * noise_variance(epsilon))).cdf(z)
    from scipy import special  # here and below: most that read this module never need it

    y, mass = _half(epsilon, entries)
    below = np.zeros(len(y))
    known = z + y >= 0
    below[known] = special.betainc(entries, z + y[known] + 1.0, -math.expm1(-epsilon))
    return float(mass @ below)


def _terms(epsilon: float, entries: int) -> int:
    spread = math.sqrt(entries * noise_variance(epsilon))
    decay = math.exp(-epsilon)
    return math.ceil(entries * decay / (1 - decay) + 12 * spread + 40 / epsilon)


@lru_cache(maxsize=64)
def _half(epsilon: float, entries: int) -> tuple[Integers, Floats]:
    """Values and chances of one of the two negative binomials."""
    from scipy import special

    y = np.arange(_terms(epsilon, entries) + 1)
    log_mass = (
        special.gammaln(entries + y)
        - special.gammaln(entries)
        - special.gammaln(y + 1)
        + entries * math.log(-math.expm1(-epsilon))
        - epsilon * y
    )
    return y, np.exp(log_mass)


def share_cap(
    distances: ArrayLike,
    target: ArrayLike,
    supplies: ArrayLike,
    reserve: ArrayLike,
    gamma: float = SHARE_CAP,
) -> Integers:
    """Supplies capped so that no low ask can buy a whole cell.

    A plan is made with all asks zero. In each cell its units are split among the sources in
    proportion to their supplies, and no source may sell more than `gamma` times its part, rounded
    up. Measured: without a cap the flow buys up to all rows from the cheapest source and the match
    falls below random even without noise. No ask is read, so truthfulness in price is kept.

    Args:
        distances: (K, K) integers, micro-money.
        target: (K,) integers, units.
        supplies: (S, K) integers, units.
        reserve: integer or (K,) integers, micro-money.
        gamma: The customer's dial between likeness and price, above 1 (at 1 nobody competes).

    Returns:
        (S, K) int64, nowhere above the supplies.

    Raises:
        ValueError: If gamma is not above 1, or as `matching.clear`.
    """
    if not (math.isfinite(gamma) and gamma > 1):
        raise ValueError(f"gamma: expected a number above 1, got {gamma}")
    from matching.clearing import clear  # only the server, which clears, has numba installed

    offered = np.asarray(supplies)
    asks = np.zeros(len(offered), np.int64)
    plan = clear(distances, target, offered, asks, reserve=reserve)
    planned, pooled = plan.quota.sum(axis=0), plan.supplies.sum(axis=0)
    ratio = Fraction(gamma).limit_denominator(1_000_000)
    capped = np.zeros_like(plan.supplies)
    for source, cell in zip(*np.nonzero((plan.supplies > 0) & (planned > 0)), strict=True):
        own = int(plan.supplies[source, cell])
        parts = own * int(planned[cell]) * ratio.numerator
        capped[source, cell] = min(own, -(-parts // (int(pooled[cell]) * ratio.denominator)))
    return capped


def label_cost_needed(
    target_noisy: ArrayLike,
    pooled_noisy: ArrayLike,
    *,
    target_epsilon: float,
    pooled_variance: float,
    errors: float = 2.0,
) -> bool:
    """Whether the target's label shares differ from the pooled supply's beyond noise.

    The label cost helps under label shift and hurts without it (measured). It is switched on only
    if some label's share differs by more than `errors` standard errors, counting the noise of both
    releases (to first order in share = count / total) and the sampling of the validation rows.
    The pool is all admitted supply, never an allocation, so that no ask can flip the objective.

    Args:
        target_noisy: (K, L) released counts of the validation rows.
        pooled_noisy: (L,) released counts of all admitted sources, summed per label.
        target_epsilon: Privacy loss of the target's release, > 0.
        pooled_variance: Noise variance of one entry of `pooled_noisy`: the sum over sources of
            (their cells) x `noise_variance(their epsilon)`.
        errors: Standard errors that count as a difference.

    Returns:
        False also where a noisy total is not positive: then nothing is known.

    Raises:
        ValueError: If shapes do not fit or a number is out of range.
    """
    target = np.asarray(target_noisy, np.float64)
    pool = np.asarray(pooled_noisy, np.float64)
    if target.ndim != 2 or pool.shape != target.shape[1:] or pooled_variance < 0:
        raise ValueError(
            f"expected shapes (K, L) and (L,) and a variance >= 0, got {target.shape}, {pool.shape}"
        )
    wanted, offered = float(target.sum()), float(pool.sum())
    if wanted <= 0 or offered <= 0:
        return False
    target_share, pool_share = target.sum(axis=0) / wanted, pool / offered
    per_label = target.shape[0] * noise_variance(target_epsilon)
    chance = np.clip(pool_share, 0, 1)
    variance = (
        chance * (1 - chance) / wanted
        + _share_variance(target_share, per_label, wanted)
        + _share_variance(pool_share, pooled_variance, offered)
    )
    return bool((np.abs(target_share - pool_share) > errors * np.sqrt(variance)).any())


def _share_variance(share: Floats, variance: float, total: float) -> Floats:
    """Variance of count_l / total when every label's count has independent noise."""
    others = len(share) - 1
    return ((1 - share) ** 2 + others * share**2) * (variance / total**2)


def joint_distances(
    cell_distances: ArrayLike, n_labels: int, label_cost: float = LABEL_COST
) -> Floats:
    """(K L, K L) distances among (cell, label) pairs: a label mismatch adds `label_cost`.

    Pair (cell, label) has index cell x L + label, as in a (K, L) array read row by row.

    Raises:
        ValueError: If the distances are not square or a number is out of range.
    """
    cells = np.asarray(cell_distances, np.float64)
    if cells.ndim != 2 or cells.shape[0] != cells.shape[1]:
        raise ValueError(f"cell_distances: expected a square matrix, got {cells.shape}")
    if n_labels < 1 or not label_cost >= 0:
        raise ValueError(f"expected labels >= 1 and a cost >= 0, got {n_labels}, {label_cost}")
    mismatch = label_cost * (1 - np.eye(n_labels))
    return cast(
        Floats, np.kron(cells, np.ones((n_labels, n_labels))) + np.tile(mismatch, cells.shape)
    )


def money(distances: ArrayLike, distance_price: int) -> Integers:
    """Distances as micro-money: times the price of one unit of distance, rounded half to even.

    Args:
        distances: Finite numbers >= 0, any shape.
        distance_price: Micro-money per unit of distance, >= 0.

    Raises:
        ValueError: If a number is out of range.
    """
    values = np.asarray(distances, np.float64)
    if distance_price < 0 or not np.isfinite(values).all() or (values < 0).any():
        raise ValueError("expected finite distances >= 0 and a price >= 0")
    return cast(Integers, np.rint(values * distance_price).astype(np.int64))
