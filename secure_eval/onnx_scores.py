"""Rules of ONNX operators that make or transform scores. Nothing is executed."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_eval import onnx_bins, onnx_trees
from secure_eval.class_models import Method
from secure_eval.expressions import Expression, affine
from secure_eval.onnx_features import (
    Inputs,
    Outputs,
    as_constant,
    as_table,
    count_inputs,
    minus,
    over,
    pick,
    plus,
    spread,
    times,
    width_of,
    with_signs,
)
from secure_eval.onnx_node import Node
from secure_eval.onnx_values import (
    MAX_OUTPUTS,
    Classes,
    LinearRoot,
    Outcome,
    Scores,
    Table,
    Value,
    decide,
)


def arithmetic(node: Node, inputs: Inputs) -> Outputs:
    """Add, Sub, Mul, Div by a constant: affine on features and on scores."""
    node.allow()
    count_inputs(node, inputs, 2, 2)
    first, second = inputs
    if isinstance(first, np.ndarray):
        if node.operator == "Sub" and isinstance(second, Outcome) and np.all(first == 1):
            return (with_signs(second, tuple(-sign for sign in second.signs)),)
        if node.operator == "Sub" and isinstance(second, Scores):
            return (_moved(node, second, -1.0, as_constant(node, first)),)
        if node.operator not in {"Add", "Mul"}:
            raise node.refuse("a constant may only come second")
        first, second = second, first
    amount = as_constant(node, second)
    if node.operator == "Div" and not np.all(amount):
        raise node.refuse("division by 0")
    if isinstance(first, Outcome | Classes):
        return (_unscaled(node, first, amount),)
    if isinstance(first, Scores):
        number = amount.astype(np.float64)
        if node.operator in {"Add", "Sub"}:
            return (_moved(node, first, 1.0, number if node.operator == "Add" else -number),)
        return (_moved(node, first, number if node.operator == "Mul" else 1.0 / number, 0.0),)
    table = as_table(node, first)
    amounts = spread(node, amount, len(table.columns))
    pairs = zip(table.columns, amounts, strict=True)
    return (Table(tuple(_by_constant(node.operator, column, x) for column, x in pairs)),)


def _unscaled(node: Node, value: Outcome | Classes, amount: NDArray[Any]) -> Value:
    """Return probabilities times 1, as LightGBM's exporter ends without ZipMap."""
    if node.operator in {"Mul", "Div"} and np.all(amount == 1):
        return value
    raise node.refuse(
        f"{node.operator} changes probabilities by a constant. LightGBM's random forests are "
        "exported so, and that export does not predict what the model does: train "
        "boosting_type='gbdt', or scikit-learn's RandomForestClassifier"
    )


def _by_constant(operator: str, column: Expression, amount: Any) -> Expression:
    number = float(amount)
    if operator == "Add":
        return affine(column, plus(amount), 1.0, number)
    if operator == "Sub":
        return affine(column, minus(amount), 1.0, -number)
    if operator == "Mul":
        return affine(column, times(amount), number, 0.0)
    return affine(column, over(amount), 1.0 / number, 0.0)


def gemm(node: Node, inputs: Inputs) -> Outputs:
    """Gemm: alpha * features @ weights + beta * added."""
    node.allow("alpha", "beta", "transA", "transB")
    count_inputs(node, inputs, 2, 3)
    if node.integer("transA", 0):
        raise node.refuse("transA is not supported")
    weights = as_constant(node, inputs[1]).astype(np.float64)
    if node.integer("transB", 0):
        weights = weights.T
    result = _multiply(node, inputs[0], float(node.attributes.get("alpha", 1.0)) * weights)
    if len(inputs) == 3:
        added = float(node.attributes.get("beta", 1.0)) * as_constant(node, inputs[2])
        result = _moved(node, result, 1.0, added.astype(np.float64))
    return (result,)


def matmul(node: Node, inputs: Inputs) -> Outputs:
    """MatMul by a constant."""
    node.allow()
    count_inputs(node, inputs, 2, 2)
    return (_multiply(node, inputs[0], as_constant(node, inputs[1]).astype(np.float64)),)


def _multiply(node: Node, value: Value, weights: NDArray[np.float64]) -> Scores:
    """Return features, or scores, times a constant matrix."""
    width = width_of(node, value)
    matrix = weights[:, None] if weights.ndim == 1 else weights
    if matrix.ndim != 2 or matrix.shape[0] != width or not 1 <= matrix.shape[1] <= MAX_OUTPUTS:
        raise node.refuse(
            f"weights of shape {weights.shape} for {width} columns; "
            f"expected ({width}, 1 to {MAX_OUTPUTS})"
        )
    if isinstance(value, Scores):
        return Scores(value.root, value.forms @ matrix, value.shifts @ matrix)
    outputs = matrix.shape[1]
    root = LinearRoot(as_table(node, value).columns, matrix, np.zeros(outputs))
    return Scores(root, np.eye(outputs), np.zeros(outputs))


def _moved(node: Node, value: Scores, factor: Any, added: Any) -> Scores:
    """Return factor * scores + added, per column."""
    if value.forms.shape[1] == 1 and np.size(factor) == 2:  # a margin beside its constant rival
        value = Scores(value.root, np.repeat(value.forms, 2, axis=1), np.repeat(value.shifts, 2))
    outputs = value.forms.shape[1]
    factors = spread(node, np.asarray(factor, dtype=np.float64), outputs)
    shifts = spread(node, np.asarray(added, dtype=np.float64), outputs)
    return Scores(value.root, value.forms * factors, value.shifts * factors + shifts)


def linear_classifier(node: Node, inputs: Inputs) -> Outputs:
    """LinearClassifier: label and probabilities."""
    node.allow(
        "classlabels_ints",
        "classlabels_strings",
        "coefficients",
        "intercepts",
        "multi_class",
        "post_transform",
    )
    count_inputs(node, inputs, 1, 1)
    labels = node.attributes.get("classlabels_ints", node.attributes.get("classlabels_strings"))
    if labels is None or not 2 <= len(labels) <= MAX_OUTPUTS:
        raise node.refuse(f"expected 2 to {MAX_OUTPUTS} class labels")
    transform = node.text("post_transform", "NONE")
    if transform not in {"NONE", "LOGISTIC", "SOFTMAX"}:
        raise node.refuse(f"post_transform {transform!r} is not supported; use LOGISTIC")
    if len(labels) > 2:
        many = _linear_scores(node, inputs[0], (len(labels),))
        return ends(many, "contrast" if transform == "SOFTMAX" else "one-vs-rest")
    raw = _linear_scores(node, inputs[0], (1, 2))
    outcome = decide(raw)
    probabilities = with_signs(outcome, (-1, 1))
    return with_signs(outcome, (1,)), probabilities


def ends(scores: Scores, method: Method) -> tuple[Classes, Classes]:
    """Return the label and the probabilities of three or more classes."""
    label = Classes(scores.root, scores.forms, scores.shifts, method, is_label=True)
    return label, Classes(scores.root, scores.forms, scores.shifts, method)


def _has_classes(value: Value) -> bool:
    return isinstance(value, Scores) and value.forms.shape[1] > 2


def linear_regressor(node: Node, inputs: Inputs) -> Outputs:
    """LinearRegressor of one target."""
    node.allow("coefficients", "intercepts", "post_transform", "targets")
    count_inputs(node, inputs, 1, 1)
    transform = node.text("post_transform", "NONE")
    if node.integer("targets", 1) != 1 or transform not in {"NONE", "LOGISTIC"}:
        raise node.refuse("expected one target and post_transform NONE or LOGISTIC")
    raw = _linear_scores(node, inputs[0], (1,))
    return (decide(raw),) if transform == "LOGISTIC" else (raw,)


def _linear_scores(node: Node, value: Value, outputs: tuple[int, ...]) -> Scores:
    table = as_table(node, value)
    width = len(table.columns)
    coefficients = node.floats("coefficients")
    rows = len(coefficients) // width
    if rows not in outputs or rows * width != len(coefficients):
        raise node.refuse(f"{len(coefficients)} coefficients for {width} columns")
    intercepts = node.floats("intercepts", [0.0] * rows)
    if len(intercepts) != rows:
        raise node.refuse(f"{len(intercepts)} intercepts for {rows} outputs")
    root = LinearRoot(table.columns, coefficients.reshape(rows, width).T, intercepts)
    return Scores(root, np.eye(rows), np.zeros(rows))


def sigmoid(node: Node, inputs: Inputs) -> Outputs:
    """Sigmoid of one score: positive where the score exceeds 0; of several, each on its own."""
    count_inputs(node, inputs, 1, 1)
    value = inputs[0]
    if isinstance(value, Scores) and _has_classes(value):
        return ends(value, "one-vs-rest")[1:]
    if not isinstance(value, Scores) or value.forms.shape[1] != 1:
        raise node.refuse("only the single score of a model, at its end, may be transformed")
    return (decide(value),)


def softmax(node: Node, inputs: Inputs) -> Outputs:
    """Softmax of two scores: positive where the second exceeds the first; or of all classes."""
    node.allow("axis")
    count_inputs(node, inputs, 1, 1)
    value = inputs[0]
    if isinstance(value, Scores) and _has_classes(value):
        return ends(value, "contrast")[1:]
    if not isinstance(value, Scores) or value.forms.shape[1] != 2:
        raise node.refuse("only the two scores of a model, at its end, may be transformed")
    return (decide(value),)


def argmax(node: Node, inputs: Inputs) -> Outputs:
    """ArgMax of scores or probabilities: the label."""
    node.allow("axis", "keepdims", "select_last_index")
    count_inputs(node, inputs, 1, 1)
    value = inputs[0]
    if isinstance(value, Table):
        return (onnx_bins.bin_of(node, value),)
    if isinstance(value, Scores) and _has_classes(value):
        return ends(value, "contrast")[:1]
    if isinstance(value, Classes) and not value.is_label:
        return (replace(value, is_label=True),)
    if isinstance(value, Scores) and value.forms.shape[1] == 2:
        value = decide(value)
    elif not isinstance(value, Outcome):
        raise node.refuse("only the two scores of a model can be compared")
    if value.signs != (-1, 1):
        raise node.refuse("expected the score of class 1 in the second column")
    return (with_signs(value, (1,)),)


def look_up(node: Node, inputs: Inputs) -> Outputs:
    """GatherND: the score of a bin, or the name of a predicted class."""
    node.allow("batch_dims")
    count_inputs(node, inputs, 2, 2)
    constants, index = inputs
    if not isinstance(constants, np.ndarray) or node.integer("batch_dims", 0):
        raise node.refuse("expected constant scores or class labels first")
    if isinstance(index, Outcome | Classes):
        return pick(replace(node, operator="ArrayFeatureExtractor", attributes={}), inputs)
    table = as_table(node, index, integral=True)
    return (onnx_bins.look_up(node, constants.astype(np.float64), table),)


def probabilities(node: Node, inputs: Inputs) -> Outputs:
    """ZipMap, and Normalizer after a model: they keep the order of scores."""
    count_inputs(node, inputs, 1, 1)
    if isinstance(inputs[0], Outcome | Scores | Classes):
        return (inputs[0],)
    raise node.refuse(f"features are not supported here; {'use Scaler before the model'}")


def tree_classifier(node: Node, inputs: Inputs) -> Outputs:
    """TreeEnsembleClassifier."""
    count_inputs(node, inputs, 1, 1)
    found = onnx_trees.classifier(node, as_table(node, inputs[0]))
    return ends(*found) if isinstance(found[0], Scores) else found


def tree_regressor(node: Node, inputs: Inputs) -> Outputs:
    """TreeEnsembleRegressor."""
    count_inputs(node, inputs, 1, 1)
    return (onnx_trees.regressor(node, as_table(node, inputs[0])),)
