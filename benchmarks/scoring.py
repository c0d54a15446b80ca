"""Blind scoring: CPU time per step and bytes per message, with the peers in the same run.

All times are CPU-seconds of this process (best of several); a peer's ratio is its time per row over
ours. SCORING_PROTOTYPE may name a folder with an earlier implementation (proto.py) to run back to
back. Set OMP_NUM_THREADS=1 and OPENBLAS_NUM_THREADS=1: threads that wait would be counted.
"""

import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tenseal
from numpy.typing import NDArray

from benchmarks.scoring_inputs import Integers, N, additive, forest, linear, sealed_set
from secure_eval.checked import CheckedScoringRun, UploadChecks
from secure_eval.checked_agent import AgentUpload, CheckedAgentRun
from secure_eval.integer_model import IntegerModel
from secure_eval.kernel import centred, combined
from secure_eval.keyholder import KeyHolder, SealedSet
from secure_eval.layout import Upload
from secure_eval.noise import Table
from secure_eval.nonces import nonce_commitment
from secure_eval.packing import SEEDED_BYTES
from secure_eval.params import PARAMETERS
from secure_eval.scoring import doubled_score
from secure_eval.sealio import seal

NONCES = (b"n" * 16, b"d" * 16)
MEGABYTE = 2**20
COINS = 128


def best(work: Callable[[], Any], times: int) -> float:
    """Return the least CPU-seconds of some tries."""
    tries = []
    for _ in range(times):
        started = time.process_time()
        work()
        tries.append(time.process_time() - started)
    return min(tries)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


# ------------------------------------------------------------------------------- many models


def residue_tables(upload: Upload, columns: int) -> NDArray[np.uint64]:
    """Residues (2, 4, columns, N) of the first columns of a block."""
    result = np.empty((2, len(PARAMETERS.data_primes), columns, N), np.uint64)
    for index in range(columns):
        result[:, :, index] = seal().residues(upload.ciphertext(0, index))
    return result


def kernel_times(
    upload: Upload, models: Sequence[IntegerModel], tries: int
) -> tuple[float, float, float]:
    """Return CPU-seconds: columns read once, products per model, ciphertext rebuilt per model."""
    columns = len(models[0].columns)
    matrix = centred(np.stack([2 * m.weights for m in models]), PARAMETERS.plain_modulus)
    read = best(lambda: residue_tables(upload, columns), tries)
    tables = residue_tables(upload, columns)
    result = np.empty((len(models), 2, len(PARAMETERS.data_primes), N), np.int64)

    def products() -> None:
        for polynomial in range(2):
            for level, prime in enumerate(PARAMETERS.data_primes):
                result[:, polynomial, level] = combined(matrix, tables[polynomial, level], prime)

    product = best(products, tries) / len(models)
    rebuilt = best(lambda: [seal().ciphertext(r.view(np.uint64)) for r in result[:10]], tries) / 10
    return read, product, rebuilt


def single_time(upload: Upload, model: IntegerModel, tries: int) -> float:
    """CPU-seconds of one model by SEAL's own scalar products, columns loaded beforehand."""
    loaded = [upload.ciphertext(0, index) for index in range(len(model.columns))]
    return best(lambda: doubled_score(model, loaded.__getitem__, None), tries)


def tenseal_times(columns: int, tries: int) -> tuple[float, float]:
    """CPU-seconds per row of TenSEAL's own CKKS: one vector a column, and one vector a row."""
    context = tenseal.context(
        tenseal.SCHEME_TYPE.CKKS, N, coeff_mod_bit_sizes=[60, 40, 60], n_threads=1
    )
    context.global_scale = 2**40
    context.generate_galois_keys()
    rng = np.random.default_rng(0)
    weights = rng.normal(size=columns).tolist()
    packed = [tenseal.ckks_vector(context, rng.normal(size=N // 2).tolist()) for _ in weights]

    def by_column() -> Any:
        total = packed[0] * weights[0]
        for vector, weight in zip(packed[1:], weights[1:], strict=True):
            total += vector * weight
        return total

    rows = [tenseal.ckks_vector(context, rng.normal(size=columns).tolist()) for _ in range(4)]
    by_row = best(lambda: [row.dot(weights) for row in rows], tries) / len(rows)
    return best(by_column, tries) / (N // 2), by_row


def many_models(holder: KeyHolder, quick: bool) -> str:
    """Linear and additive models at once, with SEAL's own calls and TenSEAL's high-level API."""
    tries, count = (1, 100) if quick else (3, 100)
    columns, bits = 30, 120 if quick else 480
    sealed, _ = sealed_set(holder, N, columns)
    upload = Upload(sealed.layout, sealed.blobs)
    read, product, rebuilt = kernel_times(upload, [linear(columns, i) for i in range(count)], tries)
    ready = product + rebuilt
    alone = single_time(upload, linear(columns, 0), tries)
    by_column, by_row = tenseal_times(columns, tries)
    rows = [
        [
            f"{count} linear, {columns} columns, per model",
            f"{1e3 * ready:.2f} ms (products {1e3 * product:.2f}, rebuilt {1e3 * rebuilt:.2f}; "
            f"columns read once: {1e3 * read:.0f})",
            "1.2 ms",
        ],
        ["the same, SEAL's scalar products", f"{1e3 * alone:.2f} ms, {alone / ready:.1f}x", ""],
        [
            "TenSEAL CKKS vectors a column, default",
            f"{1e6 * by_column:.2f} us a row, {by_column * N / ready:.0f}x ours",
            "15x",
        ],
        [
            "TenSEAL tutorial, one ciphertext a row (4 rows, scaled)",
            f"{1e3 * by_row:.1f} ms a row, {by_row * N / ready:,.0f}x ours",
            "",
        ],
    ]
    sealed, _ = sealed_set(holder, N, bits, size=2, groups=0)
    upload = Upload(sealed.layout, sealed.blobs)
    read, product, rebuilt = kernel_times(upload, [additive(bits, i) for i in range(count)], tries)
    alone = single_time(upload, additive(bits, 0), tries)
    rows += [
        [
            f"{count} additive, {bits} bits, per model",
            f"{1e3 * (product + rebuilt):.2f} ms (columns read once: {1e3 * read:.0f})",
            "6 ms",
        ],
        [
            "the same, SEAL's scalar products",
            f"{1e3 * alone:.1f} ms, {alone / (product + rebuilt):.1f}x",
            "",
        ],
    ]
    return table(["one block of 8,192 rows", "CPU", "hold"], rows)


def trees(holder: KeyHolder, quick: bool) -> str:
    """Trees of depth 3, exact."""
    count = 10 if quick else 50
    model = forest(count, 3, 30)
    sealed, _ = sealed_set(holder, N, 30, size=2)
    upload = Upload(sealed.layout, sealed.blobs)
    keys = holder.public.seal_relin_keys()
    spent = best(
        lambda: doubled_score(model, lambda i: upload.ciphertext(0, i), keys), 1 if quick else 3
    )
    line = [f"{count} trees of depth 3, exact", f"{spent:.2f} s, {1e6 * spent / N:.0f} us a row"]
    return table(["one block of 8,192 rows", "CPU", "hold"], [[*line, "1.9 s"]])


# ------------------------------------------------------------------------------- whole runs


class Clock:
    """CPU-seconds by party and bytes by message."""

    def __init__(self) -> None:
        self.spent = {"evaluator": 0.0, "key holder": 0.0}
        self.sizes: dict[str, int] = {}

    def take(self, party: str, name: str, work: Callable[[], Any]) -> Any:
        """Do some work of a party and note the size of the message it gives."""
        started = time.process_time()
        result = work()
        self.spent[party] += time.process_time() - started
        if isinstance(result, bytes):
            self.sizes[name] = len(result)
        return result

    @property
    def total(self) -> float:
        """CPU-seconds of both parties."""
        return sum(self.spent.values())


def whole_run(
    holder: KeyHolder,
    sealed: SealedSet,
    labels: Integers,
    model: IntegerModel,
    coins: int = 0,
) -> Clock:
    """One checked run from the score message to the release; both parties' times and messages."""
    clock, layout = Clock(), sealed.layout
    run = secrets.token_hex(8)
    server: CheckedScoringRun = clock.take(
        "evaluator",
        "",
        lambda: CheckedScoringRun(
            holder.public_keys(),
            layout,
            sealed.blobs,
            model,
            range(len(model.columns)),
            secrets.token_bytes(32),
            run,
            NONCES[0],
            coins=[coins] * (1 + len(layout.groups)) if coins else (),
        ),
    )
    agent = CheckedAgentRun(holder, layout, labels[sealed.order], run, bins=model.bins)
    tables = [Table(name, cells, 500_000, coins) for name, cells in server.table_cells]
    commitments = [nonce_commitment(nonce) for nonce in NONCES]
    ours, theirs = "evaluator", "key holder"
    score = clock.take(ours, "1 score", server.score)
    digits = clock.take(theirs, "2 digits", lambda: agent.digits(score, tables, commitments))
    early = clock.take(ours, "3 early checks", lambda: server.early_checks(digits))
    reply = clock.take(theirs, "3 early replies", lambda: agent.early_replies(early))
    clock.take(ours, "", lambda: server.accept_early(reply))
    shares = clock.take(ours, "4 shares", lambda: server.shares(digits))
    characters = clock.take(theirs, "5 characters", lambda: agent.characters(shares, NONCES))
    final = clock.take(ours, "6 final checks", lambda: server.final_checks(characters))
    answer = clock.take(theirs, "6 final replies", lambda: agent.final_replies(final))
    clock.take(ours, "", lambda: server.accept_final(answer))
    openings = clock.take(ours, "7 openings", lambda: server.openings(characters, NONCES))
    replies = clock.take(theirs, "7 replies", lambda: agent.replies(openings))
    clock.take(ours, "", lambda: server.release(replies))
    return clock


def prototype() -> tuple[float, float] | str:
    """Run the earlier implementation once: (CPU-seconds, MB), or why not."""
    folder = os.environ.get("SCORING_PROTOTYPE", "")
    if not folder or not (Path(folder) / "proto.py").exists():
        return "SCORING_PROTOTYPE names no folder with proto.py: not compared"
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "copy"
        copy.mkdir()
        for path in Path(folder).glob("*.py"):
            shutil.copyfile(path, copy / path.name)
        environment = {**os.environ, "SEAL_SCRATCH": f"{copy}/", "OMP_NUM_THREADS": "1"}
        environment |= {"OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "proto.py", "syn"],
            cwd=copy,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    found = re.search(r"TOTAL (\d+) ms .* = ([\d.]+)", done.stdout)
    if found is None:
        return "the earlier implementation gave no total"
    return int(found[1]) / 1e3, float(found[2])


def histogram(holder: KeyHolder, quick: bool) -> str:
    """The exact 32-bin histogram by label with one subgroup and every check."""
    sealed, labels = sealed_set(holder, 4096, 30)
    model = linear(30, 0)
    ours, theirs = [], []
    note = ""
    for _ in range(1 if quick else 3):
        ours.append(whole_run(holder, sealed, labels, model))
        other = prototype()
        if isinstance(other, str):
            note = other
        else:
            theirs.append(other)
    least = min(ours, key=lambda clock: clock.total)
    size = sum(least.sizes.values()) / MEGABYTE
    rows = [
        [
            "exact 32-bin histogram by label, 1 subgroup, all checks",
            f"{least.total:.2f} s (evaluator {least.spent['evaluator']:.2f}, key holder "
            f"{least.spent['key holder']:.2f}), {size:.2f} MB",
            "28 MB",
        ]
    ]
    flipped = whole_run(holder, sealed, labels, model, coins=COINS)
    size = sum(flipped.sizes.values()) / MEGABYTE
    rows.append(
        [
            f"the same with {COINS} committed coins a cell",
            f"{flipped.total:.2f} s, {size:.2f} MB",
            "",
        ]
    )
    if theirs:
        seconds, size = min(theirs)
        ratio = least.total / seconds
        rows.append(
            ["earlier implementation", f"{seconds:.2f} s, {size:.2f} MB; ours {ratio:.2f}x", "1.1x"]
        )
    sizes = [[name, f"{bytes_ / 1e3:,.1f}"] for name, bytes_ in least.sizes.items() if name]
    parts = [table(["one block, 4,096 rows", "CPU and bytes", "hold"], rows)]
    parts.append(table(["message of that run", "kB"], sizes))
    return "\n\n".join([*parts, note]).rstrip()


def tested(holder: KeyHolder, sealed: SealedSet) -> float:
    """Test an upload; return the CPU-seconds of both parties."""
    checks = UploadChecks(
        holder.public_keys(), sealed.layout, sealed.blobs, secrets.token_bytes(32), "upload"
    )
    started = time.process_time()
    message = checks.message()
    checks.accept(AgentUpload(holder).replies(message))
    return time.process_time() - started


def upload(holder: KeyHolder, quick: bool) -> str:
    """The upload, once per set, and its tests."""
    sealed, _ = sealed_set(holder, N, 30)
    layout = sealed.layout
    spent = tested(holder, sealed)
    sealing = best(lambda: sealed_set(holder, N, 30), 1 if quick else 2)
    masks = layout.parts - layout.columns - 4
    size = (layout.columns + masks) * SEEDED_BYTES / MEGABYTE
    rows = [
        ["30 columns, 2 labels, valid", f"{size:.2f} MB", "6 MB"],
        [
            "each further bit, cell or level, per label",
            f"{SEEDED_BYTES / MEGABYTE:.3f} MB",
            ".17 MB",
        ],
        [f"sealing {layout.parts} ciphertexts", f"{sealing:.2f} s", ""],
        ["one-time tests of the upload, both parties", f"{spent:.2f} s", ""],
    ]
    return table(["upload of one block", "measured", "hold"], rows)


# ------------------------------------------------------------------------------- growth


def growth(holder: KeyHolder, quick: bool) -> str:
    """How time and bytes grow with blocks, bins, columns and models."""
    rows = []
    for blocks in (1, 2) if quick else (1, 2, 4):
        sealed, labels = sealed_set(holder, blocks * N, 10)
        clock = whole_run(holder, sealed, labels, linear(10, 0))
        size = sum(clock.sizes.values()) / MEGABYTE
        rows.append([f"{blocks} blocks of 8,192 rows", f"{clock.total:.2f} s", f"{size:.1f} MB"])
    sealed, labels = sealed_set(holder, 4096, 10)
    for bins in (8, 32) if quick else (8, 16, 32, 64):
        clock = whole_run(holder, sealed, labels, linear(10, 0, bins=bins))
        size = sum(clock.sizes.values()) / MEGABYTE
        rows.append([f"{bins} bins", f"{clock.total:.2f} s", f"{size:.1f} MB"])
    runs = table(["a whole checked run", "CPU", "bytes"], rows)
    widest = 60 if quick else 120
    sealed, _ = sealed_set(holder, N, widest)
    block = Upload(sealed.layout, sealed.blobs)
    rows = []
    for columns in (15, 30, 60) if quick else (15, 30, 60, 120):
        alone = single_time(block, linear(columns, 0), 1 if quick else 3)
        cells = [f"{1e3 * alone:.2f} ms"]
        for count in (1, 10, 100):
            models = [linear(columns, i) for i in range(count)]
            _, product, rebuilt = kernel_times(block, models, 1)
            cells.append(f"{1e3 * (product + rebuilt):.2f} ms")
        rows.append([f"{columns} columns", *cells])
    head = ["per linear model", "SEAL", "kernel, 1 model", "10 models", "100 models"]
    return "\n\n".join([runs, table(head, rows)])


def run(quick: bool) -> str:
    """Measure everything and return Markdown."""
    holder = KeyHolder.generate()
    sealed, labels = sealed_set(holder, 64, 2)
    whole_run(holder, sealed, labels, linear(2, 0))  # tables that are made once
    parts = [many_models, trees, histogram, upload, growth]
    return "\n\n".join(part(holder, quick) for part in parts)
