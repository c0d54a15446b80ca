"""The built-in market: four real hospitals of the UCI Heart Disease table (see NOTICE)."""

import csv
import io
from importlib.resources import files
from pathlib import Path

from clearinghouse.schema import load_schema

SITES = ("va", "cleveland", "hungarian", "switzerland")
"""The customer first, then the sources."""


def attribution() -> str:
    """Who made the data, under which licence, and what was changed."""
    return _resource("NOTICE")


def write_market(directory: Path | str) -> Path:
    """Write the market's files into a directory: one table a hospital, schema, market, notice.

    The tables hold the columns of the schema; heart.csv has three more (slope, ca, thal).
    Files of the same names are replaced; the directory is made where it does not exist.

    Returns:
        The path of market.yaml.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("schema.yaml", "market.yaml", "NOTICE"):
        _write(folder / name, _resource(name))
    schema = load_schema(folder / "schema.yaml")
    names = [column.name for column in schema.columns] + [schema.label.name]
    rows = list(csv.DictReader(io.StringIO(_resource("heart.csv"))))
    for site in SITES:
        text = io.StringIO()
        writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(row for row in rows if row["site"] == site)
        _write(folder / f"{site}.csv", text.getvalue())
    return folder / "market.yaml"


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="")


def _resource(name: str) -> str:
    return (files(__name__) / name).read_text(encoding="utf-8")
