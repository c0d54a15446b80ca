"""Market files: every default, every malformed key, and the packaged demo market."""

import copy
import csv
import hashlib
import io
import json
from collections import Counter
from fractions import Fraction
from importlib.resources import files

import pytest

from clearinghouse.demo import SITES, attribution, write_market
from clearinghouse.errors import InputError, TableError
from clearinghouse.market import Market, load_market, load_tables, size_class

SCHEMA = {
    "name": "ward",
    "label": {"name": "y", "levels": [0, 1]},
    "columns": {"sex": {"kind": "category", "levels": ["F", "M"]}},
}
LEAST = {
    "schema": "schema.yaml",
    "customer": {"name": "va", "table": "va.csv"},
    "sources": [
        {"name": "a", "table": "a.csv", "price_per_record": "2.00"},
        {"name": "b", "table": "b.csv", "price_per_record": "0"},
    ],
    "records": 10,
    "tariff": "6.00",
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "schema.yaml").write_text(json.dumps(SCHEMA))
    for name, rows in (("va", 9), ("a", 5), ("b", 1)):
        (tmp_path / f"{name}.csv").write_text("sex,y\n" + "F,0\n" * rows)
    (tmp_path / "mine.onnx").write_bytes(b"")
    return tmp_path


def read(folder, document) -> Market:
    path = folder / "market.yaml"
    path.write_text(json.dumps(document))
    return load_market(path)


def test_defaults(folder) -> None:
    market = read(folder, LEAST)
    assert market.name == "ward"
    assert market.customer.holdout_fraction == Fraction(1, 2)
    assert market.customer.table == folder / "va.csv"
    assert [s.price_per_record for s in market.sources] == [2_000_000, 0]
    assert [d.name for d in market.developers] == ["logistic", "gam", "trees"]
    assert (market.currency, market.tariff, market.distance_price) == ("EUR", 6_000_000, 1_000_000)
    assert market.share_cap == Fraction(3, 2)
    assert market.epsilon.source == 1
    assert market.epsilon.target == Fraction(1, 2)
    assert market.epsilon.score == 1
    assert (market.budget_limits.source, market.budget_limits.customer) == (1, 5)
    purse = market.purse
    assert (purse.kind, purse.amount, purse.metric) == ("acceptance", 300_000_000, "auc")
    assert (purse.threshold, purse.confidence) == (Fraction(7, 10), Fraction(9, 10))
    assert (market.fee, market.fairness_pot, market.seed) == (Fraction(1, 20), 0, 7)


def test_numbers_are_exact_however_they_are_written(folder) -> None:
    path = folder / "market.yaml"
    path.write_text(
        "schema: schema.yaml\ncustomer: {name: va, table: va.csv, holdout_fraction: .3}\n"
        "sources: [{name: a, table: a.csv, price_per_record: 0.10, size_class: 4}]\n"
        'records: 10\ntariff: 6.30\nepsilon: {source: 0.1, target: "0.7", score: 1e-1}\n'
        "developers: [mine.onnx, gam]\n"
    )
    market = load_market(path)
    assert market.epsilon.source == market.epsilon.score == Fraction(1, 10)
    assert market.epsilon.target == Fraction(7, 10)
    assert market.customer.holdout_fraction == Fraction(3, 10)
    assert (market.tariff, market.sources[0].price_per_record) == (6_300_000, 100_000)
    assert market.sources[0].size_class == 4
    assert market.developers[0].onnx == folder / "mine.onnx"
    assert (market.developers[0].name, market.developers[0].recipe) == ("mine.onnx", None)
    assert market.developers[1].recipe == "gam"


def test_tables_and_size_classes(folder) -> None:
    market = read(folder, LEAST)
    tables = load_tables(market)
    assert list(tables) == ["va", "a", "b"]
    sizes = [size_class(source, tables[source.name].n) for source in market.sources]
    assert sizes == [4, 1]


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 255, 256, 257])
def test_default_size_class_is_the_largest_power_of_two_not_above(folder, rows) -> None:
    size = size_class(read(folder, LEAST).sources[0], rows)
    assert size <= rows < 2 * size
    assert bin(size).count("1") == 1


def source(i, **changes):
    return lambda d: d["sources"][i].update(changes)


BAD = {
    "unknown key": (lambda d: d.update(tarif="1"), "tarif"),
    "unknown source key": (source(0, price="1"), "sources[0].price"),
    "unknown epsilon": (lambda d: d.update(epsilon={"run": 1}), "epsilon.run"),
    "unknown limit": (lambda d: d.update(budget_limits={"hospital": 1}), "budget_limits.hospital"),
    "no schema": (lambda d: d.pop("schema"), "schema"),
    "no records": (lambda d: d.pop("records"), "records"),
    "no tariff": (lambda d: d.pop("tariff"), "tariff"),
    "no customer": (lambda d: d.pop("customer"), "customer"),
    "no sources": (lambda d: d.update(sources=[]), "sources"),
    "source text": (lambda d: d.update(sources=["a"]), "sources[0]"),
    "absent schema": (lambda d: d.update(schema="none.yaml"), "none.yaml"),
    "absent table": (source(1, table="none.csv"), "sources[1].table"),
    "absent customer": (lambda d: d["customer"].update(table="none.csv"), "customer.table"),
    "duplicate source": (source(1, name="a"), "'a'"),
    "same in capitals": (source(1, name="A"), "'A'"),
    "source is customer": (source(1, name="va"), "'va'"),
    "name is path": (source(1, name="../x"), "sources[1].name"),
    "price text": (source(0, price_per_record="two"), "sources[0].price_per_record"),
    "price nan": (source(0, price_per_record="NaN"), "sources[0].price_per_record"),
    "price negative": (source(0, price_per_record="-1"), "sources[0].price_per_record"),
    "price seven decimals": (source(0, price_per_record="1.0000001"), "price_per_record"),
    "price list": (source(0, price_per_record=[1]), "sources[0].price_per_record"),
    "price underscore": (source(0, price_per_record="1_0"), "sources[0].price_per_record"),
    "tariff text": (lambda d: d.update(tariff="much"), "tariff"),
    "tariff zero": (lambda d: d.update(tariff="0"), "tariff"),
    "size class": (source(0, size_class=3), "sources[0].size_class"),
    "size class zero": (source(0, size_class=0), "sources[0].size_class"),
    "records zero": (lambda d: d.update(records=0), "records"),
    "records half": (lambda d: d.update(records=1.5), "records"),
    "epsilon zero": (lambda d: d.update(epsilon={"source": 0}), "epsilon.source"),
    "epsilon negative": (lambda d: d.update(epsilon={"target": -1}), "epsilon.target"),
    "epsilon nan": (lambda d: d.update(epsilon={"score": "nan"}), "epsilon.score"),
    "epsilon number": (lambda d: d.update(epsilon=1), "epsilon"),
    "limit zero": (lambda d: d.update(budget_limits={"source": 0}), "budget_limits.source"),
    "holdout": (lambda d: d["customer"].update(holdout_fraction=1), "customer.holdout_fraction"),
    "share cap": (lambda d: d.update(share_cap=1), "share_cap"),
    "fee": (lambda d: d.update(fee=1), "fee"),
    "pot": (lambda d: d.update(fairness_pot=0.2), "fairness_pot"),
    "currency": (lambda d: d.update(currency="euro"), "currency"),
    "seed": (lambda d: d.update(seed=-1), "seed"),
    "recipe": (lambda d: d.update(developers=["forest"]), "'forest'"),
    "recipe twice": (lambda d: d.update(developers=["gam", "gam"]), "'gam' twice"),
    "no developers": (lambda d: d.update(developers=[]), "developers"),
    "absent model": (lambda d: d.update(developers=["none.onnx"]), "none.onnx"),
    "rising prizes": (
        lambda d: d.update(purse={"kind": "contest", "prizes": [20, 30]}),
        "purse.prizes",
    ),
    "prizes of no contest": (lambda d: d.update(purse={"prizes": [50]}), "purse.prizes"),
    "asks of no procurement": (lambda d: d.update(purse={"asks": {"gam": "1.00"}}), "purse.asks"),
    "ask of nobody": (
        lambda d: d.update(purse={"kind": "procurement", "asks": {"nobody": "1.00"}}),
        "no developer here",
    ),
    "floor of no subgroup": (
        lambda d: d.update(purse={"fairness": {"attribute": "shoes"}}),
        "purse.fairness.attribute",
    ),
    "purse kind": (lambda d: d.update(purse={"kind": "gift"}), "purse.kind"),
    "purse metric": (lambda d: d.update(purse={"metric": "f1"}), "purse.metric"),
    "purse threshold": (lambda d: d.update(purse={"threshold": 1.1}), "purse.threshold"),
    "purse confidence": (lambda d: d.update(purse={"confidence": 1}), "purse.confidence"),
    "purse amount": (lambda d: d.update(purse={"amount": "x"}), "purse.amount"),
    "purse key": (lambda d: d.update(purse={"prize": 1}), "purse.prize"),
}


@pytest.mark.parametrize("case", BAD)
def test_malformed_markets_name_file_and_key_and_write_nothing(folder, case) -> None:
    change, key = BAD[case]
    document = copy.deepcopy(LEAST)
    change(document)
    path = folder / "market.yaml"
    path.write_text(json.dumps(document))
    before = {p: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(InputError) as caught:
        load_market(path)
    assert str(path) in str(caught.value)
    assert key in str(caught.value)
    assert {p: p.read_bytes() for p in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("label", "metric", "threshold"),
    [
        ({"name": "y", "levels": [0, 1, 2]}, "auc", "0.7"),
        ({"name": "y", "kind": "number", "low": 0, "high": 60}, "mae", "15"),
    ],
)
def test_a_purse_asks_for_what_the_label_can_be_scored_by(folder, label, metric, threshold):
    (folder / "schema.yaml").write_text(json.dumps({**SCHEMA, "label": label}))
    purse = read(folder, LEAST).purse
    assert (purse.metric, purse.threshold) == (metric, Fraction(threshold))
    wrong = {"auc": "mae", "mae": "auc"}[metric]
    with pytest.raises(InputError, match=r"purse.*metric|metric"):
        read(folder, {**LEAST, "purse": {"metric": wrong}})


def test_more_labels_than_a_sealed_set_holds_are_refused_by_the_market(folder) -> None:
    label = {"name": "y", "levels": list(range(17))}
    (folder / "schema.yaml").write_text(json.dumps({**SCHEMA, "label": label}))
    with pytest.raises(InputError, match="at most 16"):
        read(folder, LEAST)


def test_a_size_class_above_the_rows_is_refused(folder) -> None:
    document = copy.deepcopy(LEAST)
    document["sources"][0]["size_class"] = 8
    with pytest.raises(InputError, match="above its number of rows"):
        load_tables(read(folder, document))


def test_a_customer_needs_two_rows(folder) -> None:
    (folder / "va.csv").write_text("sex,y\nF,0\n")
    with pytest.raises(TableError, match="at least 2 rows"):
        load_tables(read(folder, LEAST))


def test_a_bad_table_names_its_file(folder) -> None:
    (folder / "b.csv").write_text("sex,y\nF,0\nX,1\n")
    with pytest.raises(TableError) as caught:
        load_tables(read(folder, LEAST))
    assert caught.value.file == str(folder / "b.csv")
    assert (caught.value.column, caught.value.row) == ("sex", 2)


def test_demo_market_reads_without_warnings(tmp_path) -> None:
    path = write_market(tmp_path / "deep" / "demo")
    market = load_market(path)
    tables = load_tables(market)
    assert tuple(tables) == SITES
    assert {name: table.n for name, table in tables.items()} == {
        "va": 200,
        "cleveland": 303,
        "hungarian": 294,
        "switzerland": 123,
    }
    assert all(not table.warnings for table in tables.values())
    shares = {name: round(float(table.labels.mean()), 3) for name, table in tables.items()}
    assert shares == {"va": 0.745, "cleveland": 0.459, "hungarian": 0.361, "switzerland": 0.935}
    assert "CC BY 4.0" in attribution()
    assert "Janosi" in (tmp_path / "deep" / "demo" / "NOTICE").read_text()


def test_demo_table_is_the_known_one() -> None:
    """Published facts of the four-hospital table, and the hash of the committed file."""
    text = (files("clearinghouse.demo") / "heart.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(text)))
    missing = {
        site: [sum(r[c] == "" for r in rows if r["site"] == site) for c in ("chol", "ca", "thal")]
        for site in SITES
    }
    assert missing == {
        "va": [56, 198, 166],
        "cleveland": [0, 4, 2],
        "hungarian": [23, 291, 266],
        "switzerland": [123, 118, 52],
    }
    assert Counter(r["sex"] for r in rows) == {"M": 726, "F": 194}
    doubled = [key for key, count in Counter(tuple(r.values()) for r in rows).items() if count > 1]
    assert sorted(key[0] for key in doubled) == ["hungarian", "va"]
    assert not any(r["chol"] == "0" or r["trestbps"] == "0" for r in rows)
    assert (
        hashlib.sha256(text.encode()).hexdigest()
        == "af6ab74bbd7848cfa2a38ca407aa16c80de01d4d9d6061d8e00cea45936218af"
    )
