"""Both roles of a blind run of one model for each class, with real keys and ciphertexts."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from secure_eval.class_agent import ClassesAgentRun
from secure_eval.class_models import ClassModels
from secure_eval.class_run import ClassesScoringRun
from secure_eval.histogram import Histogram
from secure_eval.integer_model import Column
from secure_eval.keyholder import KeyHolder
from secure_eval.noise import Table
from secure_eval.nonces import new_nonce
from secure_eval.params import PARAMETERS
from secure_eval.rehearse import Stopwatch, epsilon_micro, group_codes, play

__all__ = ["ClassHistograms", "rehearse_classes"]


@dataclass(frozen=True, slots=True)
class ClassHistograms:
    """What a run of all classes opens.

    Attributes:
        classes: one histogram for each class, counts (2, bins): the rest, then the class.
        bytes_sent: all message bytes of the run, both directions, without the upload.
        upload_bytes: bytes of the sealed set and the public keys.
        seconds: wall time by what was done, as of a `Histogram`.
    """

    classes: tuple[Histogram, ...]
    bytes_sent: int
    upload_bytes: int
    seconds: Mapping[str, float]


def rehearse_classes(
    model: ClassModels,
    rows: ArrayLike,
    labels: ArrayLike,
    *,
    groups: Mapping[str, Any] | None = None,
    noise: float | Fraction | None = None,
    max_rows_per_block: int = PARAMETERS.degree,
) -> ClassHistograms:
    """Run a whole blind scoring of all classes with every test, playing both parties.

    Args:
        model: what to evaluate.
        rows: (n, F) floats.
        labels: (n,) codes of the classes.
        groups: attribute name to (n,) level codes, or to (codes, number of levels).
        noise: epsilon of every table; None opens exact counts.
        max_rows_per_block: rows in a block.

    Raises:
        ValueError: inputs of the wrong shape or out of range.
    """
    codes = np.asarray(labels, np.int64)
    uploaded, maps = _columns(model)
    encoded = _encoded(model, rows, uploaded)
    watch = Stopwatch()
    holder = watch.take("sealing", KeyHolder.generate)
    keys = holder.public_keys()
    levels = {name: group_codes(value) for name, value in (groups or {}).items()}
    count, rows_each = len(model.models), max_rows_per_block
    sealed = watch.take(
        "sealing",
        lambda: holder.seal(encoded, codes, count, groups=levels, max_rows_per_block=rows_each),
    )
    run_id = secrets.token_hex(16)
    nonces = (new_nonce(), new_nonce())
    server = ClassesScoringRun(
        keys, sealed.layout, sealed.blobs, model, maps, secrets.token_bytes(32), run_id, nonces[0]
    )
    agent = ClassesAgentRun(
        holder,
        sealed.layout,
        codes[sealed.order],
        run_id,
        rows_per_block=max_rows_per_block,
        allow_exact=True,
    )
    epsilon = epsilon_micro(noise)
    tables = [Table(name, cells, epsilon) for name, cells in server.table_cells]
    opened, bytes_sent = play(server, agent, nonces, tables, watch)
    count = len(groups or {})
    histograms = []
    for index, part in enumerate(model.models):
        mine = list(opened.groups.items())[index * count : (index + 1) * count]
        named = {name.partition(":")[2]: counts for name, counts in mine}
        counts = opened.counts[2 * index : 2 * index + 2]
        histograms.append(Histogram(counts, part.edges, named))
    upload = len(keys) + sum(map(len, sealed.blobs))
    return ClassHistograms(tuple(histograms), bytes_sent, upload, watch.seconds)


def _columns(model: ClassModels) -> tuple[list[Column], list[list[int]]]:
    """Return all columns that any class reads, and each class's indices among them."""
    where: dict[Column, int] = {}
    maps = [[where.setdefault(c, len(where)) for c in part.columns] for part in model.models]
    return list(where), maps


def _encoded(model: ClassModels, rows: ArrayLike, uploaded: list[Column]) -> Any:
    where = {column: index for index, column in enumerate(uploaded)}
    result = np.zeros((len(np.asarray(rows)), len(uploaded)), np.int64)
    for part in model.models:
        result[:, [where[column] for column in part.columns]] = part.encode(rows)
    return result
