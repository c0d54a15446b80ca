"""Residuals of a regression model as an integer model: prediction less label, on encrypted rows.

The label is uploaded as one more column on a public grid, and a residual model reads it with a
whole negative weight. So nothing in the protocol is new: the score that a run counts is a residual.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from secure_eval.column_book import check_bounds
from secure_eval.float_model import Decision, FloatModel
from secure_eval.integer_model import PLAIN_MODULUS, Column, Group, IntegerModel, hidden_edges
from secure_eval.quantise import BINS, draft_range, drafted, published, rounded, units_of

__all__ = ["label_column", "quantise_residual", "residual_unit"]

LABEL_STEPS = 510
"""A label is rounded to the nearest of so many even steps between its public bounds."""


def label_column(n_features: int, low: float, high: float) -> Column:
    """Return the value column of a label between public bounds, after n_features features."""
    return Column.value_of(n_features, low, (high - low) / LABEL_STEPS, LABEL_STEPS + 1)


def residual_unit(model: IntegerModel, label: Column) -> float:
    """Return how many units of the label one unit of score is: step / |weight of the label|.

    It follows from the weights alone, not from what a model says of its scale.

    Raises:
        ValueError: the model does not read the label, or with a weight that is not negative.
    """
    if label not in model.columns:
        raise ValueError("the model is no residual: it does not read the label's column")
    weight = int(model.weights[model.columns.index(label)])
    if weight >= 0:
        raise ValueError("the model is no residual: the label's weight must be negative")
    return label.step / -weight


def quantise_residual(
    model: FloatModel,
    bounds: ArrayLike,
    label: Column,
    *,
    columns: Sequence[Column] | None = None,
    groups: Sequence[Group] | None = None,
) -> IntegerModel:
    """Return the integer model of prediction less label; a residual of 0 is the score 0.

    The label is one more feature, the last one, with one value column whose weight w < 0 is whole
    at the chosen scale: one unit of score is exactly step / |w| units of the label. Scores lie
    symmetrically about the middle hidden edge, the score 0, as far as the proven range asks.

    Args:
        model: what an importer read: the prediction in units of the label.
        bounds: (F, 2) public low and high per raw feature, the label not among them.
        label: the label's value column, of feature F.
        columns: the only feature columns that exist (a sealed upload); see `quantise`.
        groups: see `quantise`.

    Raises:
        ValueError: as `quantise`, or predictions so far beyond the label's grid that a residual
            would have fewer than one step of score per step of the label.
    """
    table = check_bounds(bounds)
    if label.kind != "value" or label.feature != len(table):
        raise ValueError(f"label: expected a value column of feature {len(table)}")
    draft = drafted(model, table, columns, groups)
    draft = replace(
        draft,
        columns=(*draft.columns, label),
        weights=np.append(draft.weights, -label.step),
        base=draft.base - label.low,
        decision=Decision(0.0, strict=False),
    )
    edges = hidden_edges(BINS)
    largest = max(float(units_of(draft).max()), label.step)
    probe = 2.0**40 / largest
    low, high = (end / probe for end in draft_range(draft, rounded(draft, probe, 0)))
    room = [-edges[0] / -low if low < 0 else np.inf, (edges[-1] - 1) / high if high > 0 else np.inf]
    weight = int(min(*room, PLAIN_MODULUS / largest) * label.step)
    while weight >= 1:
        scale = weight / label.step
        parts = rounded(draft, scale, 0)
        least, most = draft_range(draft, parts)
        if least >= edges[0] and most < edges[-1]:
            break
        weight -= 1
    else:
        raise ValueError(
            f"predictions range so far beyond the label's bounds that no scale fits (residuals of "
            f"{low:.6g} to {high:.6g}); train with a stronger penalty, or use trees"
        )
    result = IntegerModel(
        kind="trees" if parts.trees else "linear",
        columns=draft.columns,
        weights=parts.weights,
        bias=parts.bias,
        n_features=len(table) + 1,
        trees=parts.trees,
        groups=draft.groups,
        bins=BINS,
        threshold_bin=BINS // 2,
        scale=scale,
        offset=0.0,
    )
    return result.with_edges(published(result, None))
