"""The log itself: entries, tree, signed heads, cosignatures, rules, and what was published."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clearinghouse.errors import VerificationError
from clearinghouse.log import merkle
from clearinghouse.log.checkpoint import (
    NoteKey,
    SignedCheckpoint,
    parse_note,
    parse_vkey,
    verify_cosignature,
    verify_log_signature,
)
from clearinghouse.log.entries import Entry, KeyHistory, parse_entry
from clearinghouse.log.replay import replay
from clearinghouse.store.store import Tx
from clearinghouse.world.trouble import Trouble


@dataclass(frozen=True, slots=True)
class Log:
    """A database's log: bytes, entries as far as they can be read, and the tree over the bytes.

    Entries that wait for the sequencer come last, in the order in which it takes them.

    Attributes:
        size: How many do not wait.
    """

    bodies: tuple[bytes, ...]
    entries: tuple[Entry, ...]
    nodes: merkle.MemoryNodes
    troubles: tuple[Trouble, ...]
    size: int


def read_log(tx: Tx) -> Log:
    """Read all entries; stop at the first that is no entry."""
    bodies: list[bytes] = []
    entries: list[Entry] = []
    troubles: list[Trouble] = []
    nodes = merkle.MemoryNodes()
    size = 0
    rows = sorted(tx.plain.rows("entry"), key=_in_order)
    for place, row in enumerate(rows):
        stored = row["body"]
        body = stored.encode() if isinstance(stored, str) else bytes(stored)
        if row["position"] is not None:
            size += 1
            if row["position"] != place:
                troubles.append(_wrong(f"entry {place} is missing: {row['position']} follows"))
        bodies.append(body)
        merkle.append(nodes, body)
        if len(entries) == place:
            try:
                entries.append(parse_entry(body))
            except VerificationError as error:
                troubles.append(_wrong(f"entry {place}: {error}"))
    return Log(tuple(bodies), tuple(entries), nodes, tuple(troubles), size)


def _in_order(row: Mapping[str, Any]) -> tuple[bool, int]:
    waits = row["position"] is None
    return waits, row["id"] if waits else row["position"]


def check(tx: Tx, log: Log, published: Path, key: NoteKey | None) -> Iterator[Trouble]:
    """Yield what is wrong with the tree, its heads, its keys and its history."""
    yield from _tree(tx, log)
    yield from _heads(tx, log, key)
    yield from _published(log, published, key)
    history = KeyHistory()
    for index, entry in enumerate(log.entries):
        try:
            history.apply(entry)
        except VerificationError as error:
            yield _wrong(f"entry {index} ({entry.type}): {error}")
    for violation in replay(log.entries).violations:
        yield _wrong(str(violation))


def _tree(tx: Tx, log: Log) -> Iterator[Trouble]:
    """Each stored hash, recomputed from the entries."""
    size, count = log.size, 0
    for row in tx.plain.rows("node"):
        level, index = row["level"], row["position"]
        if (index + 1) << level > size:
            yield _wrong(f"node {level}/{index} stands for entries that are not there")
        elif log.nodes.get(level, index) != bytes(row["hash"]):
            yield _wrong(f"node {level}/{index} is not the hash of its entries")
        count += 1
    whole = sum(size >> level for level in range(size.bit_length()))
    if count != whole:
        yield _wrong(f"the tree of {size} entries has {whole} nodes, and {count} are stored")


def _heads(tx: Tx, log: Log, key: NoteKey | None) -> Iterator[Trouble]:
    signed = {}
    for row in tx.plain.rows("checkpoint"):
        note = _note(row["note"].encode())
        if note is None:
            yield _wrong(f"the checkpoint of {row['size']} entries cannot be read")
            continue
        signed[row["size"]] = note
        if note.checkpoint.size != row["size"]:
            yield _wrong(f"the checkpoint of {row['size']} says {note.checkpoint.size}")
        yield from _head(log, note, key)
    for row in tx.plain.rows("cosignature"):
        head = signed.get(row["size"])
        if head is not None and not _is_cosigned(head, row["line"], row["vkey"]):
            yield _wrong(f"a cosignature of the checkpoint of {row['size']} does not hold")


def _head(log: Log, note: SignedCheckpoint, key: NoteKey | None) -> Iterator[Trouble]:
    size = note.checkpoint.size
    if size > log.size:
        yield _wrong(f"a checkpoint of {size} entries is signed; {log.size} are there")
    elif merkle.root(log.nodes, size) != note.checkpoint.root:
        yield _wrong(f"the checkpoint of {size} entries is of another history")
    try:
        if key is not None:
            verify_log_signature(note, key)
    except VerificationError as error:
        yield _wrong(f"the checkpoint of {size} entries: {error}")


def _published(log: Log, path: Path, key: NoteKey | None) -> Iterator[Trouble]:
    if path.exists():
        note = _note(path.read_bytes())
        if note is None:
            yield _wrong(f"{path} is no checkpoint")
        else:
            yield from _head(log, note, key)


def _note(data: bytes) -> SignedCheckpoint | None:
    try:
        return parse_note(data)
    except VerificationError:
        return None


def _is_cosigned(head: SignedCheckpoint, line: str, vkey: str) -> bool:
    try:
        verify_cosignature(
            parse_note((head.text + line.rstrip("\n") + "\n").encode()), parse_vkey(vkey)
        )
    except VerificationError:
        return False
    return True


def _wrong(words: str) -> Trouble:
    return Trouble("log", words)
