"""Folds fitted scikit-learn preprocessing into expressions of raw features."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from secure_eval.expressions import (
    Elementwise,
    Expression,
    affine,
    constant,
    staircase,
    to_float32,
)

Expressions: TypeAlias = tuple[Expression, ...]
Folder: TypeAlias = Callable[[Any, Expressions, str], Expressions]


def fold(step: Any, inputs: Expressions, place: str) -> Expressions:
    """Return the outputs of one fitted preprocessing step.

    Args:
        step: a fitted transformer, "passthrough", "drop" or None.
        inputs: its input columns.
        place: name of the step for messages.

    Raises:
        ValueError: the step is not supported, with what to use instead.
    """
    if step is None or step == "passthrough":
        return inputs
    if step == "drop":
        return ()
    if type(step).__name__ == "FunctionTransformer" and step.func is None:
        return inputs  # what ColumnTransformer makes of remainder="passthrough"
    folder = _folders().get(type(step))
    if folder is None and hasattr(step, "get_support"):
        folder = _selection
    if folder is None:
        advice = _ADVICE.get(type(step).__name__, _DEFAULT_ADVICE)
        raise ValueError(f"{place}: {type(step).__name__} is not supported; {advice}")
    expected = getattr(step, "n_features_in_", len(inputs))
    if expected != len(inputs):
        raise ValueError(f"{place}: expected {expected} columns, got {len(inputs)}")
    return folder(step, inputs, place)


_DEFAULT_ADVICE = "use scalers, OneHotEncoder, KBinsDiscretizer or Binarizer, or drop the step"
_ADVICE = {
    "SplineTransformer": "splines are not exact on integer columns: use KBinsDiscretizer",
    "PolynomialFeatures": "products of features are not columns: use shallow trees",
    "FunctionTransformer": "code cannot be read: apply the function to the data beforehand",
    "PCA": "train on the original features, for example with an L2 penalty",
    "QuantileTransformer": "use KBinsDiscretizer with quantile bins",
    "PowerTransformer": "use KBinsDiscretizer or StandardScaler",
    "Normalizer": "it mixes features within a row: use StandardScaler",
    "KNNImputer": "use SimpleImputer",
    "IterativeImputer": "use SimpleImputer",
}


def _folders() -> dict[type, Folder]:
    from sklearn import compose, impute, pipeline, preprocessing

    return {
        pipeline.Pipeline: _pipeline,
        compose.ColumnTransformer: _column_transformer,
        preprocessing.StandardScaler: _standard,
        preprocessing.MinMaxScaler: _min_max,
        preprocessing.MaxAbsScaler: _max_abs,
        preprocessing.RobustScaler: _robust,
        preprocessing.OneHotEncoder: _one_hot,
        preprocessing.KBinsDiscretizer: _bins,
        preprocessing.Binarizer: _binarizer,
        impute.SimpleImputer: _imputer,
    }


def _pipeline(step: Any, inputs: Expressions, place: str) -> Expressions:
    for name, inner in step.steps:
        inputs = fold(inner, inputs, f"{place}.{name}")
    return inputs


def _column_transformer(step: Any, inputs: Expressions, place: str) -> Expressions:
    names = list(getattr(step, "feature_names_in_", ()))
    outputs: list[Expression] = []
    for name, inner, columns in step.transformers_:
        chosen = _positions(columns, len(inputs), names)
        part = tuple(inputs[index] for index in chosen)
        if part:
            outputs += fold(inner, part, f"{place}.{name}")
    return tuple(outputs)


def _positions(columns: Any, width: int, names: Sequence[str]) -> list[int]:
    """Return the positions that a ColumnTransformer's fitted column choice means."""
    if isinstance(columns, slice):
        ends = [names.index(e) if isinstance(e, str) else e for e in (columns.start, columns.stop)]
        if isinstance(columns.stop, str):
            ends[1] += 1  # slices of names hold their end
        return list(range(width))[slice(ends[0], ends[1], columns.step)]
    items: list[Any] = [columns] if isinstance(columns, int | str) else list(columns)
    if items and all(isinstance(item, bool | np.bool_) for item in items):
        return [index for index, item in enumerate(items) if item]
    return [
        names.index(item) if isinstance(item, str) else range(width)[int(item)] for item in items
    ]


def _subtract(amount: float) -> Elementwise:
    return lambda values: values - amount


def _divide(amount: float) -> Elementwise:
    return lambda values: values / amount


def _multiply(amount: float) -> Elementwise:
    return lambda values: values * amount


def _add(amount: float) -> Elementwise:
    return lambda values: values + amount


def _centre_and_scale(centre: Any, scale: Any, inputs: Expressions) -> Expressions:
    """Fold (x - centre) / scale with the operations and the order of scikit-learn."""
    outputs: list[Expression] = []
    for index, expression in enumerate(inputs):
        result = expression
        if centre is not None:
            amount = float(centre[index])
            result = affine(result, _subtract(amount), 1.0, -amount)
        if scale is not None:
            amount = float(scale[index])
            result = affine(result, _divide(amount), 1.0 / amount, 0.0)
        outputs.append(result)
    return tuple(outputs)


def _standard(step: Any, inputs: Expressions, _: str) -> Expressions:
    return _centre_and_scale(
        step.mean_ if step.with_mean else None, step.scale_ if step.with_std else None, inputs
    )


def _robust(step: Any, inputs: Expressions, _: str) -> Expressions:
    return _centre_and_scale(
        step.center_ if step.with_centering else None,
        step.scale_ if step.with_scaling else None,
        inputs,
    )


def _max_abs(step: Any, inputs: Expressions, place: str) -> Expressions:
    _no_clip(step, place)
    return _centre_and_scale(None, step.scale_, inputs)


def _min_max(step: Any, inputs: Expressions, place: str) -> Expressions:
    _no_clip(step, place)
    outputs: list[Expression] = []
    for expression, scale, shift in zip(
        inputs, step.scale_.tolist(), step.min_.tolist(), strict=True
    ):
        scaled = affine(expression, _multiply(scale), scale, 0.0)
        outputs.append(affine(scaled, _add(shift), 1.0, shift))
    return tuple(outputs)


def _no_clip(step: Any, place: str) -> None:
    if getattr(step, "clip", False):
        raise ValueError(f"{place}: clip=True is not supported; the public bounds clip already")


def _binarizer(step: Any, inputs: Expressions, _: str) -> Expressions:
    above = float(np.nextafter(step.threshold, np.inf))  # x > t is x >= the next float
    return tuple(staircase(expression, [above], [0.0, 1.0]) for expression in inputs)


def _bins(step: Any, inputs: Expressions, place: str) -> Expressions:
    if step.encode not in {"onehot", "onehot-dense", "ordinal"}:
        raise ValueError(f"{place}: encode={step.encode!r} is not supported; use 'onehot-dense'")
    outputs: list[Expression] = []
    for expression, edges in zip(inputs, step.bin_edges_, strict=True):
        source = expression
        if step.dtype is not None and np.dtype(step.dtype) == np.float32:
            source = affine(source, to_float32, 1.0, 0.0)
        inner = np.asarray(edges, dtype=np.float64)[1:-1]
        if step.encode == "ordinal":
            outputs.append(staircase(source, inner, np.arange(len(inner) + 1)))
        else:
            outputs += [staircase(source, inner, row) for row in np.eye(len(inner) + 1)]
    return tuple(outputs)


def _one_hot(step: Any, inputs: Expressions, place: str) -> Expressions:
    """Fold numeric categories: a row counts as the largest category not above its value.

    Exact for rows that hold fitted categories, as the encoder itself demands.
    """
    if getattr(step, "infrequent_categories_", None) and any(
        item is not None for item in step.infrequent_categories_
    ):
        raise ValueError(f"{place}: infrequent categories are not supported; encode them all")
    outputs: list[Expression] = []
    for index, (expression, categories) in enumerate(zip(inputs, step.categories_, strict=True)):
        codes = np.asarray(categories)
        if codes.dtype.kind not in "iufb" or not np.isfinite(codes.astype(np.float64)).all():
            raise ValueError(
                f"{place}: categories of column {index} are not finite numbers; "
                "use the schema's numeric codes"
            )
        dropped = None if step.drop_idx_ is None else step.drop_idx_[index]
        edges = codes.astype(np.float64)[1:]
        for category, row in enumerate(np.eye(len(codes))):
            if category != dropped:
                outputs.append(staircase(expression, edges, row))
    return tuple(outputs)


def _imputer(step: Any, inputs: Expressions, place: str) -> Expressions:
    """Fold as the identity: rows hold no missing values (`IntegerModel.encode` refuses NaN)."""
    missing = step.missing_values
    if not (isinstance(missing, float) and np.isnan(missing)):
        raise ValueError(
            f"{place}: missing_values={missing!r} is not supported; mark missing values as NaN"
        )
    empty = [isinstance(v, float) and bool(np.isnan(v)) for v in np.asarray(step.statistics_)]
    if any(empty):
        raise ValueError(f"{place}: column {empty.index(True)} had no value to fit; drop it")
    indicator = step.indicator_
    extra = 0 if indicator is None else len(indicator.features_)
    return inputs + (constant(0.0),) * extra


def _selection(step: Any, inputs: Expressions, _: str) -> Expressions:
    return tuple(inputs[index] for index in step.get_support(indices=True).tolist())
