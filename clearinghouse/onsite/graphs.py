"""What an ONNX graph may be made of to be run on rows: a closed list, read before it is loaded.

Left out on purpose: loops and branches, random numbers, state, strings, and operators whose output
size follows from values (NonZero, Range, Tile, Resize ...): with those on the list every row takes
the same time and memory, whatever its values are.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from secure_eval.onnx_scan import Limits, load

LIMITS = Limits(64 << 20, 8_000_000, 200_000, 20_000)

_PLAIN = """
    Abs Add And ArgMax ArgMin AveragePool BatchNormalization Cast Ceil Celu Clip Concat Constant
    Conv Cos Div Elu Equal Erf Exp Flatten Floor GRU Gather GatherElements Gelu Gemm
    GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual HardSigmoid HardSwish Identity IsInf
    IsNaN LSTM LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax MatMul Max MaxPool Mean
    Min Mish Mul Neg Not Or PRelu Pow RNN Reciprocal ReduceL1 ReduceL2 ReduceLogSumExp ReduceMax
    ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Round Selu Shape Sigmoid
    Sign Sin Size Slice Softmax Softplus Softsign Split Sqrt Squeeze Sub Sum Tanh Transpose
    Unsqueeze Where Xor
"""
_MACHINE_LEARNING = """
    ArrayFeatureExtractor Binarizer FeatureVectorizer Imputer LinearClassifier LinearRegressor
    Normalizer OneHotEncoder SVMClassifier SVMRegressor Scaler TreeEnsembleClassifier
    TreeEnsembleRegressor ZipMap
"""
OPERATORS = {
    domain: frozenset(names.split())
    for domain, names in (("", _PLAIN), ("ai.onnx", _PLAIN), ("ai.onnx.ml", _MACHINE_LEARNING))
}
"""By domain."""

_FLOAT, _INT64, _DOUBLE = 1, 7, 11
TYPES = {_FLOAT: "<f4", _INT64: "<i8", _DOUBLE: "<f8"}
_FRACTIONS = frozenset({_FLOAT, _DOUBLE, 10, 16})


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph that passed.

    Attributes:
        inputs: Name, width and numpy type of each input, in the order in which they take features.
        operators: How often each operator occurs.
        weights: Numbers in constants of the file.
    """

    inputs: tuple[tuple[str, int, str], ...]
    operators: dict[str, int]
    weights: int


def scan(data: bytes, width: int) -> Graph:
    """Read a file's graph without running it; foreign bytes are parsed here.

    Args:
        data: Of the file.
        width: Number of features of a row.

    Raises:
        ValueError: It is no ONNX model, too large, not made of the listed operators, or takes other
            inputs.
    """
    model = load(data, LIMITS)
    for node in model.graph.node:
        known = OPERATORS.get(node.domain)
        if known is None or node.op_type not in known:
            place = f"{node.domain}." if node.domain else ""
            raise ValueError(
                f"the operator {place}{node.op_type}"[:120] + " is not run on rows; "
                "docs/onsite.md lists those that are"
            )
    _check_divisions(model)
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = _inputs([i for i in model.graph.input if i.name not in constants], width)
    counted = Counter(node.op_type for node in model.graph.node)
    weights = sum(_size(tensor.dims) for tensor in model.graph.initializer)
    return Graph(inputs, dict(sorted(counted.items())), weights)


def _size(dims: Any) -> int:
    total = 1
    for dim in dims:
        total *= int(dim)
    return total


def _inputs(found: list[Any], width: int) -> tuple[tuple[str, int, str], ...]:
    inputs = []
    for item in found:
        tensor = item.type.tensor_type
        dims = [int(dim.dim_value) for dim in tensor.shape.dim]  # 0 where it is not stated
        kind = TYPES.get(tensor.elem_type)
        if kind is None or len(dims) != 2 or dims[0] > 1:
            raise ValueError(f"its inputs must be {width} numbers of shape (rows, features)")
        inputs.append((str(item.name), dims[1] or (width if len(found) == 1 else 0), kind))
    if sum(own for _, own, _ in inputs) != width or any(own < 1 for _, own, _ in inputs):
        raise ValueError(f"its inputs take other than the schema's {width} features")
    return tuple(inputs)


def _check_divisions(model: Any) -> None:
    """A division of integers by a zero that a row brings would kill the process.

    Raises:
        ValueError: A division may be of integers.
    """
    if not any(node.op_type == "Div" for node in model.graph.node):
        return
    from onnx import shape_inference

    inferred = shape_inference.infer_shapes(model).graph
    kinds = {
        item.name: item.type.tensor_type.elem_type
        for item in (*inferred.value_info, *inferred.output)
    }
    for node in model.graph.node:
        if node.op_type == "Div" and kinds.get(node.output[0]) not in _FRACTIONS:
            raise ValueError("the operator Div is run on fractions only, not on integers")
