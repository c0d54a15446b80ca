"""What a blind run releases, and what follows from it without further cost."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["Histogram", "area_under_curve"]

Integers = NDArray[np.int64]


def area_under_curve(negatives: Integers, positives: Integers) -> float:
    """Return the area under the ROC curve of two histograms over the same score bins.

    Rows of one bin count as ties (trapezoid). Noised counts may be negative; the result is kept
    in 0..1 and is 0.5 where a class total is below 1.

    Args:
        negatives: (bins,) counts of label 0, bins by increasing score.
        positives: (bins,) counts of label 1.
    """
    total = float(negatives.sum()) * float(positives.sum())
    if negatives.sum() < 1 or positives.sum() < 1:
        return 0.5
    below = np.cumsum(negatives) - negatives
    wins = float((positives * (2 * below + negatives)).sum()) / 2
    return min(1.0, max(0.0, wins / total))


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """Counts of rows per label and score bin, noised or exact.

    Attributes:
        counts: (L, bins) int64.
        edges: (bins + 1,) int64 score edges; bin b holds edges[b] <= score < edges[b + 1], and the
            first and last edge enclose every possible score.
        groups: per attribute (levels, L) int64 counts of rows predicted positive.
        bytes_sent: all message bytes of the run, both directions, without the upload.
        upload_bytes: bytes of the sealed set and the public keys.
        seconds: wall time of a rehearsal by what was done: "sealing" (with new keys),
            "upload tests", "server", "hospital".
    """

    counts: Integers
    edges: Integers
    groups: dict[str, Integers] = field(default_factory=dict)
    bytes_sent: int = 0
    upload_bytes: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def auc(self) -> float:
        """Area under the ROC curve (binary labels); 0.5 where a class total is below 1.

        Raises:
            ValueError: more than two labels.
        """
        if len(self.counts) != 2:
            raise ValueError(f"auc: expected 2 labels, got {len(self.counts)}")
        return area_under_curve(self.counts[0], self.counts[1])

    def confusion(self, edge_index: int) -> tuple[int, int, int, int]:
        """Return (tp, fp, fn, tn) for predicted positive = score >= edges[edge_index].

        Raises:
            ValueError: more than two labels, or no such edge.
        """
        if len(self.counts) != 2:
            raise ValueError(f"confusion: expected 2 labels, got {len(self.counts)}")
        if not 0 <= edge_index < len(self.edges):
            raise ValueError(f"confusion: expected an edge in 0..{len(self.edges) - 1}")
        below = self.counts[:, :edge_index].sum(axis=1)
        above = self.counts[:, edge_index:].sum(axis=1)
        return int(above[1]), int(above[0]), int(below[1]), int(below[0])
