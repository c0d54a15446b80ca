"""Raw cells of a CSV or Parquet table, before any schema is applied to their values."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from clearinghouse.columns import CategoryColumn
from clearinghouse.errors import TableError
from clearinghouse.schema import Schema

_PARQUET_MAGIC = b"PAR1"


@dataclass(frozen=True, slots=True, eq=False)
class TypedCells:
    """Numbers that came typed (Parquet): values (n,) and where they are null (n,)."""

    values: NDArray[np.float64]
    null: NDArray[np.bool_]


Cells = list[str] | TypedCells
"""One column: stripped text with "" for an empty cell, or typed numbers."""


@dataclass(frozen=True, slots=True, eq=False)
class RawTable:
    """The declared columns of a file.

    Attributes:
        file: What errors call the file.
        n: Number of rows, at least 1.
        cells: Column name to cells.
        lines: Line of each row in a CSV file, or None.
        warnings: One sentence for each thing that was ignored.
    """

    file: str
    n: int
    cells: dict[str, Cells]
    lines: Sequence[int] | None
    warnings: tuple[str, ...]


def read_raw(path: Path, schema: Schema) -> RawTable:
    """Read the declared columns of a CSV or Parquet file.

    Raises:
        TableError: The file cannot be read, is empty, ragged, or lacks a declared column.
    """
    file = str(path)
    try:
        with path.open("rb") as stream:
            magic = stream.read(len(_PARQUET_MAGIC))
    except OSError as error:
        raise TableError(
            error.strerror or "cannot be read",
            file=file,
            remedy="Check the path and its permissions",
        ) from None
    if magic == _PARQUET_MAGIC:
        return _read_parquet(path, schema, file)
    return _read_csv(path, schema, file)


def _declared(schema: Schema) -> tuple[str, ...]:
    identifier = () if schema.patient_id is None else (schema.patient_id,)
    return (*(column.name for column in schema.columns), schema.label.name, *identifier)


def _check_header(header: Sequence[str], schema: Schema, file: str) -> tuple[str, ...]:
    """Refuse a header without a declared column or with one twice; name what is ignored."""
    declared = _declared(schema)
    for name in declared:
        if name in header and list(header).count(name) == 1:
            continue
        twice = name in header
        problem = "the column is there twice" if twice else "the declared column is missing"
        remedy = "Rename or remove one of them" if twice else "Add it, or take it out of the schema"
        if not twice and len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
            remedy = "The header has no comma: save the table with commas between cells"
        raise TableError(problem, file=file, column=name, remedy=remedy)
    ignored = [name for name in header if name not in declared]
    if not ignored:
        return ()
    return (f"{file}: ignored undeclared columns: {', '.join(ignored)}",)


def _read_csv(path: Path, schema: Schema, file: str) -> RawTable:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            header = [name.strip() for name in next(reader, [])]
            rows: list[list[str]] = []
            lines: list[int] = []
            for row in reader:
                if row:  # a blank line is no row
                    rows.append(row)
                    lines.append(reader.line_num)
    except OSError as error:
        raise TableError(
            error.strerror or "cannot be read", file=file, remedy="Check the path"
        ) from None
    except UnicodeDecodeError:
        raise TableError(
            "neither UTF-8 text nor Parquet", file=file, remedy="Save it as UTF-8 CSV or Parquet"
        ) from None
    except csv.Error as error:
        raise TableError(
            f"not a CSV file ({error}, line {reader.line_num})",
            file=file,
            remedy="Check its quotes and commas",
        ) from None
    warnings = _check_header(header, schema, file)
    if not rows:
        raise _empty(file)
    for i, row in enumerate(rows):
        if len(row) != len(header):
            raise TableError(
                f"line {lines[i]} has {len(row)} cells where the header has {len(header)}",
                file=file,
                row=i + 1,
                remedy="Quote cells that hold commas, and give every row all cells",
            )
    columns = list(zip(*rows, strict=True))
    cells: dict[str, Cells] = {
        name: [cell.strip() for cell in columns[header.index(name)]] for name in _declared(schema)
    }
    return RawTable(file, len(rows), cells, lines, warnings)


def _read_parquet(path: Path, schema: Schema, file: str) -> RawTable:
    try:
        # One thread: the machine's cores belong to the caller. All columns: a name with a dot
        # would be taken for a path into nested columns.
        arrow = pq.read_table(path, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        raise TableError(
            f"not a readable Parquet file ({reason})", file=file, remedy="Write the file again"
        ) from None
    warnings = _check_header(arrow.column_names, schema, file)
    if arrow.num_rows == 0:
        raise _empty(file)
    levels = {
        column.name: column.levels
        for column in schema.columns
        if isinstance(column, CategoryColumn)
    }
    levels[schema.label.name] = schema.label.levels
    cells = {
        name: _parquet_cells(
            arrow.column(name), levels.get(name, ()), as_text=_is_text(schema, name)
        )
        for name in _declared(schema)
    }
    return RawTable(file, arrow.num_rows, cells, None, warnings)


def _is_text(schema: Schema, name: str) -> bool:
    """Whether a column is compared as text: categories, their labels and the patient's id."""
    if name == schema.label.name:
        return schema.label.kind == "category"
    return name == schema.patient_id or isinstance(schema.column(name), CategoryColumn)


def _parquet_cells(column: pa.ChunkedArray, levels: tuple[str, ...], *, as_text: bool) -> Cells:
    kind = column.type
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    if not as_text and numeric:
        null = np.asarray(column.is_null().to_numpy(zero_copy_only=False), dtype=np.bool_)
        filled = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return TypedCells(np.asarray(filled, dtype=np.float64), null)
    truths = {True: _spelling(levels, "true", "1"), False: _spelling(levels, "false", "0")}
    values: Iterable[object] = column.to_pylist()
    return [
        "" if v is None else truths[v] if isinstance(v, bool) else str(v).strip() for v in values
    ]


def _spelling(levels: tuple[str, ...], word: str, digit: str) -> str:
    """How a schema with these levels writes a Parquet boolean."""
    return next((level for level in levels if level.casefold() in (word, digit)), word)


def _empty(file: str) -> TableError:
    return TableError("the table has no rows", file=file, remedy="Give at least one row of data")
