"""Successive shortest paths on the condensed clearing network (compiled, integers only).

Network. Targets j (a demand each) -> cells (cost `cost[j, c]`) -> entries of the cell's merit
order (price, capacity) -> sink. The last cell is the outside option: it costs `cost[j, -1]`, the
target's reserve, and has one entry of price 0 and no limit. Distances depend on the cell alone, so
a shortest path only has to be found among the cells: in the residual network, moving some unit of
target j from cell c to cell e costs `cost[j, e] - cost[j, c]`, and the cheapest such unit is kept
in `weight[c, e]` and `via[c, e]`.

State. `flow[c, j]` units of target j stand at cell c; `deficit[c]` of them have no entry yet. A
path starts at a cell with a deficit and ends in the first entry of some cell's merit order that has
room. Every path is a shortest one, so the state stays optimal for what is served so far (Ahuja,
Magnanti and Orlin, Network Flows, 1993, section 9.7). Of two equally long paths the one that ends
outside wins: this makes the optimum the one that serves the fewest units, hence none that gains
nothing.

Units never leave the outside option again: prices are not negative here (the caller shifts them),
so a unit that gained nothing when it was placed gains nothing later.
"""

import numpy as np
from numpy.typing import NDArray

from matching.compiled import compiled

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
State = tuple[Integers, Integers, Integers, Integers, Integers, Integers]

FAR = np.int64(1 << 62)


@compiled
def refresh(cost: Integers, flow: Integers, cell: int, weight: Integers, via: Integers) -> None:
    """Recompute the cheapest move from `cell` to every other cell (rows of `weight`, `via`)."""
    n_cells = weight.shape[1]
    for other in range(n_cells):
        weight[cell, other] = FAR
        via[cell, other] = -1
    for target in range(flow.shape[1]):
        if flow[cell, target] > 0:
            here = cost[target, cell]
            for other in range(n_cells):
                move = cost[target, other] - here
                if move < weight[cell, other]:
                    weight[cell, other] = move
                    via[cell, other] = target


@compiled
def skip_full(head: Integers, stop: Integers, left: Integers, price: Integers) -> Integers:
    """Advance `head` past full entries; next price of every cell, FAR where it is sold out."""
    following = np.empty(len(head), np.int64)
    for cell in range(len(head)):
        entry = head[cell]
        while entry < stop[cell] and left[entry] == 0:
            entry += 1
        head[cell] = entry
        following[cell] = price[entry] if entry < stop[cell] else FAR
    return following


@compiled
def search(
    start: int,
    following: Integers,
    cost: Integers,
    flow: Integers,
    potential: Integers,
    weight: Integers,
    via: Integers,
    stale: Flags,
    parent: Integers,
) -> tuple[int, np.int64]:
    """Shortest path from `start` to an entry with room (Dijkstra on reduced costs).

    Fills `parent`, updates `potential` and returns (cell where the path ends, its true cost).
    """
    n_cells = len(potential)
    outside = n_cells - 1
    reach = np.full(n_cells, FAR, np.int64)
    settled = np.zeros(n_cells, np.bool_)
    reach[start] = 0
    parent[start] = -1
    floor = FAR  # no cell can end a path more cheaply than reach + floor
    for cell in range(n_cells):
        if following[cell] < FAR:
            floor = min(floor, following[cell] + potential[cell])
    best, last, radius = FAR, -1, np.int64(0)
    while True:
        here, nearest = -1, FAR
        for cell in range(n_cells):
            if not settled[cell] and reach[cell] < nearest:
                here, nearest = cell, reach[cell]
        if here < 0 or nearest + floor > best or (nearest + floor == best and last == outside):
            break
        settled[here] = True
        radius = nearest
        if following[here] < FAR:
            end = nearest + potential[here] + following[here]
            if end < best or (end == best and here == outside):
                best, last = end, here
        if here == outside:
            continue
        if stale[here]:
            refresh(cost, flow, here, weight, via)
            stale[here] = False
        base = nearest + potential[here]
        for cell in range(n_cells):
            if not settled[cell] and weight[here, cell] < FAR:
                length = base + weight[here, cell] - potential[cell]
                if length < reach[cell]:
                    reach[cell] = length
                    parent[cell] = here
    best -= potential[start]
    for cell in range(n_cells):  # keeps every reduced cost >= 0; only differences matter
        if settled[cell]:
            potential[cell] += reach[cell] - radius
    return last, best


@compiled
def move(
    most: int,
    last: int,
    parent: Integers,
    flow: Integers,
    head: Integers,
    left: Integers,
    via: Integers,
    stale: Flags,
    touched: Flags,
) -> np.int64:
    """Move as many units as fit, at most `most`, along the path that ends at `last`; how many."""
    amount = np.int64(min(most, left[head[last]]))
    cell = last
    while parent[cell] >= 0:
        amount = min(amount, flow[parent[cell], via[parent[cell], cell]])
        cell = parent[cell]
    cell = last
    while parent[cell] >= 0:
        origin = parent[cell]
        target = via[origin, cell]
        flow[origin, target] -= amount
        flow[cell, target] += amount
        stale[cell] = True
        stale[origin] = True
        touched[cell] = True
        touched[origin] = True
        cell = origin
    left[head[last]] -= amount
    return amount


@compiled
def push(
    cost: Integers,
    flow: Integers,
    deficit: Integers,
    head: Integers,
    stop: Integers,
    price: Integers,
    left: Integers,
    potential: Integers,
    weight: Integers,
    via: Integers,
    stale: Flags,
    touched: Flags,
) -> np.int64:
    """Give every unit in deficit an entry at least cost; returns the cost that was added."""
    added = np.int64(0)
    parent = np.empty(len(potential), np.int64)
    for start in range(len(deficit)):
        while deficit[start] > 0:
            following = skip_full(head, stop, left, price)
            last, unit = search(start, following, cost, flow, potential, weight, via, stale, parent)
            amount = move(deficit[start], last, parent, flow, head, left, via, stale, touched)
            deficit[start] -= amount
            added += unit * amount
    return added


@compiled
def potentials(weight: Integers) -> tuple[bool, Integers]:
    """Potentials with weight[c, e] + p[c] - p[e] >= 0 (Bellman-Ford); False if a cycle gains."""
    n_cells = weight.shape[1]
    potential = np.zeros(n_cells, np.int64)
    for _ in range(n_cells + 1):
        changed = False
        for cell in range(weight.shape[0]):
            for other in range(n_cells):
                if weight[cell, other] < FAR:
                    length = potential[cell] + weight[cell, other]
                    if length < potential[other]:
                        potential[other] = length
                        changed = True
        if not changed:
            return True, potential
    return False, potential


@compiled
def cell_values(weight: Integers, following: Integers) -> Integers:
    """Cost of serving one more unit at each cell: the dual price of the cell (0 outside)."""
    n_cells = weight.shape[1]
    value = following.copy()
    changed = True
    for _ in range(n_cells + 1):
        if not changed:
            break
        changed = False
        for cell in range(weight.shape[0]):
            for other in range(n_cells):
                if weight[cell, other] < FAR and value[other] < FAR:
                    length = weight[cell, other] + value[other]
                    if length < value[cell]:
                        value[cell] = length
                        changed = True
    return value


@compiled
def restore(kept: State, now: State, stop: Integers, stale: Flags, touched: Flags) -> None:
    """Put back what placing a seller's units elsewhere has touched.

    States are (flow, head, left, potential, weight, via).
    """
    flow, head, left, potential, weight, via = kept
    now_flow, now_head, now_left, now_potential, now_weight, now_via = now
    for cell in range(len(potential)):
        for entry in range(head[cell], min(now_head[cell] + 1, stop[cell])):
            now_left[entry] = left[entry]
        now_head[cell] = head[cell]
        now_potential[cell] = potential[cell]
        if touched[cell]:
            now_flow[cell] = flow[cell]
            if cell < len(weight):
                now_weight[cell] = weight[cell]
                now_via[cell] = via[cell]
        touched[cell] = False
        stale[cell] = False


@compiled
def without_each(
    cost: Integers,
    flow: Integers,
    head: Integers,
    stop: Integers,
    price: Integers,
    left: Integers,
    potential: Integers,
    weight: Integers,
    via: Integers,
    first: Integers,
    cell_of: Integers,
    entry_of: Integers,
    spare: Integers,
    used: Integers,
) -> Integers:
    """Cost of replacing each seller's units, one seller at a time, from the optimal state.

    Seller i holds the members first[i] .. first[i + 1] - 1: `used` units and `spare` unused ones of
    entry `entry_of` at cell `cell_of`. Taking it out leaves the rest of the state optimal, so only
    its own units have to find new entries. What a replacement touched is put back afterwards.
    """
    n_cells = len(potential)
    added = np.zeros(len(first) - 1, np.int64)
    now_flow, now_left, now_head = flow.copy(), left.copy(), head.copy()
    now_weight, now_via, now_potential = weight.copy(), via.copy(), potential.copy()
    stale = np.zeros(n_cells, np.bool_)
    touched = np.zeros(n_cells, np.bool_)
    deficit = np.zeros(n_cells - 1, np.int64)
    for seller in range(len(added)):
        for member in range(first[seller], first[seller + 1]):
            now_left[entry_of[member]] -= spare[member]
            deficit[cell_of[member]] += used[member]
        added[seller] = push(
            cost,
            now_flow,
            deficit,
            now_head,
            stop,
            price,
            now_left,
            now_potential,
            now_weight,
            now_via,
            stale,
            touched,
        )
        for member in range(first[seller], first[seller + 1]):
            now_left[entry_of[member]] = left[entry_of[member]]
        restore(
            (flow, head, left, potential, weight, via),
            (now_flow, now_head, now_left, now_potential, now_weight, now_via),
            stop,
            stale,
            touched,
        )
    return added


@compiled
def displace(
    cost: Integers,
    now: State,
    deficit: Integers,
    stop: Integers,
    price: Integers,
    stale: Flags,
    touched: Flags,
    rungs: Integers,
    count: int,
) -> tuple[Integers, int]:
    """Like `push`, but always the cheapest unit in deficit first; writes down what each one cost.

    Rows of `rungs` are (cell, cost of a unit, units) and go on at `count`; returns them, moved to
    more room where they did not fit, with their number.
    """
    flow, head, left, potential, weight, via = now
    begin = count
    parent = np.empty(len(potential), np.int64)
    while deficit.any():
        for cell in range(len(deficit)):
            if stale[cell]:
                refresh(cost, flow, cell, weight, via)
                stale[cell] = False
        following = skip_full(head, stop, left, price)
        value = cell_values(weight, following)
        start, least = -1, FAR
        for cell in range(len(deficit)):
            if deficit[cell] > 0 and value[cell] < least:
                start, least = cell, value[cell]
        last, unit = search(start, following, cost, flow, potential, weight, via, stale, parent)
        amount = move(deficit[start], last, parent, flow, head, left, via, stale, touched)
        deficit[start] -= amount
        if count > begin and rungs[count - 1, 0] == start and rungs[count - 1, 1] == unit:
            rungs[count - 1, 2] += amount
            continue
        if count == len(rungs):
            rungs = np.concatenate((rungs, np.empty_like(rungs)))
        rungs[count, 0], rungs[count, 1], rungs[count, 2] = start, unit, amount
        count += 1
    return rungs, count


@compiled
def displace_each(
    cost: Integers,
    flow: Integers,
    head: Integers,
    stop: Integers,
    price: Integers,
    left: Integers,
    potential: Integers,
    weight: Integers,
    via: Integers,
    first: Integers,
    cell_of: Integers,
    entry_of: Integers,
    spare: Integers,
    used: Integers,
) -> tuple[Integers, Integers]:
    """Like `without_each`, unit by unit: the rungs of all sellers, and where each one's begin."""
    kept = (flow, head, left, potential, weight, via)
    now = (flow.copy(), head.copy(), left.copy(), potential.copy(), weight.copy(), via.copy())
    stale = np.zeros(len(potential), np.bool_)
    touched = np.zeros(len(potential), np.bool_)
    deficit = np.zeros(len(potential) - 1, np.int64)
    rungs, count = np.empty((1024, 3), np.int64), 0
    bounds = np.zeros(len(first), np.int64)
    for seller in range(len(first) - 1):
        for member in range(first[seller], first[seller + 1]):
            now[2][entry_of[member]] -= spare[member]
            deficit[cell_of[member]] += used[member]
        rungs, count = displace(cost, now, deficit, stop, price, stale, touched, rungs, count)
        bounds[seller + 1] = count
        for member in range(first[seller], first[seller + 1]):
            now[2][entry_of[member]] = left[entry_of[member]]
        restore(kept, now, stop, stale, touched)
    return rungs[:count], bounds
