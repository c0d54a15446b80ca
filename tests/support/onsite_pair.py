"""A hospital and a developer of on-site evaluation, graphs to send, and what they should count."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from clearinghouse.features import encode, features
from clearinghouse.onsite import carry
from clearinghouse.onsite.developer import Developer, Wish
from clearinghouse.onsite.hospital import Hospital

VA, ADA, BOB = "va@hospital.org", "ada@models.org", "bob@models.org"


def graph(nodes, constants=(), width=0, inputs=None, output="p"):
    """An ONNX file of these nodes over the input x (rows, width)."""
    made = helper.make_graph(
        nodes,
        "g",
        inputs or [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, width])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(made, opset_imports=opsets, ir_version=8)


def scores_of(model, schema, table):
    """What the net itself says of rows, as ONNX computes it: in single precision."""
    from onnxruntime import InferenceSession

    session = InferenceSession(model, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    given = session.run(None, {name: encode(schema, table).astype(np.float32)})[1]
    return np.array([line[1] for line in given])


def constant(schema, weight: float) -> bytes:
    """A graph that is quick to make: a logistic of the age, told apart by its weight."""
    width = len(features(schema))
    weights = np.zeros((width, 1), np.float32)
    weights[0] = weight
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("Sigmoid", ["z"], ["p"]),
    ]
    return graph(nodes, [("w", weights)], width).SerializeToString()


@dataclass
class Pair:
    """A hospital and a developer who never share a folder, and the stick between them."""

    hospital: Hospital
    developer: Developer
    stick: Path

    def wish(self, name: str, **more) -> Wish:
        return Wish(VA, "validation", name, **more)

    def to_developer(self) -> list[str]:
        carry.hospital_gives(self.hospital.box, self.stick, ADA)
        return carry.developer_takes(self.developer.box, self.stick)

    def to_hospital(self) -> list[str]:
        carry.developer_gives(self.developer.box, self.stick)
        return carry.hospital_takes(self.hospital.box, self.stick)

    def approved(self, name: str, model: bytes, **more):
        """Submit, carry, approve."""
        job, _ = self.developer.submit(model, self.wish(name, **more))
        self.to_hospital()
        self.hospital.approve(name)
        return job

    def released(self, name: str):
        self.to_developer()
        return self.developer.collect(VA, name)

    def inbox(self, name: str, side: str = "developer") -> Path:
        box = self.developer.box if side == "developer" else self.hospital.box
        return box.folder / VA / "app_data/job/inbox" / ADA / "v1" / name
