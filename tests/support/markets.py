"""Markets for tests, written as a user would: tables, schema.yaml and market.yaml in a folder."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from sklearn.datasets import load_breast_cancer

Rows = Sequence[Mapping[str, Any]]


def write_csv(path: Path, rows: Rows) -> None:
    """One CSV with the keys of the first row as header; None is an empty cell."""
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, fieldnames=list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow({key: "" if value is None else value for key, value in row.items()})


def write_market(
    directory: Path, schema: Mapping[str, Any], tables: Mapping[str, Rows], **terms: Any
) -> Path:
    """Write everything; the first table is the customer's. Returns market.yaml."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        write_csv(directory / f"{name}.csv", rows)
    (directory / "schema.yaml").write_text(yaml.safe_dump(dict(schema), sort_keys=False))
    customer, *sources = tables
    market: dict[str, Any] = {
        "schema": "schema.yaml",
        "customer": {"name": customer, "table": f"{customer}.csv"},
        "sources": [
            {"name": name, "table": f"{name}.csv", "price_per_record": f"1.{i % 90 + 10}"}
            for i, name in enumerate(sources)
        ],
    }
    market.update(terms)
    path = directory / "market.yaml"
    path.write_text(yaml.safe_dump(market, sort_keys=False))
    return path


def tiny(directory: Path, **terms: Any) -> Path:
    """Three sources of 1, 9 and 60 rows, missing values, a rare label, an ignored column.

    The large one is admitted whatever the noise: one of 40 rows is not, once in 100,000 markets.
    """
    generator = np.random.default_rng(5)

    def rows(n: int, shift: float) -> list[dict[str, Any]]:
        made = []
        for _ in range(n):
            age = round(float(np.clip(generator.normal(50 + shift, 12), 20, 90)), 1)
            smoker = str(generator.choice(["yes", "no", "former"]))
            sugar = None if generator.random() < 0.2 else round(float(generator.uniform(3, 12)), 2)
            ill = int(generator.random() < 0.05 + 0.3 * (age > 60) * (smoker == "yes"))
            made.append({"age": age, "smoker": smoker, "sugar": sugar, "note": "x", "ill": ill})
        return made

    schema = {
        "name": "tiny",
        "label": {"name": "ill", "levels": [0, 1]},
        "columns": {
            "age": {"kind": "number", "low": 20, "high": 90, "cuts": [50, 65]},
            "smoker": {"kind": "category", "levels": ["yes", "no", "former"]},
            "sugar": {"kind": "number", "low": 3, "high": 12, "missing": True},
        },
        "strata": [["age"], ["age", "smoker"]],
        "subgroups": ["smoker"],
    }
    tables = {
        "clinic": rows(80, 5.0),
        "one": rows(1, 0.0),
        "few": rows(9, 0.0),
        "some": rows(60, 8.0),
    }
    return write_market(directory, schema, tables, **{"records": 20, "tariff": "6.00", **terms})


def breast_cancer(directory: Path, sites: int = 5, **terms: Any) -> Path:
    """scikit-learn's breast cancer table, dealt to synthetic sites by tumour radius."""
    data = load_breast_cancer()
    names = [str(name).replace(" ", "_") for name in data.feature_names[:10]]
    values, malignant = data.data[:, :10], 1 - data.target
    generator = np.random.default_rng(11)
    # Sites lean towards small or large tumours: a covariate shift with an overlap.
    lean = np.argsort(np.argsort(values[:, 0])) / len(values) + generator.normal(
        0, 0.5, len(values)
    )
    site = np.minimum((np.argsort(np.argsort(lean)) * (sites + 1)) // len(values), sites)
    columns: dict[str, Any] = {}
    for i, name in enumerate(names):
        low, high = float(values[:, i].min()), float(values[:, i].max())
        margin = (high - low) * 0.1
        columns[name] = {"kind": "number", "low": max(0.0, low - margin), "high": high + margin}
    columns["mean_radius"]["cuts"] = [11.5, 14.0, 17.0]
    columns["mean_texture"]["cuts"] = [18.0]
    schema = {
        "name": "breast",
        "label": {"name": "malignant", "levels": [0, 1]},
        "columns": columns,
        "strata": [["mean_radius"], ["mean_radius", "mean_texture"]],
        "subgroups": ["mean_radius"],
    }
    order = [sites // 2, *[s for s in range(sites + 1) if s != sites // 2]]
    tables = {
        f"site{s}": [
            {**dict(zip(names, row.tolist(), strict=True)), "malignant": int(label)}
            for row, label in zip(values[site == s], malignant[site == s], strict=True)
        ]
        for s in order
    }
    return write_market(directory, schema, tables, **{"records": 100, "tariff": "6.00", **terms})
