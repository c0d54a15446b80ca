"""What a clearing may look at, frozen before any ask: target, supplies, caps, distances, deposits.

Everything here is post-processing of published counts; nothing reads an ask.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from clearinghouse import cells
from clearinghouse.canonical import digest
from clearinghouse.messages.intake import OpenRequest
from clearinghouse.messages.results import TargetView
from clearinghouse.money import MICRO
from clearinghouse.rounds.terms import reserve_micro
from clearinghouse.schema import Schema
from clearinghouse.store.records import Summary
from matching.codebook import aggregate, cell_map
from matching.ladder import separated
from matching.target import (
    joint_distances,
    label_cost_needed,
    money,
    noise_variance,
    round_to,
    share_cap,
    supply_counts,
    target_counts,
)
from valuation.evidence import misaligned

Integers = NDArray[np.int64]

DEPOSIT_PART = 2
"""A deposit is this part of what a source can sell at the highest price, so it hangs on no ask."""


def freeze(
    run_id: str,
    terms: OpenRequest,
    terms_digest: str,
    schema: Schema,
    level: tuple[str, ...],
    noised: Sequence[int],
    summaries: Mapping[str, Summary],
    *,
    by_label: bool | None = None,
) -> TargetView:
    """Everything that shapes the clearing, from public releases only: no ask is read.

    Labels are matched only if they are shifted beyond noise (`by_label` decides otherwise). If
    they are not, target and supplies are summed over labels and rows are drawn whatever their
    label: were a mismatch merely free, the cheapest asks would choose the labels.

    A source whose summary is coarser than the request's level has its counts spread over the finer
    cells in proportion to the pooled supply there of the sources that publish fine enough, evenly
    where none does. That is a guess about where its records lie, made of public numbers; where it
    is wrong the source delivers fewer real records than were ordered and is paid for those only.

    A source whose labels hang on cells unlike everybody else's is barred: see `barred`.
    """
    book, labels = cells.codebook(schema, level), cells.n_labels(schema)
    target = np.asarray(noised, np.int64).reshape(book.n_cells, labels)
    costs_label = _label_cost_needed(terms, target, summaries) if by_label is None else by_label
    # A source without a summary here was withdrawn, or granted nothing: it has no supply.
    there = [place for place, name in enumerate(terms.source_ids) if name in summaries]
    published = [summaries[terms.source_ids[place]] for place in there]
    shown = supply(schema, level, published, by_label=costs_label)
    supplies = np.zeros((len(terms.source_ids), *shown.shape[1:]), np.int64)
    supplies[there] = shown
    out = np.zeros(len(terms.source_ids), np.bool_)
    out[there] = barred(schema, level, np.asarray(noised, np.int64), published)
    supplies[out] = 0
    far = book.distances()
    if costs_label:
        far = joint_distances(far, labels, terms.label_cost_micro / MICRO)
    else:
        target = target.sum(axis=1, keepdims=True)
    wanted = target_counts(target, terms.records)
    # Public and fixed before any ask, like everything that the terms' digest covers.
    distances = separated(money(far, terms.distance_price_micro), bytes.fromhex(terms_digest))
    flat = supplies.reshape(len(terms.source_ids), -1)
    reserve = reserve_micro(terms)
    gamma = terms.share_cap_micro / MICRO
    capped = share_cap(distances, wanted.reshape(-1), flat, reserve, gamma)
    shaped = {
        "run_id": run_id,
        "level": list(level),
        "cells": book.n_cells,
        "labels": labels,
        "noised": [int(value) for value in noised],
        "wanted": wanted.reshape(-1).tolist(),
        "label_cost_applied": costs_label,
        "distances_micro": distances.tolist(),
        "supplies": dict(zip(terms.source_ids, flat.tolist(), strict=True)),
        "capped": dict(zip(terms.source_ids, capped.tolist(), strict=True)),
        "barred": [name for name, is_out in zip(terms.source_ids, out, strict=True) if is_out],
        "deposits_micro": {
            name: min(int(units), terms.records) * reserve // DEPOSIT_PART
            for name, units in zip(terms.source_ids, capped.sum(axis=1), strict=True)
        },
    }
    frozen = digest({"terms": terms_digest, "reserve_micro": reserve, **shaped})
    return TargetView.model_validate({**shaped, "frozen_digest": frozen})


def supply(
    schema: Schema, level: tuple[str, ...], summaries: Sequence[Summary], *, by_label: bool = True
) -> Integers:
    """What each source may sell, (sources, cells, labels) at the request's level.

    Unless `by_label` the last axis has length 1: counts are summed over labels before anything.
    """
    book = cells.codebook(schema, level)
    labels = cells.n_labels(schema) if by_label else 1
    result = np.zeros((len(summaries), book.n_cells, labels), np.int64)
    coarse: list[int] = []
    for index, summary in enumerate(summaries):
        own = cells.codebook(schema, summary.level)
        counts = _counts(summary, own.n_cells, by_label=by_label)
        if set(level) <= set(summary.level):
            result[index] = supply_counts(
                aggregate(counts, own, book),
                summary.epsilon_micro / MICRO,
                noise_entries=len(summary.counts),
            )
        else:
            coarse.append(index)
    pooled = result.sum(axis=0)
    for index in coarse:
        summary = summaries[index]
        own = cells.codebook(schema, summary.level)
        sold = supply_counts(
            _counts(summary, own.n_cells, by_label=by_label),
            summary.epsilon_micro / MICRO,
            noise_entries=len(summary.counts),
        )
        result[index] = spread(sold, cell_map(book, own), pooled)
    return result


def barred(
    schema: Schema, level: tuple[str, ...], noised: Integers, summaries: Sequence[Summary]
) -> list[bool]:
    """Which sources' published labels hang on cells unlike everybody else's.

    `valuation.evidence.misaligned` on released counts: no ask is read and no privacy is spent. Each
    source is compared at the finest level that it and the request share, with all others that have
    counts there. Nobody is barred among fewer than four, or where labels are no classes. Measured:
    below 1% of honest sources of 40 to 500 rows are barred at epsilon 1.
    """
    book, labels = cells.codebook(schema, level), cells.n_labels(schema)
    flags = [False] * len(summaries)
    own = [level if set(level) <= set(s.level) else s.level for s in summaries]
    for shared in set(own):
        coarse = cells.codebook(schema, shared)
        there = [i for i, name in enumerate(own) if set(shared) <= set(name)]
        tables = [
            aggregate(
                _counts(
                    summaries[i], cells.codebook(schema, summaries[i].level).n_cells, by_label=True
                ),
                cells.codebook(schema, summaries[i].level),
                coarse,
            )
            for i in there
        ]
        target = aggregate(noised.reshape(book.n_cells, labels), book, coarse)
        variances = [
            noise_variance(summaries[i].epsilon_micro / MICRO)
            * cells.codebook(schema, summaries[i].level).n_cells
            / coarse.n_cells
            for i in there
        ]
        found = misaligned(np.array(tables), target, noise_variances=variances)
        for i, is_out in zip(there, found, strict=True):
            flags[i] |= own[i] == shared and bool(is_out)
    return flags


def _counts(summary: Summary, n_cells: int, *, by_label: bool) -> Integers:
    counts = np.asarray(summary.counts, np.int64).reshape(n_cells, -1)
    return counts if by_label else counts.sum(axis=1, keepdims=True)


def spread(coarse: Integers, parents: Integers, pooled: Integers) -> Integers:
    """Counts of coarse cells over the fine cells inside them, in proportion to `pooled`.

    Args:
        coarse: (coarse cells, labels).
        parents: (fine cells,) the coarse cell of each fine one.
        pooled: (fine cells, labels) weights; where all are zero the cells share evenly.

    Returns:
        (fine cells, labels); sums within every coarse cell are kept exactly.
    """
    result = np.zeros_like(pooled)
    for cell, label in zip(*np.nonzero(coarse), strict=True):
        inside = np.flatnonzero(parents == cell)
        weights = pooled[inside, label]
        if not weights.any():
            weights = np.ones_like(weights)
        result[inside, label] = round_to(weights, int(coarse[cell, label]))
    return result


def _label_cost_needed(
    terms: OpenRequest, target: Integers, summaries: Mapping[str, Summary]
) -> bool:
    labels = target.shape[1]
    if not summaries:
        return False
    pooled = np.zeros(labels, np.int64)
    variance = 0.0
    for source in terms.source_ids:
        summary = summaries.get(source)
        if summary is None:
            continue
        counts = np.asarray(summary.counts, np.int64).reshape(-1, labels)
        pooled += counts.sum(axis=0)
        variance += len(counts) * noise_variance(summary.epsilon_micro / MICRO)
    return label_cost_needed(
        target,
        pooled,
        target_epsilon=terms.epsilon_target_micro / MICRO,
        pooled_variance=variance,
    )
