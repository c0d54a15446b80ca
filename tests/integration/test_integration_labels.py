"""Markets whose label has three classes, or is a number, from tables to receipts."""

import json
import shutil
from pathlib import Path

import markets
import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_iris

from clearinghouse.log.verify import verify_log_directory, verify_receipt
from clearinghouse.rehearsal.command import run_rehearsal

# Half of the rows are the clinic's: its size class stays clear of the least for subgroup tables.
DEALT = {"clinic": slice(0, None, 2), "north": slice(1, None, 4), "south": slice(3, None, 4)}


def tables(rows, labels, names, label, text):
    """The rows dealt to three sites in a fixed random order."""
    order = np.random.default_rng(3).permutation(len(rows))
    found = {}
    for site, places in DEALT.items():
        mine = order[places]
        found[site] = [
            {**dict(zip(names, rows[row].tolist(), strict=True)), label: text(labels[row])}
            for row in mine.tolist()
        ]
    return found


def schema(name, label, rows, names, cuts):
    low, high = np.floor(rows.min(axis=0)), np.ceil(rows.max(axis=0))
    columns = {
        column: {"kind": "number", "low": float(low[i]), "high": float(high[i])}
        for i, column in enumerate(names)
    }
    columns[names[0]]["cuts"] = cuts
    return {
        "name": name,
        "label": label,
        "columns": columns,
        "strata": [[names[0]]],
        "subgroups": [names[0]],
    }


def rehearsed(folder: Path, path: Path):
    out = folder / "out"
    run_rehearsal(path, out, as_json=False, quiet=True, in_process=True)
    return json.loads((out / "report.json").read_text()), out


def checked(report, out):
    """What holds for every label: exact counts, evidence, receipts, log, budget."""
    assert report["log"]["verified"]
    assert report["ledger"]["balanced"]
    evidence = json.loads((out / "evidence.json").read_text())
    for score in report["scores"]:
        assert score["exact_counts_match"] is True
        found = evidence[score["developer"]]
        opened = np.array(found["opened"])
        assert (opened == np.array(found["noise"]) + np.array(found["plaintext"])).all()
        text = (out / score["receipt"]).read_bytes()
        verify_receipt(text, trusted_log_key=None)
        for low, high in score["intervals"].values():
            assert low <= high
    verify_log_directory(out / "log")
    return evidence


def test_three_classes(tmp_path):
    rows, codes = load_iris(return_X_y=True)
    names = ["sepal", "width", "petal", "breadth"]
    levels = ["setosa", "versicolor", "virginica"]
    path = markets.write_market(
        tmp_path / "iris",
        schema("iris", {"name": "kind", "levels": levels}, rows, names, [5.5]),
        tables(rows, codes, names, "kind", lambda code: levels[code]),
        records=40,
        tariff="6.00",
        developers=["logistic"],
        epsilon={"source": 1.0, "target": 0.5, "score": 3.0},
    )
    report, out = rehearsed(tmp_path, path)
    evidence = checked(report, out)
    (score,) = report["scores"]
    assert (score["task"], len(score["classes"])) == ("classes", 3)
    assert [one["level"] for one in score["classes"]] == levels
    plain = np.array(evidence["logistic"]["plaintext"])
    assert plain.shape[0] == 6
    sizes = plain.sum(axis=1).reshape(3, 2)
    assert (sizes.sum(axis=1) == score["rows"]).all()
    assert sizes[:, 1].sum() == score["rows"]
    assert score["auc"] == pytest.approx(
        np.mean([one["auc"] for one in score["classes"]]), abs=1e-5
    )
    assert set(report["roc"]) == {f"logistic: {level}" for level in levels}
    assert report["budget"]["clinic"]["spent"] == pytest.approx(3.5)
    for level in score["subgroups"]["sepal"].values():
        assert set(level["classes"]) == set(levels)
    receipt = (out / score["receipt"]).read_text()
    assert all(f"auc.{k}" in receipt for k in range(3))
    assert 0.5 <= report["downstream"]["clearinghouse"]["auc"] <= 1.0


# Without cuts it is one row of counts; the protocol and `model preflight` have that by default.
@pytest.mark.parametrize("cuts", [pytest.param([], marks=pytest.mark.long), [120]])
def test_a_number(tmp_path, cuts):
    rows, numbers = load_diabetes(return_X_y=True, scaled=False)
    rows, names = rows[:, [0, 2, 3, 8]], ["age", "bmi", "pressure", "lipids"]
    label = {"name": "progression", "kind": "number", "low": 20, "high": 350}
    path = markets.write_market(
        tmp_path / "diabetes",
        schema("diabetes", {**label, "cuts": cuts} if cuts else label, rows, names, [40, 55]),
        tables(rows, numbers, names, "progression", float),
        records=60,
        tariff="6.00",
        developers=["trees"] if cuts else ["logistic"],
    )
    report, out = rehearsed(tmp_path, path)
    evidence = checked(report, out)
    (score,) = report["scores"]
    assert score["task"] == "number"
    plain = np.array(evidence[score["developer"]]["plaintext"])
    assert plain.shape[0] == len(cuts) + 1
    assert plain.sum() == score["rows"]
    reference = score["plaintext_reference"]
    assert reference["rmse"] == pytest.approx(np.sqrt(reference["mse"]), rel=1e-5)
    for metric in ("mae", "mse", "rmse", "bias"):
        low, high = score["intervals"][metric]
        assert low <= score[metric] <= high
    assert report["purse"]["metric"] == "mae"
    assert report["downstream"]["clearinghouse"]["mae"] > 0
    if score["status"] == "ok":
        assert (out / score["receipt"]).read_text().count("rmse") == 1
    shutil.rmtree(out)
