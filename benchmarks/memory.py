"""Peak memory of blind scoring on the largest block: 8,192 rows and 480 columns.

Both parties play in one fresh process, so its peak bounds each party's from above.
"""

import resource
import subprocess
import sys

from benchmarks.scoring_inputs import N, additive, forest, sealed_set
from secure_eval.integer_model import IntegerModel
from secure_eval.keyholder import KeyHolder

COLUMNS = 480


def _model(kind: str) -> IntegerModel:
    return additive(COLUMNS, 0) if kind == "additive" else forest(200, 3, COLUMNS)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(kind: str) -> str:
    """Seal, test and score one block in this process; return the peaks as words."""
    from benchmarks.scoring import tested, whole_run

    begun = _peak_mb()
    holder = KeyHolder.generate()
    sealed, labels = sealed_set(holder, N, COLUMNS, size=2)
    uploaded = _peak_mb()
    tested(holder, sealed)
    passed = _peak_mb()
    clock = whole_run(holder, sealed, labels, _model(kind))
    return (
        f"| {N:,} rows, {COLUMNS} columns, {kind} | {begun:.0f} | {uploaded:.0f} | {passed:.0f} "
        f"| {_peak_mb():.0f} MB | {clock.total:.1f} s |"
    )


def run(quick: bool) -> str:
    """Return the table of peaks, each kind of model in a process of its own."""
    lines = [
        "| peak memory of the process, MB | begun | sealed | tested | whole run | CPU of the run |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for kind in ("additive",) if quick else ("additive", "trees"):
        code = f"from benchmarks.memory import measure; print(measure({kind!r}))"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        lines.append(done.stdout.strip().splitlines()[-1])
    return "\n".join(lines)
