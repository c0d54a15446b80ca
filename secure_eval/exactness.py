"""How closely an integer model follows the float model it was made from."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from secure_eval.integer_model import IntegerModel, hidden_edges

Floats: TypeAlias = NDArray[np.float64]
TIE = 1e-9


@dataclass(frozen=True, slots=True)
class ExactnessReport:
    """Differences between integer and float scores on given rows.

    Attributes:
        largest_score_error: largest |integer score in float units - float score|.
        label_agreement: share of rows with the same predicted label; a float score within 1e-9 of
            the decision threshold agrees with either.
        auc_change: AUC of the integer score minus AUC of the float score, against the labels, or
            against the float model's own labels where no labels are given; 0 for a single class.
        bits_used: bits of the proven range.
        headroom: share of the bins' range, 0 to 1, that the proven range leaves unused.
    """

    largest_score_error: float
    label_agreement: float
    auc_change: float
    bits_used: int
    headroom: float


def exactness(
    model: IntegerModel,
    estimator_scores: ArrayLike,
    rows: ArrayLike,
    *,
    labels: ArrayLike | None = None,
) -> ExactnessReport:
    """Compare an integer model with the float scores (n,) of its estimator on rows (n, F).

    Args:
        model: the integer model.
        estimator_scores: decision function, or probability of class 1 for forests.
        rows: raw feature values.
        labels: true 0/1 labels (n,), for the AUC change.

    Raises:
        ValueError: lengths differ or there are no rows.
    """
    floats = np.asarray(estimator_scores, dtype=np.float64).ravel()
    scores = model.score(rows)
    if not len(floats) or floats.shape != scores.shape:
        raise ValueError(f"expected one score per row, got {len(floats)} for {len(scores)} rows")
    threshold = (model.threshold - model.offset) / model.scale
    positive = floats > threshold
    tied = np.abs(floats - threshold) <= TIE * max(1.0, abs(threshold))
    agree = tied | (positive == (scores >= model.threshold))
    truth = positive if labels is None else np.asarray(labels).ravel() == 1
    if truth.shape != scores.shape:
        raise ValueError(f"expected one label per row, got {len(truth)} for {len(scores)} rows")
    edges = hidden_edges(model.bins)
    error = np.abs((scores - model.offset) / model.scale - floats)
    return ExactnessReport(
        largest_score_error=float(error.max()),
        label_agreement=float(agree.mean()),
        auc_change=_auc(scores, truth) - _auc(floats, truth),
        bits_used=int(model.high - model.low).bit_length(),
        headroom=1.0 - (model.high - model.low + 1) / float(edges[-1] - edges[0]),
    )


def _auc(scores: NDArray[np.generic], truth: NDArray[np.bool_]) -> float:
    """Return the probability that a positive outranks a negative, ties one half; 0.5 if empty."""
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        return 0.5
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    middle_rank = np.cumsum(counts) - (counts - 1) / 2
    total = float(middle_rank[inverse][truth].sum())
    return (total - positives * (positives + 1) / 2) / (positives * negatives)
