"""ONNX files are other people's bytes: they are parsed in a process of their own, and only there.

The process gets the file's bytes and the schema, and gives back an integer model or one error; with
feature vectors it also runs the file, once it was imported and so holds known operators only. It
has limits on memory, CPU time, wall time, file size and open files, so a file that exhausts or
crashes the parser costs that process and nothing else. What comes back is read by the strict reader
of models. It is a guard against accidents and resource exhaustion, not a jail: the process runs
under the caller's account.
"""

import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clearinghouse.errors import InputError
from clearinghouse.features import features
from clearinghouse.schema import Schema
from secure_eval.class_models import Model, read_model

MAX_FILE_BYTES = 16 << 20
MEMORY_BYTES = 2 << 30
CPU_S = 60
WALL_S = 120
MAX_ANSWER_BYTES = 72 << 20


def import_onnx(path: Path, schema: Schema) -> Model:
    """The integer model of an ONNX file, parsed elsewhere.

    Raises:
        InputError: The file is too large or cannot be imported; the message says why.
    """
    return imported(_read(path), schema, str(path))


def _read(path: Path) -> bytes:
    with path.open("rb") as stream:
        data = stream.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise InputError(
            f"{path}: the file is larger than {MAX_FILE_BYTES} bytes; use fewer or smaller trees"
        )
    return data


def imported(data: bytes, schema: Schema, name: str, *, wall_s: float = WALL_S) -> Model:
    """The integer model of an ONNX file's bytes; `name` is what errors call it.

    Raises:
        InputError: The bytes cannot be imported, or the process that parsed them died.
    """
    return _asked(data, {"schema": schema.to_dict()}, name, wall_s)[0]


@dataclass(frozen=True, slots=True)
class FloatOutputs:
    """What an ONNX file itself gives for rows, by ONNX's reference evaluator.

    Attributes:
        labels: (n,) predicted labels, or None if the file gives none.
        scores: (n, columns) scores, probabilities or predictions, or None.
    """

    labels: NDArray[np.int64] | None
    scores: NDArray[np.float64] | None


def imported_and_run(
    path: Path, schema: Schema, rows: NDArray[np.float64]
) -> tuple[Model, FloatOutputs]:
    """The integer model of an ONNX file, and what the file gives for feature vectors (n, F).

    Raises:
        InputError: The file is too large or cannot be imported.
    """
    asked = {"schema": schema.to_dict(), "rows": rows.tolist()}
    model, answer = _asked(_read(path), asked, str(path), WALL_S)
    labels, scores = answer.get("labels"), answer.get("scores")
    return model, FloatOutputs(
        None if labels is None else np.array(labels, dtype=np.int64),
        None if scores is None else np.array(scores, dtype=np.float64),
    )


def _asked(
    data: bytes, asked: dict[str, Any], name: str, wall_s: float
) -> tuple[Model, dict[str, Any]]:
    head = json.dumps(asked).encode()
    paths = os.pathsep.join(part for part in sys.path if part)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "clearinghouse.client.onnx_sandbox"],
            input=len(head).to_bytes(8, "big") + head + data,
            capture_output=True,
            timeout=wall_s,
            env={"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise InputError(
            f"{name}: reading the file took more than {wall_s:g} s. Use a smaller model"
        ) from None
    if done.returncode != 0 or len(done.stdout) > MAX_ANSWER_BYTES:
        raise InputError(
            f"{name}: the process that read the file died (code {done.returncode}): the file "
            "needs too much memory or time, or is made to crash readers. Use a smaller model"
        )
    answer = json.loads(done.stdout)
    if "error" in answer:
        raise InputError(f"{name}: {answer['error']}")
    return read_model(str(answer["model"])), answer


def named(words: str, names: Sequence[str]) -> str:
    """What is said of "feature 3", with the name that the schema gives the feature."""

    def name(found: re.Match[str]) -> str:
        place = int(found[1])
        return f"{found[0]} ('{names[place]}')" if place < len(names) else found[0]

    return re.sub(r"\bfeature (\d{1,6})\b", name, words)


def main() -> None:
    """Read schema and file from standard input, write one JSON object to standard output."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not get between
    _limit()
    size = int.from_bytes(sys.stdin.buffer.read(8), "big")
    asked = json.loads(sys.stdin.buffer.read(size))
    data = sys.stdin.buffer.read()
    from clearinghouse.client.onnx_model import float_outputs, onnx_model  # under these limits

    schema = Schema.from_dict(asked["schema"])
    try:
        answer: dict[str, Any] = {"model": onnx_model(data, schema).to_json()}
        if "rows" in asked:
            answer |= float_outputs(data, np.array(asked["rows"], dtype=np.float64))
    except (ValueError, MemoryError, RecursionError) as error:
        said = named(str(error), [feature.name for feature in features(schema)])
        answer = {"error": said or f"the file asks for too much ({type(error).__name__})"}
    json.dump(answer, answers)
    answers.flush()


def _limit() -> None:
    """Bound memory, CPU time and files; leave no core file with a party's bytes."""
    limits = {
        resource.RLIMIT_AS: MEMORY_BYTES,
        resource.RLIMIT_CPU: CPU_S,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: 64,
    }
    for what, wanted in limits.items():
        hard = resource.getrlimit(what)[1]
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(what, (most, most))


if __name__ == "__main__":
    main()
