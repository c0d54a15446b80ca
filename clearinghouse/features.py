"""The public feature vector of a schema: what a model may see, in an order everyone computes alike.

A number gives its value, one bit `x >= t` for each public threshold and, where missing is legal,
one missing bit. A category gives one bit a level. Encrypted columns, model imports and training
tables all use this order.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clearinghouse.columns import CategoryColumn, NumberColumn
from clearinghouse.documents import decimal_text
from clearinghouse.schema import ColumnValues, Schema

FeatureKind = Literal["value", "threshold", "level", "missing"]
GroupKind = Literal["one_hot", "monotone"]


@dataclass(frozen=True, slots=True)
class Feature:
    """One coordinate of the feature vector.

    Attributes:
        name: "age", "age >= 45", "sex = F", "chol missing".
        column: The column it is computed from.
        kind: value, threshold, level or missing; all but value are 0/1.
        low: Smallest possible value.
        high: Largest possible value.
        threshold: t of a threshold bit.
        level: The level of a level bit, as text; None for the bit of a missing category.
    """

    name: str
    column: str
    kind: FeatureKind
    low: float
    high: float
    threshold: float | None = None
    level: str | None = None


def features(schema: Schema) -> tuple[Feature, ...]:
    """The feature vector of a schema, in column order."""
    found: list[Feature] = []
    for column in schema.columns:
        if isinstance(column, NumberColumn):
            found.extend(_number_features(column))
        else:
            found.extend(_category_features(column))
    return tuple(found)


def _number_features(column: NumberColumn) -> list[Feature]:
    name = column.name
    found = [Feature(name, name, "value", column.low, column.high)]
    for t in column.thresholds:
        words = f"{name} >= {decimal_text(t)}"
        found.append(Feature(words, name, "threshold", 0.0, 1.0, threshold=t))
    if column.missing:
        found.append(Feature(f"{name} missing", name, "missing", 0.0, 1.0))
    return found


def _category_features(column: CategoryColumn) -> list[Feature]:
    name = column.name
    found = [
        Feature(f"{name} = {level}", name, "level", 0.0, 1.0, level=level)
        for level in column.levels
    ]
    if column.missing:
        found.append(Feature(f"{name} missing", name, "missing", 0.0, 1.0))
    return found


def bounds(schema: Schema) -> NDArray[np.float64]:
    """Public (low, high) of each feature, (F, 2)."""
    return np.array([(f.low, f.high) for f in features(schema)], dtype=np.float64).reshape(-1, 2)


def encode(schema: Schema, table: ColumnValues) -> NDArray[np.float64]:
    """The feature vectors of all rows, (n, F) without NaN.

    A missing number is the middle of its bounds and is above no threshold; its missing bit is 1.
    """
    parts = [np.zeros((table.n, 0))]
    for column in schema.columns:
        if isinstance(column, NumberColumn):
            parts.append(_encode_number(column, table.numbers[column.name]))
        else:
            strata = column.stratum_codes(table.categories[column.name])
            parts.append(np.eye(len(column.levels) + int(column.missing))[strata])
    return np.hstack(parts)


def _encode_number(column: NumberColumn, values: NDArray[np.float64]) -> NDArray[np.float64]:
    absent = np.isnan(values)
    filled = np.where(absent, (column.low + column.high) / 2, values)
    # NaN >= t is False, so a missing value is above no threshold.
    bits = values[:, None] >= np.asarray(column.thresholds, dtype=np.float64)[None, :]
    parts = [filled[:, None], bits.astype(np.float64)]
    if column.missing:
        parts.append(absent[:, None].astype(np.float64))
    return np.hstack(parts)


def feature_groups(schema: Schema) -> tuple[tuple[GroupKind, tuple[int, ...]], ...]:
    """What must hold between features, so that an importer can prove tight score ranges.

    Returns:
        ("one_hot", indices): exactly one of these bits is 1 in every row (a category).
        ("monotone", indices): each bit is at most the one before it (thresholds of a number).
    """
    groups: list[tuple[GroupKind, tuple[int, ...]]] = []
    start = 0
    for column in schema.columns:
        if isinstance(column, NumberColumn):
            count = len(column.thresholds)
            if count:
                groups.append(("monotone", tuple(range(start + 1, start + 1 + count))))
            start += 1 + count + int(column.missing)
        else:
            width = len(column.levels) + int(column.missing)
            groups.append(("one_hot", tuple(range(start, start + width))))
            start += width
    return tuple(groups)
