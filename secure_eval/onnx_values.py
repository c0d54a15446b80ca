"""What a name in an ONNX graph stands for while an importer reads the graph."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from secure_eval.class_models import Method
from secure_eval.expressions import Expression
from secure_eval.float_model import Decision, FloatLinear, FloatModel, FloatTree, FloatTrees

Floats: TypeAlias = NDArray[np.float64]
MAX_OUTPUTS = 16


@dataclass(frozen=True, slots=True)
class Table:
    """Preprocessed features, one expression per column.

    `integral` marks a cast to integers, which only one-hot encoding may read: it is exact on
    category codes alone.
    """

    columns: tuple[Expression, ...]
    integral: bool = False


@dataclass(frozen=True, slots=True)
class Terms:
    """Scores of each term of an additive model, one expression a class: (terms, classes)."""

    terms: tuple[tuple[Expression, ...], ...]


@dataclass(frozen=True, slots=True)
class LinearRoot:
    """Base outputs (k): expressions (E) times weights (E, k) plus intercepts (k)."""

    expressions: tuple[Expression, ...]
    weights: Floats
    intercepts: Floats


@dataclass(frozen=True, slots=True)
class TreeRoot:
    """Base outputs (k): sums of leaf vectors, plus base (k)."""

    expressions: tuple[Expression, ...]
    trees: tuple[FloatTree, ...]
    leaves: tuple[Floats, ...]
    base: Floats


Root: TypeAlias = LinearRoot | TreeRoot


@dataclass(frozen=True, slots=True)
class Scores:
    """Columns of scores: forms (k, c) and shifts (c,) over the base outputs of one root."""

    root: Root
    forms: Floats
    shifts: Floats


@dataclass(frozen=True, slots=True)
class Outcome:
    """Probabilities or labels that rise (+1) or fall (-1) with one score.

    The decided score is form (k,) over the base outputs plus shift.
    """

    root: Root
    form: Floats
    shift: float
    decision: Decision
    signs: tuple[int, ...]

    def model(self) -> FloatModel:
        """Return the float model of the decided score."""
        if isinstance(self.root, LinearRoot):
            return FloatLinear(
                self.root.expressions,
                self.root.weights @ self.form,
                float(self.root.intercepts @ self.form) + self.shift,
                self.decision,
            )
        trees = tuple(
            FloatTree(t.name, t.test, t.threshold, t.closed, t.left, t.right, leaf @ self.form)
            for t, leaf in zip(self.root.trees, self.root.leaves, strict=True)
        )
        base = float(self.root.base @ self.form) + self.shift
        return FloatTrees(self.root.expressions, trees, base, self.decision)

    def same(self, other: "Outcome") -> bool:
        """Say whether another outcome decides on the same score at the same threshold."""
        return (
            self.root is other.root
            and bool(np.array_equal(self.form, other.form))
            and self.shift == other.shift
            and self.decision == other.decision
        )


@dataclass(frozen=True, slots=True)
class Classes:
    """What a model of three or more classes gives at its end: probabilities, or the label.

    Class c scores forms[:, c] over the base outputs plus shifts[c]; `method` says how probabilities
    follow from the scores (`class_models`).
    """

    root: Root
    forms: Floats
    shifts: Floats
    method: Method
    is_label: bool = False

    def models(self) -> list[FloatModel]:
        """Return the float model of each class's score."""
        decision = Decision(0.5 if self.method == "probability" else 0.0, strict=True)
        return [
            Outcome(self.root, form, float(shift), decision, (1,)).model()
            for form, shift in zip(self.forms.T, self.shifts.tolist(), strict=True)
        ]

    def same(self, other: "Classes") -> bool:
        """Say whether another end gives the same scores."""
        return (
            self.root is other.root
            and bool(np.array_equal(self.forms, other.forms))
            and bool(np.array_equal(self.shifts, other.shifts))
        )


Value: TypeAlias = Table | Terms | Scores | Outcome | Classes | NDArray[Any]


def decide(scores: Scores) -> Outcome:
    """Return the decision between two columns of scores, or of one margin against 0.

    Two opposite columns (-z, z) give the margin z itself; others the difference of the two.
    """
    margin = Decision(0.0, strict=True)
    if scores.forms.shape[1] == 1:
        return Outcome(scores.root, scores.forms[:, 0], float(scores.shifts[0]), margin, (1,))
    (first, second), (low, high) = scores.forms.T, scores.shifts.tolist()
    opposite = np.array_equal(root_vector(scores, 0), -root_vector(scores, 1))
    if opposite:
        return Outcome(scores.root, second, high, margin, (-1, 1))
    return Outcome(scores.root, second - first, high - low, margin, (-1, 1))


def root_vector(scores: Scores, column: int) -> Floats:
    """Return one column's score as a vector that is equal for equal scores."""
    form = scores.forms[:, column]
    if isinstance(scores.root, LinearRoot):
        constant = scores.root.intercepts @ form + scores.shifts[column]
        return np.append(scores.root.weights @ form, constant)
    return np.append(form, scores.root.base @ form + scores.shifts[column])
