"""Other people's ONNX files: parsed in a process of its own, refused with one clear error."""

import resource

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from clearinghouse.client import onnx_sandbox
from clearinghouse.client.onnx_sandbox import imported, imported_and_run
from clearinghouse.errors import InputError
from clearinghouse.features import features
from clearinghouse.schema import parse_schema
from secure_eval.integer_model import IntegerModel

SCHEMA = parse_schema(
    {
        "name": "s",
        "label": {"name": "y", "levels": ["no", "yes"]},
        "columns": {
            "age": {"kind": "number", "low": 20, "high": 90, "cuts": [50]},
            "sex": {"kind": "category", "levels": ["F", "M"]},
        },
    },
    file="s",
)
WIDTH = len(features(SCHEMA))


def graph(nodes, constants=(), width=WIDTH):
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, width])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants],
    )
    opsets = [helper.make_opsetid("", 15), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(made, opset_imports=opsets, ir_version=8)


def gemm(weights):
    array = np.asarray(weights, dtype=np.float32)[:, None]
    node = helper.make_node("Gemm", ["x", "w"], ["z"])
    return graph([node], [("w", array)], len(array)).SerializeToString()


def forest(trees, depth):
    """A regressor whose trees are chains of splits on a bit of the schema."""
    rows = []
    for tree in range(trees):
        for node in range(depth):
            rows.append((tree, 2 * node, "BRANCH_LEQ", 2 * node + 1, 2 * node + 2))
            rows.append((tree, 2 * node + 1, "LEAF", 0, 0))
        rows.append((tree, 2 * depth, "LEAF", 0, 0))
    ids, places, modes, yes, no = zip(*rows, strict=True)
    leaves = [(tree, node) for tree, node, mode, _, _ in rows if mode == "LEAF"]
    node = helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["z"],
        domain="ai.onnx.ml",
        nodes_treeids=ids,
        nodes_nodeids=places,
        nodes_modes=modes,
        nodes_truenodeids=yes,
        nodes_falsenodeids=no,
        nodes_featureids=[1] * len(rows),
        nodes_values=[0.5] * len(rows),
        target_treeids=[tree for tree, _ in leaves],
        target_nodeids=[node for _, node in leaves],
        target_ids=[0] * len(leaves),
        target_weights=[0.25] * len(leaves),
        n_targets=1,
    )
    return graph([node]).SerializeToString()


def external():
    model = graph([helper.make_node("Gemm", ["x", "w"], ["z"])], [("w", np.zeros((WIDTH, 1), "f"))])
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    return model.SerializeToString()


BAD = {
    "a pickle": (b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix", "pickle"),
    "no model": (b"\x08\x07\x12", "not an ONNX model"),
    "not a number": (gemm([float("nan")] * WIDTH), "not finite"),
    "a million trees": (forest(60_000, 1), "more than|at most"),
    "depth nine": (forest(1, 9), "deeper than 4|max_depth"),
    "an unknown operator": (
        graph([helper.make_node("Tanh", ["x"], ["z"])]).SerializeToString(),
        "Tanh.*not supported",
    ),
    "a wrong number of columns": (gemm([1.0] * (WIDTH + 1)), "features"),
    "external data": (external(), "external data"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_in_a_process_of_their_own_and_name_the_file(name):
    data, words = BAD[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    with pytest.raises(InputError, match=rf"bad\.onnx: .*({words})"):
        imported(data, SCHEMA, "bad.onnx")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - before < 1.0


def test_a_good_file_comes_back_and_its_own_outputs_too(tmp_path):
    path = tmp_path / "good.onnx"
    path.write_bytes(gemm(np.linspace(-1, 1, WIDTH)))
    rows = np.eye(WIDTH)
    model, outputs = imported_and_run(path, SCHEMA, rows)
    assert isinstance(model, IntegerModel)
    assert outputs.scores[:, 0].tolist() == pytest.approx(np.linspace(-1, 1, WIDTH))
    assert outputs.labels is None


def test_a_file_that_takes_too_long_or_kills_its_reader_costs_one_error(monkeypatch):
    data = gemm([1.0] * WIDTH)
    with pytest.raises(InputError, match="took more than"):
        imported(data, SCHEMA, "slow.onnx", wall_s=0.01)
    code = "import os; os.kill(os.getpid(), 9)"
    run = onnx_sandbox.subprocess.run
    monkeypatch.setattr(
        onnx_sandbox.subprocess,
        "run",
        lambda command, **options: run([command[0], "-c", code], **options),
    )
    with pytest.raises(InputError, match="died"):
        imported(data, SCHEMA, "deadly.onnx")


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "large.onnx"
    with path.open("wb") as stream:
        stream.truncate(onnx_sandbox.MAX_FILE_BYTES + 1)
    with pytest.raises(InputError, match="larger than"):
        imported_and_run(path, SCHEMA, np.eye(WIDTH))
