"""Reading regions: from a schema's own codewords, or made from a reference table beside a file.

Only whoever loads a schema file reads a reference. A schema that comes over the wire carries its
codewords, and a path in it is refused.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from clearinghouse.columns import Column
from clearinghouse.documents import Fields, decimal_text, exact_number, shown
from clearinghouse.errors import InputError
from clearinghouse.regions import METHOD, MOST_REGIONS, Regions, dimensions
from matching.reference import DECIMALS, codewords

if TYPE_CHECKING:
    from clearinghouse.schema import Schema

_DIGEST = re.compile(r"[0-9a-f]{64}")
_FARTHEST = 10**6


def parse_regions(fields: Fields, columns: tuple[Column, ...]) -> tuple[Regions, ...]:
    """The regions of a schema document, each with its codewords.

    Raises:
        InputError: A key is unknown, missing or malformed.
    """
    if not fields.has("regions"):
        return ()
    taken = {column.name for column in columns}
    found = []
    for i, item in enumerate(fields.items("regions")):
        part = Fields(item, file=fields.file, path=f"regions[{i}]")
        regions = _regions(part, columns)
        part.close()
        if regions.name in taken:
            raise part.fail("name", "a name of its own", regions.name, "Rename the regions")
        taken.add(regions.name)
        found.append(regions)
    return tuple(found)


def _regions(part: Fields, columns: tuple[Column, ...]) -> Regions:
    name, chosen = part.text("name"), _chosen(part, columns)
    method = part.text("method")
    if method != METHOD:
        raise part.fail("method", METHOD, method, "Use a program that knows this method")
    reference = part.text("reference")
    if not _DIGEST.fullmatch(reference):
        raise part.fail("reference", "the SHA-256 of a table", reference, "Load the schema's file")
    size = sum(dimensions(column) for column in chosen)
    words = part.items("codewords")
    if not 2 <= len(words) <= MOST_REGIONS:
        raise part.fail("codewords", f"2 to {MOST_REGIONS} points", len(words), "Fit them anew")
    points = tuple(_point(part, word, size) for word in words)
    if len(set(points)) < len(points):
        raise part.fail("codewords", "all different", len(points), "Fit them anew")
    return Regions(name, chosen, points, reference, method)


def _chosen(part: Fields, columns: tuple[Column, ...]) -> tuple[Column, ...]:
    names = part.texts("columns")
    declared = [column.name for column in columns]
    unknown = [name for name in names if name not in declared]
    if unknown or not names or len(set(names)) < len(names):
        raise part.fail(
            "columns", "different declared columns", list(names), f"Declared: {declared[:20]}"
        )
    return tuple(column for column in columns if column.name in names)


def _point(part: Fields, word: object, size: int) -> tuple[float, ...]:
    values = [exact_number(x) for x in word] if isinstance(word, list) else []
    exact = [x for x in values if x is not None and abs(x) <= _FARTHEST]
    fine = all(x * 10**DECIMALS % 1 == 0 for x in exact)
    if len(exact) != size or len(values) != size or not fine:
        raise part.fail("codewords", f"points of {size} decimals", shown(word), "Fit them anew")
    return tuple(float(x) for x in exact)


def with_codewords(document: Mapping[str, object], base: "Schema", path: Path) -> dict[str, object]:
    """A schema document whose regions have codewords instead of a reference table's path.

    Args:
        document: As read from the file.
        base: The schema without strata and regions, which the reference table has to obey.
        path: The schema's file; the reference's path is relative to its folder.

    Raises:
        InputError: A key is unknown, missing or malformed, or the reference has too few rows.
        TableError: The reference breaks the schema.
    """
    named = Fields(document, file=str(path)).part("regions")
    made = []
    for name in named.keys():  # noqa: SIM118  Fields is no mapping
        part = named.part(name)
        columns = _chosen(part, base.columns)
        n_cells = part.integer("cells", least=2)
        table = path.parent / part.text("reference")
        part.close()
        if n_cells > MOST_REGIONS:
            raise part.fail("cells", f"at most {MOST_REGIONS}", n_cells, "Take fewer")
        made.append(_fitted(part, name, base, columns, n_cells, table).to_dict())
    return {**document, "regions": made}


def _fitted(
    part: Fields, name: str, base: "Schema", columns: tuple[Column, ...], n_cells: int, table: Path
) -> Regions:
    from clearinghouse.schema import embedded
    from clearinghouse.tables import read_table  # tables know schemas, and these come first

    rows = read_table(table, base)
    try:
        points = codewords(embedded(columns, rows), n_cells)
    except ValueError as error:
        raise InputError(f"{part.file}: key '{part.path}': {table}: {error}") from None
    words = tuple(tuple(float(decimal_text(x)) for x in point) for point in points.tolist())
    digest = hashlib.sha256(table.read_bytes()).hexdigest()
    return Regions(name, columns, words, digest)
