"""Schemas: canonical form, strata, embedding, and every malformed key."""

import copy
import hashlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearinghouse.columns import NumberColumn, default_thresholds
from clearinghouse.errors import InputError
from clearinghouse.schema import Schema, load_schema, parse_schema
from clearinghouse.tables import from_records

DOCUMENT = {
    "name": "ward",
    "label": {"name": "disease", "levels": [0, 1]},
    "columns": {
        "age": {"kind": "number", "low": 20, "high": 90, "cuts": [45, 55, 65]},
        "sex": {"kind": "category", "levels": ["F", "M"]},
        "grade": {"kind": "number", "low": 1, "high": 4, "missing": True},
        "marker": {"kind": "number", "low": -3, "high": 6.5, "cuts": [0.5], "missing": True},
        "pain": {"kind": "category", "levels": ["none", "mild", "strong"], "missing": True},
    },
    "strata": [["sex"], ["age", "sex"], ["age", "sex", "pain"]],
    "subgroups": ["sex", "grade"],
}


def schema() -> Schema:
    return parse_schema(copy.deepcopy(DOCUMENT), file="ward.yaml")


def record(**values: str | None) -> dict[str, str | None]:
    base = {"age": "50", "sex": "F", "grade": "2", "marker": "0", "pain": "mild", "disease": "0"}
    return {**base, **values}


def test_from_dict_inverts_to_dict_and_json_keeps_the_digest() -> None:
    ward = schema()
    again = Schema.from_dict(json.loads(json.dumps(ward.to_dict())))
    assert again == ward
    assert again.digest() == ward.digest()


def test_no_float_sits_in_hashed_bytes() -> None:
    def walk(value: object) -> None:
        assert not isinstance(value, float)
        for part in (
            value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        ):
            walk(part)

    walk(schema().to_dict())


def test_digest_is_pinned() -> None:
    """A changed canonical form would orphan every commitment that names a schema."""
    tiny = parse_schema(
        {
            "name": "t",
            "label": {"name": "y", "levels": ["a", "b"]},
            "columns": {"x": {"kind": "number", "low": 0, "high": 0.5}},
        },
        file="t",
    )
    text = (
        '{"columns":[{"cuts":null,"high":"0.5","kind":"number","low":"0","missing":false,'
        '"name":"x","spread":"0.125","thresholds":["0.05","0.1","0.15","0.2","0.25","0.3","0.35",'
        '"0.4","0.45"]}],"label":{"kind":"category","levels":["a","b"],"name":"y"},"name":"t",'
        '"patient_id":null,"strata":[],"subgroups":[],"unit":"patient"}'
    )
    assert tiny.digest() == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["columns"]["age"].update(high=91),
        lambda d: d["columns"]["sex"].update(levels=["M", "F"]),
        lambda d: d["columns"]["age"].update(spread=17),
        lambda d: d["columns"]["age"].update(thresholds=[50]),
        lambda d: d.update(subgroups=["sex"]),
        lambda d: d.update(patient_id="pid"),
        lambda d: d.update(columns=dict(reversed(d["columns"].items()))),
    ],
)
def test_digest_sees_every_change(change) -> None:
    document = copy.deepcopy(DOCUMENT)
    change(document)
    assert parse_schema(document, file="ward.yaml").digest() != schema().digest()


def test_levels_normalise_numbers() -> None:
    document = copy.deepcopy(DOCUMENT)
    document["label"]["levels"] = ["0.0", "01"]
    assert parse_schema(document, file="x").label.levels == ("0", "1")


def test_yaml_words_stay_words_and_json_is_read(tmp_path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(
        "name: n\nlabel: {name: y, levels: [no, yes]}\n"
        "columns: {c: {kind: category, levels: [off, 1.50], missing: yes}}\n"
    )
    read = load_schema(path)
    assert read.label.levels == ("no", "yes")
    assert read.columns[0].levels == ("off", "1.5")  # type: ignore[union-attr]
    assert read.columns[0].missing
    other = tmp_path / "s.json"
    other.write_text(json.dumps(read.to_dict()))
    assert load_schema(other) == read


def test_stratum_names_in_words() -> None:
    ward = schema()
    assert ward.stratum_names("age") == (
        "age under 45",
        "age 45 to 54",
        "age 55 to 64",
        "age 65 and over",
    )
    assert ward.stratum_names("sex") == ("sex F", "sex M")
    assert ward.stratum_names("grade") == (*(f"grade {k}" for k in (1, 2, 3, 4)), "grade missing")
    assert ward.stratum_names("marker") == (
        "marker under 0.5",
        "marker 0.5 and over",
        "marker missing",
    )
    assert ward.cell_words((), ()) == "all patients"
    assert ward.cell_words(("age", "pain"), (1, 3)) == "age 45 to 54, pain missing"
    assert ward.strata_levels()[0] == ()


def test_words_of_levels_are_used() -> None:
    document = copy.deepcopy(DOCUMENT)
    document["columns"]["sex"]["words"] = ["women", "men"]
    assert parse_schema(document, file="x").cell_words(("sex", "age"), (0, 3)) == (
        "women, age 65 and over"
    )


@given(
    cuts=st.lists(st.integers(-99, 99), min_size=0, max_size=6, unique=True).map(sorted),
    values=st.lists(st.floats(-100, 100), min_size=1, max_size=20),
)
def test_number_strata_count_the_cuts_not_above(cuts, values) -> None:
    column = NumberColumn("x", -100.0, 100.0, tuple(map(float, cuts)), 50.0, True, ())
    codes = column.stratum_codes(np.array([*values, np.nan]))
    assert codes[:-1].tolist() == [sum(cut <= value for cut in cuts) for value in values]
    assert codes[-1] == len(cuts) + 1 == len(column.stratum_names()) - 1
    assert len(column.stratum_coordinates()) == len(column.stratum_names())


def test_integer_range_makes_each_integer_a_stratum() -> None:
    ward = schema()
    table = from_records(ward, [record(grade=g) for g in ("1", "2", "3", "4", None)], file="r")
    assert ward.stratum_codes(table, "grade").tolist() == [0, 1, 2, 3, 4]
    embedded = ward.column("grade").embed(table.numbers["grade"])  # type: ignore[arg-type]
    np.testing.assert_array_equal(embedded, ward.stratum_coordinates("grade"))


def test_embedding_distances() -> None:
    """One category mismatch costs 1, numbers |a - b| / spread, missing 1 from the middle."""
    ward = schema()
    rows = [
        record(),
        record(sex="M"),
        record(pain=None),
        record(age="67.5"),
        record(grade="2.5"),
        record(grade=None),
    ]
    # 2.5 is no integer, so the schema without subgroups reads it
    document = {**copy.deepcopy(DOCUMENT), "subgroups": []}
    loose = parse_schema(document, file="x")
    x = loose.embedding(from_records(loose, rows, file="r"))
    assert x.shape == (6, 1 + 2 + 2 + 2 + 4)

    def distance(a: int, b: int) -> float:
        return float(np.linalg.norm(x[a] - x[b]))

    assert distance(0, 1) == pytest.approx(1)
    assert distance(0, 2) == pytest.approx(1)
    assert distance(0, 3) == pytest.approx(1)  # spread of age is (90 - 20) / 4 = 17.5
    assert distance(4, 5) == pytest.approx(1)
    assert ward.embedding(from_records(ward, rows[:4], file="r")).shape == (4, 11)


def test_default_thresholds() -> None:
    assert default_thresholds(0, 1, None) == (1.0,)
    assert default_thresholds(1, 10, None) == tuple(map(float, range(2, 11)))
    assert default_thresholds(0, 10, None) == tuple(map(float, range(1, 10)))  # 11 integers
    assert default_thresholds(20, 90, (45.0, 65.0)) == (
        *(27.0, 34.0, 41.0, 45.0, 48.0, 55.0, 62.0, 65.0, 69.0, 76.0, 83.0),
    )
    assert default_thresholds(0, 0.5, None) == (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45)


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9), st.integers(0, 3))
def test_default_thresholds_lie_inside(low, width, pieces) -> None:
    high = low + width
    cuts = tuple(np.linspace(low, high, pieces + 2)[1:-1].tolist())
    if low < high and all(low < cut < high for cut in cuts):
        found = default_thresholds(low, high, cuts)
        assert set(cuts) <= set(found)
        assert list(found) == sorted(set(found))
        assert all(low < t <= high for t in found)
        assert len(found) <= 9 + pieces


def test_own_thresholds_are_joined_with_the_borders_of_strata() -> None:
    document = copy.deepcopy(DOCUMENT)
    document["columns"]["age"]["thresholds"] = [50]
    column = parse_schema(document, file="x").column("age")
    assert column.thresholds == (45.0, 50.0, 55.0, 65.0)  # type: ignore[union-attr]


BAD = {
    "unknown key": (lambda d: d.update(colums={}), "colums"),
    "unknown column key": (lambda d: d["columns"]["age"].update(cut=[1]), "columns.age.cut"),
    "no name": (lambda d: d.pop("name"), "name"),
    "no label": (lambda d: d.pop("label"), "label"),
    "no columns": (lambda d: d.update(columns={}), "columns"),
    "columns text": (lambda d: d.update(columns="age"), "columns"),
    "kind": (lambda d: d["columns"]["age"].update(kind="numeric"), "columns.age.kind"),
    "no low": (lambda d: d["columns"]["age"].pop("low"), "columns.age.low"),
    "low text": (lambda d: d["columns"]["age"].update(low="young"), "columns.age.low"),
    "low nan": (lambda d: d["columns"]["age"].update(low="nan"), "columns.age.low"),
    "low endless": (lambda d: d["columns"]["age"].update(low="1" * 400), "columns.age.low"),
    "low boolean": (lambda d: d["columns"]["age"].update(low=True), "columns.age.low"),
    "high below low": (lambda d: d["columns"]["age"].update(high=20), "columns.age.high"),
    "cuts outside": (lambda d: d["columns"]["age"].update(cuts=[20, 45]), "columns.age.cuts"),
    "cuts falling": (lambda d: d["columns"]["age"].update(cuts=[55, 45]), "columns.age.cuts"),
    "cuts number": (lambda d: d["columns"]["age"].update(cuts=45), "columns.age.cuts"),
    "spread zero": (lambda d: d["columns"]["age"].update(spread=0), "columns.age.spread"),
    "thresholds": (lambda d: d["columns"]["age"].update(thresholds=[20]), "thresholds"),
    "missing": (lambda d: d["columns"]["age"].update(missing="perhaps"), "columns.age.missing"),
    "one level": (lambda d: d["columns"]["sex"].update(levels=["F"]), "columns.sex.levels"),
    "equal levels": (lambda d: d["columns"]["sex"].update(levels=[0, "0.0"]), "columns.sex.levels"),
    "null level": (lambda d: d["columns"]["sex"].update(levels=["F", None]), "columns.sex.levels"),
    "words": (lambda d: d["columns"]["sex"].update(words=["women"]), "columns.sex.words"),
    "label kind": (lambda d: d["label"].update(kind="date"), "label.kind"),
    "label key": (lambda d: d["label"].update(low=1), "label.low"),
    "label is column": (lambda d: d["label"].update(name="age"), "label.name"),
    "id is column": (lambda d: d.update(patient_id="age"), "patient_id"),
    "id is label": (lambda d: d.update(patient_id="disease"), "patient_id"),
    "strata column": (lambda d: d.update(strata=[["height"]]), "height"),
    "strata flat": (lambda d: d.update(strata=["sex"]), "strata[0]"),
    "strata order": (lambda d: d.update(strata=[["age", "sex"], ["sex"]]), "strata"),
    "strata twice": (lambda d: d.update(strata=[["sex", "sex"]]), "strata[0]"),
    "no cuts": (lambda d: d["columns"]["age"].pop("cuts"), "columns.age"),
    "subgroup": (lambda d: d.update(subgroups=["disease"]), "subgroups"),
    "name too long": (lambda d: d.update(name="x" * 101), "name"),
}


@pytest.mark.parametrize("case", BAD)
def test_malformed_schemas_name_file_and_key(case) -> None:
    change, key = BAD[case]
    document = copy.deepcopy(DOCUMENT)
    change(document)
    with pytest.raises(InputError) as caught:
        parse_schema(document, file="ward.yaml")
    assert str(caught.value).startswith("ward.yaml")
    assert key in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"name: a\nname: b\n", "written twice"),
        (b"columns: {x: {kind: number}, x: {kind: number}}", "written twice"),
        (b"name: [", "line 1"),
        (b"\xff\xfe\x00", "UTF-8"),
        (b"- a\n", "mapping"),
        (b"", "mapping"),
        (b"!!python/object/apply:os.system [ls]", "mapping"),
        (b"[" * 100_000, "YAML"),
        (b"a: &x [*x]", "YAML"),
        (b"? [a]\n: 1", "key must be text"),
    ],
)
def test_files_that_are_no_schema(tmp_path, content, words) -> None:
    path = tmp_path / "schema.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        load_schema(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_absent_schema(tmp_path) -> None:
    with pytest.raises(InputError, match="No such file"):
        load_schema(tmp_path / "none.yaml")


def test_a_close_key_is_suggested() -> None:
    document = {**copy.deepcopy(DOCUMENT), "stratas": []}
    with pytest.raises(InputError, match="Did you mean 'strata'"):
        parse_schema(document, file="x")


def test_columns_as_a_list_are_checked_like_a_mapping() -> None:
    document = schema().to_dict()
    columns = document["columns"]
    assert isinstance(columns, list)
    with pytest.raises(InputError, match="'age' is declared twice"):
        parse_schema({**document, "columns": [*columns, columns[0]]}, file="x")
    with pytest.raises(InputError, match="1 to 1000 columns"):
        parse_schema({**document, "columns": columns * 300}, file="x")
