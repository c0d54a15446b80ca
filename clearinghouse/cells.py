"""Where rows fall in a schema's strata: the same (cell, label) numbers for every party.

A table of counts is row-major (cells, labels): place cell * labels + label. Cells count through
the last column of the level fastest.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from clearinghouse.errors import InputError
from clearinghouse.schema import Schema
from clearinghouse.tables import Table
from matching.codebook import Axis, Codebook, aggregate, choose_level

Level = tuple[str, ...]


def n_labels(schema: Schema) -> int:
    """Number of label classes; of a numeric label the strata of its cuts, one without cuts."""
    return schema.label.n_classes


def codebook(schema: Schema, level: Sequence[str]) -> Codebook:
    """The cells of a strata level; no columns make the root of one cell.

    Raises:
        InputError: The schema has no such level.
    """
    if tuple(level) not in schema.strata_levels():
        raise InputError(f"the schema has no strata level {list(level)}")
    return Codebook(tuple(_axis(schema, name) for name in level))


def finest_level(
    schema: Schema, *, epsilon_micro: int, size_class: int, share: float, most: int | None = None
) -> Level:
    """The finest level with cells x labels <= epsilon x size class x share; public inputs only.

    Args:
        schema: Gives the levels.
        epsilon_micro: Privacy loss of the counts in millionths.
        size_class: Declared power of two, not above the number of rows.
        share: 1 for a request, 0.5 for a source.
        most: Also at most so many cells x labels; the root is always allowed.
    """
    levels = schema.strata_levels()
    sizes = [codebook(schema, level).n_cells for level in levels]
    index = choose_level(sizes, n_labels(schema), epsilon_micro / 1_000_000, size_class, share)
    while index and most is not None and sizes[index] * n_labels(schema) > most:
        index -= 1
    return levels[index]


def cells(table: Table, level: Sequence[str]) -> NDArray[np.int64]:
    """Cell of each row (n,) at a level."""
    book = codebook(table.schema, level)
    codes = [table.schema.stratum_codes(table, name) for name in level]
    return book.cells(np.column_stack(codes) if codes else np.zeros((table.n, 0), np.int64))


def places(table: Table, level: Sequence[str], *, by_label: bool = True) -> NDArray[np.int64]:
    """Row-major (cell, label) place of each row (n,); its cell alone unless `by_label`."""
    if not by_label:
        return cells(table, level)
    labels = table.schema.label.codes(table.labels)
    return np.asarray(cells(table, level) * n_labels(table.schema) + labels, dtype=np.int64)


def n_places(schema: Schema, level: Sequence[str], *, by_label: bool = True) -> int:
    """Number of (cell, label) places at a level; of cells alone unless `by_label`."""
    return codebook(schema, level).n_cells * (n_labels(schema) if by_label else 1)


def counts(table: Table, level: Sequence[str]) -> NDArray[np.int64]:
    """Exact rows in each place, (cells * labels,); never leaves its owner without noise."""
    return np.bincount(places(table, level), minlength=n_places(table.schema, level))


def marginal(
    schema: Schema, level: Sequence[str], table: NDArray[np.int64], column: str
) -> NDArray[np.int64]:
    """Sum counts (cells, labels) of a level into (strata, labels) of one of its columns.

    Raises:
        ValueError: The level has no such column.
    """
    if column not in level:
        raise ValueError(f"level {list(level)} has no column {column!r}")
    return aggregate(table, codebook(schema, level), Codebook((_axis(schema, column),)))


def _axis(schema: Schema, column: str) -> Axis:
    return Axis(column, schema.stratum_coordinates(column))
