"""How closely an integer model follows the float model it was made from."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from secure_eval.class_models import ClassModels
from secure_eval.integer_model import IntegerModel, hidden_edges

Floats: TypeAlias = NDArray[np.float64]
TIE = 1e-9


@dataclass(frozen=True, slots=True)
class ExactnessReport:
    """Differences between integer and float scores on given rows.

    Attributes:
        largest_score_error: largest |integer score in float units - float score|; of a residual in
            units of the label, and of several classes the largest over all. None where the float
            scores are known only up to order (probabilities of an ONNX file).
        label_agreement: share of rows with the same predicted label; a float score within 1e-9 of
            the decision threshold agrees with either. Of several classes the share of all
            decisions "this class or the rest". None for a residual, which predicts no label.
        auc_change: AUC of the integer score minus AUC of the float score, against the labels, or
            against the float model's own labels where no labels are given; 0 for a single class.
            Of several classes the change of largest size; None for a residual.
        bits_used: bits of the proven range, the least over the classes.
        headroom: share of the bins' range, 0 to 1, that the proven range leaves unused, the
            largest over the classes.
        argmax_agreement: of several classes the share of rows whose largest score is of the same
            class; None otherwise.
    """

    largest_score_error: float | None
    label_agreement: float | None
    auc_change: float | None
    bits_used: int
    headroom: float
    argmax_agreement: float | None = None


def class_exactness(
    model: ClassModels, float_scores: ArrayLike, rows: ArrayLike, *, labels: ArrayLike | None = None
) -> ExactnessReport:
    """Compare the models of all classes with float scores (n, classes) on rows (n, F).

    Args:
        model: the integer models.
        float_scores: what each class's model scores in floats (see `class_models`).
        rows: raw feature values.
        labels: true class codes (n,), for the AUC change.

    Raises:
        ValueError: shapes differ or there are no rows.
    """
    floats = np.asarray(float_scores, dtype=np.float64)
    if floats.ndim != 2 or floats.shape[1] != len(model.models):
        raise ValueError(f"expected scores (n, {len(model.models)}), got {floats.shape}")
    truth = None if labels is None else np.asarray(labels).ravel()
    each = [
        exactness(part, floats[:, k], rows, labels=None if truth is None else truth == k)
        for k, part in enumerate(model.models)
    ]
    same = np.argmax(floats, axis=1) == model.predict(rows)
    return ExactnessReport(
        largest_score_error=max(report.largest_score_error or 0.0 for report in each),
        label_agreement=float(np.mean([report.label_agreement for report in each])),
        auc_change=max((report.auc_change or 0.0 for report in each), key=abs),
        bits_used=min(report.bits_used for report in each),
        headroom=max(report.headroom for report in each),
        argmax_agreement=float(same.mean()),
    )


def ordered_exactness(
    model: IntegerModel | ClassModels, outputs: ArrayLike, rows: ArrayLike, predicted: ArrayLike
) -> ExactnessReport:
    """Compare a model with probabilities (n,) or (n, classes) and with predicted labels (n,).

    Probabilities rise with the scores but are not on their scale, so scores are compared by order.
    Of several classes only the most likely class is compared, as probabilities of one softmax do
    not rise with any single class's score.

    Raises:
        ValueError: lengths differ or there are no rows.
    """
    truth = np.asarray(predicted, dtype=np.int64).ravel()
    floats = np.asarray(outputs, dtype=np.float64)
    if not len(truth) or len(floats) != len(truth):
        raise ValueError(f"expected one output per row, got {len(floats)} for {len(truth)} rows")
    if isinstance(model, ClassModels):
        bits, headroom = score_room(*model.models)
        same = float((model.predict(rows) == truth).mean())
        return ExactnessReport(None, None, None, bits, headroom, same)
    scores = model.score(rows)
    agree = float(((scores >= model.threshold) == (truth == 1)).mean())
    change = _auc(scores, truth == 1) - _auc(floats.ravel(), truth == 1)
    return ExactnessReport(None, agree, change, *score_room(model))


def residual_exactness(
    model: IntegerModel, predictions: ArrayLike, rows: ArrayLike, labels: ArrayLike
) -> ExactnessReport:
    """Compare a residual model with float predictions (n,) less labels (n,) on rows (n, F).

    The error holds the label's rounding to its public grid, at most half a step.

    Raises:
        ValueError: lengths differ or there are no rows.
    """
    numbers = np.asarray(labels, dtype=np.float64).ravel()
    floats = np.asarray(predictions, dtype=np.float64).ravel() - numbers
    scores = model.score(np.column_stack([np.asarray(rows, dtype=np.float64), numbers]))
    if not len(floats) or floats.shape != scores.shape:
        raise ValueError(f"expected one prediction per row, got {len(floats)} for {len(scores)}")
    error = np.abs((scores - model.offset) / model.scale - floats)
    bits, headroom = score_room(model)
    return ExactnessReport(float(error.max()), None, None, bits, headroom)


def score_room(*models: IntegerModel) -> tuple[int, float]:
    """Return the least bits of the models' ranges, and the most of the bins' range left unused."""
    edges = hidden_edges(models[0].bins)
    spans = [model.high - model.low for model in models]
    unused = 1.0 - (min(spans) + 1) / float(edges[-1] - edges[0])
    return int(min(spans)).bit_length(), unused


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
    error = np.abs((scores - model.offset) / model.scale - floats)
    bits, headroom = score_room(model)
    return ExactnessReport(
        largest_score_error=float(error.max()),
        label_agreement=float(agree.mean()),
        auc_change=_auc(scores, truth) - _auc(floats, truth),
        bits_used=bits,
        headroom=headroom,
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
