"""Import from ONNX: the same integers as from scikit-learn, the runtime's labels, refusals."""

import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier, SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    RobustScaler,
    StandardScaler,
)
from sklearn.tree import DecisionTreeClassifier

from secure_eval.from_onnx import from_onnx
from secure_eval.from_sklearn import from_sklearn
from secure_eval.integer_model import Column

X64, Y = load_breast_cancer(return_X_y=True)
X64 = X64[:, :10].copy()
X64[:, 3] = np.digitize(X64[:, 3], [500, 700, 1000])  # a category
X = X64.astype(np.float32).astype(np.float64)
BOUNDS = np.stack([X.min(axis=0), X.max(axis=0)], axis=1)

PAIRS: dict[str, Any] = {
    "logistic": make_pipeline(StandardScaler(), LogisticRegression()),
    "minmax": make_pipeline(MinMaxScaler(), LogisticRegression()),
    "ridge": make_pipeline(StandardScaler(), RidgeClassifier()),
    "margin": make_pipeline(StandardScaler(), SGDClassifier(random_state=0)),
    "log loss": make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss", random_state=0)),
    "lda": make_pipeline(
        StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1)
    ),
    "regressor": make_pipeline(StandardScaler(), Ridge(10.0)),
    "mixed": make_pipeline(
        ColumnTransformer(
            [("scale", StandardScaler(), [0, 1]), ("code", OneHotEncoder(), [3])],
            remainder="passthrough",
        ),
        LogisticRegression(max_iter=5000),
    ),
    "tree": DecisionTreeClassifier(max_depth=4, random_state=0),
    "forest": RandomForestClassifier(30, max_depth=4, random_state=0),
    "extra": ExtraTreesClassifier(10, max_depth=3, random_state=0),
    "boosting": GradientBoostingClassifier(n_estimators=30, random_state=0),
    "stumps": GradientBoostingClassifier(n_estimators=30, max_depth=1, random_state=0),
    "imputed boosting": make_pipeline(
        SimpleImputer(),
        RobustScaler(),
        GradientBoostingClassifier(n_estimators=20, random_state=0),
    ),
    "scaled forest": make_pipeline(
        MaxAbsScaler(), RandomForestClassifier(20, max_depth=3, random_state=0)
    ),
}


def runtime_labels(data: bytes, rows: np.ndarray) -> np.ndarray:
    """Labels of onnxruntime, an independent reader of the file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(data, options)
    outputs = session.run(None, {session.get_inputs()[0].name: rows.astype(np.float32)})
    first = np.asarray(outputs[0]).ravel()
    return np.asarray(first > 0.5 if first.dtype.kind == "f" else first).astype(np.int64)


@cache
def fitted(name: str) -> tuple[Any, Any, np.ndarray]:
    """A fitted estimator, its integer model as scikit-learn gives it, and what that predicts."""
    estimator = PAIRS[name].fit(X, Y)
    reference = from_sklearn(estimator, BOUNDS)
    return estimator, reference, reference.predict(X)


@pytest.mark.parametrize("zipmap", [True, False])
@pytest.mark.parametrize("name", PAIRS)
def test_same_integer_predictions_as_from_sklearn(name: str, zipmap: bool) -> None:
    estimator, reference, expected = fitted(name)
    last = estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator
    has_map = name not in {"ridge", "regressor"}
    options = {id(last): {"zipmap": zipmap}} if has_map else None
    proto = to_onnx(estimator, X[:1].astype(np.float32), options=options)
    data = proto.SerializeToString()
    model = from_onnx(data, BOUNDS)
    assert model.kind == reference.kind
    assert len(model.columns) == len(reference.columns)
    predicted = model.predict(X)
    assert np.array_equal(predicted, expected)
    assert model.scale == pytest.approx(reference.scale, rel=1e-3)
    limit = 0.995 if model.kind == "linear" else 0.999
    assert (predicted == runtime_labels(data, X)).mean() >= limit


@pytest.mark.parametrize("name", ["tree", "forest", "boosting", "stumps"])
def test_unscaled_trees_give_the_same_columns_and_scores(name: str) -> None:
    estimator, reference, _ = fitted(name)
    model = from_onnx(to_onnx(estimator, X[:1].astype(np.float32)).SerializeToString(), BOUNDS)
    assert np.array_equal(model.encode(X), reference.encode(X))
    apart = (model.score(X) - model.offset) / model.scale
    apart -= (reference.score(X) - reference.offset) / reference.scale
    assert np.abs(apart).max() * model.scale <= max(len(model.trees), len(model.columns)) + 2


def test_thresholds_agree_with_the_runtime_at_ties() -> None:
    estimator = make_pipeline(StandardScaler(), DecisionTreeClassifier(max_depth=4)).fit(X, Y)
    data = to_onnx(estimator, X[:1].astype(np.float32)).SerializeToString()
    model = from_onnx(data, BOUNDS)
    rng = np.random.default_rng(0)
    rows = X[rng.integers(0, len(X), 3000)].copy()
    for column in model.columns:
        chosen = rng.random(len(rows)) < 0.3
        near = np.array([column.threshold], dtype=np.float32)
        near = np.concatenate(
            [near, np.nextafter(near, np.float32(-np.inf)), np.nextafter(near, np.float32(np.inf))]
        )
        rows[chosen, column.feature] = rng.choice(near, int(chosen.sum()))
    assert np.array_equal(model.predict(rows), runtime_labels(data, rows))


def test_path_and_bytes_and_sealed_upload(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(18, 90, (400, 1)).astype(np.float32)
    estimator = DecisionTreeClassifier(max_depth=1).fit(rows, rows[:, 0] >= 50)
    proto = to_onnx(estimator, rows[:1])
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    upload = (Column.value_of(0, 18.0, 1.0, 80), Column.bit_of(0, 50.0))
    model = from_onnx(path, [[18, 97]], columns=upload)
    assert model.columns == upload[1:]
    assert model == from_onnx(str(path), [[18, 97]], columns=upload)
    assert model == from_onnx(proto.SerializeToString(), [[18, 97]], columns=upload)
    with pytest.raises(ValueError, match="nearest available one is 60"):
        from_onnx(path, [[18, 97]], columns=(Column.bit_of(0, 60.0),))


def graph(
    nodes: list[Any],
    constants: dict[str, np.ndarray] | None = None,
    outputs: tuple[str, ...] = ("z",),
    width: int = 2,
    kind: int = TensorProto.FLOAT,
    made_kind: int = TensorProto.FLOAT,
) -> bytes:
    """A model over one input "x" of shape (rows, width)."""
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, [None, width])],
        [helper.make_tensor_value_info(name, made_kind, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return bytes(helper.make_model(made, opset_imports=opsets, ir_version=8).SerializeToString())


def ml(operator: str, inputs: list[str], outputs: list[str], **attributes: Any) -> Any:
    return helper.make_node(operator, inputs, outputs, domain="ai.onnx.ml", **attributes)


W = np.array([[1.5], [-2.0]], np.float32)
C = np.array([0.25], np.float32)
BOX = np.array([[-1.0, 1.0], [-1.0, 1.0]])
ROWS = np.random.default_rng(0).uniform(-1, 1, (500, 2))
MARGIN = ROWS @ [1.5, -2.0] + 0.25


def node(operator: str, *inputs: str, out: str = "z", **attributes: Any) -> Any:
    return helper.make_node(operator, list(inputs), [out], **attributes)


HAND: dict[str, bytes] = {
    "gemm": graph([node("Gemm", "x", "w", "c", out="s"), node("Sigmoid", "s")], {"w": W, "c": C}),
    "gemm transposed": graph(
        [node("Gemm", "x", "w", "c", out="s", transB=1, alpha=2.0, beta=2.0), node("Sigmoid", "s")],
        {"w": W.T, "c": C},
    ),
    "matmul add": graph(
        [
            node("MatMul", "x", "w", out="m"),
            node("Add", "m", "c", out="s"),
            node("Sigmoid", "s", out="p"),
            node("Flatten", "p"),
        ],
        {"w": W, "c": C},
    ),
    "two layers": graph(
        [
            node("Gemm", "x", "h", out="m"),
            node("MatMul", "m", "w", out="n"),
            node("Add", "c", "n", out="s"),
            node("Sigmoid", "s"),
        ],
        {"h": np.eye(2, dtype=np.float32), "w": W, "c": C},
    ),
    "softmax": graph(
        [node("Gemm", "x", "w", "c", out="s"), node("Softmax", "s", axis=1)],
        {
            "w": np.hstack([W * 0, W]),
            "c": np.array([0, 0.25], np.float32),
        },
    ),
    "scaled by hand": graph(
        [
            node("Sub", "x", "a", out="b"),
            node("Div", "b", "d", out="e"),
            node("Mul", "e", "d", out="f"),
            node("Add", "f", "a", out="g"),
            node("MatMul", "g", "w", out="m"),
            node("Sub", "m", "k", out="s"),
            node("Sigmoid", "s"),
        ],
        {
            "a": np.array([[0.5, -0.5]], np.float32),
            "d": np.array([2.0, -4.0], np.float32),
            "w": W,
            "k": -C,
        },
    ),
    "linear regressor": graph(
        [
            ml(
                "LinearRegressor",
                ["x"],
                ["z"],
                coefficients=[1.5, -2.0],
                intercepts=[0.25],
                post_transform="LOGISTIC",
            )
        ]
    ),
    "one row of weights": graph(
        [
            ml(
                "LinearClassifier",
                ["x"],
                ["z", "p"],
                coefficients=[1.5, -2.0],
                intercepts=[0.25],
                classlabels_ints=[0, 1],
                post_transform="LOGISTIC",
            )
        ]
    ),
    "constants in nodes": graph(
        [
            node("Constant", out="w", value=numpy_helper.from_array(W)),
            node("Constant", out="c", value_floats=[0.25]),
            node("Gemm", "x", "w", "c", out="s"),
            node("Identity", "s", out="t"),
            node("Cast", "t", out="u", to=TensorProto.DOUBLE),
            node("Sigmoid", "u"),
        ]
    ),
    "reordered": graph(
        [
            node("Gather", "x", "i", out="y", axis=1),
            ml("ArrayFeatureExtractor", ["x", "j"], ["v"]),
            node("Concat", "y", "v", out="t", axis=1),
            node("Reshape", "t", "shape", out="r"),
            node("Gemm", "r", "w", "c", out="s"),
            node("Sigmoid", "s"),
        ],
        {
            "i": np.array([1]),
            "j": np.array([0]),
            "shape": np.array([-1, 2]),
            "w": W[::-1].copy(),
            "c": C,
        },
    ),
}


@pytest.mark.parametrize("name", HAND)
def test_hand_made_linear_graphs(name: str) -> None:
    model = from_onnx(HAND[name], BOX)
    assert (model.predict(ROWS) == (MARGIN > 0)).mean() >= 0.995
    scores = (model.score(ROWS) - model.offset) / model.scale
    factor = 2.0 if name == "gemm transposed" else 1.0
    assert np.abs(scores - factor * MARGIN).max() < 0.02


def test_bare_score_is_cut_at_one_half_and_inputs_add_up() -> None:
    made = helper.make_graph(
        [node("Concat", "a", "b", out="x", axis=1), node("Gemm", "x", "w", "c")],
        "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [None, 1]) for n in ("a", "b")],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(W, "w"), numpy_helper.from_array(C, "c")],
    )
    model = from_onnx(helper.make_model(made).SerializeToString(), BOX)
    assert (model.predict(ROWS) == (MARGIN > 0.5)).mean() >= 0.995


TREE: dict[str, Any] = {
    "nodes_treeids": [0, 0, 0, 0, 0],
    "nodes_nodeids": [0, 1, 2, 3, 4],
    "nodes_featureids": [0, 0, 1, 0, 0],
    "nodes_modes": ["BRANCH_LEQ", "LEAF", "BRANCH_LT", "LEAF", "LEAF"],
    "nodes_values": [0.25, 0.0, -0.5, 0.0, 0.0],
    "nodes_truenodeids": [1, 0, 3, 0, 0],
    "nodes_falsenodeids": [2, 0, 4, 0, 0],
}
CLASSES: dict[str, Any] = {
    "class_treeids": [0, 0, 0],
    "class_nodeids": [1, 3, 4],
    "class_ids": [0, 0, 0],
    "class_weights": [0.125, 0.875, 0.25],
    "classlabels_int64s": [0, 1],
}


def tree_model(**changes: Any) -> bytes:
    plain = {**TREE, **CLASSES, **changes}
    wanted = {key: value for key, value in plain.items() if value is not None}
    return graph(
        [ml("TreeEnsembleClassifier", ["x"], ["z", "p"], **wanted)], made_kind=TensorProto.INT64
    )


@pytest.mark.parametrize(
    ("modes", "right"),
    [
        (("BRANCH_LEQ", "BRANCH_LT"), lambda a, b: (a > 0.25, b >= -0.5)),
        (("BRANCH_LT", "BRANCH_LEQ"), lambda a, b: (a >= 0.25, b > -0.5)),
        (("BRANCH_GT", "BRANCH_GTE"), lambda a, b: (a <= 0.25, b < -0.5)),
        (("BRANCH_GTE", "BRANCH_GT"), lambda a, b: (a < 0.25, b <= -0.5)),
    ],
)
def test_branch_modes_are_exact_at_ties(
    modes: tuple[str, str], right: Callable[[Any, Any], tuple[Any, Any]]
) -> None:
    data = tree_model(nodes_modes=[modes[0], "LEAF", modes[1], "LEAF", "LEAF"])
    model = from_onnx(data, BOX)
    near = [
        [t, np.nextafter(np.float32(t), np.float32(9)), np.nextafter(np.float32(t), -9)]
        for t in (0.25, -0.5)
    ]
    rows = np.array([(a, b) for a in near[0] for b in near[1]], dtype=np.float64)
    first, second = right(rows[:, 0], rows[:, 1])
    leaf = np.where(~first, 0.125, np.where(second, 0.25, 0.875))  # false branch goes right
    assert np.array_equal(model.predict(rows), leaf > 0.5)
    scores = (model.score(rows) - model.offset) / model.scale
    assert np.abs(scores - leaf).max() < 1e-4
    assert np.array_equal(model.predict(rows), runtime_labels(data, rows))


def test_margins_and_two_class_weights() -> None:
    margin = tree_model(class_weights=[-1.0, 2.0, -0.5], post_transform="LOGISTIC")
    leaf = np.where(ROWS[:, 0] <= 0.25, -1.0, np.where(ROWS[:, 1] < -0.5, 2.0, -0.5))
    assert np.array_equal(from_onnx(margin, BOX).predict(ROWS), leaf > 0)
    based = tree_model(
        class_weights=[-1.0, 2.0, -0.5], post_transform="LOGISTIC", base_values=[0.75]
    )
    assert np.array_equal(from_onnx(based, BOX).predict(ROWS), leaf + 0.75 > 0)
    both = tree_model(
        class_treeids=[0] * 6,
        class_nodeids=[1, 1, 3, 3, 4, 4],
        class_ids=[0, 1] * 3,
        class_weights=[0.9, 0.1, 0.2, 0.8, 0.5, 0.5],
    )
    expected = (ROWS[:, 0] > 0.25) & (ROWS[:, 1] < -0.5)
    assert np.array_equal(from_onnx(both, BOX).predict(ROWS), expected)


def test_tree_regressor() -> None:
    targets = {
        "target_treeids": [0, 0, 0],
        "target_nodeids": [1, 3, 4],
        "target_ids": [0, 0, 0],
        "target_weights": [0.125, 0.875, 0.25],
        "n_targets": 1,
    }
    data = graph([ml("TreeEnsembleRegressor", ["x"], ["z"], **TREE, **targets)])
    expected = (ROWS[:, 0] > 0.25) & (ROWS[:, 1] < -0.5)
    assert np.array_equal(from_onnx(data, BOX).predict(ROWS), expected)
    average = graph(
        [
            ml(
                "TreeEnsembleRegressor",
                ["x"],
                ["z"],
                **TREE,
                **targets,
                aggregate_function="AVERAGE",
                base_values=[1.0],
            )
        ]
    )
    assert from_onnx(average, BOX).predict(ROWS).all()


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def field(number: int, payload: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def bomb(payload: bytes) -> bytes:
    """A model whose graph is raw bytes."""
    return b"\x08\x08" + field(7, payload)


def external() -> bytes:
    tensor = TensorProto(name="w", data_type=1, dims=[2, 1])
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"
    model = onnx.load_from_string(HAND["gemm"])
    model.graph.initializer[0].CopyFrom(tensor)
    return bytes(model.SerializeToString())


def huge_tensor(dims: list[int]) -> bytes:
    model = onnx.load_from_string(HAND["gemm"])
    tensor = TensorProto(name="w", data_type=1, dims=dims)
    model.graph.initializer[0].CopyFrom(tensor)
    return bytes(model.SerializeToString())


def loop() -> bytes:
    body = helper.make_graph([], "body", [], [])
    return graph([helper.make_node("Loop", ["x"], ["z"], body=body)])


def archive() -> bytes:
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("model.pkl", b"")
    return out.getvalue()


def nested(depth: int) -> bytes:
    payload = b""
    for _ in range(depth):
        payload = field(4, field(1, payload))  # sequences of sequences of types
    return bomb(field(11, field(2, payload)))


LINEAR = {"coefficients": [1.0, 2.0], "intercepts": [0.0]}
HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "no graph"),
    "random": (b"\x0f\xf3\x99 not a model", "not an ONNX model"),
    "text": (b'{"kind": "linear"}', "JSON text, not an ONNX"),
    "pickle": (b"\x80\x04\x95\x10\x00\x00\x00", "Python pickle, not an ONNX"),
    "archive": (archive(), "zip archive, not an ONNX"),
    "cut short": (HAND["gemm"][:-7], "cut short"),
    "too large": (b"\x08" * ((16 << 20) + 1), "larger than"),
    "tiny nodes": (bomb(b"\x0a\x00" * 4_000_000), "more than 50000 messages"),
    "tiny dims": (
        bomb(field(11, field(2, field(1, field(2, b"\x0a\x00" * 4_000_000))))),
        "more than 50000 messages",
    ),
    "tiny fields": (bomb(field(1, field(5, b"\x40\x00" * 4_000_000))), "more than 450000 fields"),
    "endless number": (b"\x08" + b"\xff" * 40, "cut short"),
    "nested types": (nested(40), "nested too deeply"),
    "external data": (external(), "external data is not supported"),
    "2**33 elements": (huge_tensor([1 << 33]), "a dimension is"),
    "2**40 elements": (huge_tensor([1 << 20, 1 << 20]), "a dimension is"),
    "product of dims": (huge_tensor([100_000, 100_000]), "too many"),
    "negative dims": (huge_tensor([-1, 2]), "a dimension is -1"),
    "no data": (huge_tensor([2, 1]), "0 values for 2 elements"),
    "constant of shape": (
        graph([node("ConstantOfShape", "s")], {"s": np.array([1 << 33])}),
        r"node '0' \(ConstantOfShape\): operator is not supported",
    ),
    "loop": (loop(), "subgraphs"),
    "custom domain": (
        graph([helper.make_node("Evil", ["x"], ["z"], domain="evil")]),
        "custom domain 'evil'",
    ),
    "relu": (graph([node("Relu", "x")]), "neural networks do not fit"),
    "features normalised": (
        graph([ml("Normalizer", ["x"], ["z"], norm="L2")]),
        "Normalizer.*use Scaler before the model",
    ),
    "kernel": (graph([ml("SVMClassifier", ["x"], ["z"])]), "use LinearSVC"),
    "nan weights": (
        graph([node("Gemm", "x", "w")], {"w": np.array([[np.nan], [1]], np.float32)}),
        "not finite",
    ),
    "infinite weights": (
        graph([node("Gemm", "x", "w")], {"w": np.array([[np.inf], [1]], np.float32)}),
        "a weight is not finite",
    ),
    "bins of two features": (
        graph([node("LessOrEqual", "e", "x", out="b"), node("ArgMax", "b", axis=1)], {"e": C}),
        "expected one feature to compare",
    ),
    "features that are no bins": (
        graph([node("ArgMax", "x", axis=1)]),
        "only bins of one feature can be numbered",
    ),
    "a bin without a score": (
        graph(
            [
                node("Gather", "x", "i", out="a", axis=1),
                node("LessOrEqual", "e", "a", out="b"),
                node("Mul", "b", "r", out="m"),
                node("ArgMax", "m", out="n", axis=1),
                node("GatherND", "s", "n"),
            ],
            {
                "i": np.array([0]),
                "e": np.array([-np.inf, 0.0], np.float32),
                "r": np.array([0.0, 1.0], np.float32),
                "s": np.array([0.5], np.float32),
            },
        ),
        "a bin's number is outside 0 to 0",
    ),
    "sum of features": (graph([node("ReduceSum", "x", "i")], {"i": np.array([1])}), "added up"),
    "infinite attribute": (
        graph([ml("LinearRegressor", ["x"], ["z"], coefficients=[np.inf, 1.0])]),
        "not finite",
    ),
    "missing input": (graph([node("Gemm", "y", "y")]), "'y' is not defined"),
    "missing output": (graph([node("Identity", "x", out="q")]), "output 'z' is not defined"),
    "features as output": (graph([node("Identity", "x")]), "not a score"),
    "defined twice": (
        graph([node("Identity", "x"), node("Identity", "x")]),
        "already defined",
    ),
    "wrong weights": (graph([node("Gemm", "x", "w")], {"w": np.ones((3, 1))}), "for 2 columns"),
    "wide input": (graph([node("Identity", "x")], width=3), "reads 3 features"),
    "double negative width": (graph([node("Identity", "x")], width=100_000), "expected shape"),
    "strings": (graph([node("Identity", "x")], kind=TensorProto.STRING), "type 8"),
    "three classes": (
        graph([ml("LinearClassifier", ["x"], ["z"], classlabels_ints=[0, 1, 2], **LINEAR)]),
        "2 coefficients for 2 columns",
    ),
    "probit": (
        graph(
            [
                ml(
                    "LinearClassifier",
                    ["x"],
                    ["z"],
                    classlabels_ints=[0, 1],
                    **LINEAR,
                    post_transform="PROBIT",
                )
            ]
        ),
        "PROBIT",
    ),
    "unknown attribute": (
        graph([ml("LinearRegressor", ["x"], ["z"], **LINEAR, secret=1)]),
        "attribute 'secret'",
    ),
    "score in the middle": (
        graph([node("Sigmoid", "x")]),
        "only the single score of a model, at its end",
    ),
    "class 0": (
        graph(
            [
                node("Gemm", "x", "w", out="s"),
                node("Sigmoid", "s", out="p"),
                node("Sub", "one", "p"),
            ],
            {"w": W, "one": np.ones(1, np.float32)},
        ),
        "falls with the score",
    ),
    "swapped classes": (
        graph(
            [
                node("Gemm", "x", "w", out="s"),
                node("Sigmoid", "s", out="p"),
                node("Sub", "one", "p", out="q"),
                node("Concat", "p", "q", out="both", axis=1),
                node("ArgMax", "both", axis=1),
            ],
            {"w": W, "one": np.ones(1, np.float32)},
        ),
        "class 1 in the second column",
    ),
    "categories of scores": (
        graph([node("Cast", "x", out="i", to=TensorProto.INT64), node("Gemm", "i", "w")], {"w": W}),
        "may only be one-hot encoded",
    ),
    "impute zeros": (
        graph([ml("Imputer", ["x"], ["z"], replaced_value_float=0.0)]),
        "only missing values marked as NaN",
    ),
    "string categories": (
        graph([ml("OneHotEncoder", ["x"], ["z"], cats_strings=["a"])]),
        "attribute 'cats_strings'",
    ),
    "many nodes": (graph([node("Identity", "x", out=f"y{i}") for i in range(401)]), "at most 400"),
    "doubling": (
        graph(
            [node("Concat", "x", "x", out="y0", axis=1)]
            + [node("Concat", f"y{i}", f"y{i}", out=f"y{i + 1}", axis=1) for i in range(60)]
        ),
        "more than 4096 columns",
    ),
    "equality": (tree_model(nodes_modes=["BRANCH_EQ"] + ["LEAF"] * 4), "mode 'BRANCH_EQ'"),
    "cycle": (tree_model(nodes_truenodeids=[0, 0, 3, 0, 0]), "reached twice"),
    "shared child": (tree_model(nodes_falsenodeids=[2, 0, 3, 0, 0]), "reached twice|not reached"),
    "lost child": (tree_model(nodes_truenodeids=[9, 0, 3, 0, 0]), "a child does not exist"),
    "orphan": (
        tree_model(nodes_modes=["LEAF"] * 5, class_nodeids=[0, 3, 4]),
        "not reached from its first node",
    ),
    "feature": (tree_model(nodes_featureids=[7, 0, 1, 0, 0]), "feature 7 of 2"),
    "negative feature": (tree_model(nodes_featureids=[-1, 0, 1, 0, 0]), "feature -1 of 2"),
    "lengths": (tree_model(nodes_values=[0.0]), "differ in length"),
    "duplicate node": (tree_model(nodes_nodeids=[0, 1, 2, 3, 3]), "appears twice"),
    "weight on a branch": (tree_model(class_nodeids=[0, 3, 4]), "not a leaf"),
    "class id": (tree_model(class_ids=[0, 0, 2]), "class_ids must be 0 to 1"),
    "no leaves": (
        tree_model(class_treeids=None, class_nodeids=None, class_ids=None, class_weights=None),
        "empty or differ",
    ),
    "infinite leaf": (tree_model(class_weights=[0.1, float("inf"), 0.2]), "not finite"),
    "infinite cut": (tree_model(nodes_values=[float("inf"), 0, 0, 0, 0]), "not finite"),
    "no nodes": (tree_model(**dict.fromkeys(TREE)), "0 tree nodes"),
    "deep tree": (
        tree_model(
            nodes_treeids=[0] * 11,
            nodes_nodeids=list(range(11)),
            nodes_featureids=[0] * 11,
            nodes_values=[0.1] * 11,
            nodes_modes=["BRANCH_LEQ", "LEAF"] * 5 + ["LEAF"],
            nodes_truenodeids=[1, 0, 3, 0, 5, 0, 7, 0, 9, 0, 0],
            nodes_falsenodeids=[2, 0, 4, 0, 6, 0, 8, 0, 10, 0, 0],
            class_nodeids=[1, 3, 10],
        ),
        "deeper than 4",
    ),
    "many trees": (
        tree_model(
            nodes_treeids=list(range(1001)),
            **{key: [0] * 1001 for key in TREE if key not in {"nodes_treeids", "nodes_modes"}},
            nodes_modes=["LEAF"] * 1001,
            class_nodeids=[0, 0, 0],
        ),
        "1001 trees; at most 1000",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(name: str) -> None:
    data, message = HOSTILE[name]
    start = time.process_time()
    with pytest.raises(ValueError, match=message) as caught:
        from_onnx(data, BOX)
    assert time.process_time() - start < 1.0
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_damaged_files_are_refused_or_lawful() -> None:
    data = tree_model()
    rng = np.random.default_rng(0)
    read = 0
    for _ in range(600):
        damaged = bytearray(data)
        for at in rng.integers(0, len(data), int(rng.integers(1, 4))):
            damaged[at] = int(rng.integers(256))
        try:
            model = from_onnx(bytes(damaged), BOX)
        except ValueError:
            continue
        read += 1
        scores = model.score(ROWS[:20])
        assert model.low <= scores.min()
        assert scores.max() <= model.high
    assert read > 8


WATCHED = """
import sys
from secure_eval.from_onnx import from_onnx
path, box = sys.argv[1], [[-1, 1], [-1, 1]]
from_onnx(path, box)  # modules are imported before watching
opened, watching = [], True
sys.addaudithook(lambda event, args: watching and event == "open" and opened.append(args[0]))
from_onnx(path, box)
watching = False
assert opened == [path], opened
assert "onnxruntime" not in sys.modules
"""


def test_nothing_is_run_and_no_other_file_is_opened(tmp_path: Path) -> None:
    """Reading a model opens its path alone and loads no runtime (in a process of its own)."""
    path = tmp_path / "m.onnx"
    path.write_bytes(HAND["gemm"])
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
