"""From scores of rows to counts, exact and noised: the tables that one evaluation releases."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from clearinghouse.money import MICRO
from clearinghouse.onsite.papers import LOWEST
from clearinghouse.schema import Schema
from clearinghouse.score_cards import Task, task_of
from clearinghouse.tables import Table
from dp.laws import HISTOGRAM_PERCENT
from dp.noise import geometric

Integers = NDArray[np.int64]
Counts = dict[str, list[int]]


@dataclass(frozen=True, slots=True)
class Cells:
    """One table of a release.

    Attributes:
        name: "histogram", of several classes "histogram:K"; "group:ATTRIBUTE" likewise.
        shape: Its cells: (labels, bins), or (levels, labels, predicted negative and positive).
        epsilon_micro: Its part of the evaluation's epsilon.
    """

    name: str
    shape: tuple[int, ...]
    epsilon_micro: int

    @property
    def size(self) -> int:
        """Number of cells."""
        return int(np.prod(self.shape))


def tables_of(schema: Schema, bins: int, epsilon_micro: int) -> tuple[Cells, ...]:
    """What an evaluation releases; a patient is in one cell of each, so the epsilons add up.

    Three fifths go to the histograms and the rest to the subgroups, as in a blind run. Of a number
    only the histogram of residuals is released.
    """
    task = task_of(schema.label)
    groups = [] if task == "number" else list(schema.subgroups)
    classes = schema.label.n_classes if task == "classes" else 1
    labels = 2 if task == "classes" else schema.label.n_classes
    percent = 100 - HISTOGRAM_PERCENT if groups else 0
    part = epsilon_micro * percent // 100 // max(1, len(groups) * classes)
    whole = epsilon_micro - part * len(groups) * classes
    found = []
    for k in range(classes):
        place = f":{k}" if classes > 1 else ""
        own = whole // classes if k else whole - whole // classes * (classes - 1)
        found.append(Cells(f"histogram{place}", (labels, bins), own))
        for name in groups:
            shape = (len(schema.stratum_names(name)), labels, 2)
            found.append(Cells(f"group{place}:{name}", shape, part))
    return tuple(found)


def exact_counts(
    table: Table, scores: NDArray[np.float64], edges: tuple[int, ...], threshold_edge: int
) -> Counts:
    """Count each row once in every table; exact, so never to be released as they are.

    Args:
        table: The rows.
        scores: (n, columns); NaN counts as the lowest score.
        edges: Of the bins.
        threshold_edge: Index of the edge that decides.
    """
    schema, task = table.schema, task_of(table.schema.label)
    bins = np.searchsorted(edges, _millionths(table, scores, task), side="right") - 1
    codes = schema.label.codes(table.labels)
    found: Counts = {}
    for cells in tables_of(schema, len(edges) - 1, 1):
        kind, _, rest = cells.name.partition(":")
        k = int(rest.partition(":")[0]) if task == "classes" else 0
        labels = (codes == k).astype(np.int64) if task == "classes" else codes
        counts = np.zeros(cells.shape, np.int64)
        if kind == "histogram":
            np.add.at(counts, (labels, bins[:, k]), 1)
        else:
            levels = schema.stratum_codes(table, cells.name.rpartition(":")[2])
            np.add.at(counts, (levels, labels, (bins[:, k] >= threshold_edge).astype(int)), 1)
        found[cells.name] = counts.ravel().tolist()
    return found


def _millionths(table: Table, scores: NDArray[np.float64], task: Task) -> Integers:
    """Scores as whole millionths within the edges' range; a row's follow from its own scores."""
    label = table.schema.label
    if task == "number":
        scores = (scores - table.labels[:, None]) / (label.high - label.low)
    lowest = LOWEST[task] / MICRO
    return np.floor(np.clip(np.nan_to_num(scores, nan=lowest), lowest, 1.0) * MICRO).astype(
        np.int64
    )


def noised(exact: Mapping[str, list[int]], tables: tuple[Cells, ...]) -> Counts:
    """Add fresh two-sided geometric noise to every cell.

    Guarantee: epsilon-DP for the sum of the tables' epsilons, under adding or removing one patient.
    Assumes: one row per patient; a row's scores follow from that row alone (`jail`).
    Proof: a row is in one cell of each table, so `dp.noise.geometric` at sensitivity 1 makes each
    its own epsilon, and epsilons of several tables add up.
    """
    return {
        cells.name: geometric(
            np.array(exact[cells.name]), Fraction(cells.epsilon_micro, MICRO)
        ).tolist()
        for cells in tables
    }
