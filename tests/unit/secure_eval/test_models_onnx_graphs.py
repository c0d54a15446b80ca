"""ONNX graphs made by hand: the scores they spell, branches exact at ties."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_graphs import BOX, GEMM, ROWS, TREE, C, W, graph, ml, node, runtime_labels, tree_model

from secure_eval.from_onnx import from_onnx

MARGIN = ROWS @ [1.5, -2.0] + 0.25

HAND: dict[str, bytes] = {
    "gemm": GEMM,
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
