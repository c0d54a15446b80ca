"""Hostile ONNX files: refused in one sentence, quickly; nothing runs, no other file is opened."""

import subprocess
import sys
import time
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_graphs import BOX, GEMM, ROWS, TREE, C, W, graph, ml, node, tree_model

from secure_eval.from_onnx import from_onnx


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
    model = onnx.load_from_string(GEMM)
    model.graph.initializer[0].CopyFrom(tensor)
    return bytes(model.SerializeToString())


def huge_tensor(dims: list[int]) -> bytes:
    model = onnx.load_from_string(GEMM)
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
    "cut short": (GEMM[:-7], "cut short"),
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
    start = time.thread_time()
    with pytest.raises(ValueError, match=message) as caught:
        from_onnx(data, BOX)
    assert time.thread_time() - start < 1.0
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
    path.write_bytes(GEMM)
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
