"""The transparency log at 100,000 entries: proofs, appends, any changed byte, and writers in turn.

`LOG_DATABASE_URL` names an empty PostgreSQL database; then acts of several writers are measured
there, too: through the outbox, and beside it with positions given in the act's own transaction.
"""

import os
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from clearinghouse.canonical import canonical_bytes
from clearinghouse.errors import VerificationError
from clearinghouse.log import merkle
from clearinghouse.log.checkpoint import Checkpoint, log_key, sign_checkpoint
from clearinghouse.log.verify import verify_entries
from clearinghouse.rounds.sequencer import PAUSES_S
from clearinghouse.signing import SigningKey
from clearinghouse.store.logbook import Logbook
from clearinghouse.store.store import Store

ORIGIN = "benchmark.example/log"
BATCH = 5_000
DRAWS = 2_000
WRITERS = 8
SECONDS = 10.0
TAMPERED = 10


def run(quick: bool) -> str:
    """Everything, as Markdown."""
    size = 10_000 if quick else 100_000
    with tempfile.TemporaryDirectory() as folder:
        parts = [_proofs(Path(folder), size), _tamper(2_000 if quick else size)]
    url = os.environ.get("LOG_DATABASE_URL", "")
    if url:
        parts.append(_writers(url, 2.0 if quick else SECONDS))
    return "\n\n".join(parts)


# ---------------------------------------------------------------- proofs


def _proofs(folder: Path, size: int) -> str:
    store, draw = Store(f"sqlite:///{folder / 'log.db'}"), random.Random(1)
    started = time.perf_counter()
    for start in range(0, size, BATCH):
        with store.write() as tx:
            for number in range(start, min(start + BATCH, size)):
                tx.log.append(canonical_bytes({"entry": number}))
    filled_s = time.perf_counter() - started
    indexes = [draw.randrange(size) for _ in range(DRAWS)]
    inclusion = _times(store, lambda log, index: log.proof(index, size), indexes)
    consistency = _times(store, lambda log, index: log.consistency(index + 1, size), indexes)
    with store.read() as tx:
        root, held = tx.log.root(size), 0
        for index in indexes[:200]:
            leaf = merkle.leaf_hash(canonical_bytes({"entry": index}))
            merkle.verify_inclusion(leaf, index, size, tx.log.proof(index, size), root)
            old, path = tx.log.root(index + 1), tx.log.consistency(index + 1, size)
            merkle.verify_consistency(index + 1, size, old, root, path)
            held += 1
    commits = []
    for number in range(200):
        began = time.perf_counter()
        with store.write() as tx:
            tx.log.append(canonical_bytes({"more": number}))
        commits.append(1000 * (time.perf_counter() - began))
    store.close()
    rows = [("inclusion proof", inclusion), ("consistency proof", consistency)]
    rows.append(("append and commit", commits))
    table = ["| act | p50 ms | p99 ms |", "| --- | --- | --- |"]
    table += [f"| {name} | {_p(times, 50):.2f} | {_p(times, 99):.2f} |" for name, times in rows]
    words = f"{size} entries in SQLite, filled in {filled_s:.0f} s; {held} proofs of each verified."
    return "\n".join([words, "", *table])


def _times(store: Store, act: Callable[[Logbook, int], object], indexes: list[int]) -> list[float]:
    """Milliseconds of each, in a transaction of its own: nothing is known from the one before."""
    found = []
    for index in indexes:
        with store.read() as tx:
            began = time.perf_counter()
            act(tx.log, index)
            found.append(1000 * (time.perf_counter() - began))
    return found


def _p(times: list[float], percent: int) -> float:
    return statistics.quantiles(times, n=100)[percent - 1]


# ---------------------------------------------------------------- any byte


def _tamper(size: int) -> str:
    """One changed bit in a drawn entry, over and over: each is named by its index."""
    draw = random.Random(2)
    entries = [canonical_bytes({"entry": number}) for number in range(size)]
    leaves = b"".join(merkle.leaf_hash(entry).hex().encode() + b"\n" for entry in entries)
    nodes = merkle.MemoryNodes()
    for entry in entries:
        merkle.append(nodes, entry)
    key = SigningKey.generate()
    note = sign_checkpoint(Checkpoint(ORIGIN, size, merkle.root(nodes)), key).encode()
    named, began = 0, time.perf_counter()
    for _ in range(TAMPERED):
        index = draw.randrange(size)
        whole, place = entries[index], draw.randrange(len(entries[index]))
        bit = bytes([whole[place] ^ 1 << draw.randrange(3)])
        changed = [
            *entries[:index],
            whole[:place] + bit + whole[place + 1 :],
            *entries[index + 1 :],
        ]
        try:
            verify_entries(b"\n".join(changed) + b"\n", leaves, note, log_key(ORIGIN, key).vkey)
        except VerificationError as error:
            named += f": entry {index} differs from its leaf hash" in str(error)
    each_s = (time.perf_counter() - began) / TAMPERED
    return (
        f"Of {TAMPERED} changed bits in {size} entries {named} were named by their entry "
        f"({each_s:.1f} s for the whole log each); {_fork(nodes, entries, size)}."
    )


def _fork(nodes: merkle.MemoryNodes, entries: list[bytes], size: int) -> str:
    """A log that differs in its last entry from a signed head has no proof that it extends it."""
    other = merkle.MemoryNodes()
    for entry in [*entries[: size - 1], b"another", b"more"]:
        merkle.append(other, entry)
    path = merkle.consistency_proof(other, size, size + 1)
    try:
        roots = merkle.root(nodes), merkle.root(other)
        merkle.verify_consistency(size, size + 1, *roots, path)
    except VerificationError as error:
        return f"a fork at the last entry is refused ({error})"
    return "A FORK WAS NOT SEEN"


# ---------------------------------------------------------------- several writers


def _writers(url: str, seconds: float) -> str:
    """Acts a second of 1, 4 and 8 writers, each acknowledged when its entry has its position."""
    rows = [
        "| writers | position in the act's transaction | outbox, in turn | outbox, own acts beside "
        "one another | the same, a sequencer of its own |",
        "| --- | --- | --- | --- | --- |",
    ]
    for writers in (1, 4, WRITERS):
        rates = [
            _rate(url, writers, seconds, _append_and_place),
            _rate(url, writers, seconds, _append),
            _rate(url, writers, seconds, _append_own),
            _beside_a_sequencer(url, writers, seconds),
        ]
        rows.append(f"| {writers} | " + " | ".join(f"{rate:.0f}/s" for rate in rates) + " |")
    return "\n".join(["PostgreSQL, durable commits, one entry a transaction:", "", *rows])


def _race(act: Callable[[int, int], None], writers: int, seconds: float) -> float:
    """Have writers act again and again; acts a second."""
    end, counts = time.perf_counter() + seconds, [0] * writers

    def write(worker: int) -> None:
        while time.perf_counter() < end:
            act(worker, counts[worker])
            counts[worker] += 1

    threads = [threading.Thread(target=write, args=(number,)) for number in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


def _rate(
    url: str,
    writers: int,
    seconds: float,
    act: Callable[[Store, int, bytes], None],
    sequencer: bool = True,
) -> float:
    """Acts a second by writers with connections of their own, as in as many processes."""
    stores = [Store(url) for _ in range(writers)]
    for store in stores:
        store.sequencer = store.sequence if sequencer else None

    def write(worker: int, number: int) -> None:
        act(stores[worker], worker, canonical_bytes({"worker": worker, "entry": number}))

    rate = _race(write, writers, seconds)
    for store in stores:
        store.close()
    return rate


def _append_and_place(store: Store, _worker: int, body: bytes) -> None:
    """The peer: what one would do without an outbox, and what SQLite does."""
    with store.write() as tx:
        tx.log.append(body)
        tx.log.sequence()
        tx.log.last_waiting = None


def _append(store: Store, _worker: int, body: bytes) -> None:
    with store.write() as tx:
        tx.log.append(body)


def _append_own(store: Store, worker: int, body: bytes) -> None:
    with store.write_for(f"org_{worker}") as tx:
        tx.log.append(body)


def _beside_a_sequencer(url: str, writers: int, seconds: float) -> float:
    central, stop = Store(url), threading.Event()

    def sequence() -> None:
        while not stop.is_set():
            if central.sequence() == 0:
                time.sleep(PAUSES_S[0])

    thread = threading.Thread(target=sequence)
    thread.start()
    rate = _rate(url, writers, seconds, _append_own, sequencer=False)
    stop.set()
    thread.join()
    central.close()
    return rate
