"""A released histogram as a scorecard, by what the schema's label is; server and hospital alike.

Two levels: one histogram of scores (label x bin). Three or more: one histogram for each class
(the rest, then the class). A number: one histogram of residuals.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from clearinghouse.columns import Label
from secure_eval.class_scorecard import ClassScorecard
from secure_eval.noise import noise_variance
from secure_eval.residual_scorecard import LOWER_IS_BETTER, RESIDUAL_METRICS, ResidualScorecard
from secure_eval.scorecard import METRICS, Scorecard

Task = Literal["binary", "classes", "number"]
Card = Scorecard | ClassScorecard | ResidualScorecard

PURSE_METRICS = ("auc", "accuracy", "sensitivity", "specificity")
"""What a purse may ask of a model of classes; of a number it asks for a small error."""


def task_of(label: Label) -> Task:
    """What models of this label are scored as."""
    if label.kind == "number":
        return "number"
    return "binary" if label.is_binary else "classes"


def purse_metrics(label: Label) -> tuple[str, ...]:
    """Metrics that a purse may name for this label."""
    return LOWER_IS_BETTER if label.kind == "number" else PURSE_METRICS


@dataclass(frozen=True, slots=True)
class Released:
    """A release with what it takes to read it.

    Attributes:
        task: What was scored.
        counts: Rows of the histograms as opened.
        epsilon_micro: Of each histogram, in millionths.
        edges: Published score edges of each histogram.
        threshold_edges: Index of the decision threshold among each histogram's edges.
        unit: Units of a numeric label in one unit of score, decimal text; "" for a category.
        width: The label's public range; 0 unless it is a number.
        coins: Committed coins of a cell; 0 under the geometric law.
    """

    task: Task
    counts: Sequence[Sequence[int]]
    epsilon_micro: int
    edges: Sequence[Sequence[int]]
    threshold_edges: Sequence[int]
    unit: str = ""
    width: float = 0.0
    coins: int = 0

    def card(self, level: float) -> Card:
        """The scorecard with intervals of a level; deterministic.

        Raises:
            ValueError: The release is malformed.
        """
        epsilon = self.epsilon_micro / 1_000_000
        counts: Any = self.counts
        how: dict[str, Any] = {
            "level": level,
            "noise_variance": noise_variance(self.epsilon_micro, self.coins),
        }
        if self.task == "classes":
            return ClassScorecard.from_counts(
                counts, epsilon, self.edges, self.threshold_edges, **how
            )
        (edges,), (threshold,) = self.edges, self.threshold_edges
        if self.task == "number":
            borders = [edge * float(self.unit) for edge in edges]
            return ResidualScorecard.from_counts(counts, epsilon, borders, self.width, **how)
        return Scorecard.from_counts(counts, epsilon, edges, threshold, **how)


def metrics_of(card: Card) -> dict[str, tuple[float, float, float]]:
    """Metric to (value, low, high): everything a receipt states."""
    if isinstance(card, Scorecard):
        return {name: (getattr(card, name), *card.intervals[name]) for name in METRICS}
    return card.metrics


def award_bound(card: Card, metric: str, confidence: float) -> float:
    """The end that a purse looks at: a lower bound, or an upper bound of an error.

    Raises:
        ValueError: The card has no such metric.
    """
    if isinstance(card, ResidualScorecard):
        return card.upper_bound(metric, confidence)
    return card.lower_bound(metric, confidence)


def document(card: Card, metric: str, confidence: float) -> dict[str, Any]:
    """A scorecard as JSON values: metrics and intervals as decimal strings."""
    metrics = metrics_of(card)
    level = card.classes[0].level if isinstance(card, ClassScorecard) else card.level
    found: dict[str, Any] = {
        **{name: decimal(value) for name, (value, _, _) in metrics.items()},
        "intervals": {
            name: [decimal(low), decimal(high)] for name, (_, low, high) in metrics.items()
        },
        "level": f"{level}",
        "status": card.status,
        "award_bound": decimal(award_bound(card, metric, confidence)),
    }
    if isinstance(card, Scorecard):
        return {**found, **_curves(card)}
    if isinstance(card, ClassScorecard):
        found["classes"] = [
            {
                **{name: decimal(getattr(one, name)) for name in METRICS},
                "intervals": {
                    name: [decimal(low), decimal(high)]
                    for name, (low, high) in one.intervals.items()
                },
                "status": one.status,
                **_curves(one),
            }
            for one in card.classes
        ]
    return found


def _curves(card: Scorecard) -> dict[str, Any]:
    return {
        "roc": [[decimal(x), decimal(y)] for x, y in card.roc],
        "probabilities": [decimal(value) for value in card.probabilities],
    }


def decimal(value: float) -> str:
    """Six decimals."""
    return f"{value:.6f}"


__all__ = [
    "LOWER_IS_BETTER",
    "PURSE_METRICS",
    "RESIDUAL_METRICS",
    "Card",
    "Released",
    "Task",
    "award_bound",
    "decimal",
    "document",
    "metrics_of",
    "purse_metrics",
    "task_of",
]
