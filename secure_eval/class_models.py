"""One integer model for each class of a label with three or more levels.

A run opens one histogram for each class: rows of that class and rows of all others by the bins of
that class's score. What the score of a class is depends on the model it was made from (`method`):

- "one-vs-rest": the class's own margin, for models that were trained one class against the rest.
  At or above the threshold the class is more likely than not by that margin.
- "probability": the class's probability (forests); threshold one half.
- "contrast": the class's raw score less the mean of all classes' raw scores, for models with one
  softmax over all classes. Softmax does not change when a number is added to all raw scores of a
  row, so a raw score alone means nothing; the contrast is log p_k less the mean of all log p, exact
  in integers, and above 0 where the class is more likely than the geometric mean. For two classes
  it is half the usual margin.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from secure_eval import model_json
from secure_eval.integer_model import IntegerModel, from_plain

__all__ = ["MAX_CLASSES", "ClassModels", "Method", "Model", "model_parts", "read_model"]

Integers: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
Method: TypeAlias = Literal["one-vs-rest", "probability", "contrast"]

MIN_CLASSES = 3
MAX_CLASSES = 16


@dataclass(frozen=True, slots=True, eq=False)
class ClassModels:
    """Models of all classes over the same features; building one checks everything.

    Attributes:
        models: one for each class, in the order of the label's levels; all publish the same number
            of bins and have the same number of hidden ones.
        method: what a class's score is; see this module.

    Raises:
        ValueError: too few or too many classes, or models that do not fit together.
    """

    models: tuple[IntegerModel, ...]
    method: Method

    def __post_init__(self) -> None:
        if not MIN_CLASSES <= len(self.models) <= MAX_CLASSES:
            raise ValueError(
                f"classes: expected {MIN_CLASSES} to {MAX_CLASSES} models, got {len(self.models)}"
            )
        if self.method not in get_args(Method):
            raise ValueError(f"method: expected one of {get_args(Method)}")
        for what, values in (
            ("features", {model.n_features for model in self.models}),
            ("hidden bins", {model.bins for model in self.models}),
            ("published bins", {len(model.bin_edges) - 1 for model in self.models}),
        ):
            if len(values) != 1:
                raise ValueError(f"classes: the models differ in {what}: {sorted(values)}")

    @property
    def kind(self) -> str:
        """The kind of all models, or "mixed"."""
        kinds = {model.kind for model in self.models}
        return kinds.pop() if len(kinds) == 1 else "mixed"

    @property
    def n_features(self) -> int:
        """Width of the rows."""
        return self.models[0].n_features

    def score(self, rows: ArrayLike) -> Integers:
        """Return the integer scores (n, classes) that an encrypted run must reproduce."""
        return np.column_stack([model.score(rows) for model in self.models])

    def predict(self, rows: ArrayLike) -> Integers:
        """Return the class (n,) with the largest score in float units; the first of equals.

        A run does not open this: each class's histogram is counted on its own.
        """
        floats = [(model.score(rows) - model.offset) / model.scale for model in self.models]
        return np.asarray(np.argmax(np.column_stack(floats), axis=1), dtype=np.int64)

    def to_json(self) -> str:
        """Return the canonical text."""
        return model_json.dump_classes(self.models, self.method)

    @classmethod
    def from_json(cls, text: str | bytes) -> "ClassModels":
        """Read models strictly.

        Raises:
            ValueError: naming the place that is unknown, missing, malformed or out of range.
        """
        plain, method = model_json.load_classes(text)
        return cls(tuple(from_plain(item) for item in plain), method)  # type: ignore[arg-type]

    def digest(self) -> str:
        """Return the SHA-256 (hexadecimal) of the canonical text."""
        return hashlib.sha256(self.to_json().encode("ascii")).hexdigest()


Model: TypeAlias = IntegerModel | ClassModels
"""What a developer submits: one model, or one for each class."""


def read_model(text: str | bytes) -> Model:
    """Read a submitted model of either form strictly.

    Raises:
        ValueError: naming the place that is unknown, missing, malformed or out of range.
    """
    if model_json.is_classes(text):
        return ClassModels.from_json(text)
    return IntegerModel.from_json(text)


def model_parts(model: Model) -> tuple[IntegerModel, ...]:
    """Return the models that a run evaluates, one for each histogram."""
    return model.models if isinstance(model, ClassModels) else (model,)


def with_equal_bins(models: Sequence[IntegerModel]) -> tuple[IntegerModel, ...]:
    """Return the models with as many published bins as the one that has fewest.

    Those with more lose inner edges, evenly, but never the decision threshold.
    """
    least = min(len(model.bin_edges) for model in models)
    result = []
    for model in models:
        kept = {0, model.threshold_bin, model.bins}
        others = [edge for edge in model.bin_edges if edge not in kept]
        places = np.linspace(0, len(others) - 1, max(least - len(kept), 0)).round().astype(int)
        result.append(model.with_edges(sorted({*kept, *(others[place] for place in places)})))
    return tuple(result)
