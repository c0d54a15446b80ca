"""Exports made by XGBoost's, LightGBM's, InterpretML's and scikit-learn's converters themselves.

They are read and compared with what the trained models predict (`tests/data/exports`).
"""

from functools import cache
from typing import Any

import exports
import numpy as np
import pytest
from numpy.typing import NDArray

from clearinghouse.client.onnx_model import float_outputs
from secure_eval.class_models import ClassModels
from secure_eval.from_onnx import classes_from_onnx, from_onnx, residual_from_onnx
from secure_eval.integer_model import IntegerModel
from secure_eval.quantise_residual import label_column

Floats = NDArray[np.float64]
BINARY = [
    "xgboost_binary",
    "xgboost_missing",
    "xgboost_stumps",
    "xgboost_depth4",
    "xgboost_forest",
    "pipeline_zipmap",
    "pipeline_plain",
    "lightgbm_binary",
    "lightgbm_plain",
    "lightgbm_missing",
    "lightgbm_dart",
    "ebm_binary",
    "ebm_columns",
]
ADDITIVE = {"xgboost_stumps", "ebm_binary", "ebm_columns"}
CLASSES = ["xgboost_classes", "lightgbm_classes", "lightgbm_classes_plain", "ebm_classes"]
NUMBERS = ["xgboost_number", "lightgbm_number", "ebm_number"]
REFUSED = {
    "xgboost_category": "'BRANCH_EQ' is not supported; this is a split on a category: train on",
    "lightgbm_category": "'BRANCH_EQ' is not supported; this is a split on a category: train on",
    "ebm_interactions": "a score of 2 features together; train with interactions=0",
    "lightgbm_forest": "Div changes probabilities by a constant. LightGBM's random forests are",
}


@cache
def case(name: str) -> tuple[bytes, Floats, Floats, Floats]:
    """A file, rows between its cuts, rows on its cuts, and what the model said of both in turn."""
    data = exports.export(name)
    between, ties = exports.rows(exports.manifest()["files"][name]["table"], data)
    with np.load(exports.FOLDER / "said.npz", allow_pickle=False) as file:
        said = file[name].astype(np.float64)
    return data, between.astype(np.float64), ties.astype(np.float64), said


def scores(model: IntegerModel, rows: Floats) -> Floats:
    """Scores on the float model's scale."""
    found: Floats = (model.score(rows) - model.offset) / model.scale
    return found


def tolerance(model: IntegerModel) -> float:
    """Half a unit for each rounded part of a score, on the float model's scale, and its floats."""
    return (0.5 * (len(model.trees) or len(model.columns)) + 2) / model.scale + 1e-5


def of_runtime(data: bytes, rows: Floats) -> NDArray[Any]:
    """Labels, or numbers, of the ONNX runtime: an independent reader of the file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(data, options)
    inputs = session.get_inputs()
    feeds = {inputs[0].name: rows.astype(np.float32)}
    if len(inputs) > 1:
        feeds = {item.name: rows[:, place] for place, item in enumerate(inputs)}
    return np.asarray(session.run(None, feeds)[0]).ravel()


def test_every_file_is_covered_and_is_what_the_manifest_says() -> None:
    files = exports.manifest()["files"]
    assert sorted([*BINARY, *CLASSES, *NUMBERS, *REFUSED]) == sorted(files)
    assert {path.stem for path in exports.FOLDER.glob("*.onnx")} == set(files)
    for name in files:
        exports.export(name)


@pytest.mark.parametrize("name", BINARY)
def test_two_classes_decide_as_the_trained_model(name: str) -> None:
    data, rows, ties, said = case(name)
    model = from_onnx(data, exports.bounds("two classes"))
    assert model.kind == ("additive" if name in ADDITIVE else "trees")
    own = said[: len(rows), 1]
    labels, file = model.predict(rows), of_runtime(data, rows)
    assert (labels == file).mean() >= 0.999
    margins = np.log(own) - np.log1p(-own)
    error = np.abs(scores(model, rows) - margins)
    if name.startswith("pipeline"):
        # The export scales by a product where scikit-learn divides, so the file itself moves a row
        # that lies on a cut (XGBoost cuts at values of the table). The reader follows the file.
        assert np.array_equal(labels == (own > 0.5), file == (own > 0.5))
        assert (labels == (own > 0.5)).mean() >= 0.998
        error = np.sort(error)[: round(0.98 * len(rows))]
    else:
        assert (labels == (own > 0.5)).mean() >= 0.999
    assert error.max() < tolerance(model)
    on_cuts = model.predict(ties)
    assert np.array_equal(on_cuts, of_runtime(data, ties))
    if name.startswith(("xgboost", "ebm")):  # cuts that the export need not round
        assert np.array_equal(on_cuts, said[len(rows) :, 1] > 0.5)


def test_lightgbm_rounds_its_own_cuts_and_we_follow_the_file() -> None:
    """Its cuts are doubles; the export holds them in single precision, where a row on the rounded
    cut may fall to the other side. Rows between cuts are not concerned."""
    data, rows, ties, said = case("lightgbm_binary")
    assert ((said[len(rows) :, 1] > 0.5) != of_runtime(data, ties)).any()


@pytest.mark.parametrize("name", CLASSES)
def test_three_classes_rank_as_the_trained_model(name: str) -> None:
    data, rows, ties, said = case(name)
    models = classes_from_onnx(data, exports.bounds("classes"))
    assert isinstance(models, ClassModels)
    assert (models.method, len(models.models)) == ("contrast", 3)
    own = said[: len(rows)]
    assert (models.predict(rows) == own.argmax(axis=1)).mean() >= 0.999
    logs = np.log(own)
    contrasts = logs - logs.mean(axis=1, keepdims=True)
    for part, wanted in zip(models.models, contrasts.T, strict=True):
        assert np.abs(scores(part, rows) - wanted).max() < tolerance(part)
        assert ((part.predict(rows) == 1) == (wanted > 0)).mean() >= 0.999
    assert np.array_equal(models.predict(ties), of_runtime(data, ties))


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_are_predicted_as_by_the_trained_model(name: str) -> None:
    data, rows, ties, said = case(name)
    label = label_column(exports.FEATURES, 0.0, 400.0)
    model = residual_from_onnx(data, exports.bounds("numbers"), label)
    zeros = np.zeros((len(rows), 1))
    found = scores(model, np.hstack([rows, zeros]))
    assert np.abs(found - said[: len(rows)]).max() < tolerance(model)
    found = scores(model, np.hstack([ties, np.zeros((len(ties), 1))]))
    error = np.abs(found - of_runtime(data, ties)).max()
    assert error < tolerance(model)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_exact_is_refused_in_words(name: str) -> None:
    table = exports.manifest()["files"][name]["table"]
    with pytest.raises(ValueError, match=REFUSED[name]):
        from_onnx(exports.export(name), exports.bounds(table))


def test_the_export_of_a_lightgbm_forest_is_not_the_model() -> None:
    """Why it is refused: the file's own labels are not those that the model predicts."""
    data, rows, _, said = case("lightgbm_forest")
    assert (of_runtime(data, rows) == (said[: len(rows), 1] > 0.5)).mean() < 0.6


def test_inputs_that_carry_names_must_stand_in_their_order() -> None:
    data = exports.export("ebm_columns")
    limits = exports.bounds("two classes")
    own = [f"feature_{index:04d}" for index in range(exports.FEATURES)]
    assert from_onnx(data, limits, names=own) == from_onnx(data, limits)
    swapped = [own[1], own[0], *own[2:]]
    with pytest.raises(ValueError, match="'feature_0000' stands where the schema has"):
        from_onnx(data, limits, names=swapped)


@pytest.mark.parametrize("name", [*BINARY, *CLASSES, *NUMBERS])
def test_preflight_runs_each_file_as_its_model_says(name: str) -> None:
    """ZipMap, which no evaluator here has, and inputs of one feature each, too."""
    data, rows, _, said = case(name)
    found = float_outputs(data, rows[:40])
    own = said[:40]
    if name in NUMBERS:
        assert np.allclose(np.ravel(found["scores"]), own, rtol=1e-4)
        return
    close = np.isclose(found["scores"], own, atol=1e-5).all(axis=1)
    assert close.mean() >= (0.95 if name.startswith("pipeline") else 1.0)
    assert (found["labels"] == own.argmax(axis=1)).mean() >= 0.97
