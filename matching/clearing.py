"""Clearing: one exact integer flow, and what every source adds to it.

A unit for target cell j from cell c of source s gains `reserve[j] - distances[j, c] - prices[s]`.
`clear` maximises the sum of gains over all ways to serve the target from the supplies;
`marginal_values` says by how much that maximum would fall without each source, which is the
surplus a Vickrey-Clarke-Groves payment leaves to it (Clarke, 1971: payment = ask x units +
marginal value; truthful in price, never below the ask).

All numbers are int64 micro-money or counts; nothing is rounded and the order of the sources does
not matter. Units of one cell at one price are shared among the sources that ask it in proportion
to their supplies; what is left after rounding down goes to the largest remainders, and there ties
go by key: by default the SHA-256 of the source's own supplies, or `tie_keys` given by the caller.
"""

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import ArrayLike

from matching import flow as kernel
from matching.curves import Curves, Market, build_curves, share_entries
from matching.inputs import Inputs, Integers, Keys, TieKeys, checked, checked_keys


@dataclass(frozen=True, slots=True)
class Plan:
    """Who sells what: the optimum together with the inputs that determine it.

    Attributes:
        quota: (S, K) units that source s sells from its cell c.
        flow: (K, K) units of target cell j served from cell c, over all sources.
        objective: sum of the gains of all served units, micro-money.
        distances: (K, K) micro-money, row = target cell, column = source cell.
        target: (K,) units wanted.
        supplies: (S, K) units each source may sell.
        prices: (S,) asks per unit, micro-money.
        reserve: (K,) most that a perfectly matched unit is worth, micro-money.
        tie_keys: the caller's keys, or None for hashes of the supplies.
    """

    quota: Integers
    flow: Integers
    objective: int
    distances: Integers
    target: Integers
    supplies: Integers
    prices: Integers
    reserve: Integers
    tie_keys: Keys = None

    @property
    def units(self) -> Integers:
        """(S,) units sold by each source."""
        return cast(Integers, self.quota.sum(axis=1))

    @property
    def unserved(self) -> Integers:
        """(K,) wanted units that nobody serves at a gain."""
        return cast(Integers, self.target - self.flow.sum(axis=1))


def clear(
    distances: ArrayLike,
    target: ArrayLike,
    supplies: ArrayLike,
    prices: ArrayLike,
    *,
    reserve: ArrayLike,
    tie_keys: TieKeys | None = None,
) -> Plan:
    """Serve the target from the supplies at the greatest total gain.

    Args:
        distances: (K, K) integers >= 0, micro-money: cost of serving target j from cell c.
        target: (K,) integers >= 0, units wanted per cell.
        supplies: (S, K) integers >= 0, units each source may sell per cell.
        prices: (S,) integers, ask of each source per unit, micro-money.
        reserve: integer or (K,) integers, worth of a perfectly matched unit, micro-money.
        tie_keys: S distinct bytes or integers that settle ties between equal asks; by default the
            hash of each source's supplies. They never change the objective.

    Returns:
        The optimal plan; among optimal plans one that serves the fewest units, so a unit that
        would gain nothing stays unserved.

    Raises:
        ValueError: If a shape, sign or type is wrong, or numbers are so large (an amount of money
            above 2^53, or total cost above 2^62) that int64 arithmetic could overflow.
    """
    inputs = checked(distances, target, supplies, prices, reserve)
    keys = checked_keys(tie_keys, len(inputs.prices))
    curves = build_curves(inputs)
    standing, left = _solve(curves, inputs.target)
    flow = np.zeros_like(inputs.distances)
    flow[np.ix_(curves.wanted, curves.cells)] = standing[:-1].T
    quota = share_entries(curves, curves.capacity - left, inputs.supplies, keys)
    return _plan(inputs, keys, quota, flow)


def _solve(curves: Curves, target: Integers) -> tuple[Integers, Integers]:
    """Optimal state: units of every target at every cell (the last: outside), room per entry."""
    n_cells = len(curves.cells)
    standing = np.zeros((n_cells + 1, len(curves.wanted)), np.int64)
    # Every unit starts where it is cheapest before prices; at a tie with the outside option it
    # stays outside, where nothing is owed.
    nearest = (n_cells - curves.cost[:, ::-1].argmin(axis=1)).astype(np.int64)
    standing[nearest, np.arange(len(nearest))] = target[curves.wanted]
    deficit = standing[:-1].sum(axis=1)
    left = curves.capacity.copy()
    potential = np.zeros(n_cells + 1, np.int64)
    weight = np.empty((n_cells, n_cells + 1), np.int64)
    via = np.empty((n_cells, n_cells + 1), np.int64)
    kernel.push(
        curves.cost,
        standing,
        deficit,
        curves.first[:-1].copy(),
        curves.first[1:].copy(),
        curves.price,
        left,
        potential,
        weight,
        via,
        np.ones(n_cells + 1, np.bool_),
        np.zeros(n_cells + 1, np.bool_),
    )
    return standing, left


def marginal_values(plan: Plan) -> Integers:
    """Objective with all sources minus objective without each one, for all of them at once.

    A source that sells nothing adds nothing. For each other source its units lose their entries in
    the optimal state and are placed again along shortest paths; the state without it is optimal
    for the rest, so the result equals a new clearing without it, exactly.

    Args:
        plan: A plan from `clear` (it need not be the same process: a plan read back from a record
            gives the same numbers).

    Returns:
        (S,) int64 micro-money, each >= 0.

    Raises:
        ValueError: If the plan's flow is not an optimum of its inputs.
    """
    result = np.zeros(len(plan.prices), np.int64)
    curves, sellers, state = each_seller(plan)
    if len(sellers) == 0:
        return result
    added = kernel.without_each(*state)
    result[sellers] = added - (plan.prices[sellers] - curves.shift) * plan.units[sellers]
    if (result < 0).any():
        raise ValueError("expected an optimal plan: taking a source out of this one would gain")
    return result


def each_seller(plan: Plan) -> tuple[Curves, Integers, tuple[Integers, ...]]:
    """The curves, who sells, and what the kernel needs to place each seller's units elsewhere.

    Raises:
        ValueError: If the plan's flow is not an optimum of its inputs.
    """
    curves, standing, used, left = rebuild(plan)
    weight, via, potential = settled_state(curves, standing)
    members = np.flatnonzero(np.isin(curves.source, np.flatnonzero(plan.units)))
    members = members[np.argsort(curves.source[members], kind="stable")]
    sellers, first = np.unique(curves.source[members], return_index=True)
    entry = np.repeat(np.arange(len(curves.capacity)), np.diff(curves.bounds))
    head, stop = curves.first[:-1].copy(), curves.first[1:].copy()
    kernel.skip_full(head, stop, left, curves.price)
    state = (
        curves.cost,
        standing,
        head,
        stop,
        curves.price,
        left,
        potential,
        weight,
        via,
        np.append(first, len(members)).astype(np.int64),
        curves.cell[members],
        entry[members],
        curves.supply[members] - used[members],
        used[members],
    )
    return curves, sellers, state


def rebuild(plan: Plan) -> tuple[Curves, Integers, Integers, Integers]:
    """Kernel state of a finished plan: curves, standing units, used per member, left per entry.

    Raises:
        ValueError: If quota and flow do not fit the plan's own inputs.
    """
    _check_feasible(plan)
    curves = build_curves(plan)
    standing = np.empty((len(curves.cells) + 1, len(curves.wanted)), np.int64)
    standing[:-1] = plan.flow[np.ix_(curves.wanted, curves.cells)].T
    standing[-1] = plan.unserved[curves.wanted]
    used = plan.quota[curves.source, curves.cells[curves.cell]]
    entry = np.repeat(np.arange(len(curves.capacity)), np.diff(curves.bounds))
    sold = np.zeros(len(curves.capacity), np.int64)
    np.add.at(sold, entry, used)
    return curves, standing, used, curves.capacity - sold


def settled_state(curves: Curves, standing: Integers) -> tuple[Integers, Integers, Integers]:
    """Cheapest moves between cells and potentials that make them all non-negative.

    Raises:
        ValueError: If moving units round a cycle of cells would gain: not an optimum.
    """
    n_cells = len(curves.cells)
    weight = np.empty((n_cells, n_cells + 1), np.int64)
    via = np.empty((n_cells, n_cells + 1), np.int64)
    for cell in range(n_cells):
        kernel.refresh(curves.cost, standing, cell, weight, via)
    optimal, potential = kernel.potentials(weight)
    if not optimal:
        raise ValueError("expected an optimal plan: moving units between cells would gain")
    return weight, via, potential


def _plan(
    inputs: Inputs,
    keys: Keys,
    quota: Integers,
    flow: Integers,
) -> Plan:
    for array in (quota, flow):
        array.setflags(write=False)
    return Plan(
        quota=quota,
        flow=flow,
        objective=total_gain(quota, flow, inputs),
        distances=inputs.distances,
        target=inputs.target,
        supplies=inputs.supplies,
        prices=inputs.prices,
        reserve=inputs.reserve,
        tie_keys=keys,
    )


def total_gain(quota: Integers, flow: Integers, inputs: Market) -> int:
    """Sum of gains of the served units in exact integers of any size."""
    j, c = np.nonzero(flow)
    gains = inputs.reserve[j] - inputs.distances[j, c]
    value = sum(int(unit) * int(count) for unit, count in zip(gains, flow[j, c], strict=True))
    units = quota.sum(axis=1)
    return value - sum(int(p) * int(u) for p, u in zip(inputs.prices, units, strict=True))


def _check_feasible(plan: Plan) -> None:
    """Quota within supplies, flow within target, and the two equal in every cell."""
    if (plan.quota < 0).any() or (plan.quota > plan.supplies).any():
        raise ValueError("expected every quota between 0 and the source's supply")
    if (plan.flow < 0).any() or (plan.unserved < 0).any():
        raise ValueError("expected a flow that serves each target cell at most once")
    if (plan.quota.sum(axis=0) != plan.flow.sum(axis=0)).any():
        raise ValueError("expected quota and flow to agree in every cell")
