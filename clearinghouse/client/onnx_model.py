"""An ONNX file as the integer model that a schema's label asks for; loaded in its own process."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from clearinghouse.features import bounds, feature_groups, features
from clearinghouse.model_columns import columns, label_column_of
from clearinghouse.schema import Schema
from secure_eval.class_models import Model
from secure_eval.from_onnx import classes_from_onnx, from_onnx, residual_from_onnx


def onnx_model(data: bytes, schema: Schema) -> Model:
    """Import an ONNX file as the schema's label asks; foreign bytes are parsed here.

    Raises:
        ValueError: Something in it is not supported or malformed.
    """
    limits, given, groups = bounds(schema), columns(schema), feature_groups(schema)
    names = [feature.name for feature in features(schema)]
    label = label_column_of(schema)
    if label is not None:
        return residual_from_onnx(
            data, limits, label, columns=given[:-1], groups=groups, names=names
        )
    if schema.label.is_binary:
        return from_onnx(data, limits, columns=given, groups=groups, names=names)
    model = classes_from_onnx(data, limits, columns=given, groups=groups, names=names)
    if len(model.models) != schema.label.n_classes:
        raise ValueError(
            f"the model has {len(model.models)} classes; the label '{schema.label.name}' has "
            f"{schema.label.n_classes} levels"
        )
    return model


def float_outputs(data: bytes, rows: NDArray[np.float64]) -> dict[str, Any]:
    """Labels and scores that ONNX's reference evaluator gives for feature vectors (n, F).

    Only for files that were imported: these hold known operators only. What the evaluator cannot
    run gives nothing, which is no fault of the model.
    """
    import onnx
    from onnx.reference import ReferenceEvaluator

    types = {onnx.TensorProto.FLOAT: np.float32, onnx.TensorProto.DOUBLE: np.float64}
    proto = onnx.ModelProto()
    proto.ParseFromString(data)
    _without_zipmaps(proto)
    constants = {tensor.name for tensor in proto.graph.initializer}
    inputs = [item for item in proto.graph.input if item.name not in constants]
    feeds: dict[str, Any] = {}
    start = 0
    for item in inputs:
        dims = item.type.tensor_type.shape.dim
        is_column = len(dims) == 1 and len(inputs) > 1  # one number a row
        width = 1 if is_column else rows.shape[1] if len(inputs) == 1 else dims[1].dim_value
        kind = types.get(item.type.tensor_type.elem_type, np.int64)
        part = rows[:, start : start + width].astype(kind)
        feeds[item.name] = part[:, 0] if is_column else part
        start += width
    try:
        outputs = ReferenceEvaluator(proto).run(None, feeds)
    except Exception:  # noqa: BLE001  an operator that the reference lacks
        return {}
    found: dict[str, Any] = {}
    for output in outputs:
        values = np.asarray(output)
        if values.shape == (len(rows),) and values.dtype.kind in "iu":
            found.setdefault("labels", values.tolist())
        elif values.dtype.kind == "f" and values.size and len(values) == len(rows):
            found.setdefault("scores", values.reshape(len(rows), -1).astype(float).tolist())
    return found


def _without_zipmaps(proto: Any) -> None:
    """Let probabilities be the array that a ZipMap would name, as no evaluator here has ZipMap."""
    for node in proto.graph.node:
        if node.op_type == "ZipMap":
            node.op_type, node.domain = "Identity", ""
            del node.attribute[:]
    if all(item.domain not in ("", "ai.onnx") for item in proto.opset_import):
        proto.opset_import.add(domain="", version=13)
