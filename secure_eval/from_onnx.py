"""Import of ONNX models as integer models, under an allow-list of operators.

The file is read as data: sizes are checked before anything is allocated, and no operator is run.
Class 1 is the second class label. Preconditions: rows hold no missing values, and hold declared
categories where a OneHotEncoder reads them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from secure_eval.class_models import MAX_CLASSES, ClassModels, Method
from secure_eval.column_book import check_bounds
from secure_eval.expressions import Expression, Smooth, to_float32
from secure_eval.float_model import Decision, FloatModel
from secure_eval.integer_model import Column, Group, IntegerModel
from secure_eval.onnx_features import MAX_WIDTH
from secure_eval.onnx_node import MAX_ELEMENTS, read_node, read_tensor
from secure_eval.onnx_operators import apply
from secure_eval.onnx_scan import load
from secure_eval.onnx_scores import ends
from secure_eval.onnx_values import Classes, Outcome, Scores, Table, Terms, Value, decide
from secure_eval.quantise import quantise
from secure_eval.quantise_residual import quantise_residual
from secure_eval.sklearn_classes import contrasts, quantised_classes

FLOAT, DOUBLE, INT64 = 1, 11, 7
MAX_EXPRESSIONS = 200_000


def from_onnx(
    path_or_bytes: str | Path | bytes,
    bounds: ArrayLike,
    *,
    score_range: tuple[float, float] | None = None,
    columns: Sequence[Column] | None = None,
    groups: Sequence[Group] | None = None,
    names: Sequence[str] | None = None,
) -> IntegerModel:
    """Return the integer model of an ONNX model with one score or two classes.

    Args:
        path_or_bytes: an ONNX file of at most 16 MB, or its bytes.
        bounds: (F, 2) public low and high of each raw feature, in the order of the inputs.
        score_range: declared (low, high) of the float score; see `quantise`.
        columns: the only columns that exist (a sealed validation set's upload).
        groups: ("one_hot" or "monotone", feature indices) of 0/1 features.
        names: of the features; an input of the graph that has one must stand in its place.

    Raises:
        ValueError: something is not supported or malformed, naming node and operator.
    """
    table = check_bounds(bounds)
    model = read(load(path_or_bytes), len(table), names)
    return quantise(model, table, score_range=score_range, columns=columns, groups=groups)


def classes_from_onnx(
    path_or_bytes: str | Path | bytes,
    bounds: ArrayLike,
    *,
    columns: Sequence[Column] | None = None,
    groups: Sequence[Group] | None = None,
    names: Sequence[str] | None = None,
) -> ClassModels:
    """Return one integer model for each class of an ONNX model of 3 to 16 classes.

    Args:
        path_or_bytes: as for `from_onnx`.
        bounds: as for `from_onnx`.
        columns: as for `from_onnx`.
        groups: as for `from_onnx`.
        names: as for `from_onnx`.

    Raises:
        ValueError: something is not supported or malformed, naming node and operator.
    """
    table = check_bounds(bounds)
    graph, values = _evaluated(load(path_or_bytes), len(table), names)
    models, method = _class_decision(graph, values)
    return quantised_classes(models, method, table, columns, groups)


def residual_from_onnx(
    path_or_bytes: str | Path | bytes,
    bounds: ArrayLike,
    label: Column,
    *,
    columns: Sequence[Column] | None = None,
    groups: Sequence[Group] | None = None,
    names: Sequence[str] | None = None,
) -> IntegerModel:
    """Return the integer model of the residual of an ONNX model with one score.

    Args:
        path_or_bytes: as for `from_onnx`.
        bounds: as for `from_onnx`.
        label: the label's column; see `quantise_residual.label_column`.
        columns: as for `from_onnx`, the label not among them.
        groups: as for `from_onnx`.
        names: as for `from_onnx`.

    Raises:
        ValueError: something is not supported or malformed, naming node and operator.
    """
    table = check_bounds(bounds)
    graph, values = _evaluated(load(path_or_bytes), len(table), names)
    outputs = _outputs(graph, values)
    scores = [value for value in outputs if isinstance(value, Scores)]
    if len(scores) != 1 or len(outputs) != 1 or scores[0].forms.shape[1] != 1:
        raise ValueError("a numeric label needs a graph with one output of one score")
    model = _plain(scores[0]).model()
    return quantise_residual(model, table, label, columns=columns, groups=groups)


def read(proto: Any, n_features: int, names: Sequence[str] | None = None) -> FloatModel:
    """Return the float model of a parsed ModelProto over n_features raw features."""
    graph, values = _evaluated(proto, n_features, names)
    return _decision(graph, values).model()


def _evaluated(
    proto: Any, n_features: int, names: Sequence[str] | None
) -> tuple[Any, dict[str, Value]]:
    """Return the graph, and what each name in it stands for."""
    graph = proto.graph
    values: dict[str, Value] = {}
    elements = 0
    for tensor in graph.initializer:
        array = read_tensor(tensor, f"constant {tensor.name[:64]!r}")
        elements += array.size
        if elements > MAX_ELEMENTS:
            raise ValueError(f"the constants have more than {MAX_ELEMENTS} elements")
        values[tensor.name] = array
    values.update(_inputs(graph, values, n_features, names or ()))
    expressions = 0
    for index, item in enumerate(graph.node):
        node = read_node(item, index)
        missing = [name for name in node.inputs if name not in values]
        if missing:
            raise node.refuse(f"input {missing[0][:64]!r} is not defined before it")
        results = apply(node, [values[name] for name in node.inputs])
        if len(node.outputs) > len(results):
            raise node.refuse(f"{len(node.outputs)} outputs; expected {len(results)}")
        for name, value in zip(node.outputs, results, strict=False):
            if name in values:
                raise node.refuse(f"output {name[:64]!r} is already defined")
            values[name] = value
            expressions += len(value.columns) if isinstance(value, Table) else 0
        if expressions > MAX_EXPRESSIONS:
            raise node.refuse("the graph has too many columns")
    return graph, values


def _inputs(
    graph: Any, constants: dict[str, Value], n_features: int, names: Sequence[str]
) -> dict[str, Value]:
    """Return the graph's inputs as tables over consecutive raw features."""
    found = [item for item in graph.input if item.name not in constants]
    widths = [_input_width(item, n_features if len(found) == 1 else None) for item in found]
    if sum(widths) != n_features:
        raise ValueError(
            f"the graph reads {sum(widths)} features; expected the {n_features} features of the "
            "schema, in their order"
        )
    places = {name: place for place, name in enumerate(names)}
    result: dict[str, Value] = {}
    first = 0
    for item, width in zip(found, widths, strict=True):
        kind = item.type.tensor_type.elem_type
        if kind not in {FLOAT, DOUBLE, INT64}:
            raise ValueError(f"input {item.name[:64]!r}: type {kind} is not supported; use float")
        if places.get(item.name, first) != first:
            raise ValueError(
                f"input {item.name[:64]!r} stands where the schema has {names[first]!r}; give the "
                "inputs in the order of the schema's features"
            )
        operations = (to_float32,) if kind == FLOAT else ()
        columns: tuple[Expression, ...] = tuple(
            Smooth(feature, operations=operations) for feature in range(first, first + width)
        )
        result[item.name] = Table(columns, integral=kind == INT64)
        first += width
    return result


def _input_width(item: Any, default: int | None) -> int:
    """Return the number of features of an input (rows, features)."""
    dims = list(item.type.tensor_type.shape.dim)
    width = dims[1].dim_value if len(dims) == 2 else 0
    if len(dims) == 1 and default is None:
        width = 1  # one number a row, and one input a feature
    if not width and default is not None and len(dims) in {0, 2}:
        width = default
    if not 1 <= width <= MAX_WIDTH:
        raise ValueError(
            f"input {item.name[:64]!r}: expected shape (rows, 1 to {MAX_WIDTH} features)"
        )
    return int(width)


def _outputs(graph: Any, values: dict[str, Value]) -> list[Value]:
    """Return what the graph's outputs stand for; a table of terms' scores only explains."""
    missing = [item.name for item in graph.output if item.name not in values]
    if missing or not graph.output:
        raise ValueError(f"the graph's output {''.join(missing[:1])[:64]!r} is not defined")
    found = [values[item.name] for item in graph.output]
    return [value for value in found if not isinstance(value, Terms)] or found


def _class_decision(graph: Any, values: dict[str, Value]) -> tuple[list[FloatModel], Method]:
    """Return each class's model; probabilities say what they are, a bare label does not."""
    outputs = _outputs(graph, values)
    bare = [value for value in outputs if isinstance(value, Scores)]
    if len(bare) == 1 and 3 <= bare[0].forms.shape[1] <= MAX_CLASSES:
        outputs[outputs.index(bare[0])] = ends(bare[0], "contrast")[1]
    found = [value for value in outputs if isinstance(value, Classes)]
    if len(found) != len(outputs):
        raise ValueError(
            "expected an output for three or more classes; keep label and probabilities"
        )
    if not all(found[0].same(value) for value in found):
        raise ValueError("the outputs of the graph decide differently; keep one output")
    chosen = min(found, key=lambda value: value.is_label)
    models = chosen.models()
    return (contrasts(models) if chosen.method == "contrast" else models), chosen.method


def _decision(graph: Any, values: dict[str, Value]) -> Outcome:
    """Return the one decision that all outputs of the graph share."""
    outputs = _outputs(graph, values)
    many = [value for value in outputs if isinstance(value, Classes)]
    if many:
        raise ValueError(
            f"the model has {len(many[0].shifts)} classes; use classes_from_onnx, or train on two"
        )
    outcomes = [value for value in outputs if isinstance(value, Outcome)]
    scores = [value for value in outputs if isinstance(value, Scores)]
    if len(outcomes) + len(scores) != len(outputs):
        raise ValueError("an output of the graph is not a score; keep label and probabilities")
    if not outcomes:
        if len(scores) != 1:
            raise ValueError("the graph has several scores; keep one output")
        return _plain(scores[0])
    first = outcomes[0]
    if not all(first.same(value) for value in outcomes):
        raise ValueError("the outputs of the graph decide differently; keep one output")
    if any(value.root is not first.root for value in scores):
        raise ValueError("the graph has several models; keep one")
    if any(value.signs not in {(1,), (-1, 1)} for value in outcomes):
        raise ValueError("an output of the graph falls with the score; keep that of class 1")
    return first


def _plain(scores: Scores) -> Outcome:
    """Return the decision on bare scores: two columns compared, or one against 0.5."""
    if scores.forms.shape[1] > 2:
        raise ValueError(f"the graph has {scores.forms.shape[1]} scores; expected 1 or 2")
    outcome = decide(scores)
    if scores.forms.shape[1] == 2:
        return outcome
    half = Decision(0.5, strict=True)
    return Outcome(outcome.root, outcome.form, outcome.shift, half, (1,))
