"""The public feature vector: every coordinate by its definition, and the laws between them."""

import numpy as np
import pytest

from clearinghouse.features import bounds, encode, feature_groups, features
from clearinghouse.schema import Schema, parse_schema
from clearinghouse.tables import Table, from_records


def ward() -> Schema:
    return parse_schema(
        {
            "name": "ward",
            "label": {"name": "y", "levels": [0, 1]},
            "columns": {
                "age": {"kind": "number", "low": 20, "high": 90, "cuts": [45, 65]},
                "sex": {"kind": "category", "levels": ["F", "M"]},
                "dose": {"kind": "number", "low": 0, "high": 0.5, "missing": True},
                "pain": {"kind": "category", "levels": ["no", "yes"], "missing": True},
                "flag": {"kind": "number", "low": 0, "high": 1},
            },
        },
        file="ward",
    )


def rows(n: int = 200) -> tuple[Table, list[dict[str, str | None]]]:
    random = np.random.default_rng(3)
    records: list[dict[str, str | None]] = [
        {
            "age": str(random.integers(20, 91)),
            "sex": str(random.choice(["F", "M"])),
            "dose": None if random.random() < 0.3 else str(random.integers(0, 51) / 100),
            "pain": None if random.random() < 0.3 else str(random.choice(["no", "yes"])),
            "flag": str(random.integers(0, 2)),
            "y": "0",
        }
        for _ in range(n)
    ]
    return from_records(ward(), records, file="made"), records


def test_every_feature_by_its_definition() -> None:
    table, records = rows()
    encoded = encode(ward(), table)
    vector = features(ward())
    assert encoded.shape == (200, len(vector))
    middles = {"age": 55.0, "dose": 0.25, "flag": 0.5}
    for j, feature in enumerate(vector):
        for i, record in enumerate(records):
            text = record[feature.column]
            expected = {
                "value": lambda t, f: middles[f.column] if t is None else float(t),
                "threshold": lambda t, f: float(t is not None and float(t) >= f.threshold),
                "level": lambda t, f: float(t == f.level),
                "missing": lambda t, f: float(t is None),
            }[feature.kind](text, feature)
            assert encoded[i, j] == expected, feature.name


def test_bounds_hold_and_names_differ() -> None:
    table, _ = rows()
    encoded, limits = encode(ward(), table), bounds(ward())
    assert (encoded >= limits[:, 0]).all()
    assert (encoded <= limits[:, 1]).all()
    names = [feature.name for feature in features(ward())]
    assert len(set(names)) == len(names)
    assert "age >= 45" in names
    assert "dose missing" in names
    assert "sex = F" in names


def test_groups_hold_in_every_row_and_cover_what_they_claim() -> None:
    table, _ = rows()
    encoded, vector = encode(ward(), table), features(ward())
    seen: set[int] = set()
    for kind, indices in feature_groups(ward()):
        part = encoded[:, list(indices)]
        if kind == "one_hot":
            assert (part.sum(axis=1) == 1).all()
            assert {vector[i].kind for i in indices} <= {"level", "missing"}
        else:
            assert (np.diff(part, axis=1) <= 0).all()
            assert {vector[i].kind for i in indices} == {"threshold"}
        assert len({vector[i].column for i in indices}) == 1
        assert not seen & set(indices)
        seen |= set(indices)
    bits = {
        i
        for i, f in enumerate(vector)
        if f.kind in ("threshold", "level") or (f.kind == "missing" and f.column == "pain")
    }
    assert seen == bits


@pytest.mark.parametrize("text", ["45", "45.0", "44.999999999999993"])
def test_a_threshold_includes_its_own_value(text) -> None:
    record = {"age": text, "sex": "F", "dose": None, "pain": None, "flag": "0", "y": "1"}
    table = from_records(ward(), [record], file="r")
    index = [feature.name for feature in features(ward())].index("age >= 45")
    assert encode(ward(), table)[0, index] == float(float(text) >= 45)
