"""Models of three or more classes: what a class's score is, and that integers follow it."""

import json

import numpy as np
import pytest
from onnx import TensorProto, helper
from sklearn.datasets import load_digits, load_wine
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from secure_eval import IntegerModel, from_onnx, from_sklearn
from secure_eval.class_models import ClassModels, read_model, with_equal_bins
from secure_eval.exactness import class_exactness
from secure_eval.from_onnx import classes_from_onnx
from secure_eval.sklearn_classes import classes_from_sklearn

X, Y = load_wine(return_X_y=True)
BOUNDS = np.c_[X.min(axis=0), X.max(axis=0)]

MODELS = {
    "softmax regression": (make_pipeline(StandardScaler(), LogisticRegression()), "contrast"),
    "discriminant analysis": (
        make_pipeline(StandardScaler(), LinearDiscriminantAnalysis()),
        "contrast",
    ),
    "ridge": (make_pipeline(StandardScaler(), RidgeClassifier()), "one-vs-rest"),
    "support vectors": (make_pipeline(StandardScaler(), LinearSVC()), "one-vs-rest"),
    "stochastic": (make_pipeline(StandardScaler(), SGDClassifier(random_state=0)), "one-vs-rest"),
    "each against the rest": (
        make_pipeline(StandardScaler(), OneVsRestClassifier(LogisticRegression())),
        "one-vs-rest",
    ),
    "tree": (DecisionTreeClassifier(max_depth=3, random_state=0), "probability"),
    "forest": (RandomForestClassifier(15, max_depth=4, random_state=0), "probability"),
    "extra trees": (ExtraTreesClassifier(15, max_depth=4, random_state=0), "probability"),
    "boosting": (
        GradientBoostingClassifier(n_estimators=12, max_depth=2, random_state=0),
        "contrast",
    ),
    "stumps": (
        GradientBoostingClassifier(n_estimators=12, max_depth=1, random_state=0),
        "contrast",
    ),
    "histogram boosting": (HistGradientBoostingClassifier(max_iter=12, max_depth=3), "contrast"),
}


def float_scores(estimator, rows):
    """What each class's model should score, by the estimator's own arithmetic."""
    if not hasattr(estimator, "decision_function"):
        return estimator.predict_proba(rows)
    return estimator.decision_function(rows)


@pytest.mark.parametrize("name", MODELS)
def test_integer_scores_of_every_class_follow_the_float_model(name):
    estimator, method = MODELS[name]
    estimator.fit(X, Y)
    model = classes_from_sklearn(estimator, BOUNDS)
    assert model.method == method
    floats = float_scores(estimator, X)
    if method == "contrast":
        floats = floats - floats.mean(axis=1, keepdims=True)
    report = class_exactness(model, floats, X, labels=Y)
    assert report.label_agreement >= 0.995
    assert report.argmax_agreement >= 0.995
    assert abs(report.auc_change) <= 0.002
    steps = max(len(part.trees) or len(part.columns) for part in model.models)
    scale = min(part.scale for part in model.models)
    grid = 0 if model.kind != "linear" else max(p.columns[0].size for p in model.models)
    assert report.largest_score_error * scale <= (grid + 1) * steps + 2
    assert np.mean(model.predict(X) == estimator.predict(X)) >= 0.995


def test_contrasts_of_a_row_sum_to_nothing_and_ignore_what_is_added_to_all():
    estimator, _ = MODELS["boosting"]
    model = classes_from_sklearn(estimator.fit(X, Y), BOUNDS)
    floats = np.column_stack([(p.score(X) - p.offset) / p.scale for p in model.models])
    assert np.abs(floats.sum(axis=1)).max() < 1e-2
    logs = np.log(estimator.predict_proba(X))
    assert floats == pytest.approx(logs - logs.mean(axis=1, keepdims=True), abs=1e-3)


def test_models_of_ten_classes():
    rows, labels = load_digits(return_X_y=True)
    bounds = np.c_[np.zeros(64), np.full(64, 16.0)]
    estimator = RidgeClassifier(alpha=100.0).fit(rows, labels)
    model = classes_from_sklearn(estimator, bounds)
    assert len(model.models) == 10
    assert np.mean(model.predict(rows) == estimator.predict(rows)) >= 0.995


def test_text_and_digest_come_back_and_tell_both_forms_apart():
    model = classes_from_sklearn(MODELS["tree"][0].fit(X, Y), BOUNDS)
    again = read_model(model.to_json().encode())
    assert isinstance(again, ClassModels)
    assert again.digest() == model.digest()
    assert again.score(X).tolist() == model.score(X).tolist()
    binary = from_sklearn(LogisticRegression(max_iter=5000).fit(X, Y == 1), BOUNDS)
    assert isinstance(read_model(binary.to_json()), IntegerModel)


def test_malformed_texts_are_refused_and_name_the_place():
    plain = json.loads(classes_from_sklearn(MODELS["tree"][0].fit(X, Y), BOUNDS).to_json())

    def text(**changes):
        return json.dumps({**plain, **changes}, sort_keys=True, separators=(",", ":"))

    first = {**plain["models"][0], "bias": 1 << 41}
    for changed, words in (
        (text(models=plain["models"][:2]), "3 to 16"),
        (text(models=plain["models"] * 6), "3 to 16"),
        (text(method="magic"), "method"),
        (
            text(models=[{**plain["models"][0], "format": "x"}, *plain["models"][1:]]),
            "models\\[0\\]",
        ),
        (text(models=[first, *plain["models"][1:]]), "bias"),
        (text(extra=1), "unknown keys"),
    ):
        with pytest.raises(ValueError, match=words):
            read_model(changed)


def test_all_classes_publish_as_many_bins_and_keep_their_thresholds():
    model = classes_from_sklearn(MODELS["forest"][0].fit(X, Y), BOUNDS)
    uneven = [
        part.with_quantile_edges(part.score(X), 8 + 4 * k) for k, part in enumerate(model.models)
    ]
    even = with_equal_bins(uneven)
    assert len({len(part.bin_edges) for part in even}) == 1
    for before, after in zip(uneven, even, strict=True):
        assert set(after.bin_edges) <= set(before.bin_edges)
        assert after.threshold_bin == before.threshold_bin
    with pytest.raises(ValueError, match="published bins"):
        ClassModels(tuple(uneven), "probability")


def test_what_cannot_be_imported_says_what_to_use():
    with pytest.raises(ValueError, match="OneVsRestClassifier"):
        classes_from_sklearn(KNeighborsClassifier().fit(X, Y), BOUNDS)
    with pytest.raises(ValueError, match="3 to 16"):
        classes_from_sklearn(LogisticRegression(max_iter=5000).fit(X, Y == 1), BOUNDS)
    with pytest.raises(ValueError, match="classes_from_sklearn"):
        from_sklearn(MODELS["tree"][0].fit(X, Y), BOUNDS)
    generator = np.random.default_rng(0)
    deep = DecisionTreeClassifier(max_depth=9, random_state=0)
    deep.fit(generator.normal(size=(600, 3)), generator.integers(0, 3, 600))
    with pytest.raises(ValueError, match="depth 9 exceeds 4"):
        classes_from_sklearn(deep, np.array([[-9.0, 9.0]] * 3))


# ---------------------------------------------------------------- ONNX


def converted(estimator, **options):
    """The bytes of skl2onnx's export."""
    from skl2onnx import to_onnx

    proto = to_onnx(estimator, X[:1].astype(np.float32), options=options or None)
    return proto.SerializeToString()


def labels_by_runtime(data, rows):
    from onnxruntime import InferenceSession

    session = InferenceSession(data, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.asarray(session.run(None, {name: rows.astype(np.float32)})[0]).ravel()


EXPORTED = ("softmax regression", "ridge", "forest", "tree", "boosting")


@pytest.mark.parametrize("name", EXPORTED)
def test_exports_of_skl2onnx_decide_like_the_onnx_runtime(name):
    estimator, method = MODELS[name]
    estimator.fit(X, Y)
    data = converted(estimator)
    model = classes_from_onnx(data, BOUNDS)
    single = X.astype(np.float32).astype(np.float64)
    assert model.method == method
    assert np.mean(model.predict(single) == labels_by_runtime(data, X)) >= 0.995
    with pytest.raises(ValueError, match="classes_from_onnx"):
        from_onnx(data, BOUNDS)


def gradient_boosted(mode, transform, seed=3, trees=9, classes=3):
    """A TreeEnsembleClassifier as exporters of XGBoost and LightGBM write it.

    Depth 2, one class a tree in turn; XGBoost compares with BRANCH_LT, LightGBM with BRANCH_LEQ.
    """
    generator = np.random.default_rng(seed)
    nodes = {key: [] for key in ("treeids", "nodeids", "featureids", "values", "modes")}
    nodes |= {key: [] for key in ("truenodeids", "falsenodeids", "missing_value_tracks_true")}
    leaves = {key: [] for key in ("treeids", "nodeids", "ids", "weights")}
    for tree in range(trees):
        for node in range(7):
            inner = node < 3
            feature = int(generator.integers(0, X.shape[1]))
            row = {
                "treeids": tree,
                "nodeids": node,
                "featureids": feature if inner else 0,
                "values": float(np.float32(np.median(X[:, feature]))) if inner else 0.0,
                "modes": mode if inner else "LEAF",
                "truenodeids": 2 * node + 1 if inner else 0,
                "falsenodeids": 2 * node + 2 if inner else 0,
                "missing_value_tracks_true": int(inner),
            }
            for key, value in row.items():
                nodes[key].append(value)
            if not inner:
                leaves["treeids"].append(tree)
                leaves["nodeids"].append(node)
                leaves["ids"].append(tree % classes)
                leaves["weights"].append(float(np.float32(generator.normal())))
    attributes = {f"nodes_{key}": value for key, value in nodes.items()}
    attributes |= {f"class_{key}": value for key, value in leaves.items()}
    node = helper.make_node(
        "TreeEnsembleClassifier",
        ["x"],
        ["label", "scores"],
        domain="ai.onnx.ml",
        post_transform=transform,
        classlabels_int64s=list(range(classes)),
        base_values=[0.5] * classes,
        **attributes,
    )
    zipped = helper.make_node(
        "ZipMap",
        ["scores"],
        ["zipped"],
        domain="ai.onnx.ml",
        classlabels_int64s=list(range(classes)),
    )
    graph = helper.make_graph(
        [node, zipped],
        "boosted",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, X.shape[1]])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, [None]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, classes]),
        ],
    )
    opsets = [helper.make_opsetid("", 15), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("mode", "transform", "method"),
    [
        ("BRANCH_LT", "SOFTMAX", "contrast"),
        ("BRANCH_LEQ", "SOFTMAX", "contrast"),
        ("BRANCH_LEQ", "LOGISTIC", "one-vs-rest"),
    ],
)
def test_boosted_ensembles_as_xgboost_and_lightgbm_export_them(mode, transform, method):
    data = gradient_boosted(mode, transform)
    model = classes_from_onnx(data, BOUNDS)
    assert model.method == method
    single = X.astype(np.float32).astype(np.float64)
    assert np.mean(model.predict(single) == labels_by_runtime(data, X)) == 1.0


def test_a_class_count_that_is_not_its_own_is_refused():
    data = gradient_boosted("BRANCH_LT", "SOFTMAX", classes=2)
    with pytest.raises(ValueError, match="three or more classes"):
        classes_from_onnx(data, BOUNDS)
