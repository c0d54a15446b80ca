"""Tables that obey their schema: reading, canonical records, and the customer's split."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from clearinghouse.columns import CategoryColumn, NumberColumn
from clearinghouse.documents import decimal_text, normal_text, shown
from clearinghouse.errors import TableError
from clearinghouse.schema import Schema
from clearinghouse.table_files import Cells, RawTable, TypedCells, read_raw

_NUMBER_CHARACTERS = re.compile(r"[0-9+\-.eE]*", re.ASCII)
_NO_VALUES = frozenset({"nan", "na", "n/a", "#n/a", "null", "none", "inf", "infinity", "?", "."})

Record = dict[str, str | None]
"""One row as text: column or label name to level or decimal text, None where missing."""


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Rows that were checked against a schema.

    Attributes:
        schema: The schema they obey.
        n: Number of rows.
        numbers: Column name to float64 (n,), NaN where missing.
        categories: Column name to int64 level codes (n,), -1 where missing.
        labels: int64 class codes (n,), or float64 (n,) for a numeric label.
        rows: Row numbers in the source, from 1, int64 (n,).
        warnings: What was ignored when the table was read.
    """

    schema: Schema
    n: int
    numbers: dict[str, NDArray[np.float64]]
    categories: dict[str, NDArray[np.int64]]
    labels: NDArray[np.int64] | NDArray[np.float64]
    rows: NDArray[np.int64]
    warnings: tuple[str, ...] = ()

    def take(self, indices: NDArray[np.int64] | Sequence[int]) -> "Table":
        """The rows at these positions, in this order."""
        at = np.asarray(indices, dtype=np.int64)
        return Table(
            self.schema,
            len(at),
            {name: values[at] for name, values in self.numbers.items()},
            {name: codes[at] for name, codes in self.categories.items()},
            self.labels[at],
            self.rows[at],
            self.warnings,
        )

    def records(self) -> list[Record]:
        """Every row as canonical text: columns in schema order, then the label."""
        names = [column.name for column in self.schema.columns] + [self.schema.label.name]
        texts = [self._column_texts(name) for name in names]
        return [dict(zip(names, row, strict=True)) for row in zip(*texts, strict=True)]

    def _column_texts(self, name: str) -> list[str | None]:
        label = self.schema.label
        if name == label.name:
            if label.kind == "category":
                return [label.levels[code] for code in self.labels]
            return [decimal_text(float(value)) for value in self.labels]
        column = self.schema.column(name)
        if isinstance(column, NumberColumn):
            return [
                None if value != value else decimal_text(value)  # NaN is unequal to itself
                for value in self.numbers[name].tolist()
            ]
        levels = column.levels
        return [None if code < 0 else levels[code] for code in self.categories[name].tolist()]


def read_table(path: Path | str, schema: Schema) -> Table:
    """Read and check a CSV (UTF-8, header, commas) or Parquet file.

    Undeclared columns are ignored and named in `Table.warnings`.

    Raises:
        TableError: The first breach of the schema; names file, column, row and remedy.
    """
    return _check(schema, read_raw(Path(path), schema))


def from_records(schema: Schema, records: Sequence[Mapping[str, object]], *, file: str) -> Table:
    """Check records that someone delivered; `file` is what errors call them.

    Raises:
        TableError: A record has other keys than the schema, or a value breaks it.
    """
    names = [column.name for column in schema.columns] + [schema.label.name]
    if not records:
        raise TableError("there are no records", file=file, remedy="Give at least one record")
    for i, record in enumerate(records):
        good = isinstance(record, Mapping) and set(record) == set(names)
        if not good or any(v is not None and not isinstance(v, str) for v in record.values()):
            raise TableError(
                "a record must hold text (or null) for each declared column and nothing else",
                file=file,
                row=i + 1,
                remedy="Write records with Table.records",
            )
    cells: dict[str, Cells] = {
        name: [str(record[name] or "").strip() for record in records] for name in names
    }
    anonymous = replace(schema, patient_id=None)  # records never carry the patient's id
    table = _check(anonymous, RawTable(file, len(records), cells, None, ()))
    return replace(table, schema=schema)


def pooled(tables: Sequence[Table]) -> Table:
    """All rows of tables with one schema, in the order given; row numbers start again at 1.

    Raises:
        ValueError: There is no table, or their schemas differ.
    """
    if not tables or any(table.schema != tables[0].schema for table in tables):
        raise ValueError("pooled tables must be at least one and share one schema")
    first, n = tables[0], sum(table.n for table in tables)
    return Table(
        first.schema,
        n,
        {name: np.concatenate([t.numbers[name] for t in tables]) for name in first.numbers},
        {name: np.concatenate([t.categories[name] for t in tables]) for name in first.categories},
        np.concatenate([t.labels for t in tables]),
        np.arange(1, n + 1, dtype=np.int64),
    )


def write_parquet(table: Table, path: Path) -> None:
    """Write the declared columns and the label; `read_table` reads them back the same."""
    arrays: dict[str, pa.Array] = {}
    for column in table.schema.columns:
        if isinstance(column, NumberColumn):
            values = table.numbers[column.name]
            arrays[column.name] = pa.array(values, mask=np.isnan(values))
        else:
            arrays[column.name] = pa.array(table._column_texts(column.name), pa.string())
    label = table.schema.label
    if label.kind == "category":
        arrays[label.name] = pa.array([label.levels[code] for code in table.labels], pa.string())
    else:
        arrays[label.name] = pa.array(table.labels)
    pq.write_table(pa.table(arrays), path)


def stratified_split(
    labels: NDArray[np.int64] | NDArray[np.float64], fraction: float | Fraction, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split rows into hold-out and validation parts with like label shares.

    The hold-out gets the nearest whole number to fraction x n rows (never none, never all),
    divided among classes by largest remainder. A numeric label is split without strata.

    Args:
        labels: Class codes or numeric labels, (n,), n >= 2.
        fraction: Share of the hold-out, between 0 and 1.
        seed: Seed of the shuffle; a split is no secret and no noise.

    Returns:
        Rising row positions of the hold-out and of the validation part.

    Raises:
        ValueError: Fewer than two rows, or a fraction outside (0, 1).
    """
    n, share = len(labels), Fraction(fraction)
    if n < 2 or not 0 < share < 1:
        raise ValueError(f"a split needs 2 rows and 0 < fraction < 1, not {n} and {share}")
    classes = np.unique(labels, return_inverse=True)[1] if labels.dtype.kind == "i" else None
    groups = classes if classes is not None else np.zeros(n, dtype=np.int64)
    sizes = np.bincount(groups).tolist()
    total = min(max(round(share * n), 1), n - 1)
    exact = [Fraction(total * size, n) for size in sizes]
    counts = [int(part) for part in exact]
    order = sorted(range(len(sizes)), key=lambda g: (counts[g] - exact[g], g))
    for g in order[: total - sum(counts)]:
        counts[g] += 1
    random = np.random.default_rng(seed)
    picked = [random.permutation(np.flatnonzero(groups == g))[:c] for g, c in enumerate(counts)]
    chosen = np.zeros(n, dtype=np.bool_)
    chosen[np.concatenate(picked)] = True
    return np.flatnonzero(chosen), np.flatnonzero(~chosen)


def _check(schema: Schema, raw: RawTable) -> Table:
    """Turn raw cells into a table, or raise the first breach of the schema."""
    if schema.patient_id is not None:
        _check_patients(raw, schema.patient_id)
    numbers, categories = {}, {}
    whole = {name for level in (*schema.strata, schema.subgroups) for name in level}
    for column in schema.columns:
        if isinstance(column, CategoryColumn):
            categories[column.name] = _codes(raw, column.name, column.levels, column.missing)
            continue
        values = _numbers(raw, column.name, column.low, column.high, column.missing)
        if column.name in whole and column.is_integer:
            _check_whole(raw, column.name, values)
        numbers[column.name] = values
    label = schema.label
    labels: NDArray[np.int64] | NDArray[np.float64]
    if label.kind == "category":
        labels = _codes(raw, label.name, label.levels, missing=False)
    else:
        labels = _numbers(raw, label.name, label.low, label.high, missing=False)
    rows = np.arange(1, raw.n + 1, dtype=np.int64)
    return Table(schema, raw.n, numbers, categories, labels, rows, raw.warnings)


def _error(raw: RawTable, column: str, index: int, what: str, remedy: str) -> TableError:
    """The error for one cell; a CSV cell is also found by its line."""
    subject = "the cell" if raw.lines is None else f"line {raw.lines[index]}"
    return TableError(
        f"{subject} {what}", file=raw.file, column=column, row=index + 1, remedy=remedy
    )


def _missing_error(raw: RawTable, column: str, index: int) -> TableError:
    return _error(
        raw,
        column,
        index,
        "is empty, and missing values are not declared",
        "Fill it, or write missing: true for the column in the schema (never for a label)",
    )


def _numbers(
    raw: RawTable, name: str, low: float, high: float, missing: bool
) -> NDArray[np.float64]:
    cells = raw.cells[name]
    if isinstance(cells, TypedCells):
        values, absent = cells.values.copy(), cells.null
    else:
        absent = np.array([not cell for cell in cells], dtype=np.bool_)
        values = _parsed(raw, name, cells)
    if absent.any() and not missing:
        raise _missing_error(raw, name, int(np.argmax(absent)))
    bad = ~absent & ~((values >= low) & (values <= high))
    if bad.any():
        index = int(np.argmax(bad))
        value = float(values[index])
        if value != value or abs(value) == np.inf:
            raise _no_value(raw, name, index, str(value))
        bounds = f"{decimal_text(low)} to {decimal_text(high)}"
        raise _error(
            raw,
            name,
            index,
            f"holds {decimal_text(value)}, outside the declared bounds {bounds}",
            "Correct the value, or widen low and high in the schema",
        )
    values[absent] = np.nan
    return values


def _parsed(raw: RawTable, name: str, cells: list[str]) -> NDArray[np.float64]:
    """Text to floats; empty cells become NaN. ASCII decimals only: no nan, inf, 1_000 or 0x10."""
    if _NUMBER_CHARACTERS.fullmatch("".join(cells)):
        try:
            return np.array([float(cell) if cell else np.nan for cell in cells], dtype=np.float64)
        except ValueError:
            pass  # such as "1-2": found below
    for index, cell in enumerate(cells):
        try:
            if _NUMBER_CHARACTERS.fullmatch(cell) and (not cell or float(cell) == float(cell)):
                continue
        except ValueError:
            pass
        if cell.lower().lstrip("+-") in _NO_VALUES:
            raise _no_value(raw, name, index, cell)
        comma = "Use a point as decimal mark" if "," in cell else "Write a decimal such as 4.5"
        raise _error(raw, name, index, f"holds {shown(cell)}, not a number", comma)
    raise ValueError(f"column '{name}' could not be read as numbers")


def _no_value(raw: RawTable, name: str, index: int, text: str) -> TableError:
    return _error(
        raw,
        name,
        index,
        f"holds '{text}', which is not a value",
        "Leave the cell empty (null in Parquet) and declare missing: true for the column",
    )


def _codes(raw: RawTable, name: str, levels: tuple[str, ...], missing: bool) -> NDArray[np.int64]:
    cells = raw.cells[name]
    if isinstance(cells, TypedCells):
        raise ValueError(f"column '{name}' is compared as text and came as numbers")
    code_of = {level: code for code, level in enumerate(levels)}
    lookup = {text: code_of.get(normal_text(text), -2) for text in set(cells)}
    lookup[""] = -1
    codes = np.array([lookup[cell] for cell in cells], dtype=np.int64)
    bad = codes == -2
    if not missing:
        bad |= codes == -1
    if bad.any():
        index = int(np.argmax(bad))
        cell = cells[index]
        if not cell:
            raise _missing_error(raw, name, index)
        if cell.lower().lstrip("+-") in _NO_VALUES:
            raise _no_value(raw, name, index, cell)
        raise _error(
            raw,
            name,
            index,
            f"holds {shown(cell)}, not a declared level ({', '.join(levels[:12])})",
            "Correct the value, or add the level to the schema",
        )
    return codes


def _check_whole(raw: RawTable, name: str, values: NDArray[np.float64]) -> None:
    bad = ~np.isnan(values) & (values != np.floor(values))
    if bad.any():
        index = int(np.argmax(bad))
        raise _error(
            raw,
            name,
            index,
            f"holds {decimal_text(float(values[index]))}, and strata of this column are integers",
            "Correct the value, or give the column cuts: [...] in the schema",
        )


def _check_patients(raw: RawTable, name: str) -> None:
    cells = raw.cells[name]
    if isinstance(cells, TypedCells):
        raise ValueError(f"column '{name}' is compared as text and came as numbers")
    first: dict[str, int] = {}
    for index, cell in enumerate(cells):
        if not cell:
            raise _error(raw, name, index, "has no id", "Give every row its patient's id")
        if cell in first:
            raise _error(
                raw,
                name,
                index,
                f"holds the same patient as row {first[cell] + 1}",
                "Keep one row for each patient: the privacy promise is one row per patient",
            )
        first[cell] = index
