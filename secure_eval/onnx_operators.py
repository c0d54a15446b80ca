"""The operators that an ONNX import understands; every other one is refused with advice."""

from collections.abc import Callable
from typing import TypeAlias

from secure_eval import onnx_bins, onnx_features, onnx_scores
from secure_eval.onnx_features import Inputs, Outputs
from secure_eval.onnx_node import Node

Rule: TypeAlias = Callable[[Node, Inputs], Outputs]

ADVICE = {
    "Normalizer": "it mixes features within a row: use Scaler",
    "SVMClassifier": "use LinearSVC, which exports as LinearClassifier",
    "SVMRegressor": "use a linear model, which exports as LinearRegressor",
    "TreeEnsemble": "export with ai.onnx.ml version 3 (TreeEnsembleClassifier)",
    "Relu": "neural networks do not fit: use a linear model or trees of depth <= 4",
    "Conv": "neural networks do not fit: use a linear model or trees of depth <= 4",
    "If": "export a plain pipeline without control flow",
    "Loop": "export a plain pipeline without control flow",
    "Scan": "export a plain pipeline without control flow",
    "Less": "bins are read from scikit-learn: use from_sklearn with KBinsDiscretizer",
    "CategoryMapper": "train on one-hot columns of the levels, as numbers",
    "LabelEncoder": "encode categories as the schema's numeric codes",
    "StringNormalizer": "encode categories as the schema's numeric codes",
    "DictVectorizer": "encode categories as the schema's numeric codes",
}
DEFAULT_ADVICE = (
    "use Scaler, Imputer, OneHotEncoder, Concat, then Gemm, LinearClassifier, LinearRegressor or "
    "a tree ensemble"
)


RULES: dict[str, Rule] = {
    "Add": onnx_scores.arithmetic,
    "ArgMax": onnx_scores.argmax,
    "ArrayFeatureExtractor": onnx_features.pick,
    "Cast": onnx_features.cast,
    "Concat": onnx_features.concat,
    "Constant": onnx_features.constant,
    "Div": onnx_scores.arithmetic,
    "Flatten": onnx_features.reshape,
    "Gather": onnx_features.pick,
    "GatherND": onnx_scores.look_up,
    "Gemm": onnx_scores.gemm,
    "Identity": onnx_features.same,
    "Imputer": onnx_features.imputer,
    "LessOrEqual": onnx_bins.compare,
    "LinearClassifier": onnx_scores.linear_classifier,
    "LinearRegressor": onnx_scores.linear_regressor,
    "MatMul": onnx_scores.matmul,
    "Mul": onnx_scores.arithmetic,
    "Normalizer": onnx_scores.probabilities,
    "OneHotEncoder": onnx_features.one_hot,
    "ReduceSum": onnx_bins.total,
    "Reshape": onnx_features.reshape,
    "Scaler": onnx_features.scaler,
    "Sigmoid": onnx_scores.sigmoid,
    "Softmax": onnx_scores.softmax,
    "Split": onnx_bins.split,
    "Squeeze": onnx_features.reshape,
    "Sub": onnx_scores.arithmetic,
    "TreeEnsembleClassifier": onnx_scores.tree_classifier,
    "TreeEnsembleRegressor": onnx_scores.tree_regressor,
    "ZipMap": onnx_scores.probabilities,
}


def apply(node: Node, inputs: Inputs) -> Outputs:
    """Return the values of a node's outputs.

    Raises:
        ValueError: naming node and operator, with what to use instead.
    """
    rule = RULES.get(node.operator)
    if rule is None:
        advice = ADVICE.get(node.operator, DEFAULT_ADVICE)
        raise node.refuse(f"operator is not supported; {advice}")
    return rule(node, inputs)
