"""Rules of ONNX operators on features: preprocessing, selection, shapes. Nothing is executed."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from secure_eval import onnx_bins
from secure_eval.expressions import (
    Elementwise,
    Expression,
    Smooth,
    affine,
    staircase,
    to_float32,
)
from secure_eval.onnx_node import TYPES, Node
from secure_eval.onnx_values import MAX_OUTPUTS, Classes, Outcome, Scores, Table, Terms, Value

Inputs: TypeAlias = list[Value]
Outputs: TypeAlias = tuple[Value, ...]
MAX_WIDTH = 4096


def as_table(node: Node, value: Value, *, integral: bool = False) -> Table:
    """Return features, or raise ValueError."""
    if not isinstance(value, Table):
        raise node.refuse("expected features as input, got a score or a constant")
    if value.integral and not integral:
        raise node.refuse("features cast to integers may only be one-hot encoded")
    return value


def as_constant(node: Node, value: Value) -> NDArray[Any]:
    """Return a constant, or raise ValueError."""
    if not isinstance(value, np.ndarray):
        raise node.refuse("expected a constant as its second input")
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        raise node.refuse("a weight is not finite")
    return value


def count_inputs(node: Node, inputs: Inputs, low: int, high: int) -> None:
    """Raise ValueError unless the number of inputs is from low to high."""
    if not low <= len(inputs) <= high:
        raise node.refuse(f"{len(inputs)} inputs; expected {low} to {high}")


def spread(node: Node, values: NDArray[Any], width: int) -> NDArray[Any]:
    """Return one number per column from a list of 1 or width numbers."""
    if values.size not in {1, width}:
        raise node.refuse(f"{values.size} constants for {width} columns")
    return np.broadcast_to(values.ravel(), (width,))


def width_of(node: Node, value: Value) -> int:
    """Return the number of columns of features or scores."""
    if isinstance(value, Table):
        return len(value.columns)
    if isinstance(value, Scores):
        return int(value.forms.shape[1])
    if isinstance(value, Outcome):
        return len(value.signs)
    if isinstance(value, Classes) and not value.is_label:
        return len(value.shifts)
    raise node.refuse("expected features or scores")


def with_signs(outcome: Outcome, signs: tuple[int, ...]) -> Outcome:
    """Return the same decision with other columns."""
    return Outcome(outcome.root, outcome.form, outcome.shift, outcome.decision, signs)


def plus(amount: Any) -> Elementwise:
    """Return the operation x + amount."""
    return lambda values: values + amount


def minus(amount: Any) -> Elementwise:
    """Return the operation x - amount."""
    return lambda values: values - amount


def times(amount: Any) -> Elementwise:
    """Return the operation x * amount."""
    return lambda values: values * amount


def over(amount: Any) -> Elementwise:
    """Return the operation x / amount."""
    return lambda values: values / amount


def scaler(node: Node, inputs: Inputs) -> Outputs:
    """Scaler: (x - offset) * scale in single precision."""
    node.allow("offset", "scale")
    count_inputs(node, inputs, 1, 1)
    table = as_table(node, inputs[0])
    width = len(table.columns)
    offsets = spread(node, node.floats("offset", [0.0]).astype(np.float32), width)
    scales = spread(node, node.floats("scale", [1.0]).astype(np.float32), width)
    columns: list[Expression] = []
    for column, offset, scale in zip(table.columns, offsets, scales, strict=True):
        moved = affine(column, minus(offset), 1.0, -float(offset))
        scaled = affine(moved, times(scale), float(scale), 0.0)
        columns.append(affine(scaled, to_float32, 1.0, 0.0))
    return (Table(tuple(columns)),)


def imputer(node: Node, inputs: Inputs) -> Outputs:
    """Keep the features: rows hold no missing values (`IntegerModel.encode` refuses NaN)."""
    node.allow(
        "imputed_value_floats",
        "imputed_value_int64s",
        "replaced_value_float",
        "replaced_value_int64",
    )
    count_inputs(node, inputs, 1, 1)
    replaced = node.attributes.get("replaced_value_float", float("nan"))
    if "replaced_value_int64" in node.attributes or not np.isnan(replaced):
        raise node.refuse("only missing values marked as NaN can be imputed")
    return (as_table(node, inputs[0]),)


def cast(node: Node, inputs: Inputs) -> Outputs:
    """Cast: exact on features for floats; integers only for one-hot encoding."""
    node.allow("to", "saturate")
    count_inputs(node, inputs, 1, 1)
    value, kind = inputs[0], node.integer("to", 0)
    if isinstance(value, Outcome | Classes):
        return (value,)
    if kind not in TYPES:
        raise node.refuse(f"casts to type {kind} are not supported; use float")
    if isinstance(value, np.ndarray):
        return (value.astype(TYPES[kind]),)
    integral = kind in {6, 7}
    if isinstance(value, Scores | Terms):
        if integral:
            raise node.refuse("a score cannot be cast to integers")
        return (value,)
    if integral or kind == 11:
        return (Table(value.columns, integral),)
    columns = tuple(affine(column, to_float32, 1.0, 0.0) for column in value.columns)
    return (Table(columns),)


def same(node: Node, inputs: Inputs) -> Outputs:
    """Identity."""
    if not inputs:
        raise node.refuse("no inputs")
    return (inputs[0],)


def one_hot(node: Node, inputs: Inputs) -> Outputs:
    """One column per category; a value counts as the largest category not above it.

    Exact for rows that hold declared categories.
    """
    node.allow("cats_int64s", "zeros")
    count_inputs(node, inputs, 1, 1)
    table = as_table(node, inputs[0], integral=True)
    codes = node.integers("cats_int64s")
    order = np.argsort(codes)
    if not len(codes) or len(np.unique(codes)) != len(codes):
        raise node.refuse("expected distinct integer categories (cats_int64s)")
    if len(codes) * len(table.columns) > MAX_WIDTH:
        raise node.refuse(f"more than {MAX_WIDTH} columns")
    rank = np.empty(len(codes), dtype=np.int64)
    rank[order] = np.arange(len(codes))
    edges = codes[order][1:].astype(np.float64)
    levels = np.eye(len(codes))
    sources = [_code(column) for column in table.columns]
    columns = [staircase(source, edges, levels[r]) for source in sources for r in rank]
    return (Table(tuple(columns)),)


def _code(column: Expression) -> Expression:
    """Return a raw category code without its cast to single precision, which keeps integers."""
    raw = isinstance(column, Smooth) and column.slope == 1.0 and column.intercept == 0.0
    return Smooth(column.feature) if raw else column


def concat(node: Node, inputs: Inputs) -> Outputs:
    """Concat along columns."""
    node.allow("axis")
    if node.integer("axis", 1) not in {1, -1} or not inputs:
        raise node.refuse("only axis 1 can be concatenated")
    first = inputs[0]
    if isinstance(first, Terms):
        terms = [value for value in inputs if isinstance(value, Terms)]
        if len(terms) == len(inputs):
            return (onnx_bins.joined(node, terms),)
    if isinstance(first, Table):
        tables = [as_table(node, value, integral=True) for value in inputs]
        columns = [column for table in tables for column in table.columns]
        if len(columns) > MAX_WIDTH or len({table.integral for table in tables}) != 1:
            raise node.refuse(f"more than {MAX_WIDTH} columns, or mixed types")
        return (Table(tuple(columns), first.integral),)
    if isinstance(first, Scores):
        parts = [value for value in inputs if isinstance(value, Scores)]
        if len(parts) == len(inputs) and all(part.root is first.root for part in parts):
            forms = np.hstack([part.forms for part in parts])
            if forms.shape[1] <= MAX_OUTPUTS:
                return (Scores(first.root, forms, np.hstack([part.shifts for part in parts])),)
    if isinstance(first, Outcome):
        outcomes = [value for value in inputs if isinstance(value, Outcome)]
        if len(outcomes) == len(inputs) and all(first.same(value) for value in outcomes):
            signs = tuple(sign for value in outcomes for sign in value.signs)
            if len(signs) <= MAX_OUTPUTS:
                return (with_signs(first, signs),)
    raise node.refuse("only features, or scores of one model, can be concatenated")


def pick(node: Node, inputs: Inputs) -> Outputs:
    """ArrayFeatureExtractor or Gather: columns by constant index, or a label's name."""
    node.allow("axis")
    count_inputs(node, inputs, 2, 2)
    value, index = inputs
    if isinstance(value, np.ndarray) and isinstance(index, Outcome | Classes):
        names = value.ravel()
        count = 2 if isinstance(index, Outcome) else len(index.shifts)
        rising = len(names) == count and bool((names[1:] > names[:-1]).all())
        if node.operator != "ArrayFeatureExtractor" or not rising:
            raise node.refuse(f"expected {count} increasing class labels")
        return (index,)
    if node.operator == "Gather" and node.integer("axis", 0) not in {1, -1}:
        raise node.refuse("only columns (axis 1) can be gathered")
    chosen = as_constant(node, index).ravel()
    width = width_of(node, value)
    if chosen.dtype.kind != "i" or not 1 <= len(chosen) <= MAX_WIDTH:
        raise node.refuse("expected a list of column numbers")
    if chosen.min() < 0 or chosen.max() >= width:
        raise node.refuse(f"a column number is outside 0 to {width - 1}")
    places = chosen.tolist()
    if isinstance(value, Table):
        return (Table(tuple(value.columns[i] for i in places), value.integral),)
    if isinstance(value, Scores) and len(places) <= MAX_OUTPUTS:
        return (Scores(value.root, value.forms[:, places], value.shifts[places]),)
    if isinstance(value, Outcome) and len(places) <= MAX_OUTPUTS:
        return (with_signs(value, tuple(value.signs[i] for i in places)),)
    raise node.refuse("columns of constants are not supported")


def reshape(node: Node, inputs: Inputs) -> Outputs:
    """Accept shapes that keep one row per patient."""
    node.allow("allowzero", "axis", "axes")
    value = inputs[0] if inputs else None
    if isinstance(value, Outcome | Scores | Classes | Terms):
        return (value,)
    if not isinstance(value, Table) or node.operator == "Squeeze":
        raise node.refuse("only features and scores can be reshaped")
    if node.operator == "Flatten":
        if node.integer("axis", 1) != 1:
            raise node.refuse("only axis 1 can be flattened")
        return (value,)
    count_inputs(node, inputs, 2, 2)
    shape = as_constant(node, inputs[1]).ravel().tolist()
    width = len(value.columns)
    of_one = ([0], [-1]) if width == 1 else ()
    if shape not in ([-1, width], [0, -1], [0, width], *of_one):
        raise node.refuse(f"only shape (rows, {width}) is supported")
    return (value,)


def constant(node: Node, inputs: Inputs) -> Outputs:
    """Constant."""
    node.allow("value", "value_float", "value_int", "value_floats", "value_ints")
    count_inputs(node, inputs, 0, 0)
    if len(node.attributes) != 1:
        raise node.refuse("expected one value")
    value = np.asarray(next(iter(node.attributes.values())))
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        raise node.refuse("a constant is not finite")
    return (value,)
