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

import numpy as np
from numpy.typing import ArrayLike

from matching import flow as kernel
from matching.clearing import Plan, each_seller
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
    curves, sellers, state = each_seller(plan)
    result: list[tuple[Rung, ...]] = [()] * len(plan.prices)
    rungs, bounds = kernel.displace_each(*state)
    rungs[:, 0] = curves.cells[rungs[:, 0]]
    rungs[:, 1] += curves.shift
    listed = [(int(cell), int(price), int(units)) for cell, price, units in rungs.tolist()]
    for seller, source in enumerate(sellers.tolist()):
        result[source] = tuple(listed[bounds[seller] : bounds[seller + 1]])
    return tuple(result)
