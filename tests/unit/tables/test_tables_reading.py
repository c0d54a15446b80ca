"""Reading tables: equal bytes either way, one clear error for each bad input, and the split."""

import csv
import io
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearinghouse.errors import TableError
from clearinghouse.schema import Schema, parse_schema
from clearinghouse.tables import (
    Table,
    from_records,
    pooled,
    read_table,
    stratified_split,
    write_parquet,
)

HEADER = ["pid", "age", "sex", "chol", "pain", "disease"]
ROWS = [
    ["p1", "50", "F", "200.5", "mild", "0"],
    ["p2", "61.5", "M", "", "none", "1"],
    ["p3", " 20 ", "M", "610", "", "1.0"],
    ["p4", "9e1", "F", "80", "mild", "00"],
]


def schema(**changes: object) -> Schema:
    document: dict[str, object] = {
        "name": "ward",
        "patient_id": "pid",
        "label": {"name": "disease", "levels": [0, 1]},
        "columns": {
            "age": {"kind": "number", "low": 20, "high": 90, "cuts": [45]},
            "sex": {"kind": "category", "levels": ["F", "M"]},
            "chol": {"kind": "number", "low": 80, "high": 610, "missing": True},
            "pain": {"kind": "category", "levels": ["none", "mild"], "missing": True},
        },
    }
    return parse_schema({**document, **changes}, file="schema.yaml")


def write(path, rows, header=HEADER, *, bom=False):
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows([header, *rows])
    path.write_bytes((b"\xef\xbb\xbf" if bom else b"") + text.getvalue().encode())
    return path


def same(a: Table, b: Table) -> bool:
    return (
        all(np.array_equal(a.numbers[k], b.numbers[k], equal_nan=True) for k in a.numbers)
        and all(np.array_equal(a.categories[k], b.categories[k]) for k in a.categories)
        and np.array_equal(a.labels, b.labels)
    )


def test_csv_values(tmp_path) -> None:
    table = read_table(write(tmp_path / "t.csv", ROWS), schema())
    assert table.n == 4
    np.testing.assert_array_equal(table.numbers["age"], [50, 61.5, 20, 90])
    np.testing.assert_array_equal(table.numbers["chol"], [200.5, np.nan, 610, 80])
    assert table.categories["sex"].tolist() == [0, 1, 1, 0]
    assert table.categories["pain"].tolist() == [1, 0, -1, 1]
    assert table.labels.tolist() == [0, 1, 1, 0]
    assert table.rows.tolist() == [1, 2, 3, 4]
    assert table.warnings == ()


def test_byte_order_mark_column_order_quotes_and_blank_lines(tmp_path) -> None:
    plain = read_table(write(tmp_path / "a.csv", ROWS), schema())
    order = [5, 3, 1, 0, 2, 4]
    shuffled = [[row[i] for i in order] for row in ROWS]
    other = write(tmp_path / "b.csv", shuffled, [HEADER[i] for i in order], bom=True)
    other.write_bytes(other.read_bytes().replace(b"\r\n", b"\n\n").replace(b"mild", b'"mild"'))
    assert same(plain, read_table(other, schema()))


def test_undeclared_columns_are_named_and_ignored(tmp_path) -> None:
    rows = [[*row, "nan", "x"] for row in ROWS]
    table = read_table(write(tmp_path / "t.csv", rows, [*HEADER, "ward", "note"]), schema())
    assert len(table.warnings) == 1
    assert "ward, note" in table.warnings[0]
    assert same(table, read_table(write(tmp_path / "u.csv", ROWS), schema()))


def test_parquet_types_read_like_csv(tmp_path) -> None:
    arrays = {
        "pid": pa.array([1, 2, 3, 4]),
        "age": pa.array([50, 61.5, 20, 90], pa.float32()),
        "sex": pa.array(["F", "M", "M", "F"]).dictionary_encode(),
        "chol": pa.array([200.5, None, 610, 80]),
        "pain": pa.array(["mild", "none", None, "mild"]),
        "disease": pa.array([False, True, True, False]),
        "a.b": pa.array([[1], [2], [3], [4]]),
    }
    expected = read_table(write(tmp_path / "t.csv", ROWS), schema())
    for disease in (
        arrays["disease"],
        pa.array([0, 1, 1, 0], pa.int8()),
        pa.array([0.0, 1.0, 1.0, 0.0]),
        pa.array(["0", "1", "1.0", "00"]),
    ):
        path = tmp_path / "t.data"  # told apart by content, not by name
        pq.write_table(pa.table({**arrays, "disease": disease}), path)
        table = read_table(path, schema())
        assert same(table, expected)
        assert "a.b" in table.warnings[0]


def test_written_parquet_reads_back(tmp_path) -> None:
    table = read_table(write(tmp_path / "t.csv", ROWS), schema())
    write_parquet(table, tmp_path / "t.parquet")
    assert same(table, read_table(tmp_path / "t.parquet", schema(patient_id=None)))


BAD_CELLS = {
    "out of bounds": (1, "age", "19.99", "outside the declared bounds 20 to 90"),
    "above": (2, "age", "90.01", "outside"),
    "huge": (0, "age", "1e999", "not a value"),
    "text": (0, "age", "old", "not a number"),
    "comma": (0, "age", "61,5", "point as decimal mark"),
    "underscore": (0, "age", "5_0", "not a number"),
    "hex": (0, "age", "0x32", "not a number"),
    "two signs": (3, "age", "5-0", "not a number"),
    "arabic digits": (0, "age", "٥٠", "not a number"),
    "nan": (3, "age", "nan", "not a value"),
    "NA": (3, "chol", "NA", "not a value"),
    "inf": (3, "chol", "-inf", "not a value"),
    "empty number": (2, "age", "", "is empty"),
    "unknown level": (1, "sex", "X", "not a declared level (F, M)"),
    "case": (1, "sex", "m", "not a declared level"),
    "NA level": (1, "pain", "NA", "not a value"),
    "empty level": (1, "sex", " ", "is empty"),
    "unknown label": (2, "disease", "2", "not a declared level (0, 1)"),
    "empty label": (2, "disease", "", "is empty"),
    "nan label": (2, "disease", "NaN", "not a value"),
    "duplicate patient": (3, "pid", "p2", "same patient as row 2"),
    "no patient": (3, "pid", "", "no id"),
}


@pytest.mark.parametrize("case", BAD_CELLS)
def test_bad_cells_name_file_column_row_and_remedy(tmp_path, case) -> None:
    index, column, text, words = BAD_CELLS[case]
    rows = [list(row) for row in ROWS]
    rows[index][HEADER.index(column)] = text
    path = write(tmp_path / "ward.csv", rows)
    with pytest.raises(TableError) as caught:
        read_table(path, schema())
    error = caught.value
    assert (error.file, error.column, error.row) == (str(path), column, index + 1)
    assert f"line {index + 2}" in str(error)
    assert words in str(error)
    assert error.remedy
    for other in ("p1", "200.5", "61.5"):
        assert other not in str(error), "an error must not show other cells"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 19.0])
def test_bad_parquet_cells(tmp_path, bad) -> None:
    good = pq_table()
    path = tmp_path / "t.parquet"
    pq.write_table(good.set_column(1, "age", pa.array([50.0, bad])), path)
    with pytest.raises(TableError) as caught:
        read_table(path, schema())
    assert (caught.value.column, caught.value.row) == ("age", 2)
    pq.write_table(good.set_column(1, "age", pa.array([50.0, None])), path)
    with pytest.raises(TableError, match="is empty"):
        read_table(path, schema())


def pq_table() -> pa.Table:
    return pa.table(
        {
            "pid": ["a", "b"],
            "age": [50.0, 51.0],
            "sex": ["F", "M"],
            "chol": [100.0, None],
            "pain": [None, "mild"],
            "disease": [0, 1],
        }
    )


def test_null_patient_in_parquet(tmp_path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pq_table().set_column(0, "pid", pa.array([None, "a"])), path)
    with pytest.raises(TableError, match="no id"):
        read_table(path, schema())


@pytest.mark.parametrize(
    ("content", "column", "words"),
    [
        (b"", "age", "declared column is missing"),
        (b"pid,age,sex,chol,pain,disease\n", None, "no rows"),
        (b"pid,age,sex,chol,disease\np,50,F,1,0\n", "pain", "declared column is missing"),
        (b"pid,age,age,sex,chol,pain,disease\n", "age", "twice"),
        (b"pid;age;sex;chol;pain;disease\n", "age", "no comma"),
        (b"pid,age,sex,chol,pain,disease\np,50,F,100,mild\n", None, "line 2 has 5 cells"),
        (b"pid,age,sex,chol,pain,disease\np,50,F,100,mild,0,1\n", None, "has 7 cells"),
        (b'pid,age,sex,chol,pain,disease\np,50,F,100,mild,"0\n', None, "not a CSV file"),
        (b"\x1f\x8b\x08\x00", None, "neither UTF-8 text nor Parquet"),
        (b"PAR1 and no more", None, "not a readable Parquet file"),
    ],
)
def test_bad_files(tmp_path, content, column, words) -> None:
    path = tmp_path / "ward.csv"
    path.write_bytes(content)
    with pytest.raises(TableError) as caught:
        read_table(path, schema())
    assert caught.value.file == str(path)
    assert caught.value.column == column
    assert words in str(caught.value)


def test_absent_file_and_directory(tmp_path) -> None:
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(TableError, match="directory"):
            read_table(path, schema())


def test_integer_strata_refuse_fractions(tmp_path) -> None:
    columns = {"grade": {"kind": "number", "low": 0, "high": 3}}
    path = tmp_path / "t.csv"
    path.write_text("grade,disease\n1,0\n1.5,1\n")
    loose = schema(columns=columns, patient_id=None)
    assert read_table(path, loose).n == 2
    with pytest.raises(TableError, match="strata of this column are integers") as caught:
        read_table(path, schema(columns=columns, patient_id=None, subgroups=["grade"]))
    assert caught.value.row == 2


def test_identical_rows_are_legal_without_patient_id(tmp_path) -> None:
    rows = [ROWS[0]] * 3
    assert read_table(write(tmp_path / "t.csv", rows), schema(patient_id=None)).n == 3


cell = st.tuples(
    st.floats(20, 90),
    st.sampled_from(["F", "M"]),
    st.none() | st.floats(80, 610),
    st.sampled_from([None, "none", "mild"]),
    st.sampled_from(["0", "1"]),
)


@given(st.lists(cell, min_size=1, max_size=30))
def test_records_and_back(cells) -> None:
    ward = schema()
    names = ("age", "sex", "chol", "pain", "disease")
    records = [
        {k: None if v is None else str(v) for k, v in zip(names, row, strict=True)} for row in cells
    ]
    table = from_records(ward, records, file="r")
    assert table.numbers["age"].tolist() == [row[0] for row in cells]
    canonical = table.records()
    again = from_records(ward, canonical, file="r")
    assert same(table, again)
    assert again.records() == canonical
    assert list(canonical[0]) == list(names)


def test_take_keeps_row_numbers_and_pooled_joins(tmp_path) -> None:
    table = read_table(write(tmp_path / "t.csv", ROWS), schema())
    part = table.take([3, 1])
    assert part.rows.tolist() == [4, 2]
    assert part.records() == [table.records()[3], table.records()[1]]
    joined = pooled([part, table])
    assert joined.records() == part.records() + table.records()
    assert joined.rows.tolist() == [1, 2, 3, 4, 5, 6]
    with pytest.raises(ValueError, match="one schema"):
        pooled([])


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"age": "50", "sex": "F", "chol": None, "pain": None},
        {"age": "50", "sex": "F", "chol": None, "pain": None, "disease": "0", "more": "1"},
        {"age": 50, "sex": "F", "chol": None, "pain": None, "disease": "0"},
        {"age": "50", "sex": "F", "chol": None, "pain": None, "disease": None},
        {"age": "500", "sex": "F", "chol": None, "pain": None, "disease": "0"},
        [],
    ],
)
def test_delivered_records_are_not_trusted(record) -> None:
    good = {"age": "50", "sex": "F", "chol": None, "pain": None, "disease": "0"}
    with pytest.raises(TableError) as caught:
        from_records(schema(), [good, record], file="delivery")
    assert caught.value.row == 2


@given(
    counts=st.lists(st.integers(1, 60), min_size=1, max_size=4).filter(lambda c: sum(c) >= 2),
    share=st.fractions(Fraction(1, 20), Fraction(19, 20)),
    seed=st.integers(0, 99),
)
def test_split_laws(counts, share, seed) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    holdout, validation = stratified_split(labels, share, seed)
    n = len(labels)
    assert sorted([*holdout, *validation]) == list(range(n))
    assert len(holdout) == min(max(round(share * n), 1), n - 1)
    for code, count in enumerate(counts):
        exact = Fraction(len(holdout) * count, n)
        assert abs(int((labels[holdout] == code).sum()) - exact) < 1
    again = stratified_split(labels, share, seed)
    assert np.array_equal(again[0], holdout)


def test_split_depends_on_its_seed_and_takes_numeric_labels() -> None:
    labels = np.linspace(0, 1, 100)
    first, second = stratified_split(labels, 0.5, 1)[0], stratified_split(labels, 0.5, 2)[0]
    assert len(first) == 50
    assert not np.array_equal(first, second)
    for bad in ((labels[:1], 0.5), (labels, 0.0), (labels, 1.0)):
        with pytest.raises(ValueError, match="2 rows"):
            stratified_split(*bad, 1)
