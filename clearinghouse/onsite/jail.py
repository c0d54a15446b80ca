"""The process in which a developer's graph meets rows, and the call that starts it.

It gets the graph, the rows and nothing else: an empty environment, no file, no network, no other
program (`lockdown`), and its standard outputs lead nowhere. It gives back scores of each row, which
the caller reads strictly.

Guarantee: the scores of a row follow from that row and the graph alone, so one patient changes one
    row's scores. Rows are run one at a time, in separate calls: what a graph does across its batch
    (a maximum over all rows, say) meets a batch of one.
Assumes: onnxruntime keeps nothing from call to call for the listed operators, and the graph does
    not break into its native code; who does is still locked in, but could mix rows.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clearinghouse.errors import InputError, RefusedError
from clearinghouse.onsite.graphs import LIMITS, OPERATORS
from clearinghouse.onsite.lockdown import can_lock, lock

MAX_ANSWER_BYTES = 256 << 20
WALL_S = 1200.0
MALFORMED = "the process that ran the model gave a malformed answer; nothing of it is used"

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "ORT_DISABLE_TELEMETRY": "1",  # else onnxruntime 1.29 and later keep a file and call its maker
}
"""All that the process finds in its environment, beside where to import from."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What a graph is and gave.

    Attributes:
        operators: How often each operator occurs.
        weights: Numbers in its constants.
        scores: (n, columns); NaN where the graph failed on a row or gave no number.
    """

    operators: dict[str, int]
    weights: int
    scores: Floats


def evaluate(
    model: bytes, rows: Floats, levels: tuple[str, ...], *, wall_s: float = WALL_S
) -> Evaluated:
    """Scan a graph and run it on each row by itself, in a process that is locked in.

    Args:
        model: Bytes of the ONNX file.
        rows: (n, F) feature vectors.
        levels: Of the label, in order; empty for a number.
        wall_s: Most seconds that it may take.

    Returns:
        Scores (n, 1) of the second of two levels or of a number, else (n, levels).

    Raises:
        InputError: The graph is refused; the message says why.
        RefusedError: The process died or took too long, or this machine cannot lock it in.
    """
    if not can_lock():
        raise RefusedError(
            "models are run on site on Linux on x86-64 only: elsewhere the process that runs them "
            "cannot be locked in"
        )
    if len(model) > LIMITS.n_bytes:
        raise InputError(f"the model is larger than {LIMITS.n_bytes} bytes; use a smaller one")
    asked = {"shape": rows.shape, "levels": levels, "parent": os.getpid()}
    head = json.dumps(asked).encode()
    body = len(head).to_bytes(8, "big") + head + rows.astype("<f8").tobytes() + model
    width = len(levels) if len(levels) > 2 else 1
    return _read(_answer(body, wall_s), (len(rows), width))


def _read(data: bytes, shape: tuple[int, int]) -> Evaluated:
    """Read what the process said as one reads a stranger: it met foreign bytes.

    Raises:
        InputError: It says that the graph is refused.
        RefusedError: It is no answer.
    """
    try:
        answer = json.loads(data)
        if set(answer) == {"error"}:
            told = "".join(c for c in str(answer["error"])[:300] if c.isprintable())
            raise InputError(f"the model is refused: {told}")
        operators = {str(name): int(count) for name, count in answer["operators"].items()}
        scores = np.array(answer["scores"], dtype=np.float64)
        weights = int(answer["weights"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        raise RefusedError(MALFORMED) from None
    if scores.shape != shape or not set(operators) <= frozenset().union(*OPERATORS.values()):
        raise RefusedError(MALFORMED)
    return Evaluated(operators, weights, scores)


def _answer(body: bytes, wall_s: float) -> bytes:
    """Ask the process; its answer is bounded, whatever it writes."""
    paths = os.pathsep.join(part for part in sys.path if part)
    with os.fdopen(os.memfd_create("answer"), "w+b") as answer:
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-m", "clearinghouse.onsite.jail"],
                input=body,
                stdout=answer,
                stderr=subprocess.DEVNULL,
                timeout=wall_s,
                cwd="/",
                env={**ENVIRONMENT, "PYTHONPATH": paths},
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise RefusedError(f"running the model took more than {wall_s:g} s") from None
        if done.returncode != 0:
            raise RefusedError(
                f"the process that ran the model died (code {done.returncode}): it needs too much "
                "memory or time, or is made to crash readers"
            )
        answer.seek(0)
        return answer.read()


# ---------------------------------------------------------------- inside the process


def main() -> None:
    """Read the question from standard input, write one JSON object to standard output."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    size = int.from_bytes(sys.stdin.buffer.read(8), "big")
    asked = json.loads(sys.stdin.buffer.read(size))
    # All that is needed is loaded before the door closes.
    import onnx.shape_inference  # noqa: F401

    from clearinghouse.onsite import session

    n, width = asked["shape"]
    rows = np.frombuffer(sys.stdin.buffer.read(8 * n * width), "<f8").reshape(n, width)
    lock(int(asked["parent"]), MAX_ANSWER_BYTES)
    model = sys.stdin.buffer.read()  # foreign bytes: only from here on
    try:
        answer = session.answer(model, rows, tuple(asked["levels"]))
    except (ValueError, MemoryError, RecursionError) as error:
        answer = {"error": str(error) or f"it asks for too much ({type(error).__name__})"}
    json.dump(answer, answers)
    answers.flush()


if __name__ == "__main__":
    main()
