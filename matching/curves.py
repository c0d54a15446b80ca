"""The condensed market: merit order of every cell, and how an entry is shared among its members."""

import hashlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from matching.inputs import LARGEST_TOTAL, Integers, Keys


class Market(Protocol):
    """What the merit orders are built from: `Inputs` and `Plan` both fit."""

    @property
    def distances(self) -> Integers:
        """(K, K) micro-money."""

    @property
    def target(self) -> Integers:
        """(K,) units."""

    @property
    def supplies(self) -> Integers:
        """(S, K) units."""

    @property
    def prices(self) -> Integers:
        """(S,) micro-money."""

    @property
    def reserve(self) -> Integers:
        """(K,) micro-money."""


@dataclass(frozen=True, slots=True)
class Curves:
    """Merit order of every supplied cell, condensed: one entry per (cell, price).

    `cells` are the K-indices with any supply, `wanted` those with any target. Entries of condensed
    cell i are `first[i] .. first[i + 1] - 1` by rising price; the last cell is the outside option.
    Members are the (source, cell) pairs behind the entries, grouped by entry: entry e holds
    `bounds[e] .. bounds[e + 1] - 1`.
    """

    cells: Integers
    wanted: Integers
    cost: Integers
    first: Integers
    price: Integers
    capacity: Integers
    bounds: Integers
    source: Integers
    cell: Integers
    supply: Integers
    shift: int


def build_curves(inputs: Market) -> Curves:
    """Condense the market: drop cells without supply or target, group equal asks of a cell.

    Prices and reserves are shifted by the lowest ask, which changes no gain and makes every price
    non-negative, as the kernel expects.
    """
    cells = np.flatnonzero(inputs.supplies.any(axis=0))
    wanted = np.flatnonzero(inputs.target)
    shift = int(inputs.prices.min()) if len(inputs.prices) else 0
    cost = np.empty((len(wanted), len(cells) + 1), np.int64)
    cost[:, :-1] = inputs.distances[np.ix_(wanted, cells)]
    cost[:, -1] = inputs.reserve[wanted] - shift
    offered = np.ascontiguousarray(inputs.supplies[:, cells].T)
    cell, source = np.nonzero(offered)
    order = np.lexsort((inputs.prices[source], cell))
    cell, source = cell[order], source[order]
    supply, price = offered[cell, source], inputs.prices[source] - shift
    starts = np.flatnonzero(np.r_[True, (np.diff(cell) != 0) | (np.diff(price) != 0)][: len(cell)])
    first = np.searchsorted(cell[starts], np.arange(len(cells) + 1))
    outside = LARGEST_TOTAL
    capacity = np.add.reduceat(supply, starts) if len(starts) else np.empty(0, np.int64)
    return Curves(
        cells=cells,
        wanted=wanted,
        cost=cost,
        first=np.append(first, len(starts) + 1).astype(np.int64),
        price=np.append(price[starts], 0).astype(np.int64),
        capacity=np.append(capacity, outside).astype(np.int64),
        bounds=np.append(starts, [len(cell), len(cell)]).astype(np.int64),
        source=source.astype(np.int64),
        cell=cell.astype(np.int64),
        supply=supply,
        shift=shift,
    )


def share_entries(
    curves: Curves,
    sold: Integers,
    supplies: Integers,
    keys: Keys,
) -> Integers:
    """Split the units sold by each entry among its members, in proportion to their supplies."""
    quota = np.zeros_like(supplies)
    entry = np.repeat(np.arange(len(curves.capacity)), np.diff(curves.bounds))
    whole = sold[entry] == curves.capacity[entry]
    given = np.where(whole, curves.supply, 0)
    for e in np.flatnonzero((sold[:-1] > 0) & (sold[:-1] < curves.capacity[:-1])):
        members = slice(int(curves.bounds[e]), int(curves.bounds[e + 1]))
        given[members] = _proportional(
            int(sold[e]), curves.supply[members], curves.source[members], supplies, keys
        )
    quota[curves.source, curves.cells[curves.cell]] = given
    return quota


def _proportional(
    units: int,
    supply: Integers,
    source: Integers,
    supplies: Integers,
    keys: Keys,
) -> list[int]:
    """Largest-remainder shares of `units`, in exact integers; remainder ties go by key."""
    if len(source) == 1:
        return [units]
    total = sum(int(amount) for amount in supply)
    given = [units * int(amount) // total for amount in supply]
    remainder = [units * int(amount) % total for amount in supply]

    def rank(i: int) -> tuple[int, bytes | int]:
        return -remainder[i], _key(int(source[i]), supplies, keys)

    for i in sorted(range(len(given)), key=rank)[: units - sum(given)]:
        given[i] += 1
    return given


def _key(source: int, supplies: Integers, keys: Keys) -> bytes | int:
    if keys is not None:
        return keys[source]
    return hashlib.sha256(supplies[source].astype("<i8").tobytes()).digest()
