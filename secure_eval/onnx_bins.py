"""Rules of the ONNX operators that explainable boosting machines are exported with (ebm2onnx).

A feature is compared with its bin edges, the last edge passed is the bin's number, and the number
looks up a score: a piecewise constant function of one raw feature. The scores of all terms are
added. An edge of -inf stands for the bin of missing values, which no row reaches.
"""

import numpy as np
from numpy.typing import NDArray

from secure_eval.expressions import Steps, constant, steps, tests
from secure_eval.onnx_node import MAX_ELEMENTS, Node
from secure_eval.onnx_values import MAX_OUTPUTS, LinearRoot, Scores, Table, Terms, Value

__all__ = ["bin_of", "compare", "joined", "look_up", "split", "total"]

MAX_TERMS = 4096


def compare(node: Node, inputs: list[Value]) -> tuple[Value, ...]:
    """LessOrEqual of constant edges (k,) and one feature: k columns of 0 or 1."""
    node.allow()
    if len(inputs) != 2 or not isinstance(inputs[0], np.ndarray):
        raise node.refuse("expected constant bin edges first")
    edges, feature = inputs[0].ravel(), inputs[1]
    if not isinstance(feature, Table) or len(feature.columns) != 1 or feature.integral:
        raise node.refuse("expected one feature to compare with bin edges")
    if not 1 <= len(edges) <= MAX_TERMS or np.isnan(edges.astype(np.float64)).any():
        raise node.refuse(f"expected 1 to {MAX_TERMS} bin edges")
    (column,) = feature.columns
    found = [constant(float(edge < 0)) for edge in edges]
    finite = np.flatnonzero(np.isfinite(edges))
    patterns = tests(column, edges[finite].astype(np.float64), closed=False)
    for place, (cuts, truths) in zip(finite.tolist(), patterns, strict=True):
        found[place] = Steps(column.feature, cuts, truths.astype(np.float64))
    return (Table(tuple(found)),)


def bin_of(node: Node, table: Table) -> Table:
    """ArgMax of columns that are step functions of one feature: the first largest one's index."""
    if node.integer("axis", 0) not in {1, -1} or node.integer("select_last_index", 0):
        raise node.refuse("expected the first of the largest columns (axis 1)")
    columns = [column for column in table.columns if isinstance(column, Steps)]
    moving = {column.feature for column in columns if len(column.cuts)}
    if len(columns) != len(table.columns) or len(moving) > 1 or table.integral:
        raise node.refuse("only bins of one feature can be numbered; the model's end needs scores")
    cuts = np.unique(np.concatenate([column.cuts for column in columns]))
    if len(cuts) * len(columns) > MAX_ELEMENTS:
        raise node.refuse(f"{len(columns)} bins with {len(cuts)} cuts are too many")
    below = [np.searchsorted(column.cuts, cuts, side="right") for column in columns]
    levels = [
        column.values[np.concatenate([[0], index])]
        for column, index in zip(columns, below, strict=True)
    ]
    feature = moving.pop() if moving else 0
    return Table((steps(feature, cuts, np.argmax(levels, axis=0).astype(float)),), integral=True)


def look_up(node: Node, scores: NDArray[np.float64], table: Table) -> Terms:
    """GatherND of scores (bins, c) by a bin's number: one term of c scores."""
    if len(table.columns) != 1:
        raise node.refuse(
            f"a score of {len(table.columns)} features together; train with interactions=0"
        )
    (index,) = table.columns
    table_of = scores[:, None] if scores.ndim == 1 else scores
    if table_of.ndim != 2 or not 1 <= table_of.shape[1] <= MAX_OUTPUTS:
        raise node.refuse(f"expected scores (bins, 1 to {MAX_OUTPUTS}), got {scores.shape}")
    if not isinstance(index, Steps) or index.values.max() >= len(table_of):
        raise node.refuse(f"a bin's number is outside 0 to {len(table_of) - 1}")
    if not np.isfinite(table_of).all():
        raise node.refuse("a score is not finite")
    places = index.values.astype(np.int64)
    return Terms((tuple(Steps(index.feature, index.cuts, row[places]) for row in table_of.T),))


def joined(node: Node, terms: list[Terms]) -> Terms:
    """Concat of terms."""
    found = Terms(tuple(term for value in terms for term in value.terms))
    if len({len(term) for term in found.terms}) != 1 or len(found.terms) > MAX_TERMS:
        raise node.refuse("only terms of as many scores each can be concatenated")
    return found


def total(node: Node, inputs: list[Value]) -> tuple[Value, ...]:
    """ReduceSum over the terms: one score a class."""
    node.allow("keepdims", "noop_with_empty_axes", "axes")
    value = inputs[0] if inputs else None
    axes = inputs[1] if len(inputs) == 2 else node.attributes.get("axes")
    over_terms = axes is not None and np.array_equal(np.ravel(np.asarray(axes, object)), [1])
    if not isinstance(value, Terms) or not over_terms or node.integer("keepdims", 1):
        raise node.refuse("only the terms of an additive model can be added up (axis 1)")
    outputs = len(value.terms[0])
    expressions = tuple(score for term in value.terms for score in term)
    weights = np.tile(np.eye(outputs), (len(value.terms), 1))
    root = LinearRoot(expressions, weights, np.zeros(outputs))
    return (Scores(root, np.eye(outputs), np.zeros(outputs)),)


def split(node: Node, inputs: list[Value]) -> tuple[Value, ...]:
    """Split of features into one output a column."""
    node.allow("axis", "num_outputs")
    if len(inputs) != 1 or not isinstance(inputs[0], Table) or node.integer("axis", 0) != 1:
        raise node.refuse("only columns of features can be split, one by one")
    table = inputs[0]
    if len(node.outputs) != len(table.columns):
        raise node.refuse(f"{len(node.outputs)} parts of {len(table.columns)} columns")
    return tuple(Table((column,), table.integral) for column in table.columns)
