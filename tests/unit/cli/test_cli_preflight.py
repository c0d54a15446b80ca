"""`model preflight` of each kind of label, of recipes and of files; what is refused, and how."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression, Ridge

from clearinghouse.cli.preflight import ROWS, synthetic
from clearinghouse.cli.preflight import _agreement as agreement
from clearinghouse.cli.preflight import _imported as imported
from clearinghouse.client.recipes import RECIPES
from clearinghouse.features import encode
from clearinghouse.schema import Schema, load_schema
from secure_eval.class_models import ClassModels

SCHEMA = """
name: small
label: {LABEL}
columns:
  age: {kind: number, low: 20, high: 90, thresholds: [40, 60]}
  sex: {kind: category, levels: [F, M]}
strata: [[sex]]
subgroups: [sex]
"""
LABELS = {
    "two": "{name: sick, levels: [no, yes]}",
    "three": "{name: grade, levels: [none, mild, grave]}",
    "number": "{name: days, kind: number, low: 0, high: 60}",
}


def written(folder: Path, label: str) -> Path:
    path = folder / "schema.yaml"
    path.write_text(SCHEMA.replace("{LABEL}", LABELS[label]))
    return path


def trained(schema: Schema, estimator: Any, folder: Path, **options: Any) -> Path:
    """An ONNX file of an estimator that was trained on made-up rows of the schema."""
    table = synthetic(schema, 400, 3)
    rows = encode(schema, table).astype(np.float32)
    estimator.fit(rows, table.labels)
    path = folder / "model.onnx"
    given = {id(estimator): options} if options else None
    path.write_bytes(to_onnx(estimator, rows[:1], options=given).SerializeToString())
    return path


def told(cli: Any, model: object, schema: Path) -> dict[str, Any]:
    found = cli("model", "preflight", model, "--schema", schema, "--json")
    assert (found.code, found.errors) == (0, [])
    value: dict[str, Any] = found.value
    assert value["exact_counts_match"] is True
    assert value["fits_packed_sets"] is (value["kind"] in ("linear", "additive"))
    assert value["epsilon_spent"] == "0.00"
    assert value["synthetic_rows"] == ROWS
    assert value["score_bits"] >= 12
    assert 0.0 <= value["headroom"] < 1.0
    steps = value["steps_s"]
    assert set(steps) >= {"sealing", "server", "hospital"}
    assert sum(steps.values()) <= value["encrypted_s"] + 0.1
    return value


def test_a_file_of_three_classes(cli: Any, tmp_path: Path) -> None:
    path = written(tmp_path, "three")
    estimator = LogisticRegression(max_iter=2000)
    value = told(cli, trained(load_schema(path), estimator, tmp_path, zipmap=False), path)
    assert (value["task"], value["histograms"], value["method"]) == ("classes", 3, "contrast")
    assert value["argmax_agreement"] >= 0.995


def test_a_file_of_a_number(cli: Any, tmp_path: Path) -> None:
    path = written(tmp_path, "number")
    value = told(cli, trained(load_schema(path), Ridge(), tmp_path), path)
    assert (value["task"], value["histograms"]) == ("number", 1)
    assert value["label_agreement"] is None
    # half a step of the label's grid, and rounding of the model
    assert 0 < value["largest_score_error"] < 60 / 510
    assert value["features"] == ["age", "age >= 40", "age >= 60", "sex = F", "sex = M"]


@pytest.mark.parametrize("label", ["three", "number"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_are_compared_with_their_floats(tmp_path: Path, recipe: str, label: str) -> None:
    schema = load_schema(written(tmp_path, label))
    table = synthetic(schema, ROWS, 7)
    model, report = imported(recipe, schema, table, 7)
    if label == "three":
        assert isinstance(model, ClassModels)
        assert report.argmax_agreement is not None
        assert report.label_agreement is not None
        assert min(report.argmax_agreement, report.label_agreement) >= 0.995
    else:
        assert report.largest_score_error is not None
        assert 0 < report.largest_score_error < 60 / 255


def test_what_is_said_of_classes() -> None:
    value = {"label_agreement": None, "argmax_agreement": 0.998, "largest_score_error": None}
    value |= {"auc_change": None, "synthetic_rows": 512}
    assert agreement(value).endswith("they rank a class first alike on 99.80%")
    nothing = value | {"argmax_agreement": None}
    assert "could not be run here" in agreement(nothing)


def test_a_file_of_two_classes_with_zipmap(cli: Any, tmp_path: Path) -> None:
    path = written(tmp_path, "two")
    schema = load_schema(path)
    estimator = GradientBoostingClassifier(n_estimators=8, max_depth=2, max_features=3)
    # trees test the bits of the schema alone: cuts of their own are in no upload
    table = synthetic(schema, 400, 3)
    rows = encode(schema, table).astype(np.float32)
    rows[:, 0] = 50.0
    estimator.fit(rows, table.labels)
    model = tmp_path / "model.onnx"
    proto = to_onnx(estimator, rows[:1], options={id(estimator): {"zipmap": True}})
    model.write_bytes(proto.SerializeToString())
    value = told(cli, model, path)
    assert (value["task"], value["kind"]) == ("binary", "trees")
    assert value["label_agreement"] >= 0.999
    assert abs(value["auc_change"]) < 1e-3


def test_a_tree_that_splits_a_number_itself_is_told_what_to_do(cli: Any, tmp_path: Path) -> None:
    path = written(tmp_path, "two")
    estimator = GradientBoostingClassifier(n_estimators=3, max_depth=2)
    model = trained(load_schema(path), estimator, tmp_path)
    words = ("feature 0 ('age') has no threshold bit x >= ", "keep a number itself constant")
    refused(cli("model", "preflight", model, "--schema", path), 2, *words)


# ---------------------------------------------------------------- what is refused


def refused(outcome: Any, code: int, *words: str) -> None:
    """One line, the code, every word in it, and nothing on stdout."""
    assert (outcome.code, len(outcome.errors), outcome.out) == (code, 1, "")
    assert "\n" not in outcome.errors[0]
    assert all(word in outcome.errors[0] for word in words), outcome.errors


def test_another_number_of_classes_than_the_label_has(cli: Any, tmp_path: Path) -> None:
    path = written(tmp_path, "two")
    model = trained(load_schema(path), LogisticRegression(), tmp_path, zipmap=False)
    three = written(tmp_path, "three")
    refused(cli("model", "preflight", model, "--schema", three), 2, "three or more classes")


def test_a_bad_file_is_refused_before_what_scores_is_loaded(shell, files) -> None:
    """So it takes no longer than the program's start (benchmarks/RESULTS.md)."""
    (files / "bad.onnx").write_bytes(b"\x80\x04\x95\x10\x00\x00\x00")
    code = "import sys; from clearinghouse.cli.main import run; run(sys.argv[1:], lambda _: 0)"
    code += "; print([name for name in ('sklearn', 'tenseal', 'httpx') if name in sys.modules])"
    command = ["model", "preflight", files / "bad.onnx", "--schema", files / "schema.yaml"]
    done = subprocess.run([sys.executable, "-c", code, *map(str, command)], capture_output=True)
    assert done.stdout.decode().strip() == "[]", done.stderr


def test_a_classic_of_each_kind_is_refused_in_one_line(cli, files) -> None:
    weights = np.ones((56, 1), np.float32)
    holed = np.where(np.arange(56)[:, None] == 3, np.float32(np.nan), weights)
    for name, data, words in (
        ("nan", onnx_graph("Gemm", holed), "a weight is not finite (NaN)"),
        ("width", onnx_graph("Gemm", weights[:3]), "reads 3 features; expected the 56"),
        ("unknown", onnx_graph("Erf", weights), "operator is not supported"),
        ("large", bytes(17 << 20), "larger than 16777216 bytes"),
    ):
        path = files / f"{name}.onnx"
        path.write_bytes(data)
        schema = ("--schema", files / "schema.yaml")
        refused(cli("model", "preflight", path, *schema), 2, f"{name}.onnx", words)


def onnx_graph(operator: str, weights: np.ndarray) -> bytes:
    made = helper.make_graph(
        [helper.make_node(operator, ["x", "w"], ["z"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, len(weights)])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weights, "w")],
    )
    return bytes(helper.make_model(made).SerializeToString())
