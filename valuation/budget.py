"""A customer's budget: the tariff that keeps within it, the pot, thin markets. Integers only.

A customer never pays more than B because everything that shapes the bill is fixed before the first
ask: each of `records` units costs at most the tariff (fee inside), and pot and purse are set aside
first. `affordable_tariff` turns B into the highest such tariff; scaling anything after the asks
are known would break truthfulness.

Scaling beats a budget-feasible auction here (Singer, "Budget feasible mechanisms", FOCS 2010): see
`proportional_share`, which is kept as the rule to compare with and is not a mode of the market.
"""

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

from valuation.semivalues import semivalue

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

MICRO = 1_000_000
LARGEST_POT = Fraction(1, 10)
"""Part of the budget: a pot also pays sources that sell nothing, so it has to stay small."""


def affordable_tariff(
    budget: int, records: int, *, fee_micro: int = 0, pot: int = 0, purse: int = 0
) -> int:
    """Highest tariff per record at which a request cannot cost more than the budget.

    Args:
        budget: B, micro-money.
        records: Records wanted, >= 1.
        fee_micro: The platform's fee in millionths; it is inside the tariff and on top of the pot.
        pot: F, micro-money, at most a tenth of the budget.
        purse: Set aside for models, micro-money.

    Returns:
        Micro-money per record, fee included.

    Raises:
        ValueError: If a number is out of range or pot and purse alone exceed the budget.
    """
    if records < 1 or min(budget, fee_micro, pot, purse) < 0:
        raise ValueError(f"expected records >= 1 and amounts >= 0, got {records} records")
    if pot > LARGEST_POT * budget:
        raise ValueError(f"pot: expected at most {LARGEST_POT} of the budget {budget}, got {pot}")
    rest = budget - pot - fee_on(pot, fee_micro) - purse
    if rest < 0:
        raise ValueError(f"expected a budget above pot and purse, got {budget}")
    return rest // records


def reserve_of(tariff: int, fee_micro: int) -> int:
    """What sources can get of a tariff: the tariff without the fee, rounded down."""
    return tariff * MICRO // (MICRO + fee_micro)


def fee_on(amount: int, fee_micro: int) -> int:
    """The platform's part on top of an amount, rounded down."""
    return amount * fee_micro // MICRO


def settle(payments: Mapping[str, int], pot: Mapping[str, int], fee_micro: int) -> dict[str, int]:
    """The ledger of one clearing: what everyone gets; it sums to zero exactly.

    Args:
        payments: By source, micro-money >= 0.
        pot: By source, micro-money >= 0.
        fee_micro: Millionths.

    Returns:
        By source what it gets, and under `platform` and `customer` the rest of the entries; a
        source of one of those names is refused.

    Raises:
        ValueError: If an amount is negative or a name is taken.
    """
    if min([*payments.values(), *pot.values(), fee_micro], default=0) < 0:
        raise ValueError("expected amounts >= 0")
    names = sorted(set(payments) | set(pot))
    if {"platform", "customer"} & set(names):
        raise ValueError("expected no source called platform or customer")
    result = {name: payments.get(name, 0) + pot.get(name, 0) for name in names}
    fee = fee_on(sum(payments.values()), fee_micro) + fee_on(sum(pot.values()), fee_micro)
    result["platform"] = fee
    result["customer"] = -sum(result.values())
    return result


# ---------------------------------------------------------------- the pot


def largest_remainder(amount: int, weights: Sequence[int]) -> tuple[int, ...]:
    """Divide an amount in proportion to integer weights; parts sum to it, or are all 0.

    Ties go to the earlier entry. All-zero weights get nothing.
    """
    total = sum(weights)
    if amount < 0 or min(weights, default=0) < 0:
        raise ValueError("expected an amount and weights >= 0")
    if not total:
        return (0,) * len(weights)
    parts = [amount * weight // total for weight in weights]
    order = sorted(range(len(weights)), key=lambda i: (-(amount * weights[i] % total), i))
    for i in order[: amount - sum(parts)]:
        parts[i] += 1
    return tuple(parts)


def quotient_values(
    gains: ArrayLike, weights: ArrayLike, clusters: Sequence[int], kind: str = "shapley"
) -> Floats:
    """Values of sources when all of one cluster count as a single source.

    A cluster is one owner's identities or proven duplicates: it gains what its best member gains,
    is valued once and shares the value evenly. So c copies earn what one earns; plain Shapley pays
    eight identical identities 3.5 times as much (measured).

    Args:
        gains: (J, S), as for `semivalue`.
        weights: (J,).
        clusters: S labels; equal labels are one cluster.
        kind: As for `semivalue`.

    Returns:
        (S,) float64; with kind shapley it sums to the value of all sources together.

    Raises:
        ValueError: If the shapes do not fit.
    """
    matrix = np.asarray(gains, np.float64)
    labels = np.asarray(clusters)
    if matrix.ndim != 2 or labels.shape != matrix.shape[1:]:
        raise ValueError(f"expected gains (J, S) and S labels, got {matrix.shape}, {labels.shape}")
    names, member, size = np.unique(labels, return_inverse=True, return_counts=True)
    merged = np.zeros((len(matrix), len(names)))
    for index in range(len(names)):
        merged[:, index] = matrix[:, member == index].max(axis=1, initial=0.0)
    values = semivalue(merged, weights, kind)
    result: Floats = values[member] / size[member]
    return result


def share_pot(
    amount: int,
    gains: ArrayLike,
    weights: ArrayLike,
    clusters: Sequence[int],
    admitted: Sequence[bool],
) -> tuple[int, ...]:
    """The pot by quotient Shapley value over all admitted sources; no ask is read.

    `gains` must be those at asks of zero and `admitted` must follow from checks of committed rows
    (a spot check), never from who sold: both are what keeps the market truthful. A pot among
    winners, or of what is left of the budget, can be gamed (tested).

    Args:
        amount: Fixed before asks, micro-money.
        gains: (J, S) at asks of zero, on projected and capped supplies.
        weights: (J,) units wanted.
        clusters: S labels.
        admitted: S flags.

    Returns:
        S amounts that sum to `amount`, or all 0 where nobody admitted adds anything.
    """
    passed = np.asarray(admitted, bool)
    values = quotient_values(np.asarray(gains, np.float64) * passed, weights, clusters)
    return largest_remainder(amount, [int(value) for value in np.rint(values * passed)])


# ---------------------------------------------------------------- thin markets


def monopoly_bound(
    objective: int, marginals: Sequence[int], supplies: ArrayLike, *, least: int = 3
) -> tuple[bool, ...]:
    """For each source, whether competition says little about its price.

    True for a source that sells and has supply in some cell where fewer than `least` sources do, or
    whose marginal value is all of the market's value: its price is then set by the customer's
    tariff, not by rivals.

    Args:
        objective: Of the cleared market, micro-money.
        marginals: S marginal values.
        supplies: (S, K) units each may sell (capped). Reads no ask beyond those in the marginals.
        least: How many suppliers make a market.

    Raises:
        ValueError: If the shapes do not fit.
    """
    offered = np.asarray(supplies)
    if offered.ndim != 2 or len(offered) != len(marginals):
        raise ValueError(f"expected {len(marginals)} rows of supplies, got {offered.shape}")
    suppliers = (offered > 0).sum(axis=0)
    thin = ((offered > 0) & (suppliers < least)).any(axis=1)
    return tuple(
        bool(value > 0 and (thin[source] or value == objective))
        for source, value in enumerate(marginals)
    )


# ---------------------------------------------------------------- comparison rule


def proportional_share(
    utility: Callable[[frozenset[int]], float], costs: Sequence[float], budget: float
) -> frozenset[int]:
    """Singer's budget-feasible greedy rule: who is bought, whole sources only.

    Sources join by added worth per cost while cost <= budget / 2 x added / total worth.

    Args:
        utility: Monotone submodular worth of a set of sources; U(empty) = 0.
        costs: Cost of each source, > 0.
        budget: Hard cap, > 0.

    Raises:
        ValueError: If a cost or the budget is not positive.
    """
    if not budget > 0 or any(not cost > 0 for cost in costs):
        raise ValueError("expected costs and a budget above 0")
    bought: frozenset[int] = frozenset()
    rest = set(range(len(costs)))
    while rest:
        now = utility(bought)
        added = {i: utility(bought | {i}) - now for i in rest}
        best = max(sorted(rest), key=lambda i: added[i] / costs[i])
        total = now + added[best]
        if added[best] <= 0 or costs[best] > budget / 2 * added[best] / total:
            break
        bought |= {best}
        rest.discard(best)
    return bought
