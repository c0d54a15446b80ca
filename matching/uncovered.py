"""Target cells that nobody's data can serve within the tariff."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matching.clearing import Plan


@dataclass(frozen=True, slots=True)
class Uncovered:
    """One stratum of the target that stays partly or wholly unserved.

    Attributes:
        cell: Index of the cell; labels of one cell are counted together.
        units: Wanted units that no source serves at a gain.
        share: Those units as a share of the whole target, 0..1.
        reachable: Whether any source with supply lies within the tariff of the cell at its ask. If
            not, no one has such records at this tariff; if so, there are just too few.
    """

    cell: int
    units: int
    share: float
    reachable: bool


def uncovered(plan: Plan, n_labels: int = 1) -> tuple[Uncovered, ...]:
    """Unserved target cells, largest share first.

    Args:
        plan: A cleared plan over cells, or over (cell, label) pairs numbered cell x L + label.
        n_labels: L; pairs of one cell are summed.

    Returns:
        One item per cell with unserved units; empty if the target is wholly served.

    Raises:
        ValueError: If the number of cells of the plan is not a multiple of `n_labels`.
    """
    if n_labels < 1 or len(plan.target) % n_labels:
        raise ValueError(f"expected cells to be a multiple of {n_labels}, got {len(plan.target)}")
    missing = plan.unserved.reshape(-1, n_labels).sum(axis=1)
    total = int(plan.target.sum())
    served = _reachable(plan).reshape(-1, n_labels).max(axis=1)
    found = [
        Uncovered(int(cell), int(missing[cell]), int(missing[cell]) / total, bool(served[cell]))
        for cell in np.flatnonzero(missing)
    ]
    return tuple(sorted(found, key=lambda item: (-item.units, item.cell)))


def _reachable(plan: Plan) -> NDArray[np.bool_]:
    """(K,) whether a unit of each wanted target cell would gain from its best source alone."""
    if len(plan.prices) == 0:
        return np.zeros(len(plan.target), np.bool_)
    none = np.iinfo(np.int64).max
    cheapest = np.where(plan.supplies > 0, plan.prices[:, None], none).min(axis=0)
    offered = np.flatnonzero(cheapest < none)
    cost = plan.distances[:, offered] + cheapest[offered]
    within = (plan.reserve[:, None] > cost).any(axis=1)
    return np.asarray(within & (plan.target > 0), np.bool_)
