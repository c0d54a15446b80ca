"""Price ladders: at which ask each unit that a source sells would go to somebody else.

A source that asks more loses its units one after another. The ask at which a unit is lost does not
depend on what the source asked, only on the others; it is that unit's price. Over all units of a
source they sum to the Vickrey-Clarke-Groves payment, ask x units + marginal value.

Why single units need prices: a source may find that it has fewer records of a cell than its noised
summary promised. Paid the whole payment in proportion to its real records, it gains by asking more
(then less is ordered and less falls short). Paid, in each cell, the dearest rungs of that cell's
ladder, one for each real record, it earns (a - c) R(a) + the sum over asks z > a of R(z), with
R(z) = sum over cells of min(units ordered at ask z, real records): the payment that makes the true
cost c the best ask whenever R never rises with the ask (Myerson, "Optimal auction design", 1981,
lemma 2). Units of a cell never rise with the own ask along shortest paths; where two of the
source's cells would lose their unit to one and the same rival at exactly equal cost, the solver's
choice between them is arbitrary, which `matching.ladder.separated` prevents.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from matching import flow as kernel
from matching.clearing import Plan, rebuild, settled_state
from matching.curves import Curves
from matching.inputs import Integers

JITTER = 1000
"""Micro-money: distances are moved apart by less than a tenth of a cent per record."""

Rung = tuple[int, int, int]
"""A cell, a price per unit in micro-money, and how many units of the cell have that price."""


def separated(distances: ArrayLike, seed: bytes, jitter: int = JITTER) -> Integers:
    """Distances with a public pseudo-random amount below `jitter` added, so that paths never tie.

    Reads no ask and no count. Zero distances (a record of the wanted cell itself) move as well, as
    ties between two such cells are as arbitrary as any other.

    Args:
        distances: (K, K) integers >= 0, micro-money.
        seed: Public bytes fixed before any ask, such as the digest of the request's terms.
        jitter: Largest amount plus one, >= 1, micro-money.

    Returns:
        (K, K) int64.

    Raises:
        ValueError: If the shape, the type or the jitter is wrong.
    """
    given = np.asarray(distances)
    if given.ndim != 2 or given.shape[0] != given.shape[1] or given.dtype.kind not in "iu":
        raise ValueError(f"distances: expected square integers, got {given.dtype} {given.shape}")
    if jitter < 1:
        raise ValueError(f"jitter: expected at least 1, got {jitter}")
    stream = hashlib.shake_256(b"clearinghouse separated distances v1|" + seed)
    words = np.frombuffer(stream.digest(8 * given.size), "<u8")
    return given.astype(np.int64) + (words % np.uint64(jitter)).astype(np.int64).reshape(
        given.shape
    )


@dataclass(slots=True)
class _State:
    """The residual network while one source's units are placed elsewhere."""

    standing: Integers
    head: Integers
    left: Integers
    potential: Integers
    weight: Integers
    via: Integers
    stale: NDArray[np.bool_]


def price_ladders(plan: Plan) -> tuple[tuple[Rung, ...], ...]:
    """The price of every unit that every source sells, cheapest first.

    Exact: successive shortest paths from the source's cells, which is the order in which a rising
    ask loses them. Takes time in proportion to the number of paths, so use it once per clearing.

    Args:
        plan: A plan from `matching.clear`.

    Returns:
        For each source its rungs by rising price; empty where it sells nothing. The units of a cell
        sum to its quota, and price x units over all rungs is ask x units + marginal value.

    Raises:
        ValueError: If the plan's flow is not an optimum of its inputs.
    """
    curves, standing, used, left = rebuild(plan)
    weight, via, potential = settled_state(curves, standing)
    head, stop = curves.first[:-1].copy(), curves.first[1:].copy()
    kernel.skip_full(head, stop, left, curves.price)
    entry = np.repeat(np.arange(len(curves.capacity)), np.diff(curves.bounds))
    result: list[tuple[Rung, ...]] = [()] * len(plan.prices)
    for source in np.flatnonzero(plan.units).tolist():
        own = np.flatnonzero(curves.source == source)
        state = _State(
            standing.copy(),
            head.copy(),
            left.copy(),
            potential.copy(),
            weight.copy(),
            via.copy(),
            np.zeros(len(potential), np.bool_),
        )
        state.left[entry[own]] -= curves.supply[own] - used[own]
        deficit = np.zeros(len(potential) - 1, np.int64)
        np.add.at(deficit, curves.cell[own], used[own])
        result[source] = _displace(curves, stop, state, deficit)
    return tuple(result)


def _displace(curves: Curves, stop: Integers, state: _State, deficit: Integers) -> tuple[Rung, ...]:
    """Place the units in deficit elsewhere, cheapest first; returns what each one cost."""
    rungs: list[Rung] = []
    parent = np.empty(len(state.potential), np.int64)
    while deficit.any():
        for cell in np.flatnonzero(state.stale[:-1]).tolist():
            kernel.refresh(curves.cost, state.standing, cell, state.weight, state.via)
        state.stale[:] = False
        following = kernel.skip_full(state.head, stop, state.left, curves.price)
        value = kernel.cell_values(state.weight, following)[:-1]
        start = int(np.where(deficit > 0, value, kernel.FAR).argmin())
        last, cost = kernel.search(
            start,
            following,
            curves.cost,
            state.standing,
            state.potential,
            state.weight,
            state.via,
            state.stale,
            parent,
        )
        amount = _augment(state, parent, int(last), int(deficit[start]))
        deficit[start] -= amount
        rung = (int(curves.cells[start]), int(cost) + curves.shift, amount)
        if rungs and rungs[-1][:2] == rung[:2]:
            rung = (*rung[:2], rungs.pop()[2] + amount)
        rungs.append(rung)
    return tuple(rungs)


def _augment(state: _State, parent: Integers, last: int, most: int) -> int:
    """Move as many units as fit along the path that ends at `last`; returns how many."""
    steps = []
    cell = last
    while parent[cell] >= 0:
        origin = int(parent[cell])
        steps.append((origin, cell, int(state.via[origin, cell])))
        cell = origin
    room = int(state.left[state.head[last]])
    amount = min([most, room, *(int(state.standing[o, j]) for o, _, j in steps)])
    for origin, cell, target in steps:
        state.standing[origin, target] -= amount
        state.standing[cell, target] += amount
        state.stale[origin] = state.stale[cell] = True
    state.left[state.head[last]] -= amount
    return amount
