"""Regions: strata learned from a public reference table instead of cut by hand.

A region is the set of rows nearest to one codeword in the embedding of some columns. The codewords
are part of the schema, so they are hashed with it and equal for every party; the reference they
came from is named by its digest and is not needed any more.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clearinghouse.columns import Column, NumberColumn
from clearinghouse.documents import decimal_text
from matching.reference import nearest

Floats = NDArray[np.float64]

MOST_REGIONS = 512
METHOD = "k-means v1"
_TOLD = 2
"""Columns that a region is described by."""


@dataclass(frozen=True, slots=True)
class Regions:
    """Strata of several columns at once.

    Attributes:
        name: How strata speak of it; no column has this name.
        columns: The columns it is made of, in the schema's order.
        codewords: (regions, d) points in the embedding of these columns.
        reference: SHA-256 of the public table they were made from, in hex.
        method: How they were made.
    """

    name: str
    columns: tuple[Column, ...]
    codewords: tuple[tuple[float, ...], ...]
    reference: str
    method: str = METHOD

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(column.name for column in self.columns)

    def stratum_coordinates(self) -> Floats:
        """(regions, d) the codewords."""
        return np.array(self.codewords, np.float64)

    def stratum_codes(self, embedded: Floats) -> NDArray[np.int64]:
        """Region of each row (n,), from its embedding (n, d) by these columns."""
        return nearest(embedded, self.stratum_coordinates())

    def stratum_names(self) -> tuple[str, ...]:
        """Regions in words: a number, and where they differ most from the others."""
        words = self.stratum_coordinates()
        parts = _parts(self.columns)
        middle = words.mean(axis=0)
        names = []
        for index, word in enumerate(words):
            far = [float(((word - middle)[part] ** 2).sum()) for part in parts]
            told = sorted(range(len(parts)), key=lambda i: (-far[i], i))[:_TOLD]
            what = [_words(self.columns[i], word[parts[i]]) for i in sorted(told)]
            names.append(f"{self.name} {index + 1} ({', '.join(what)})")
        return tuple(names)

    def to_dict(self) -> dict[str, object]:
        """JSON-able values without floats."""
        return {
            "name": self.name,
            "columns": list(self.column_names),
            "codewords": [[decimal_text(x) for x in word] for word in self.codewords],
            "reference": self.reference,
            "method": self.method,
        }


def dimensions(column: Column) -> int:
    """Coordinates that a column has in the embedding."""
    if isinstance(column, NumberColumn):
        return 1 + int(column.missing)
    return len(column.levels) + int(column.missing)


def _parts(columns: Sequence[Column]) -> list[slice]:
    """Where each column's coordinates stand, side by side."""
    ends = np.cumsum([dimensions(column) for column in columns]).tolist()
    return [slice(end - dimensions(c), end) for end, c in zip(ends, columns, strict=True)]


def _words(column: Column, point: Floats) -> str:
    """What rows near a point have in a column."""
    if isinstance(column, NumberColumn):
        if column.missing and point[1] > 0.5:
            return f"{column.name} missing"
        return f"{column.name} about {point[0] * column.spread:.3g}"
    return column.stratum_names()[int(point.argmax())]
