"""The two kinds of column, the label, and the public strata each column is cut into.

Everything here follows from the schema alone: no value of any table moves a bound, a cut, a
threshold or a coordinate.
"""

from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clearinghouse.documents import decimal_text

SMALL_RANGE = 10
"""An integer range of at most so many values needs no cuts: each integer is a stratum."""

_HALF = float(np.sqrt(0.5))  # one-hot / sqrt(2): two different levels are at distance exactly 1


@dataclass(frozen=True, slots=True)
class NumberColumn:
    """A number between public bounds.

    Attributes:
        name: Column name in the tables.
        low: Smallest legal value.
        high: Largest legal value, above `low`.
        cuts: Inner borders of the strata [low, c1) ... [ck, high], or None.
        spread: The difference that counts like one category mismatch; positive.
        missing: Whether an empty cell is legal.
        thresholds: Rising t in (low, high]; models may use the bits `x >= t`.
    """

    name: str
    low: float
    high: float
    cuts: tuple[float, ...] | None
    spread: float
    missing: bool
    thresholds: tuple[float, ...]

    @property
    def is_small_range(self) -> bool:
        """Whether the bounds are integers at most ten values apart."""
        return is_small_range(self.low, self.high)

    @property
    def has_strata(self) -> bool:
        """Whether the column can be used in strata and subgroups."""
        return self.cuts is not None or self.is_small_range

    @property
    def is_integer(self) -> bool:
        """Whether each integer is a stratum, so that values in strata must be integers."""
        return self.cuts is None and self.is_small_range

    def _edges(self) -> list[float]:
        """Left edges of the strata and the last right edge (high, or high + 1 for integers)."""
        if self.cuts is not None:
            return [self.low, *self.cuts, self.high]
        if not self.is_small_range:
            raise ValueError(f"column '{self.name}' has no cuts, so it has no strata")
        return [float(k) for k in range(int(self.low), int(self.high) + 2)]

    def stratum_names(self) -> tuple[str, ...]:
        """Strata in words, such as "age 45 to 54"; "missing" last."""
        edges, name = self._edges(), self.name
        if self.is_integer:
            names = [f"{name} {decimal_text(k)}" for k in edges[:-1]]
        elif len(edges) == 2:
            names = [f"{name} {decimal_text(self.low)} to {decimal_text(self.high)}"]
        else:
            names = [f"{name} under {decimal_text(edges[1])}"]
            for left, right in pairwise(edges[1:-1]):
                names.append(f"{name} {self._between(left, right)}")
            names.append(f"{name} {decimal_text(edges[-2])} and over")
        return (*names, f"{name} missing") if self.missing else tuple(names)

    def _between(self, left: float, right: float) -> str:
        whole = all(float(x).is_integer() for x in (self.low, self.high, *(self.cuts or ())))
        if not whole:
            return f"{decimal_text(left)} to under {decimal_text(right)}"
        if right - left == 1:
            return decimal_text(left)
        return f"{decimal_text(left)} to {decimal_text(right - 1)}"

    def stratum_codes(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """Stratum index of each value (n,); NaN (missing) is the last stratum."""
        edges = self._edges()
        codes = np.searchsorted(np.asarray(edges[1:-1]), values, side="right").astype(np.int64)
        return np.where(np.isnan(values), len(edges) - 1, codes)

    def stratum_coordinates(self) -> NDArray[np.float64]:
        """Where each stratum lies in the embedding, (strata, 1) or (strata, 2) with missing."""
        edges = self._edges()
        middles = edges[:-1] if self.is_integer else np.add(edges[:-1], edges[1:]) / 2
        values = np.asarray(middles, dtype=np.float64)
        return self.embed(np.append(values, np.nan) if self.missing else values)

    def embed(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values over spread, (n, 1); with `missing` a second 0/1 coordinate.

        A missing value sits at the middle of the range and 1 away in the missing coordinate.
        """
        absent = np.isnan(values)
        scaled = np.where(absent, (self.low + self.high) / 2, values) / self.spread
        parts = [scaled, absent.astype(np.float64)] if self.missing else [scaled]
        return np.column_stack(parts)

    def to_dict(self) -> dict[str, object]:
        """The column as JSON-able values without floats."""
        cuts = None if self.cuts is None else [decimal_text(c) for c in self.cuts]
        return {
            "name": self.name,
            "kind": "number",
            "low": decimal_text(self.low),
            "high": decimal_text(self.high),
            "cuts": cuts,
            "spread": decimal_text(self.spread),
            "missing": self.missing,
            "thresholds": [decimal_text(t) for t in self.thresholds],
        }


@dataclass(frozen=True, slots=True)
class CategoryColumn:
    """One of a fixed set of public levels.

    Attributes:
        name: Column name in the tables.
        levels: Legal values as text, numbers in normal form.
        missing: Whether an empty cell is legal; it is then one more level, the last.
        words: How each level is spoken of, such as "women" for F; "sex F" unless given.
    """

    name: str
    levels: tuple[str, ...]
    missing: bool
    words: tuple[str, ...] = field(default=())

    has_strata = True  # a class constant: every category can be used in strata

    def stratum_names(self) -> tuple[str, ...]:
        """Levels in words; "missing" last."""
        names = self.words or tuple(f"{self.name} {level}" for level in self.levels)
        return (*names, f"{self.name} missing") if self.missing else names

    def stratum_codes(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Stratum index of each level code (n,); -1 (missing) is the last stratum."""
        return np.where(codes < 0, len(self.levels), codes).astype(np.int64)

    def stratum_coordinates(self) -> NDArray[np.float64]:
        """One-hot over sqrt(2), (strata, strata): different strata are at distance 1."""
        return np.eye(len(self.levels) + int(self.missing)) * _HALF

    def embed(self, codes: NDArray[np.int64]) -> NDArray[np.float64]:
        """The coordinates of each level code, (n, levels + 1 if missing is legal)."""
        return self.stratum_coordinates()[self.stratum_codes(codes)]

    def to_dict(self) -> dict[str, object]:
        """The column as JSON-able values without floats."""
        return {
            "name": self.name,
            "kind": "category",
            "levels": list(self.levels),
            "missing": self.missing,
            "words": list(self.words),
        }


Column = NumberColumn | CategoryColumn


@dataclass(frozen=True, slots=True)
class Label:
    """What models predict: a category with `levels`, or a number between `low` and `high`.

    With two levels the second one is the positive class. A number has the strata that its `cuts`
    make; without cuts it has one, and matching leaves it out.
    """

    name: str
    kind: Literal["category", "number"]
    levels: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    cuts: tuple[float, ...] = ()

    @property
    def n_classes(self) -> int:
        """Levels of a category, strata of a number."""
        return len(self.levels) if self.kind == "category" else len(self.cuts) + 1

    def codes(self, labels: NDArray[np.int64] | NDArray[np.float64]) -> NDArray[np.int64]:
        """Class of each label (n,): its level's code, or its stratum."""
        if self.kind == "category":
            return np.asarray(labels, dtype=np.int64)
        found = np.searchsorted(np.asarray(self.cuts, dtype=np.float64), labels, side="right")
        return np.asarray(found, dtype=np.int64)

    def class_names(self) -> tuple[str, ...]:
        """Levels, or strata in words."""
        if self.kind == "category":
            return self.levels
        edges = [decimal_text(edge) for edge in (self.low, *self.cuts, self.high)]
        return tuple(f"{left} to {right}" for left, right in pairwise(edges))

    @property
    def is_binary(self) -> bool:
        """Whether there are exactly two classes."""
        return self.kind == "category" and len(self.levels) == 2

    def to_dict(self) -> dict[str, object]:
        """The label as JSON-able values without floats."""
        if self.kind == "category":
            return {"name": self.name, "kind": "category", "levels": list(self.levels)}
        found: dict[str, object] = {
            "name": self.name,
            "kind": "number",
            "low": decimal_text(self.low),
            "high": decimal_text(self.high),
        }
        return {**found, "cuts": [decimal_text(cut) for cut in self.cuts]} if self.cuts else found


def is_small_range(low: float, high: float) -> bool:
    """Whether low..high is an integer range of at most ten values."""
    return float(low).is_integer() and float(high).is_integer() and high - low < SMALL_RANGE


def stratum_borders(low: float, high: float, cuts: tuple[float, ...] | None) -> tuple[float, ...]:
    """The inner borders of a number's strata: its cuts, or the steps of a small integer range."""
    if cuts is not None or not is_small_range(low, high):
        return cuts or ()
    return tuple(float(k) for k in range(int(low) + 1, int(high) + 1))


def default_thresholds(
    low: float, high: float, cuts: tuple[float, ...] | None
) -> tuple[float, ...]:
    """Public thresholds: the cuts, and every integer step or nine even steps between the bounds.

    Nothing is read from data. Even steps are rounded to the leading digit of the step, in decimal
    arithmetic, so that every machine gets the same floats.
    """
    first, last = Decimal(str(low)), Decimal(str(high))
    if is_small_range(low, high):
        points = [Decimal(k) for k in range(int(low) + 1, int(high) + 1)]
    else:
        step = (last - first) / 10
        grain = Decimal(1).scaleb(step.adjusted())
        points = [
            ((first + step * i) / grain).to_integral_value(ROUND_HALF_EVEN) * grain
            for i in range(1, 10)
        ]
    inner = {float(point) for point in points if low < float(point) <= high}
    return tuple(sorted(inner | set(cuts or ())))
