"""Small validation sets packed and unpacked side by side: bytes, sealing, tests, scores, runs.

The same rows, models and claims in both forms, in one run; CPU-seconds of this process, best of
several. Set OMP_NUM_THREADS=1 and OPENBLAS_NUM_THREADS=1.
"""

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from benchmarks.scoring import MEGABYTE, NONCES, best, table, whole_run
from benchmarks.scoring_inputs import Integers, additive, linear
from secure_eval.checked import CheckedScoringRun, UploadChecks
from secure_eval.checked_agent import AgentUpload
from secure_eval.integer_model import IntegerModel
from secure_eval.keyholder import KeyHolder, SealedSet
from secure_eval.layout import Layout, ReadParts
from secure_eval.strips import STRIP_ROWS

LEVELS = 512
NUMBERS, BITS = 30, 16


@dataclass(frozen=True)
class Case:
    """Rows of one kind.

    Attributes:
        name: what they are.
        model: reads all columns.
        columns: (n, C).
        strips: of the packed form.
    """

    name: str
    model: IntegerModel
    columns: Integers
    strips: tuple[int, ...]

    def partitions(self, layout: Layout) -> list[list[dict[int, int]]]:
        """The ascending bits of each number, where there are any."""
        if self.model.kind != "additive":
            return []
        found = []
        for start in range(0, layout.columns, BITS):
            chain = [layout.valid_part, *range(start, start + BITS)]
            steps = [{a: 1, b: -1} for a, b in pairwise(chain)]
            found.append([*steps, {chain[-1]: 1}])
        return found


def cases(rows: int) -> Sequence[Case]:
    """A linear model's values and an additive model's threshold bits."""
    rng = np.random.default_rng(rows)
    values = rng.integers(0, LEVELS, (rows, NUMBERS))
    cuts = np.linspace(0, LEVELS, BITS + 2)[1:-1]
    bits = (values[:, :, None] >= cuts).astype(np.int64).reshape(rows, -1)
    return [
        Case("linear, 30 columns", linear(NUMBERS, 0), values, (1,) * NUMBERS),
        Case("additive, 480 bits", additive(NUMBERS * BITS, 0), bits, (BITS,) * NUMBERS),
    ]


def _tested(holder: KeyHolder, case: Case, sealed: SealedSet) -> None:
    checks = UploadChecks(
        holder.public_keys(),
        sealed.layout,
        sealed.blobs,
        secrets.token_bytes(32),
        "upload",
        partitions=case.partitions(sealed.layout),
    )
    checks.accept(AgentUpload(holder).replies(checks.message()))


def measured(holder: KeyHolder, case: Case, strips: tuple[int, ...], times: int) -> list[str]:
    """One row of the table."""
    rows = len(case.columns)
    rng = np.random.default_rng(1)
    labels, sex = rng.integers(0, 2, rows), rng.integers(0, 2, rows)

    def seal() -> SealedSet:
        return holder.seal(case.columns, labels, 2, groups={"sex": (sex, 2)}, strips=strips)

    sealed, kept = seal(), ReadParts()
    size = sum(map(len, sealed.blobs)) / MEGABYTE

    def score(parts: ReadParts | None = None) -> None:
        inputs = (holder.public_keys(), sealed.layout, sealed.blobs, case.model)
        columns, seed = range(len(case.model.columns)), secrets.token_bytes(32)
        server = CheckedScoringRun(*inputs, columns, seed, "run", NONCES[0])
        if parts is not None:
            server.share_parts(parts)
        server.score()

    score(kept)
    runs = [whole_run(holder, sealed, labels, case.model) for _ in range(times)]
    least = min(runs, key=lambda clock: clock.total)
    moved = sum(least.sizes.values()) / MEGABYTE
    return [
        "packed" if strips else "unpacked",
        str(sealed.layout.ciphertexts),
        f"{size:.2f} MB",
        f"{best(seal, times):.2f} s",
        f"{best(lambda: _tested(holder, case, sealed), times):.2f} s",
        f"{1e3 * best(score, times):.0f} ms",
        f"{1e3 * best(lambda: score(kept), times):.0f} ms",
        f"{least.total:.2f} s",
        f"{moved:.2f} MB",
        f"{size + moved:.1f} MB",
    ]


def run(quick: bool) -> str:
    """Measure both forms and return Markdown."""
    holder, found = KeyHolder.generate(), []
    whole = cases(64)[0]
    measured(holder, whole, whole.strips, 1)  # tables that are made once
    for rows in (STRIP_ROWS,) if quick else (300, STRIP_ROWS):
        for case in cases(rows):
            for strips in ((), case.strips):
                cells = measured(holder, case, strips, 1 if quick else 3)
                found.append([f"{case.name}, {rows} rows", *cells])
    head = ["set", "form", "ciphertexts", "upload", "sealing", "its tests", "first score"]
    head += ["further score", "checked run", "bytes of a run", "first run with its upload"]
    load = ", ".join(f"{value:.0f}" for value in os.getloadavg())
    return f"{table(head, found)}\n\nLoad average {load}, {os.cpu_count()} cores."
