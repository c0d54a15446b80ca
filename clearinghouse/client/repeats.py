"""Copies among deliveries, and deliveries that stand out: what a recipient finds across sources.

It runs where the rows are. The server learns numbers, digests of proofs and names of statistics;
the proofs stay with the recipient for a dispute.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from clearinghouse.canonical import canonical_bytes, digest
from clearinghouse.client.checks import Opened
from clearinghouse.client.judged import Judged
from clearinghouse.client.sealed_body import Entry
from clearinghouse.client.shown import Tag, open_tag, tag_of
from clearinghouse.messages.deliveries import Copies, Ground, ShownRef
from clearinghouse.rows import RowProof, record_bytes, row_hash
from clearinghouse.schema import Schema
from valuation.duplicates import Delivery, Settlement, settle_duplicates
from valuation.evidence import evidence, suspicions

LEAST_SOURCES = 5
"""Among fewer nobody stands out: they are too few to say what is usual."""

Opening = tuple[bytes, RowProof]


@dataclass(frozen=True, slots=True)
class Shown:
    """Tags that a source showed, opened where a delivered row fits."""

    ref: ShownRef
    tags: tuple[Tag, ...]


@dataclass(frozen=True, slots=True)
class Judgement:
    """The judgement of every delivery, and the proofs of copies.

    Attributes:
        found: In the order of the deliveries.
        proofs: By digest, the canonical JSON that a `Copies` names.
    """

    found: tuple[Judged, ...]
    proofs: Mapping[str, bytes]


def judge(
    schema: Schema, opened: Sequence[Opened], shown: Sequence[Shown], seed: bytes
) -> Judgement:
    """Settle copies among what was delivered and shown, then look for what stands out.

    Args:
        schema: Gives coordinates.
        opened: All deliveries; refused ones take no part.
        shown: Tags of sources' next rows.
        seed: The request's draw seed.
    """
    accepted: dict[str, list[Opened]] = {}
    for item in opened:
        if item.entries:
            accepted.setdefault(item.ref.source_id, []).append(item)
    entries = {
        name: [entry for item in items for entry in item.entries]
        for name, items in accepted.items()
    }
    openings = _openings(entries)
    tags = {item.ref.source_id: _hashes(item, entries, openings, seed) for item in shown}
    committed = {item.ref.source_id: item.ref.committed for item in opened}
    committed |= {item.ref.source_id: item.ref.committed for item in shown}
    deliveries = {
        name: Delivery(
            committed[name],
            tuple(row_hash(entry.record) for entry in entries.get(name, [])),
            tuple(tags.get(name, ())),
        )
        for name in sorted(entries.keys() | tags.keys())
    }
    settled = settle_duplicates(deliveries)
    proofs: dict[str, bytes] = {}
    copies = {
        name: _copies(entries[name], settled[name], openings, committed, proofs) for name in entries
    }
    grounds = _grounds(schema, accepted, settled, committed)
    found, used = [], dict.fromkeys(entries, 0)
    for item in opened:
        name = item.ref.source_id
        if not item.entries:
            found.append(Judged(()))
            continue
        start = used[name]
        used[name] = start + len(item.entries)
        paid = settled[name].paid[start : used[name]]
        notes = _notes(settled[name], grounds[name])
        found.append(Judged(paid, copies[name], settled[name].forfeits, grounds[name], notes))
    return Judgement(tuple(found), proofs)


def _openings(entries: Mapping[str, Sequence[Entry]]) -> dict[tuple[str, bytes], Opening]:
    """By source and row hash, an opening of a commitment to that row."""
    return {
        (name, row_hash(entry.record)): (entry.salt, entry.proof)
        for name, rows in entries.items()
        for entry in rows
    }


def _hashes(
    shown: Shown,
    entries: Mapping[str, Sequence[Entry]],
    openings: dict[tuple[str, bytes], Opening],
    seed: bytes,
) -> list[bytes]:
    """Hashes behind a source's tags: of a row where a delivered one opens it, else the tag itself.

    A tag of a delivered row that opens no commitment was made up and is left out.
    """
    name, root = shown.ref.source_id, bytes.fromhex(shown.ref.rows_root)
    known = {
        tag_of(seed, name, record_bytes(entry.record)): entry.record
        for other, rows in entries.items()
        if other != name
        for entry in rows
    }
    found = []
    for tag in shown.tags:
        record = known.get(tag.tag)
        if record is None:
            found.append(tag.tag)
            continue
        opening = open_tag(seed, name, tag, record, root, shown.ref.leaves)
        if opening is not None:
            openings.setdefault((name, row_hash(record)), opening)
            found.append(row_hash(record))
    return found


def _copies(
    own: Sequence[Entry],
    settled: Settlement,
    openings: Mapping[tuple[str, bytes], Opening],
    committed: Mapping[str, int],
    proofs: dict[str, bytes],
) -> list[Copies]:
    """By original source the copied rows, with both openings of each as proof."""
    found = []
    for original, rows in sorted(settled.originals.items()):
        pairs = [
            {
                "record": dict(entry.record),
                "copy": _written((entry.salt, entry.proof)),
                "original": _written(openings[original, row_hash(entry.record)]),
            }
            for entry in own
            if (original, row_hash(entry.record)) in openings
        ]
        body = canonical_bytes({"original": committed[original], "rows": pairs})
        proofs[digest(body)] = body
        found.append(Copies(source_id=original, rows=rows, evidence=digest(body)))
    return found


def _written(opening: Opening) -> dict[str, object]:
    salt, proof = opening
    return {"salt": salt.hex(), **proof.to_dict()}


def _grounds(
    schema: Schema,
    accepted: Mapping[str, Sequence[Opened]],
    settled: Mapping[str, Settlement],
    committed: Mapping[str, int],
) -> dict[str, list[Ground]]:
    """Statistics by which a source's rows stand out, copies left out of the comparison."""
    names = sorted(accepted)
    rows, labels, owners = [], [], []
    for index, name in enumerate(names):
        tables = [item.table for item in accepted[name] if item.table is not None]
        kept = np.array(settled[name].paid, bool)
        points = np.vstack([schema.embedding(table) for table in tables])[kept]
        rows.append(points)
        labels.append(np.concatenate([np.asarray(table.labels) for table in tables])[kept])
        owners.append(np.full(len(points), index))
    nobody: dict[str, list[Ground]] = {name: [] for name in names}
    if sum(len(part) > 0 for part in rows) < LEAST_SOURCES or not schema.label.levels:
        return nobody
    present = [index for index, part in enumerate(rows) if len(part)]
    place = {index: number for number, index in enumerate(present)}
    owner = np.array([place[int(index)] for index in np.concatenate(owners)])
    found = evidence(np.vstack(rows), np.concatenate(labels), owner)
    told = suspicions(found, [committed[names[index]] for index in present])
    for index, grounds in zip(present, told, strict=True):
        nobody[names[index]] = list(grounds)  # type: ignore[arg-type]  # the same closed list
    return nobody


def _notes(settled: Settlement, grounds: Sequence[Ground]) -> list[str]:
    notes = []
    if settled.copied:
        notes.append(f"{settled.copied} records are copies of an earlier source's")
    if settled.chance:
        notes.append(f"{settled.chance} records also came from another source, as chance explains")
    if settled.forfeits:
        notes.append("so large a part is copied that the deposit is lost")
    if grounds:
        notes.append(f"stands out among the deliveries by {', '.join(grounds)}")
    return notes
