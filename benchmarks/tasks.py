"""Markets to measure on: four real hospitals, made diabetes sites, digits with shifted classes.

A task is what a market has before anything is private: a schema, the customer's table, the sources'
tables and their asks. Splits, sites and asks follow from seeds; privacy noise does not live here.
"""

import gzip
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clearinghouse.demo import SITES, write_market
from clearinghouse.market import load_market
from clearinghouse.schema import CategoryColumn, Schema, parse_schema
from clearinghouse.tables import Table, read_table

Ints = NDArray[np.int64]

DATA_VARIABLE = "DATA"
DIABETES_FILE = "diabetes130_compact.csv.gz"


@dataclass(frozen=True, slots=True)
class Task:
    """One market.

    Attributes:
        name: "heart: va".
        schema: Shared by all tables.
        customer: All rows of the customer; a seed splits them into validation and hold-out rows.
        sources: Tables by name.
        asks: Ask per record by name, micro-money, spread over 1.00 to 2.90.
        records: Records wanted.
    """

    name: str
    schema: Schema
    customer: Table
    sources: Mapping[str, Table]
    asks: Mapping[str, int]
    records: int


def _ask(index: int) -> int:
    """1.00, 2.70, 2.40, 2.10, 1.80, ...: no relation to a source's size or fit."""
    return 1_000_000 + index * 37 % 20 * 100_000


# ---------------------------------------------------------------- heart: four real hospitals


HEART_CUTS = {"chol": ["240"], "thalach": ["130"], "oldpeak": ["1"], "trestbps": ["130"]}
"""Round numbers of clinical use, for strata that the packaged schema does not have."""


def heart_tables(strata: list[list[str]] | None = None) -> tuple[Schema, dict[str, Table]]:
    """The packaged tables by site, with other strata if any are given."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        schema = load_market(write_market(folder)).schema
        if strata is not None:
            changed: dict[str, Any] = {**schema.to_dict(), "strata": strata}
            for column in changed["columns"]:
                column["cuts"] = HEART_CUTS.get(column["name"], column.get("cuts"))
                if column["cuts"] is None:
                    del column["cuts"]
            schema = parse_schema(changed, file="heart")
        return schema, {site: read_table(Path(folder) / f"{site}.csv", schema) for site in SITES}


def heart(customer: str, strata: list[list[str]] | None = None) -> Task:
    """Three hospitals sell to the fourth; 150 records."""
    schema, tables = heart_tables(strata)
    sources = {site: table for site, table in tables.items() if site != customer}
    asks = {site: _ask(i) for i, site in enumerate(sorted(tables)) if site != customer}
    return Task(f"heart: {customer}", schema, tables[customer], sources, asks, 150)


# ---------------------------------------------------------------- diabetes: made sites

_DIAGNOSES = [
    "circulatory",
    "respiratory",
    "digestive",
    "diabetes",
    "injury",
    "musculoskeletal",
    "genitourinary",
    "neoplasm",
    "other",
]
_RACES = ["Caucasian", "AfricanAmerican", "Other"]
_COUNTS = {
    "time_in_hospital": (1, 14),
    "num_lab_procedures": (0, 135),
    "num_procedures": (0, 6),
    "num_medications": (0, 85),
    "number_outpatient": (0, 5),
    "number_emergency": (0, 5),
    "number_inpatient": (0, 5),
    "number_diagnoses": (1, 16),
}
_BITS = ("emergency", "a1c_high", "insulin", "change", "diabetesMed")
DIABETES_STRATA = [["age"], ["age", "gender"], ["age", "gender", "race"]]
DIABETES_STRATA.append([*DIABETES_STRATA[-1], "diag1"])


def diabetes_path() -> Path | None:
    """The diabetes-130 file in the folder that the environment names, if it is there."""
    folder = os.environ.get(DATA_VARIABLE)
    path = Path(folder) / DIABETES_FILE if folder else None
    return path if path is not None and path.is_file() else None


def diabetes_table(path: Path, strata: list[list[str]] | None = None) -> Table:
    """All patients: one row each, visit counts cut at 5."""
    schema = parse_schema(
        {
            "name": "diabetes",
            "label": {"name": "readmitted", "levels": ["0", "1"]},
            "columns": {
                "age": {"kind": "number", "low": 0, "high": 100, "cuts": [40, 60, 75]},
                "gender": {"kind": "category", "levels": ["Female", "Male"]},
                "race": {"kind": "category", "levels": _RACES},
                "diag1": {"kind": "category", "levels": _DIAGNOSES},
                **{
                    name: {"kind": "number", "low": low, "high": high}
                    for name, (low, high) in _COUNTS.items()
                },
                **{name: {"kind": "category", "levels": ["0", "1"]} for name in _BITS},
            },
            "strata": strata or DIABETES_STRATA,
            "subgroups": ["gender", "age"],
        },
        file="diabetes",
    )
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        header, *lines = file.read().splitlines()
    columns: dict[str, Any] = dict(
        zip(header.split(","), zip(*(x.split(",") for x in lines), strict=True), strict=True)
    )
    for name, (low, high) in _COUNTS.items():
        columns[name] = np.clip(np.array(columns[name], np.float64), low, high)
    return _table(schema, columns)


def diabetes(everyone: Table, seed: int, sites: int = 40) -> Task:
    """Sites with demographic and case-mix tilts of their own, and a customer with another.

    Synthetic: the table has no hospital column. Every site samples patients with weights that are
    a product of gamma factors for its demographic stratum (24, shape .3) and its diagnosis group
    (9, shape .7); no patient is at two sites. 400 rows for the customer, 150 to 750 for a site.
    """
    rng = np.random.default_rng(seed)
    ages = np.digitize(everyone.numbers["age"], [40, 60, 75])
    group = everyone.categories
    strata = ages * 6 + group["gender"] * 3 + group["race"]

    def tilt() -> NDArray[np.float64]:
        people, cases = rng.gamma(np.full(24, 0.3)) + 1e-9, rng.gamma(np.full(9, 0.7)) + 1e-9
        return np.asarray((people / people.mean())[strata] * (cases / cases.mean())[group["diag1"]])

    free = np.ones(everyone.n, np.bool_)

    def sample(n: int) -> Table:
        weights = tilt() * free
        rows = rng.choice(
            everyone.n, min(n, int((weights > 0).sum())), False, weights / weights.sum()
        )
        free[rows] = False
        return everyone.take(rows)

    customer = sample(400)
    sources = {
        f"site{site:02d}": sample(int(np.exp(rng.uniform(np.log(150), np.log(750)))))
        for site in range(sites)
    }
    asks = {name: _ask(i) for i, name in enumerate(sources)}
    return Task("diabetes-130 (synthetic sites)", everyone.schema, customer, sources, asks, 600)


# ---------------------------------------------------------------- digits: class shift


def digits_table() -> Table:
    """Handwritten digits (1797, from scikit-learn) as 16 means of 2 x 2 pixels, labelled 0-9."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    blocks = images.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(-1, 16)
    names = [f"block{i:02d}" for i in range(16)]
    columns: dict[str, Any] = {
        name: {"kind": "number", "low": 0, "high": 16, "cuts": [8]} for name in names
    }
    schema = parse_schema(
        {
            "name": "digits",
            "unit": "image",
            "label": {"name": "digit", "levels": [str(i) for i in range(10)]},
            "columns": columns,
            "strata": [["block05"], ["block05", "block06"]],
        },
        file="digits",
    )
    values = dict(zip(names, blocks.T, strict=True))
    return _table(schema, {**values, "digit": [str(i) for i in labels]})


def digits(everyone: Table, seed: int, sites: int = 20) -> Task:
    """The customer has three digits six times as often; each site has its own digit shares.

    Pure class shift: within a digit the images are the same everywhere. 400 rows for the customer,
    the rest spread over the sites by Dirichlet(.3) shares of each digit; 200 records.
    """
    rng = np.random.default_rng(seed)
    labels = np.asarray(everyone.labels, np.int64)
    weights = np.where(np.isin(labels, rng.permutation(10)[:3]), 6.0, 1.0)
    mine = rng.choice(everyone.n, 400, replace=False, p=weights / weights.sum())
    rest = np.setdiff1d(np.arange(everyone.n), mine)
    shares = rng.dirichlet(np.full(sites, 0.3), 10)
    owner = np.array([rng.choice(sites, p=shares[labels[row]]) for row in rest])
    sources = {
        f"site{site:02d}": everyone.take(rest[owner == site])
        for site in range(sites)
        if int((owner == site).sum()) > 5
    }
    asks = {name: _ask(i) for i, name in enumerate(sources)}
    return Task("digits (class shift)", everyone.schema, everyone.take(mine), sources, asks, 200)


def _table(schema: Schema, columns: Mapping[str, Any]) -> Table:
    """A table from whole columns that are known to obey the schema."""
    numbers, categories = {}, {}

    def codes(levels: tuple[str, ...], texts: Any) -> Ints:
        position = {level: code for code, level in enumerate(levels)}
        return np.array([position[text] for text in texts], np.int64)

    for column in schema.columns:
        if isinstance(column, CategoryColumn):
            categories[column.name] = codes(column.levels, columns[column.name])
        else:
            numbers[column.name] = np.array(columns[column.name], np.float64)
    labels = codes(schema.label.levels, columns[schema.label.name])
    rows = np.arange(1, len(labels) + 1, dtype=np.int64)
    return Table(schema, len(labels), numbers, categories, labels, rows)


Maker = Callable[[int], Task]
"""From a seed to a market."""
