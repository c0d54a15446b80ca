"""Reads tree ensembles of ONNX (ai.onnx.ml versions 1 to 4) into trees over expressions."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from secure_eval.class_models import Method
from secure_eval.float_model import Decision, FloatTree
from secure_eval.integer_model import MAX_TREE_NODES, MAX_TREES
from secure_eval.model_checks import MAX_DEPTH
from secure_eval.onnx_node import Node
from secure_eval.onnx_values import MAX_OUTPUTS, Outcome, Scores, Table, TreeRoot

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]

# mode: (which child is left, whether the left side holds the threshold)
MODES = {
    b"BRANCH_LEQ": ("true", True),
    b"BRANCH_LT": ("true", False),
    b"BRANCH_GT": ("false", True),
    b"BRANCH_GTE": ("false", False),
}
NODE_ATTRIBUTES = (
    "nodes_featureids",
    "nodes_falsenodeids",
    "nodes_truenodeids",
    "nodes_hitrates",
    "nodes_hitrates_as_tensor",
    "nodes_missing_value_tracks_true",
    "nodes_modes",
    "nodes_nodeids",
    "nodes_treeids",
    "nodes_values",
    "nodes_values_as_tensor",
    "base_values",
    "base_values_as_tensor",
    "post_transform",
)


def classifier(node: Node, table: Table) -> tuple[Outcome, Outcome] | tuple[Scores, Method]:
    """Return the label and the two probabilities of a TreeEnsembleClassifier.

    Of three or more classes: their scores, and what these are. Without a post transform they are
    probabilities where no weight is negative, else margins.

    Two classes: weights of one class id alone are the score of class 1: a probability against 0.5
    where no post transform is set and no weight is negative, else a margin against 0 (the rule of
    the ONNX runtime; with a logistic transform always a margin).
    """
    leaf = ("class_ids", "class_nodeids", "class_treeids", "class_weights")
    node.allow(
        *NODE_ATTRIBUTES,
        *leaf,
        "class_weights_as_tensor",
        "classlabels_int64s",
        "classlabels_strings",
    )
    labels = node.attributes.get("classlabels_int64s", node.attributes.get("classlabels_strings"))
    if labels is None or not 2 <= len(labels) <= MAX_OUTPUTS:
        raise node.refuse(f"expected 2 to {MAX_OUTPUTS} class labels")
    transform = node.text("post_transform", "NONE")
    if transform not in {"NONE", "LOGISTIC", "SOFTMAX"}:
        raise node.refuse(f"post_transform {transform!r} is not supported; use NONE or LOGISTIC")
    weights = node.floats("class_weights")
    ids = node.integers("class_ids")
    if len(labels) > 2:
        many = _read(node, table, "class", ids, weights, len(labels))
        scores = Scores(many, np.eye(len(labels)), np.zeros(len(labels)))
        shares = transform == "NONE" and not (weights < 0).any()
        one_each: Method = "probability" if shares else "one-vs-rest"
        return scores, "contrast" if transform == "SOFTMAX" else one_each
    root = _read(node, table, "class", ids, weights, 2)
    if np.unique(ids).size == 1:
        form = np.zeros(2)
        form[ids[0]] = 1.0
        base = node.floats("base_values")
        shift = float(base[-1] - root.base @ form) if base.size else 0.0
        half = transform == "NONE" and not (weights < 0).any()
        decision = Decision(0.5 if half else 0.0, strict=True)
    else:
        form, shift, decision = np.array([-1.0, 1.0]), 0.0, Decision(0.0, strict=True)
    label = Outcome(root, form, shift, decision, (1,))
    return label, Outcome(root, form, shift, decision, (-1, 1))


def regressor(node: Node, table: Table) -> Scores | Outcome:
    """Return the score of a TreeEnsembleRegressor (sum or average of leaves).

    Three or more targets are the raw scores of classes (gradient boosting exports them so).
    """
    leaf = ("target_ids", "target_nodeids", "target_treeids", "target_weights")
    node.allow(
        *NODE_ATTRIBUTES, *leaf, "target_weights_as_tensor", "n_targets", "aggregate_function"
    )
    targets = node.integer("n_targets", 1)
    if targets != 1 and not 3 <= targets <= MAX_OUTPUTS:
        raise node.refuse(f"{targets} targets are not supported; train on one")
    aggregate = node.text("aggregate_function", "SUM")
    transform = node.text("post_transform", "NONE")
    if aggregate not in {"SUM", "AVERAGE"} or transform not in {"NONE", "LOGISTIC"}:
        raise node.refuse(f"{aggregate} with {transform} is not supported; use SUM with NONE")
    ids = node.integers("target_ids")
    root = _read(node, table, "target", ids, node.floats("target_weights"), targets)
    share = 1.0 / len(root.trees) if aggregate == "AVERAGE" else 1.0
    if targets > 1:
        if aggregate == "AVERAGE" or transform != "NONE":
            raise node.refuse("several targets need SUM without a post transform")
        return Scores(root, np.eye(targets), np.zeros(targets))
    shift = float(root.base[0]) * (1.0 - share)
    if transform == "LOGISTIC":
        return Outcome(root, np.array([share]), shift, Decision(0.0, strict=True), (1,))
    return Scores(root, np.array([[share]]), np.array([shift]))


def _read(
    node: Node, table: Table, kind: str, ids: Integers, weights: Floats, outputs: int
) -> TreeRoot:
    """Return the trees with leaf vectors (n_nodes, outputs); checks everything structural."""
    builder = _Builder(node, len(table.columns))
    leaves = builder.leaves(kind, ids, weights, outputs)
    base = node.floats("base_values")
    if base.size not in ({0, 1, outputs} if outputs < 3 else {0, outputs}):
        raise node.refuse(f"{base.size} base values; expected {outputs}")
    full = np.zeros(outputs)
    full[: base.size] = base
    trees, vectors = [], []
    for tree, members in builder.members().items():
        read, order = builder.build(tree, members)
        trees.append(read)
        vectors.append(leaves[order])
    return TreeRoot(table.columns, tuple(trees), tuple(vectors), full)


class _Builder:
    """Turns the flat lists of an ensemble into one FloatTree per tree."""

    def __init__(self, node: Node, width: int) -> None:
        self._node, self._width = node, width
        self._trees = node.integers("nodes_treeids")
        self._features = node.integers("nodes_featureids")
        self._thresholds = node.floats("nodes_values")
        self._modes: list[bytes] = list(node.attributes.get("nodes_modes", []))
        self._children = {
            "true": node.integers("nodes_truenodeids"),
            "false": node.integers("nodes_falsenodeids"),
        }
        ids = node.integers("nodes_nodeids")
        count = len(self._trees)
        if not 1 <= count <= MAX_TREE_NODES:
            raise node.refuse(f"{count} tree nodes; expected 1 to {MAX_TREE_NODES}")
        lengths = {len(ids), len(self._features), len(self._thresholds), len(self._modes)}
        if lengths | {len(x) for x in self._children.values()} != {count}:
            raise node.refuse("the lists of tree nodes differ in length")
        pairs = zip(self._trees.tolist(), ids.tolist(), strict=True)
        self._place = {pair: index for index, pair in enumerate(pairs)}
        if len(self._place) != count:
            raise node.refuse("a tree node appears twice")

    def members(self) -> dict[int, list[int]]:
        """Return the flat positions of each tree's nodes, in the order of the file."""
        result: dict[int, list[int]] = {}
        for position, tree in enumerate(self._trees.tolist()):
            result.setdefault(tree, []).append(position)
        if len(result) > MAX_TREES:
            raise self._node.refuse(f"{len(result)} trees; at most {MAX_TREES}")
        return result

    def leaves(self, kind: str, ids: Integers, weights: Floats, outputs: int) -> Floats:
        """Return the leaf vectors (n_nodes, outputs) from the lists of class or target weights."""
        owners = self._node.integers(f"{kind}_treeids"), self._node.integers(f"{kind}_nodeids")
        if not len(owners[0]) == len(owners[1]) == len(ids) == len(weights) > 0:
            raise self._node.refuse(f"the lists of {kind} weights are empty or differ in length")
        if ids.min() < 0 or ids.max() >= outputs:
            raise self._node.refuse(f"{kind}_ids must be 0 to {outputs - 1}")
        result = np.zeros((len(self._trees), outputs))
        rows = zip(*(x.tolist() for x in (*owners, ids, weights)), strict=True)
        for tree, leaf, output, weight in rows:
            at = self._place.get((tree, leaf))
            if at is None or self._modes[at] != b"LEAF":
                raise self._node.refuse(f"tree {tree}: node {leaf} has a weight but is not a leaf")
            result[at, output] += weight
        return result

    def build(self, tree: int, members: list[int]) -> tuple[FloatTree, list[int]]:
        """Return a tree in breadth-first order and the flat positions of its nodes."""
        root = members[0]
        order, depth = [root], {root: 0}
        left: list[int] = []
        right: list[int] = []
        for at in order:
            if self._modes[at] == b"LEAF":
                left.append(-1)
                right.append(-1)
                continue
            ends = self._ends(tree, at)
            for end in ends:
                if end in depth:
                    raise self._node.refuse(f"tree {tree}: a node is reached twice (a cycle)")
                depth[end] = depth[at] + 1
            if depth[ends[0]] > MAX_DEPTH:
                raise self._node.refuse(
                    f"tree {tree}: deeper than {MAX_DEPTH}; train with max_depth <= {MAX_DEPTH}"
                )
            left.append(len(order))
            right.append(len(order) + 1)
            order += ends
        if len(order) != len(members):
            raise self._node.refuse(f"tree {tree}: a node is not reached from its first node")
        inner = np.array(left) >= 0
        closed = [MODES[self._modes[at]][1] if inner[i] else True for i, at in enumerate(order)]
        result = FloatTree(
            f"{self._node.place} tree {tree}",
            np.where(inner, self._features[order], -1),
            self._thresholds[order],
            np.array(closed, dtype=np.bool_),
            np.array(left, dtype=np.int64),
            np.array(right, dtype=np.int64),
            np.zeros(len(order)),
        )
        return result, order

    def _ends(self, tree: int, at: int) -> list[int]:
        """Return the flat positions of the left and right child of an inner node."""
        mode = MODES.get(self._modes[at])
        if mode is None:
            text = self._modes[at][:32].decode("ascii", "replace")
            advice = "use BRANCH_LEQ or BRANCH_LT"
            if text in {"BRANCH_EQ", "BRANCH_NEQ", "BRANCH_MEMBER"}:
                advice = "this is a split on a category: train on one-hot columns of its levels"
            raise self._node.refuse(f"tree {tree}: mode {text!r} is not supported; {advice}")
        if not 0 <= self._features[at] < self._width:
            raise self._node.refuse(
                f"tree {tree}: feature {self._features[at]} of {self._width} does not exist"
            )
        sides = ("true", "false") if mode[0] == "true" else ("false", "true")
        ends = [self._place.get((tree, int(self._children[side][at]))) for side in sides]
        if None in ends:
            raise self._node.refuse(f"tree {tree}: a child does not exist")
        return [end for end in ends if end is not None]
