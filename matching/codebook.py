"""Codebooks: cells that depend on no private data, their codewords and their distances.

A cell is a combination of strata, one of each axis. An axis places its strata in a Gower-like
space: numbers divided by a public spread, one category mismatch at distance 1, a missing value on
a coordinate of its own. A hierarchy of codebooks runs from a root of one cell to the finest
product of strata; coarser counts are sums of finer ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod, sqrt
from typing import TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Number = TypeVar("Number", bound=np.number)


@dataclass(frozen=True, slots=True)
class Axis:
    """One column's strata and where they lie.

    Attributes:
        name: Column name, unique within a codebook.
        coordinates: (n_strata, d) float64, one point per stratum.
    """

    name: str
    coordinates: Floats

    def __post_init__(self) -> None:
        points = np.array(self.coordinates, np.float64)
        if points.ndim != 2 or 0 in points.shape or not np.isfinite(points).all():
            raise ValueError(
                f"axis {self.name!r}: expected finite coordinates of shape (strata, d), "
                f"got shape {points.shape}"
            )
        points.setflags(write=False)
        object.__setattr__(self, "coordinates", points)

    @property
    def n_strata(self) -> int:
        """Number of strata."""
        return len(self.coordinates)

    @property
    def centre(self) -> Floats:
        """(d,) mean of the strata: where the axis stands when it is not split."""
        return cast(Floats, self.coordinates.mean(axis=0))


def category_axis(name: str, n_levels: int, *, missing: bool = False) -> Axis:
    """An axis of a category: any two levels are at distance 1; missing is one more level."""
    n_strata = n_levels + int(missing)
    if n_strata < 1:
        raise ValueError(f"axis {name!r}: expected at least one level, got {n_levels}")
    return Axis(name, np.eye(n_strata) / sqrt(2))


def number_axis(name: str, edges: ArrayLike, spread: float, *, missing: bool = False) -> Axis:
    """An axis of a number cut into strata: midpoints divided by the spread.

    Args:
        name: Column name.
        edges: (n_strata + 1,) rising numbers: low, the cuts, high.
        spread: Public scale > 0; two values this far apart differ like two categories.
        missing: Adds a last stratum at the middle of the range, one unit away on a coordinate of
            its own.

    Raises:
        ValueError: If the edges do not rise or the spread is not positive.
    """
    bounds = np.asarray(edges, np.float64)
    if bounds.ndim != 1 or len(bounds) < 2 or (np.diff(bounds) <= 0).any() or not spread > 0:
        raise ValueError(f"axis {name!r}: expected rising edges and a spread > 0")
    points = ((bounds[:-1] + bounds[1:]) / 2 / spread)[:, None]
    if missing:
        middle = (bounds[0] + bounds[-1]) / 2 / spread
        points = np.vstack([np.c_[points, np.zeros(len(points))], [[middle, 1.0]]])
    return Axis(name, points)


@dataclass(frozen=True, slots=True)
class Codebook:
    """The product of some axes; no axes at all make the root of one cell.

    Cells count through the last axis fastest (C order).
    """

    axes: tuple[Axis, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes", tuple(self.axes))
        names = [axis.name for axis in self.axes]
        if len(set(names)) < len(names):
            raise ValueError(f"codebook: expected different axes, got {names}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of strata of each axis."""
        return tuple(axis.n_strata for axis in self.axes)

    @property
    def n_cells(self) -> int:
        """Number of cells K."""
        return prod(self.shape)

    def cells(self, codes: ArrayLike) -> Integers:
        """Cell of each row from its strata.

        Args:
            codes: (n, n_axes) integers, stratum of each row on each axis.

        Returns:
            (n,) int64 in 0 .. K - 1.

        Raises:
            ValueError: If the shape is wrong or a stratum does not exist.
        """
        strata = np.asarray(codes)
        if strata.ndim != 2 or strata.shape[1] != len(self.axes):
            raise ValueError(f"codes: expected shape (n, {len(self.axes)}), got {strata.shape}")
        if not self.axes or len(strata) == 0:
            return np.zeros(len(strata), np.int64)
        if strata.dtype.kind not in "iu" or (strata < 0).any() or (strata >= self.shape).any():
            raise ValueError(f"codes: expected integer strata below {self.shape}")
        return cast(Integers, np.ravel_multi_index(tuple(strata.T), self.shape).astype(np.int64))

    def codes(self) -> Integers:
        """(K, n_axes) strata of every cell: the inverse of `cells`."""
        if not self.axes:
            return np.zeros((1, 0), np.int64)
        return np.stack(np.unravel_index(np.arange(self.n_cells), self.shape), axis=1)

    def codewords(self) -> Floats:
        """(K, d) centre of every cell, the axes' coordinates side by side."""
        return self._place(self.axes)

    def distances(self) -> Floats:
        """(K, K) Euclidean distances between the cells' codewords."""
        return distances_between(self, self)

    def _place(self, axes: Sequence[Axis]) -> Floats:
        """Codewords in the space of `axes`; an axis this codebook lacks stands at its centre."""
        codes = self.codes()
        position = {axis.name: i for i, axis in enumerate(self.axes)}
        parts = [
            axis.coordinates[codes[:, position[axis.name]]]
            if axis.name in position
            else np.tile(axis.centre, (self.n_cells, 1))
            for axis in axes
        ]
        return np.hstack(parts) if parts else np.zeros((self.n_cells, 0))


def distances_between(left: Codebook, right: Codebook) -> Floats:
    """(K_left, K_right) Euclidean distances between cells of two levels of one hierarchy.

    A level that does not split an axis stands at the centre of that axis's strata.

    Raises:
        ValueError: If both levels have an axis of one name with different strata.
    """
    axes = list(left.axes)
    known = {axis.name: axis for axis in axes}
    for axis in right.axes:
        if axis.name not in known:
            axes.append(axis)
        elif not np.array_equal(known[axis.name].coordinates, axis.coordinates):
            raise ValueError(f"axis {axis.name!r}: expected the same strata in both codebooks")
    a, b = left._place(axes), right._place(axes)
    squared = ((a[:, None, :] - b[None, :, :]) ** 2).sum(axis=2)
    return cast(Floats, np.sqrt(squared))


def stacked_distances(levels: Sequence[Codebook]) -> Floats:
    """(sum K, sum K) distances among the cells of all levels, level after level.

    A market whose sources publish at different levels clears over all of them at once: the target
    is zero outside the request's own level. Level i starts at the sum of the sizes before it.
    """
    return np.block([[distances_between(a, b) for b in levels] for a in levels])


def cell_map(fine: Codebook, coarse: Codebook) -> Integers:
    """(K_fine,) coarse cell that contains each fine cell.

    Raises:
        ValueError: If the coarse axes are not among the fine ones, with the same strata.
    """
    position = {axis.name: i for i, axis in enumerate(fine.axes)}
    for axis in coarse.axes:
        index = position.get(axis.name)
        if index is None or fine.axes[index].n_strata != axis.n_strata:
            raise ValueError(
                f"axis {axis.name!r}: expected coarse axes among the fine ones {sorted(position)}"
            )
    return coarse.cells(fine.codes()[:, [position[axis.name] for axis in coarse.axes]])


def aggregate(counts: NDArray[Number], fine: Codebook, coarse: Codebook) -> NDArray[Number]:
    """Sum counts of fine cells into the coarse cells that contain them.

    Args:
        counts: (K_fine, ...) of any number type.
        fine: Codebook of the counts.
        coarse: Codebook whose axes are some of the fine ones (none: the root).

    Returns:
        (K_coarse, ...) of the same type and the same total.

    Raises:
        ValueError: If the counts or the codebooks do not fit.
    """
    if len(counts) != fine.n_cells:
        raise ValueError(f"counts: expected {fine.n_cells} cells, got {len(counts)}")
    total = np.zeros((coarse.n_cells, *counts.shape[1:]), counts.dtype)
    np.add.at(total, cell_map(fine, coarse), counts)
    return total


def choose_level(
    n_cells_by_level: Sequence[int],
    n_labels: int,
    epsilon: float,
    size_class: int,
    share: float,
) -> int:
    """Finest level at which counts are not drowned by their noise.

    The finest level with cells x labels <= epsilon x size class x share. It reads declared, public
    numbers only, so it costs no privacy.

    Args:
        n_cells_by_level: Cells of each level, coarse to fine; level 0 is the root of one cell.
        n_labels: Number of labels, >= 1.
        epsilon: Privacy loss of the counts, > 0.
        size_class: Declared power of two, not above the number of rows.
        share: 1 for a request, 0.5 for a source.

    Returns:
        Index of the level; 0 where none fits.

    Raises:
        ValueError: If level 0 is not the root or a number is out of range.
    """
    if not n_cells_by_level or n_cells_by_level[0] != 1:
        raise ValueError(f"expected level 0 to be one cell, got {list(n_cells_by_level)[:1]}")
    if n_labels < 1 or not epsilon > 0 or size_class < 1 or not share > 0:
        raise ValueError(
            f"expected labels >= 1, epsilon > 0, size class >= 1, share > 0, "
            f"got {n_labels}, {epsilon}, {size_class}, {share}"
        )
    room = epsilon * size_class * share + 1e-9  # a product such as 0.1 x 240 may fall short of 24
    fits = [i for i, n_cells in enumerate(n_cells_by_level) if n_cells * n_labels <= room]
    return max(fits, default=0)
