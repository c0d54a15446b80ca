"""The public schema of a market: columns, bounds, label, strata. Read from schema.yaml or JSON."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from clearinghouse.columns import (
    CategoryColumn,
    Column,
    Label,
    NumberColumn,
    default_thresholds,
    stratum_borders,
)
from clearinghouse.documents import Fields, load_document, normal_text, shown, text_list
from clearinghouse.errors import InputError
from clearinghouse.region_files import parse_regions, with_codewords
from clearinghouse.regions import Regions

MAX_COLUMNS = 1000
MAX_LABELS = 16
"""Most label classes that a sealed set can hold: levels, or strata of a number."""


class ColumnValues(Protocol):
    """The part of a table that a schema computes with."""

    @property
    def n(self) -> int:
        """Number of rows."""
        ...

    @property
    def numbers(self) -> Mapping[str, NDArray[np.float64]]:
        """Values of the number columns, NaN for missing."""
        ...

    @property
    def categories(self) -> Mapping[str, NDArray[np.int64]]:
        """Level codes of the category columns, -1 for missing."""
        ...


@dataclass(frozen=True, slots=True)
class Schema:
    """What every party knows about the tables before anyone has seen one.

    Attributes:
        name: Name of the schema.
        unit: What one row is, such as "patient"; the unit of privacy.
        patient_id: Column that names the unit, or None where each row is one unit.
        label: What models predict.
        columns: Declared columns in their order; features, strata and embeddings follow it.
        strata: Levels of the codebook, coarse to fine, each a tuple of column names; the
            one-cell root is implied.
        subgroups: Columns by which scores and matches are reported.
        regions: Strata made from a public reference table; levels may name them like columns.
    """

    name: str
    unit: str
    patient_id: str | None
    label: Label
    columns: tuple[Column, ...]
    strata: tuple[tuple[str, ...], ...]
    subgroups: tuple[str, ...]
    regions: tuple[Regions, ...] = ()

    def column(self, name: str) -> Column:
        """The declared column of that name.

        Raises:
            ValueError: There is none.
        """
        for column in self.columns:
            if column.name == name:
                return column
        raise ValueError(f"schema '{self.name}' has no column '{name}'")

    def stratum_names(self, column: str) -> tuple[str, ...]:
        """Strata of a column in words, such as "age 45 to 54", "sex F", "chol missing"."""
        region = self.region(column)
        return (region or self.column(column)).stratum_names()

    def region(self, name: str) -> Regions | None:
        """The regions of that name, or None where it names a column."""
        return next((regions for regions in self.regions if regions.name == name), None)

    def stratum_codes(self, table: ColumnValues, column: str) -> NDArray[np.int64]:
        """Stratum of each row, (n,), each in 0..len(stratum_names(column)) - 1."""
        region = self.region(column)
        if region is not None:
            return region.stratum_codes(embedded(region.columns, table))
        declared = self.column(column)
        if isinstance(declared, NumberColumn):
            return declared.stratum_codes(table.numbers[column])
        return declared.stratum_codes(table.categories[column])

    def stratum_coordinates(self, column: str) -> NDArray[np.float64]:
        """Where each stratum lies in the embedding of its column, (strata, d)."""
        region = self.region(column)
        return (region or self.column(column)).stratum_coordinates()

    def embedding(self, table: ColumnValues) -> NDArray[np.float64]:
        """All declared columns as Gower-like coordinates, (n, d), without the label.

        Numbers are divided by their spread, categories are one-hot over sqrt(2), a missing number
        has a coordinate of its own and a missing category is one more level.
        """
        return embedded(self.columns, table)

    def strata_levels(self) -> tuple[tuple[str, ...], ...]:
        """Every level of the codebook: the root () first, then coarse to fine."""
        return ((), *self.strata)

    def cell_words(self, level_columns: tuple[str, ...], codes: tuple[int, ...]) -> str:
        """A cell in words: "sex F, age 45 to 54"; the root is "all patients"."""
        if not level_columns:
            return f"all {self.unit}s"
        pairs = zip(level_columns, codes, strict=True)
        return ", ".join(self.stratum_names(column)[int(code)] for column, code in pairs)

    def to_dict(self) -> dict[str, object]:
        """JSON-able values without floats; `from_dict` gives the same schema back."""
        return {
            "name": self.name,
            "unit": self.unit,
            "patient_id": self.patient_id,
            "label": self.label.to_dict(),
            "columns": [column.to_dict() for column in self.columns],
            "strata": [list(level) for level in self.strata],
            "subgroups": list(self.subgroups),
            **({"regions": [item.to_dict() for item in self.regions]} if self.regions else {}),
        }

    @classmethod
    def from_dict(cls, document: object, *, file: str = "schema") -> "Schema":
        """Read what `to_dict` wrote, or a parsed schema file.

        Raises:
            InputError: A key is unknown, missing or malformed.
        """
        return parse_schema(document, file=file)

    def digest(self) -> str:
        """SHA-256 of the canonical JSON form, in hex."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


def embedded(columns: Sequence[Column], table: ColumnValues) -> NDArray[np.float64]:
    """(n, d) coordinates of some columns, side by side."""
    parts = [np.zeros((table.n, 0))]
    for column in columns:
        if isinstance(column, NumberColumn):
            parts.append(column.embed(table.numbers[column.name]))
        else:
            parts.append(column.embed(table.categories[column.name]))
    return np.hstack(parts)


def load_schema(path: Path | str) -> Schema:
    """Read schema.yaml (or JSON); regions are made from the reference tables that it names.

    Raises:
        InputError: A file cannot be read, or a key is unknown, missing or malformed.
        TableError: A reference table breaks the schema.
    """
    document = load_document(Path(path))
    if isinstance(document, Mapping) and isinstance(document.get("regions"), Mapping):
        plain = {k: v for k, v in document.items() if k not in ("regions", "strata", "subgroups")}
        base = parse_schema(plain, file=str(path))
        document = with_codewords(document, base, Path(path))
    return parse_schema(document, file=str(path))


def parse_schema(document: object, *, file: str) -> Schema:
    """Check a parsed document and build the schema; `file` names it in errors.

    Raises:
        InputError: A key is unknown, missing or malformed; the message names it and the remedy.
    """
    fields = Fields(document, file=file)
    columns = _columns(fields)
    regions = parse_regions(fields, columns)
    schema = Schema(
        name=fields.text("name"),
        unit=fields.text("unit") if fields.has("unit") else "patient",
        patient_id=fields.text("patient_id") if fields.has("patient_id") else None,
        label=_label(fields.part("label")),
        columns=columns,
        strata=_strata(fields, columns, regions),
        subgroups=_named(fields, "subgroups", columns),
        regions=regions,
    )
    fields.close()
    declared = [column.name for column in columns]
    for key, name in (("label.name", schema.label.name), ("patient_id", schema.patient_id)):
        if name in declared or (key == "patient_id" and name == schema.label.name):
            raise InputError(
                f"{file}: key '{key}' names '{name}', which is declared elsewhere too. "
                "Give each column of the table one role"
            )
    return schema


def _columns(fields: Fields) -> tuple[Column, ...]:
    value = fields.raw("columns")
    if isinstance(value, list):
        parts = [
            Fields(item, file=fields.file, path=f"columns[{i}]") for i, item in enumerate(value)
        ]
        named = [(part.text("name"), part) for part in parts]
    else:
        mapping = fields.part("columns")
        named = [(_column_name(mapping, key), mapping.part(key)) for key in mapping.keys()]  # noqa: SIM118
    if not 1 <= len(named) <= MAX_COLUMNS:
        remedy = "Write columns: {age: {kind: number, ...}}"
        raise fields.fail("columns", f"1 to {MAX_COLUMNS} columns", value, remedy)
    seen: set[str] = set()
    for name, _ in named:
        if name in seen:
            raise InputError(f"{fields.file}: column '{name}' is declared twice. Keep one of them")
        seen.add(name)
    return tuple(_column(name, part) for name, part in named)


def _column_name(mapping: Fields, key: str) -> str:
    if not 1 <= len(key) <= 100 or not key.isprintable() or key != key.strip():
        raise mapping.fail(key, "under a short printable name", key, "Rename the column")
    return key


def _column(name: str, fields: Fields) -> Column:
    kind = fields.raw("kind")
    if kind == "number":
        column: Column = _number_column(name, fields)
    elif kind == "category":
        levels = _levels(fields)
        column = CategoryColumn(
            name, levels, fields.flag("missing", default=False), _words(fields, levels)
        )
    else:
        raise fields.fail("kind", "number or category", kind, "Write kind: number")
    fields.close()
    return column


def _number_column(name: str, fields: Fields) -> NumberColumn:
    low, high = _bounds(fields)
    cuts = fields.numbers("cuts") if fields.has("cuts") else None
    if any(not low < cut < high for cut in cuts or ()):
        raise fields.fail(
            "cuts", f"between {low:g} and {high:g}", list(cuts or ()), "Move the cuts"
        )
    spread = fields.number("spread") if fields.has("spread") else (high - low) / 4
    if not 0 < spread < float("inf"):
        raise fields.fail("spread", "above 0", spread, "Leave it out for a quarter of the range")
    if fields.has("thresholds"):
        thresholds = fields.numbers("thresholds")
    else:
        thresholds = default_thresholds(low, high, cuts)
    if any(not low < threshold <= high for threshold in thresholds):
        raise fields.fail(
            "thresholds", f"above {low:g} and at most {high:g}", list(thresholds), "Move them"
        )
    # The borders of the strata are always among the bits: cells are proven against them.
    thresholds = tuple(sorted({*thresholds, *stratum_borders(low, high, cuts)}))
    missing = fields.flag("missing", default=False)
    return NumberColumn(name, low, high, cuts, spread, missing, thresholds)


def _bounds(fields: Fields) -> tuple[float, float]:
    low, high = fields.number("low"), fields.number("high")
    if not low < high or not np.isfinite([low, high, high - low]).all():
        raise fields.fail("high", f"above low ({low:g})", high, "Give public bounds of the values")
    return low, high


def _levels(fields: Fields) -> tuple[str, ...]:
    levels = tuple(normal_text(level) for level in fields.texts("levels"))
    if len(levels) < 2 or len(set(levels)) < len(levels):
        raise fields.fail(
            "levels",
            "at least two different levels",
            list(levels),
            "Numbers count as equal in any notation (0, 0.0, 00)",
        )
    return levels


def _words(fields: Fields, levels: tuple[str, ...]) -> tuple[str, ...]:
    if not fields.has("words"):
        return ()
    words = fields.texts("words") if fields.items("words") else ()
    if words and (len(words) != len(levels) or len(set(words)) < len(words)):
        raise fields.fail(
            "words", f"{len(levels)} different words, one for each level", list(words), "Add words"
        )
    return words


def _label(fields: Fields) -> Label:
    name = fields.text("name")
    kind = fields.text("kind") if fields.has("kind") else "category"
    if kind == "category":
        label = Label(name, "category", levels=_levels(fields))
    elif kind == "number":
        low, high = _bounds(fields)
        label = Label(name, "number", low=low, high=high, cuts=_label_cuts(fields, low, high))
    else:
        raise fields.fail("kind", "number or category", kind, "Leave it out for a category")
    fields.close()
    return label


def _label_cuts(fields: Fields, low: float, high: float) -> tuple[float, ...]:
    cuts = fields.numbers("cuts") if fields.has("cuts") and fields.raw("cuts") else ()
    if len(cuts) >= MAX_LABELS or any(not low < cut < high for cut in cuts):
        expected = f"at most {MAX_LABELS - 1} numbers between {low:g} and {high:g}"
        raise fields.fail("cuts", expected, list(cuts), "Move the cuts, or leave them out")
    return tuple(cuts)


def _named(fields: Fields, key: str, columns: tuple[Column, ...]) -> tuple[str, ...]:
    names = fields.texts(key) if fields.has(key) else ()
    return _checked_level(names, fields.file, key, columns)


def _strata(
    fields: Fields, columns: tuple[Column, ...], regions: tuple[Regions, ...]
) -> tuple[tuple[str, ...], ...]:
    levels: list[tuple[str, ...]] = []
    for i, item in enumerate(fields.items("strata") if fields.has("strata") else []):
        key = f"strata[{i}]"
        if not isinstance(item, list) or not item:
            raise fields.fail(key, "a list of columns", item, "Write strata: [[sex], [age, sex]]")
        names = text_list(item, file=fields.file, name=key)
        levels.append(_checked_level(names, fields.file, key, columns, regions))
    for coarse, fine in pairwise(levels):
        if not set(coarse) < set(fine):
            raise InputError(
                f"{fields.file}: key 'strata' must go from coarse to fine, each level adding "
                f"columns to the one before, and {list(fine)} does not extend {list(coarse)}. "
                "Write for example strata: [[sex], [age, sex]]"
            )
    return tuple(levels)


def _checked_level(
    names: tuple[str, ...],
    file: str,
    key: str,
    columns: tuple[Column, ...],
    regions: tuple[Regions, ...] = (),
) -> tuple[str, ...]:
    declared = {column.name: column for column in columns}
    inside = {item.name: item.column_names for item in regions}
    used = [column for name in names for column in inside.get(name, (name,))]
    if len(set(used)) < len(used):
        raise InputError(
            f"{file}: key '{key}' uses a column twice, alone or inside regions. Keep one of them"
        )
    for name in names:
        if name in inside:
            continue
        if name not in declared:
            raise InputError(
                f"{file}: key '{key}' names {shown(name)}, which is not a declared column. "
                f"Declared are: {', '.join(list(declared)[:20])}"
            )
        if not declared[name].has_strata:
            raise InputError(
                f"{file}: key '{key}' names the number '{name}', which has no cuts and is not an "
                f"integer range of at most 10 values. Add cuts: [...] to columns.{name}"
            )
    return names


__all__ = [
    "CategoryColumn",
    "Column",
    "ColumnValues",
    "Label",
    "NumberColumn",
    "Schema",
    "load_schema",
    "parse_schema",
]
