"""Regions of a public reference as strata: read, hashed, told in words, counted and tested."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clearinghouse import cells
from clearinghouse.canonical import canonical_bytes
from clearinghouse.errors import InputError, TableError
from clearinghouse.schema import Schema, load_schema
from clearinghouse.tables import read_table
from clearinghouse.upload_claims import claims
from matching.reference import codewords, nearest
from secure_eval.layout import Layout
from secure_eval.params import PARAMETERS

COLUMNS = {
    "age": {"kind": "number", "low": 0, "high": 100, "cuts": [50]},
    "chol": {"kind": "number", "low": 0, "high": 400, "missing": True},
    "sex": {"kind": "category", "levels": ["F", "M"]},
}


def write(folder: Path, regions: object, strata: object = (("body",), ("body", "sex"))) -> Path:
    random = np.random.default_rng(1)
    lines = ["age,chol,sex,sick"]
    for i in range(60):
        old, missing = i % 2, i % 3 == 0
        chol = "" if missing else str(150 + 100 * old + int(random.integers(20)))
        lines.append(f"{30 + 40 * old + int(random.integers(10))},{chol},{'FM'[i % 2]},{i % 2}")
    (folder / "reference.csv").write_text("\n".join(lines) + "\n")
    document = {
        "name": "s",
        "label": {"name": "sick", "levels": [0, 1]},
        "columns": COLUMNS,
        "regions": regions,
        "strata": [list(level) for level in strata],  # type: ignore[attr-defined]
        "subgroups": ["sex"],
    }
    path = folder / "schema.json"
    path.write_text(json.dumps(document))
    return path


BODY = {"body": {"columns": ["age", "chol"], "cells": 4, "reference": "reference.csv"}}


def test_regions_are_part_of_the_schema_and_need_no_file_any_more(tmp_path: Path) -> None:
    schema = load_schema(write(tmp_path, BODY))
    (tmp_path / "reference.csv").unlink()
    wire = json.loads(canonical_bytes(schema.to_dict()))
    again = Schema.from_dict(wire)
    assert again == schema
    assert again.digest() == schema.digest()
    changed: Any = json.loads(json.dumps(wire))
    changed["regions"][0]["codewords"][0][0] = "0.5"
    assert Schema.from_dict(changed).digest() != schema.digest()


def test_a_schema_without_regions_keeps_its_digest(tmp_path: Path) -> None:
    schema = load_schema(write(tmp_path, {}, [["sex"]]))
    assert "regions" not in schema.to_dict()


def test_rows_fall_into_their_nearest_region_for_everybody(tmp_path: Path) -> None:
    schema = load_schema(write(tmp_path, BODY))
    table = read_table(tmp_path / "reference.csv", schema)
    region = cells.cells(table, ("body",))
    assert sorted(set(region.tolist())) == [0, 1, 2, 3]
    embedded = schema.embedding(table)[:, :3]  # age, chol, chol missing
    words = schema.stratum_coordinates("body")
    brute = [int(np.argmin([np.linalg.norm(row - word) for word in words])) for row in embedded]
    assert region.tolist() == brute
    fine = cells.cells(table, ("body", "sex"))
    assert (fine // 2 == region).all()
    assert cells.counts(table, ("body", "sex")).sum() == 60


def test_regions_are_told_in_words(tmp_path: Path) -> None:
    names = load_schema(write(tmp_path, BODY)).stratum_names("body")
    assert len(set(names)) == 4
    assert all(name.startswith(f"body {i + 1} (") for i, name in enumerate(names))
    assert any("chol missing" in name for name in names)
    assert any("age about 3" in name for name in names)


def test_distances_are_those_of_the_codewords_and_the_other_axes(tmp_path: Path) -> None:
    schema = load_schema(write(tmp_path, BODY))
    book = cells.codebook(schema, ("body", "sex"))
    words = schema.stratum_coordinates("body")
    apart = np.hypot(np.linalg.norm(words[0] - words[3]), 1.0)
    assert book.distances()[0, 7] == pytest.approx(apart)


def test_cells_of_regions_are_tested_to_be_one_of_all_and_other_axes_as_before(
    tmp_path: Path,
) -> None:
    schema = load_schema(write(tmp_path, BODY))
    columns = 2 + 1 + 12 + 11  # any number: only the parts' places matter
    layout = Layout(PARAMETERS.version, 1, columns, 2, 8, (("sex", 2),))
    found = claims(schema, ("body", "sex"), layout)
    plain = claims(schema, (), Layout(PARAMETERS.version, 1, columns, 2, 0, (("sex", 2),)))
    assert len(found.relations) == len(plain.relations) + 2  # the cells' axis "sex"


@pytest.mark.parametrize(
    ("regions", "strata", "told"),
    [
        ({"body": {**BODY["body"], "cells": 1}}, [["body"]], "at least 2"),
        ({"body": {**BODY["body"], "cells": 600}}, [["body"]], "at most 512"),
        ({"body": {**BODY["body"], "cells": 70}}, [["body"]], "different rows"),
        ({"body": {**BODY["body"], "columns": ["size"]}}, [["body"]], "declared columns"),
        ({"body": {**BODY["body"], "reference": "none.csv"}}, [["body"]], "none.csv"),
        ({"body": {"columns": ["age"], "cells": 2}}, [["body"]], "reference"),
        ({"body": {**BODY["body"], "seed": 3}}, [["body"]], "unknown key"),
        ({"sex": BODY["body"]}, [["sex"]], "a name of its own"),
        (BODY, [["body"], ["body", "age"]], "uses a column twice"),
        (BODY, [["bodies"]], "not a declared column"),
    ],
)
def test_malformed_regions_get_one_clear_error(
    tmp_path: Path, regions: object, strata: object, told: str
) -> None:
    with pytest.raises((InputError, TableError), match=told):
        load_schema(write(tmp_path, regions, strata))


def test_a_schema_from_the_wire_reads_no_file(tmp_path: Path) -> None:
    wire: Any = load_schema(write(tmp_path, BODY)).to_dict()
    wire["regions"][0]["reference"] = str(tmp_path / "reference.csv")
    with pytest.raises(InputError, match="SHA-256"):
        Schema.from_dict(wire)
    with pytest.raises(InputError, match="must be a list"):
        Schema.from_dict({**wire, "regions": BODY})


@pytest.mark.parametrize("word", [["1", "2"], ["1", "2", "x"], ["1", "2", "0.1234567"], "1 2 3"])
def test_codewords_are_points_of_the_embedding(tmp_path: Path, word: object) -> None:
    wire: Any = load_schema(write(tmp_path, BODY)).to_dict()
    wire["regions"][0]["codewords"][0] = word
    with pytest.raises(InputError, match="points of 3 decimals"):
        Schema.from_dict(wire)


def test_codewords_do_not_hang_on_the_order_of_rows() -> None:
    points = np.random.default_rng(0).normal(size=(200, 3)) + 8 * np.eye(3)[np.arange(200) % 3]
    first = codewords(points, 3)
    assert first.shape == (3, 3)
    assert np.allclose(first, codewords(points[::-1], 3), atol=1e-6)
    assert (np.bincount(nearest(points, first)) > 60).all()


def test_the_first_of_equally_near_codewords_is_taken() -> None:
    assert nearest([[0.0], [0.4], [2.0]], [[-1.0], [1.0]]).tolist() == [0, 1, 1]
    with pytest.raises(ValueError, match="centres"):
        nearest([[0.0]], [[1.0, 2.0]])
