"""The encrypted columns of a schema: one for each public feature, on a public integer grid.

Hospitals upload these columns, models read them, the server checks one against the other. All
three compute them from the schema alone.
"""

import numpy as np
from numpy.typing import NDArray

from clearinghouse import features
from clearinghouse.schema import ColumnValues, Schema
from secure_eval.integer_model import Column

VALUE_STEPS = 510
"""A number is rounded to the nearest of so many even steps between its public bounds."""


def columns(schema: Schema) -> tuple[Column, ...]:
    """The columns of a validation set, in the order of `features.features(schema)`.

    A value feature lies on the grid low, low + step, ..., high of 511 points; threshold, level
    and missing features are integers 0 and 1.
    """
    found = []
    for index, feature in enumerate(features.features(schema)):
        if feature.kind == "value":
            step = (feature.high - feature.low) / VALUE_STEPS
            found.append(Column.value_of(index, feature.low, step, VALUE_STEPS + 1))
        else:
            found.append(Column.value_of(index, 0.0, 1.0, 2))
    return tuple(found)


def encode(schema: Schema, table: ColumnValues) -> NDArray[np.int64]:
    """The integer columns (n, C) of a table's rows: what is encrypted, and what models score."""
    values = features.encode(schema, table)
    parts = [column.encode(values[:, column.feature]) for column in columns(schema)]
    return np.column_stack(parts).astype(np.int64, copy=False)
