"""The transparency log at 100,000 entries: proofs, appends, any changed byte, and writers in turn.

`LOG_DATABASE_URL` names an empty PostgreSQL database; then acts of several writers are measured
there, too: through the outbox, and beside it with positions given in the act's own transaction.
"""

import json
import os
import random
import signal
import statistics
import tempfile
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
Act = Callable[[Store, int, bytes], None]
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
    """Acts a second of 1, 4 and 8 processes, each acknowledged when its entry has its position."""
    ways: tuple[tuple[str, Act, bool], ...] = (
        ("position in the act's transaction", _append_and_place, False),
        ("outbox, in turn", _append, False),
        ("outbox, own acts beside one another", _append_own, False),
        ("the same, a sequencer of its own", _append_own, True),
    )
    rows = [
        "| writers | " + " | ".join(name for name, _, _ in ways) + " |",
        "| --- |" + " --- |" * len(ways),
    ]
    Store(url).close()
    for writers in (1, 4, WRITERS):
        cells = [_raced(url, writers, seconds, act, central=central) for _, act, central in ways]
        rows.append(f"| {writers} | " + " | ".join(cells) + " |")
    head = "PostgreSQL, durable commits, one entry a transaction; acts a second, median and p99 ms:"
    return "\n".join([head, "", *rows])


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


def _raced(url: str, writers: int, seconds: float, act: Act, *, central: bool) -> str:
    """Processes that begin together; what all of them did."""
    ready, gate = os.pipe(), os.pipe()
    children = []
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / str(worker) for worker in range(writers)]
        for worker, file in enumerate(files):
            pid = os.fork()
            if pid == 0:
                os.close(gate[1])
                told = _write_on(url, worker, seconds, act, (ready[1], gate[0]), helps=not central)
                file.write_text(json.dumps(told))
                os._exit(0)
            children.append(pid)
        sequencer = _sequencing(url, gate[1]) if central else None
        for _ in children:
            os.read(ready[0], 1)
        os.close(gate[1])  # everybody's read ends at this moment
        for pid in children:
            os.waitpid(pid, 0)
        times = sorted(item for file in files for item in json.loads(file.read_text()))
    if sequencer is not None:
        os.kill(sequencer, signal.SIGKILL)
        os.waitpid(sequencer, 0)
    for one in (*ready, gate[0]):
        os.close(one)
    median, worst = (1000 * times[int(len(times) * share)] for share in (0.5, 0.99))
    return f"{len(times) / seconds:.0f}/s, {median:.0f}, {worst:.0f}"


def _write_on(
    url: str, worker: int, seconds: float, act: Act, begin: tuple[int, int], *, helps: bool
) -> list[float]:
    """One process: acts for so many seconds; how long each took."""
    store = Store(url)
    if not helps:
        store.sequencer = None
    act(store, worker, b"{}")  # connected
    os.write(begin[0], b"r")
    os.read(begin[1], 1)
    end, times = time.perf_counter() + seconds, []
    while (started := time.perf_counter()) < end:
        act(store, worker, canonical_bytes({"worker": worker, "entry": len(times)}))
        times.append(round(time.perf_counter() - started, 6))
    store.close()
    return times


def _sequencing(url: str, gate: int) -> int:
    """The pid of a process that does nothing but sequence, until it is killed."""
    pid = os.fork()
    if pid == 0:
        os.close(gate)
        store = Store(url)
        while True:
            if store.sequence() == 0:
                time.sleep(PAUSES_S[0])
    return pid
