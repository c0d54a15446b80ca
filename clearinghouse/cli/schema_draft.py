"""`schema infer`: a commented draft of schema.yaml from a table. A person must finish it.

Bounds, levels and cuts of a schema are public. Read from rows, the largest value of a column is
one patient's value; so the draft rounds outwards and marks every line that came from rows.
"""

import csv
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

from clearinghouse.documents import decimal_text, exact_number, normal_text
from clearinghouse.errors import InputError, TableError

MOST_LEVELS = 12
"""More different values than this in a text column are free text or ids, not a category."""

FEW = 5
"""A level that fewer rows have is pointed out."""

STRATA = 2
NO_VALUES = frozenset({"nan", "na", "n/a", "#n/a", "null", "none", "?", "."})

WARNING = """\
# DRAFT made from the rows of a private table. Do not publish it as it is.
# A schema is public and everybody uses the same one. Bounds, levels and cuts must come from
# public knowledge (a protocol, a textbook, an agreement), never from the rows: the largest age in a
# table is the age of one patient. Check every line marked FROM ROWS, replace it by what is publicly
# known, then remove these comments and run: clearinghouse schema check schema.yaml --table TABLE
"""


@dataclass(frozen=True, slots=True)
class Draft:
    """What was found in one column.

    Attributes:
        name: Of the column.
        kind: number, category, id (all different) or text (too many levels).
        missing: Whether a cell is empty or holds a word for nothing.
        low: Smallest value, rounded outwards; numbers only.
        high: Largest value, rounded outwards; numbers only.
        levels: Levels as text, categories only.
        rare: Levels that fewer than five rows have.
        odd: Words such as NA that stand for an empty cell.
    """

    name: str
    kind: str
    missing: bool
    low: str = ""
    high: str = ""
    levels: tuple[str, ...] = ()
    rare: tuple[str, ...] = ()
    odd: tuple[str, ...] = ()


def infer(table: Path, label: str | None) -> tuple[dict[str, Any], str]:
    """Draft a schema from a table; the text is valid YAML that `schema check` reads.

    Args:
        table: CSV or Parquet.
        label: The column that models predict; guessed if left out.

    Raises:
        InputError: The table cannot be read, is empty, or has no such column.
    """
    cells = _cells(table)
    drafts = [_column(name, values) for name, values in cells.items()]
    target = _label(drafts, label, table)
    usable = [d for d in drafts if d.kind in ("number", "category") and d is not target]
    if not usable:
        raise InputError(f"{table}: no column but the label is a number or a category")
    identifier = next((d.name for d in drafts if d.kind == "id"), None)
    left_out = [d.name for d in drafts if d.kind in ("id", "text") and d.name != identifier]
    categories = [d for d in usable if d.kind == "category"]
    few = sorted(categories, key=lambda d: len(d.levels))[:STRATA]
    text = _text(table, target, label is None, usable, identifier, left_out, [d.name for d in few])
    value = {
        "draft": text,
        "label": target.name,
        "columns": [d.name for d in usable],
        "patient_id": identifier,
        "left_out": left_out,
        "warning": "bounds and levels were read from private rows; replace them by public ones",
    }
    return value, text.rstrip("\n")


# ---------------------------------------------------------------- reading


def _cells(table: Path) -> dict[str, list[str]]:
    """Every column as stripped text."""
    try:
        with table.open("rb") as stream:
            is_parquet = stream.read(4) == b"PAR1"
        found = _parquet(table) if is_parquet else _csv(table)
    except OSError as error:
        raise InputError(
            f"cannot read {table}: {error.strerror or error}. Check its path"
        ) from None
    if not found or not next(iter(found.values())):
        raise TableError("the table has no rows", file=str(table), remedy="Give at least one row")
    return found


def _parquet(table: Path) -> dict[str, list[str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        read = pq.read_table(table, use_threads=False)
    except pa.ArrowException:
        raise InputError(f"{table}: not a readable Parquet file. Write it again") from None
    return {
        name: ["" if v is None else str(v).strip() for v in read.column(name).to_pylist()]
        for name in read.column_names
    }


def _csv(table: Path) -> dict[str, list[str]]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            rows = [row for row in csv.reader(stream, strict=True) if row]
    except (UnicodeDecodeError, csv.Error):
        raise InputError(f"{table}: neither CSV in UTF-8 nor Parquet. Save it again") from None
    header = [name.strip() for name in rows[0]] if rows else []
    for number, row in enumerate(rows[1:], start=1):
        if len(row) != len(header):
            raise TableError(
                f"{len(row)} cells where the header has {len(header)}",
                file=str(table),
                row=number,
                remedy="Quote cells that hold commas, and give every row all cells",
            )
    if len(set(header)) < len(header) or not all(header):
        raise InputError(f"{table}: every column needs a name of its own. Correct the header")
    return {name: [row[i].strip() for row in rows[1:]] for i, name in enumerate(header)}


def _column(name: str, cells: Sequence[str]) -> Draft:
    odd = tuple(sorted({cell for cell in cells if cell.casefold() in NO_VALUES}))
    values = [cell for cell in cells if cell and cell not in odd]
    missing = len(values) < len(cells)
    counts = Counter(normal_text(value) for value in values)
    numbers = [exact_number(value) for value in values]
    is_number = bool(values) and all(number is not None for number in numbers)
    whole = is_number and all(n is not None and n.denominator == 1 for n in numbers)
    is_id = not missing and len(values) > FEW and len(counts) == len(values)
    if is_id and (not is_number or whole) and _looks_like_id(name, is_number):
        return Draft(name, "id", missing)
    if is_number and not (whole and 2 <= len(counts) <= 2):
        exact = [number for number in numbers if number is not None]
        low, high = outward(min(exact), max(exact))
        return Draft(name, "number", missing, low, high, odd=odd)
    if 2 <= len(counts) <= MOST_LEVELS:
        levels = tuple(sorted(counts, key=_order))
        rare = tuple(level for level in levels if counts[level] < FEW)
        return Draft(name, "category", missing, levels=levels, rare=rare, odd=odd)
    return Draft(name, "text", missing, odd=odd)


def _looks_like_id(name: str, is_number: bool) -> bool:
    """A column of different texts is an id; one of different numbers only if its name says so."""
    return not is_number or "id" in name.casefold().replace("-", "_").split("_")


def _order(level: str) -> tuple[bool, float, str]:
    number = exact_number(level)
    return (number is None, 0.0 if number is None else float(number), level)


def outward(low: Fraction, high: Fraction) -> tuple[str, str]:
    """Bounds that hold [low, high], rounded outwards to a tenth or so of the range.

    No bound is the value of a row, except a low bound of 0, below which such columns do not go.
    """
    spread = float(high - low or abs(high) or 1)
    grain = Fraction(10) ** math.floor(math.log10(spread))
    if spread < 2 * grain:
        grain /= 5
    first, last = math.ceil(low / grain) - 1, math.floor(high / grain) + 1
    if low >= 0:
        first = max(0, first)
    return decimal_text(_decimal(first * grain)), decimal_text(_decimal(last * grain))


def _decimal(value: Fraction) -> str:
    """The exact text of a fraction whose denominator divides a power of ten."""
    return format(Decimal(value.numerator) / Decimal(value.denominator), "f")


def _label(drafts: Sequence[Draft], label: str | None, table: Path) -> Draft:
    """The named column, else the last one of two levels, else the last category."""
    if label is not None:
        for draft in drafts:
            if draft.name == label and draft.kind in ("number", "category"):
                return draft
        raise InputError(
            f"{table}: --label {label!r} is no column of numbers or levels. Columns are: "
            f"{', '.join(draft.name for draft in drafts[:20])}"
        )
    categories = [draft for draft in drafts if draft.kind == "category"]
    binary = [draft for draft in categories if len(draft.levels) == 2 and not draft.missing]
    if not binary:
        raise InputError(f"{table}: no column has two levels. Name the label with --label")
    return binary[-1]


# ---------------------------------------------------------------- writing


def _quoted(text: str) -> str:
    """A YAML scalar in double quotes unless it is plain beyond doubt."""
    plain = text.replace("_", "").replace("-", "")
    if plain.isascii() and plain.isalnum() and not text.startswith("-"):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _text(
    table: Path,
    label: Draft,
    guessed: bool,
    columns: Sequence[Draft],
    identifier: str | None,
    left_out: Sequence[str],
    strata: Sequence[str],
) -> str:
    name = "".join(c if c.isalnum() else "_" for c in table.stem.casefold()) or "schema"
    lines = [WARNING, f"name: {name}", "unit: patient"]
    if identifier is not None:
        lines.append(f"patient_id: {_quoted(identifier)}    # one row per patient; never sent")
    else:
        lines.append("# patient_id: ...    # each row counts as one patient; name the id if not")
    why = "    # guessed: check that this is what models predict" if guessed else ""
    lines.append(f"label: {_label_words(label)}{why}")
    lines.append("columns:")
    for draft in columns:
        lines += _column_lines(draft)
    if left_out:
        words = ", ".join(left_out)
        lines.append(f"# left out, for they are free text or ids: {words}")
    if strata:
        levels = [list(strata[: i + 1]) for i in range(len(strata))]
        shown = ", ".join("[" + ", ".join(map(_quoted, level)) + "]" for level in levels)
        lines.append(f"strata: [{shown}]    # coarse to fine; numbers need cuts to be used here")
        lines.append(f"subgroups: [{', '.join(map(_quoted, strata))}]")
    else:
        lines.append("# strata: [[sex], [age, sex]]    # give numbers cuts to use them here")
    return "\n".join(lines) + "\n"


def _label_words(label: Draft) -> str:
    if label.kind == "number":
        return (
            f"{{name: {_quoted(label.name)}, kind: number, low: {label.low}, high: {label.high}}}"
        )
    levels = ", ".join(map(_quoted, label.levels))
    return f"{{name: {_quoted(label.name)}, levels: [{levels}]}}"


def _column_lines(draft: Draft) -> list[str]:
    missing = ", missing: true" if draft.missing else ""
    if draft.kind == "number":
        body = f"kind: number, low: {draft.low}, high: {draft.high}{missing}"
        note = "bounds FROM ROWS, rounded outwards"
    else:
        body = f"kind: category, levels: [{', '.join(map(_quoted, draft.levels))}]{missing}"
        note = "levels FROM ROWS"
    lines = [f"  {_quoted(draft.name)}: {{{body}}}    # {note}"]
    if draft.rare:
        few = ", ".join(draft.rare)
        lines.append(f"  #   fewer than {FEW} rows have {few}: is it public that this occurs?")
    if draft.odd:
        lines.append(f"  #   empty the cells that hold {', '.join(draft.odd)}: they are no values")
    return lines
