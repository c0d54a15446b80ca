"""A certificate of a plan's optimality that anyone checks without solving anything again."""

import numpy as np

from matching import flow as kernel
from matching.clearing import Plan, rebuild, settled_state, total_gain
from matching.inputs import Integers


def cell_prices(plan: Plan) -> Integers:
    """Dual price of each cell: what serving one more unit from it would cost, micro-money.

    Args:
        plan: A plan from `matching.clear`.

    Returns:
        (K,) int64. A cell without supply gets the price at which no target would want it.

    Raises:
        ValueError: If the plan is infeasible or moving its units between cells would gain.
    """
    curves, standing, _, left = rebuild(plan)
    weight, _, _ = settled_state(curves, standing)
    following = kernel.skip_full(
        curves.first[:-1].copy(), curves.first[1:].copy(), left, curves.price
    )
    value = kernel.cell_values(weight, following)
    prices = np.full(len(plan.target), plan.reserve.max(initial=0), np.int64)
    prices[curves.cells] = value[:-1] + curves.shift
    return prices


def certify(plan: Plan, prices: Integers) -> None:
    """Check that a plan is optimal, in time linear in its inputs.

    Strong duality of the transport problem: the plan is feasible, and its objective equals
    sum_j target[j] x (best gain of j at the cell prices) + sum supplies x (cell price - ask)+.

    Args:
        plan: The plan to check, from whatever source.
        prices: (K,) cell prices, from `cell_prices` or from the log.

    Raises:
        ValueError: If the plan is infeasible, its objective is not the sum of its gains, or the
            prices do not prove it optimal.
    """
    rebuild(plan)
    gain = total_gain(plan.quota, plan.flow, plan)
    if gain != plan.objective:
        raise ValueError(f"expected the objective {gain} of the plan's units, got {plan.objective}")
    if prices.shape != plan.target.shape:
        raise ValueError(f"prices: expected shape {plan.target.shape}, got {prices.shape}")
    bound = _dual_bound(plan, prices)
    if bound != gain:
        raise ValueError(f"expected an optimum: these cell prices allow {bound}, got {gain}")


def _dual_bound(plan: Plan, prices: Integers) -> int:
    """Upper bound on every plan's gain at these cell prices, in integers of any size."""
    worth = plan.reserve[:, None] - plan.distances - prices[None, :]
    supplied = plan.supplies.any(axis=0)
    best = np.maximum(worth[:, supplied].max(axis=1, initial=0), 0)
    bound = sum(int(unit) * int(count) for unit, count in zip(best, plan.target, strict=True))
    rent = np.maximum(prices[None, :] - plan.prices[:, None], 0)
    s, c = np.nonzero((rent > 0) & (plan.supplies > 0))
    pairs = zip(rent[s, c], plan.supplies[s, c], strict=True)
    return bound + sum(int(unit) * int(count) for unit, count in pairs)
