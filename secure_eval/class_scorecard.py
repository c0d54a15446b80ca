"""The scorecard of a model with one score for each class: one-vs-rest cards and their means.

Every metric of the whole is the plain mean of the classes' one-vs-rest metrics (macro). An interval
of a mean is the mean of the classes' ends: it holds however the classes' errors hang together,
since the spread of a mean is at most the mean of the spreads. `accuracy` is the mean one-vs-rest
accuracy at each class's own threshold. The share of rows whose largest score is the right class
cannot be had: a run counts each class on its own, and no release says which scores belong to one
row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from secure_eval.score_intervals import Interval
from secure_eval.scorecard import METRICS, Scorecard

__all__ = ["ClassScorecard"]


@dataclass(frozen=True, slots=True)
class ClassScorecard:
    """Cards of all classes, each against the rest, and the macro means.

    Attributes:
        classes: one card for each class.
        status: "undetermined" where any class's card is, else "ok".
    """

    classes: tuple[Scorecard, ...]
    status: Literal["ok", "undetermined"]

    @classmethod
    def from_counts(
        cls,
        counts: ArrayLike,
        epsilon: float,
        edges: Sequence[ArrayLike],
        threshold_edges: Sequence[int],
        *,
        level: float = 0.9,
        noise_variance: float | None = None,
    ) -> "ClassScorecard":
        """Make the cards of a released run of all classes. Deterministic.

        Args:
            counts: (2 classes, bins) noised counts: the rest, then the class, class by class.
            epsilon: of each class's table.
            edges: (bins + 1,) score edges of each class.
            threshold_edges: of each class.
            level: coverage of the intervals, in (0, 1).
            noise_variance: variance per cell, for a noise law other than the geometric one.

        Raises:
            ValueError: an argument is malformed.
        """
        table = np.asarray(counts)
        if table.ndim != 2 or len(table) != 2 * len(edges) or len(edges) != len(threshold_edges):
            raise ValueError(f"counts: expected two rows for each class, got {table.shape}")
        cards = tuple(
            Scorecard.from_counts(
                table[2 * k : 2 * k + 2],
                epsilon,
                own,
                edge,
                level=level,
                noise_variance=noise_variance,
            )
            for k, (own, edge) in enumerate(zip(edges, threshold_edges, strict=True))
        )
        known = all(card.status == "ok" for card in cards)
        return cls(cards, "ok" if known else "undetermined")

    def value(self, metric: str) -> float:
        """Return the mean of a metric over the classes."""
        return float(np.mean([getattr(card, metric) for card in self.classes]))

    def interval(self, metric: str) -> Interval:
        """Return the interval of a metric's mean."""
        low, high = np.mean([card.intervals[metric] for card in self.classes], axis=0).tolist()
        return low, high

    def lower_bound(self, metric: str, confidence: float) -> float:
        """Return a value that the population's mean exceeds with the given confidence."""
        return float(np.mean([card.lower_bound(metric, confidence) for card in self.classes]))

    @property
    def metrics(self) -> dict[str, tuple[float, float, float]]:
        """Metric to (value, low, high): the means, and "auc.k" and so on of each class."""
        found = {name: (self.value(name), *self.interval(name)) for name in METRICS}
        for index, card in enumerate(self.classes):
            for name in ("auc", "sensitivity", "specificity"):
                found[f"{name}.{index}"] = (getattr(card, name), *card.intervals[name])
        return found
