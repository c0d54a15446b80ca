"""The encrypted columns of a schema: one for each public feature, on a public integer grid.

A numeric label is one more column, the last one, on a grid of its own: models of residuals read it.

Hospitals upload these columns, models read them, the server checks one against the other. All
three compute them from the schema alone.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from clearinghouse import features
from clearinghouse.columns import NumberColumn
from clearinghouse.schema import Schema
from secure_eval.integer_model import Column
from secure_eval.quantise_residual import label_column

if TYPE_CHECKING:
    # not pyarrow: the process that parses foreign models has little time
    from clearinghouse.tables import Table

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
    label = label_column_of(schema)
    return tuple(found) if label is None else (*found, label)


def label_column_of(schema: Schema) -> Column | None:
    """The column of a numeric label; None where the label is a category."""
    label = schema.label
    if label.kind != "number":
        return None
    return label_column(len(features.features(schema)), label.low, label.high)


def rows_of(schema: Schema, table: "Table") -> NDArray[np.float64]:
    """What a model scores (n, F): the feature vectors, a numeric label behind them."""
    values = features.encode(schema, table)
    if schema.label.kind != "number":
        return values
    return np.column_stack([values, np.asarray(table.labels, dtype=np.float64)])


def strips(schema: Schema) -> list[int]:
    """How many consecutive columns lie together in a packed set (`secure_eval.strips`).

    The bits of a number, and the levels of a category, which the tests of a sealed set multiply; a
    value is tied to nothing and lies alone.
    """
    found = []
    for column in schema.columns:
        if isinstance(column, NumberColumn):
            bits = len(column.thresholds) + int(column.missing)
            found += [1, bits] if bits else [1]
        else:
            found.append(len(column.levels) + int(column.missing))
    return found if label_column_of(schema) is None else [*found, 1]


def encode(schema: Schema, table: "Table") -> NDArray[np.int64]:
    """The integer columns (n, C) of a table's rows: what is encrypted, and what models score."""
    values = rows_of(schema, table)
    parts = [column.encode(values[:, column.feature]) for column in columns(schema)]
    return np.column_stack(parts).astype(np.int64, copy=False)
