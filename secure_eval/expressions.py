"""Transformed features as functions of one raw feature, and their exact cuts in raw units.

An importer turns each output of a preprocessing pipeline into one of two forms:

* `Smooth`: a monotone function of one raw feature, kept both as an affine map (for weights) and as
  the very floating-point operations of the library (for cuts);
* `Steps`: a piecewise constant function of one raw feature, x >= cut by x >= cut.

A test "f(x) > t" then becomes raw cuts that agree with the library for every float, because the cut
is searched on f as computed, not on f as written on paper.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.float64]
Elementwise: TypeAlias = Callable[[NDArray[np.floating]], NDArray[np.floating]]
Truths: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Smooth:
    """slope * x + intercept of a raw feature, computed by `operations` in floating point."""

    feature: int
    slope: float = 1.0
    intercept: float = 0.0
    operations: tuple[Elementwise, ...] = ()

    def evaluate(self, values: Floats) -> NDArray[np.floating]:
        """Return the library's floating-point result for raw values of any shape."""
        result: NDArray[np.floating] = values
        with np.errstate(over="ignore", invalid="ignore"):
            for operation in self.operations:
                result = operation(result)
        return result


@dataclass(frozen=True, slots=True)
class Steps:
    """values[number of cuts <= x]: cuts (k,) increasing and finite, values (k + 1,)."""

    feature: int
    cuts: Floats
    values: Floats


Expression: TypeAlias = Smooth | Steps


def constant(value: float) -> Steps:
    """Return the expression that is the same number for every row."""
    return Steps(0, np.empty(0), np.array([value], dtype=np.float64))


def steps(feature: int, cuts: ArrayLike, values: ArrayLike) -> Steps:
    """Return a step function from sorted cuts that may repeat or be infinite."""
    edges = np.asarray(cuts, dtype=np.float64)
    levels = np.asarray(values, dtype=np.float64)
    kept = np.isfinite(edges) & np.append(edges[1:] != edges[:-1], True)[: len(edges)]
    first = int(np.count_nonzero(edges == -np.inf))
    return Steps(feature, edges[kept], np.append(levels[first], levels[1:][kept]))


def affine(
    expression: Expression, operation: Elementwise, slope: float, intercept: float
) -> Expression:
    """Return operation(expression), where operation computes slope * value + intercept."""
    if isinstance(expression, Steps):
        with np.errstate(over="ignore"):
            levels = operation(expression.values).astype(np.float64)
        return replace(expression, values=levels)
    if slope == 0.0:
        return constant(float(operation(expression.evaluate(np.zeros(1)))[0]))
    return Smooth(
        expression.feature,
        slope * expression.slope,
        slope * expression.intercept + intercept,
        (*expression.operations, operation),
    )


def staircase(expression: Expression, edges: ArrayLike, levels: ArrayLike) -> Steps:
    """Return levels[number of edges <= expression] for increasing edges (k,), levels (k + 1,)."""
    inner = np.asarray(edges, dtype=np.float64)
    outputs = np.asarray(levels, dtype=np.float64)
    if isinstance(expression, Steps):
        found = np.searchsorted(inner, expression.values, side="right")
        return replace(expression, values=outputs[found])
    cuts = _cuts(expression, inner, closed=False)
    if expression.slope < 0:
        return steps(expression.feature, cuts[::-1], outputs[::-1])
    return steps(expression.feature, cuts, outputs)


def tests(
    expression: Expression, thresholds: Floats, *, closed: bool
) -> list[tuple[Floats, Truths]]:
    """Return for each threshold t (k,) the raw pattern of "goes right".

    A row goes right where expression > t (closed: the left side holds t) or expression >= t.

    Returns:
        (cuts, truths) each: truths[number of cuts <= x] says whether x goes right, and truths
        changes at every cut.
    """
    if isinstance(expression, Smooth):
        cuts = _cuts(expression, thresholds, closed=closed)
        start = expression.slope < 0
        patterns = [(np.array([cut]), np.array([start, not start])) for cut in cuts]
    else:
        levels = expression.values[None, :]
        right = levels > thresholds[:, None] if closed else levels >= thresholds[:, None]
        patterns = [(expression.cuts, row) for row in right]
    return [_changes(cuts, truths) for cuts, truths in patterns]


def _changes(cuts: Floats, truths: Truths) -> tuple[Floats, Truths]:
    """Keep the cuts at which the truth changes; drop cuts at infinity."""
    tidy = steps(0, cuts, truths)
    changed = tidy.values[1:] != tidy.values[:-1]
    return tidy.cuts[changed], np.append(tidy.values[0], tidy.values[1:][changed]) > 0.5


def _cuts(expression: Smooth, thresholds: Floats, *, closed: bool) -> Floats:
    """Return (k,) the least float x at which the comparison with each threshold changes.

    -inf where it has changed before every finite float, inf where it never changes.
    Bisection over the ordered bit patterns of float64, all thresholds at once.
    """
    falling = expression.slope < 0

    def changed(values: Floats) -> Truths:
        result = expression.evaluate(values).astype(np.float64)
        above = result > thresholds if closed else result >= thresholds
        return ~above if falling else above

    largest = np.finfo(np.float64).max
    low = np.full(len(thresholds), _key(np.array([-largest]))[0])
    high = -low
    never, always = ~changed(_unkey(high)), changed(_unkey(low))
    while bool((high - 1 > low).any()):
        middle = (low >> 1) + (high >> 1) + (low & high & 1)
        up = changed(_unkey(middle))
        high, low = np.where(up, middle, high), np.where(up, low, middle)
    result = _unkey(high)
    result[never], result[always] = np.inf, -np.inf
    return result


def _key(values: Floats) -> NDArray[np.int64]:
    """Map finite floats to integers in the same order (both zeros to 0)."""
    bits = np.ascontiguousarray(values, dtype=np.float64).view(np.int64)
    return np.where(bits < 0, -(bits & np.int64(0x7FFF_FFFF_FFFF_FFFF)), bits)


def _unkey(keys: NDArray[np.int64]) -> Floats:
    """Invert `_key`."""
    magnitude = np.abs(keys).view(np.float64)
    return np.where(keys < 0, -magnitude, magnitude)


def to_float32(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Round to single precision, as libraries do before they compare."""
    return values.astype(np.float32)
