"""What a sealed set must satisfy by its schema: how its bits, strata and cells hang together.

Hospitals upload bits, cells and subgroup levels of the same rows side by side. The server holds
only ciphertexts, so it states what an honest upload satisfies in every slot and has that tested.
A value column is tied to nothing: that numbers equal their bits stays the hospital's signed claim,
and so does the region of a row, where strata are regions of a public reference.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from clearinghouse import cells, features
from clearinghouse.columns import CategoryColumn, stratum_borders
from clearinghouse.schema import Schema
from secure_eval.layout import Layout

Form = dict[int, int]
"""Index of a block's part to its coefficient."""

Bits = dict[tuple[str, str, float | str | None], int]
"""Column, kind and threshold or level of a bit to the index of its part."""


@dataclass(frozen=True, slots=True)
class Claims:
    """Arguments of `secure_eval.upload_checks.UploadChecks`.

    Attributes:
        partitions: Per column the forms of which exactly one is 1 in every row.
        relations: Forms that are 0 in every slot.
    """

    partitions: list[list[Form]]
    relations: list[Form]


def claims(schema: Schema, level: Sequence[str], layout: Layout) -> Claims:
    """What the parts of a sealed set satisfy.

    Args:
        schema: Gives bits and strata.
        level: Strata level of the cells.
        layout: Shape of the set, already checked against schema and level.
    """
    bits = _bits(schema)
    partitions, relations = [], []
    for column in schema.columns:
        forms = _partition(schema, column.name, bits, layout)
        if len(forms) > 1:
            partitions.append(forms)
        if isinstance(column, CategoryColumn):
            relations.append(_minus(_sum(forms), {layout.valid_part: 1}))
    for parts, strata in _tables(schema, level, layout):
        relations.append(_minus(dict.fromkeys(parts, 1), strata))
    return Claims(partitions, relations)


def _bits(schema: Schema) -> Bits:
    """Index of each bit's part: the columns come first in a block, in the features' order."""
    found: Bits = {}
    for index, feature in enumerate(features.features(schema)):
        what = feature.threshold if feature.kind == "threshold" else feature.level
        found[feature.column, feature.kind, what] = index
    return found


def _partition(
    schema: Schema,
    name: str,
    bits: Bits,
    layout: Layout,
    borders: Sequence[float] | None = None,
) -> list[Form]:
    """One form for each stratum of a column, "missing" last; a number's between its borders.

    Borders are by default all public thresholds of the number, which are finer than its strata.
    """
    column = schema.column(name)
    if isinstance(column, CategoryColumn):
        forms = [{bits[name, "level", level]: 1} for level in column.levels]
    else:
        chosen = column.thresholds if borders is None else borders
        present = {layout.valid_part: 1}
        if column.missing:
            present = _minus(present, {bits[name, "missing", None]: 1})
        steps = [present, *({bits[name, "threshold", t]: 1} for t in chosen), {}]
        forms = [_minus(steps[i], steps[i + 1]) for i in range(len(steps) - 1)]
    if column.missing:
        forms.append({bits[name, "missing", None]: 1})
    return forms


def _tables(
    schema: Schema, level: Sequence[str], layout: Layout
) -> Iterator[tuple[list[int], Form]]:
    """For each stratum of each column of each table: its parts, and its form in the bits."""
    bits = _bits(schema)
    codes = cells.codebook(schema, level).codes()
    tables = [(list(level), codes, layout.cell_part(0, 0))] if layout.cells else []
    for name, levels in layout.groups:
        tables.append(([name], np.arange(levels)[:, None], layout.group_parts(name).start))
    for names, strata, start in tables:
        for axis, name in enumerate(names):
            if schema.region(name) is not None:
                continue  # no linear form of the bits says which region is nearest
            for stratum, form in enumerate(_strata(schema, name, bits, layout)):
                members = (strata[:, axis] == stratum).nonzero()[0].tolist()
                yield (
                    [
                        start + cell * layout.labels + label
                        for cell in members
                        for label in range(layout.labels)
                    ],
                    form,
                )


def _strata(
    schema: Schema,
    name: str,
    bits: Bits,
    layout: Layout,
) -> list[Form]:
    column = schema.column(name)
    if isinstance(column, CategoryColumn):
        return _partition(schema, name, bits, layout)
    borders = stratum_borders(column.low, column.high, column.cuts)
    return _partition(schema, name, bits, layout, borders)


def _sum(forms: Sequence[Form]) -> Form:
    total: Form = {}
    for form in forms:
        total = _minus(total, {part: -value for part, value in form.items()})
    return total


def _minus(left: Form, right: Form) -> Form:
    result = dict(left)
    for part, value in right.items():
        result[part] = result.get(part, 0) - value
    return {part: value for part, value in result.items() if value}
