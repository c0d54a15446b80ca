"""The best statistic against a law of noise: the log likelihood ratio of two neighbours' tables.

For `dp.audit`: who audits a path knows which law it claims, and by Neyman and Pearson no event
tells two neighbours apart better than a threshold on this ratio. Bounds hold whatever the true law
is; a path with less noise than it claims only makes them larger.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln

from dp.audit import Statistic

IMPOSSIBLE = -1e3
"""Log likelihood of what coins cannot give: far below all that happens, and finite."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """The law that one table of a release claims.

    Attributes:
        cells: How many counts.
        epsilon_micro: Of two-sided geometric noise, in millionths; not read where there are coins.
        coins: Committed coins a cell; 0 for geometric noise.
    """

    cells: int
    epsilon_micro: int
    coins: int = 0

    def log_likelihood(self, noise: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of noise of any shape, but for a constant."""
        if not self.coins:
            return -np.abs(noise) * (self.epsilon_micro / 1_000_000)
        heads = noise + self.coins // 2
        inside = (heads >= 0) & (heads <= self.coins)
        held = np.clip(heads, 0, self.coins)
        log_choices = -gammaln(held + 1) - gammaln(self.coins - held + 1)
        return np.where(inside, log_choices, log_choices + IMPOSSIBLE)


def likelihood_ratio(laws: Sequence[Claimed], left: ArrayLike, right: ArrayLike) -> Statistic:
    """The log likelihood ratio of two neighbours, from outputs (runs, d) to (runs,).

    Args:
        laws: Of the tables in their order; their cells sum to d.
        left: Exact counts (d,) of one data set.
        right: Of its neighbour.

    Raises:
        ValueError: The counts are not as many as the cells.
    """
    exact = [np.asarray(side, np.float64) for side in (left, right)]
    cells = sum(law.cells for law in laws)
    if any(side.shape != (cells,) for side in exact):
        raise ValueError(f"expected {cells} counts on each side")
    changed = np.flatnonzero(exact[0] != exact[1])
    law_of = [law for law in laws for _ in range(law.cells)]

    def ratio(outputs: NDArray[np.float64]) -> NDArray[np.float64]:
        total = np.zeros(len(outputs))
        for cell in changed.tolist():
            sides = [law_of[cell].log_likelihood(outputs[:, cell] - side[cell]) for side in exact]
            total += sides[0] - sides[1]
        return np.round(total, 9)

    return ratio
