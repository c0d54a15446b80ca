"""ONNX files made by hand, and the labels that another reader gives a file."""

from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper


def runtime_labels(data: bytes, rows: np.ndarray) -> np.ndarray:
    """Labels of onnxruntime, an independent reader of the file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(data, options)
    outputs = session.run(None, {session.get_inputs()[0].name: rows.astype(np.float32)})
    first = np.asarray(outputs[0]).ravel()
    return np.asarray(first > 0.5 if first.dtype.kind == "f" else first).astype(np.int64)


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


def node(operator: str, *inputs: str, out: str = "z", **attributes: Any) -> Any:
    return helper.make_node(operator, list(inputs), [out], **attributes)


GEMM = graph([node("Gemm", "x", "w", "c", out="s"), node("Sigmoid", "s")], {"w": W, "c": C})

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
