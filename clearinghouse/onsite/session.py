"""A graph on rows, one row at a time, by onnxruntime: inside the locked process only."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from clearinghouse.onsite.graphs import Graph, scan

Floats = NDArray[np.float64]


def answer(model: bytes, rows: Floats, levels: tuple[str, ...]) -> dict[str, Any]:
    """Scan the graph, then score each row (n, F); None where the graph fails on a row.

    Raises:
        ValueError: The graph is refused, or gives no scores of these levels.
    """
    graph = scan(model, rows.shape[1])
    session = _session(model)
    index, name = _scored(session.get_outputs(), levels)
    width = len(levels) if len(levels) > 2 else 1
    scores: list[list[float | None]] = []
    shapes: set[str] = set()
    for row in rows:
        values: list[float | None] = [None] * width
        try:
            found = read_scores(session.run([name], _feeds(graph, row))[0], levels)
            values = [value if np.isfinite(value) else None for value in found]
        except ValueError as error:
            shapes.add(str(error))
        except Exception:  # noqa: BLE001, S110  the runtime's errors share no class: this row fails
            pass
        scores.append(values)
    if len(shapes) == 1 and all(value is None for line in scores for value in line):
        raise ValueError(f"output {index + 1}: {shapes.pop()}")
    return {"operators": graph.operators, "weights": graph.weights, "scores": scores}


def _session(model: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # a thread would be refused
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception:  # noqa: BLE001  the runtime's errors share no class, and may quote anything
        raise ValueError("onnxruntime cannot load it") from None


def _feeds(graph: Graph, row: Floats) -> dict[str, NDArray[Any]]:
    feeds, start = {}, 0
    for name, width, kind in graph.inputs:
        feeds[name] = row[None, start : start + width].astype(kind)
        start += width
    return feeds


def _scored(outputs: Any, levels: tuple[str, ...]) -> tuple[int, str]:
    """The output that holds scores: the first of fractions (labels are integers).

    Raises:
        ValueError: There is none.
    """
    for index, output in enumerate(outputs):
        if "float" in output.type or "double" in output.type:
            return index, str(output.name)
    what = "probabilities" if levels else "predictions"
    raise ValueError(f"no output holds {what}; export the model with them")


def read_scores(given: Any, levels: tuple[str, ...]) -> list[float]:
    """The scores of one row: of the second of two levels, of each of more, or the prediction.

    Raises:
        ValueError: The output has another shape, or names other classes than the label's levels.
    """
    count = len(levels)
    if isinstance(given, list):  # ZipMap: one mapping a row
        values = _of_map(given, levels)
    else:
        values = np.asarray(given, dtype=np.float64).reshape(-1).tolist()
    if count <= 2 and len(values) == 1:
        return [float(values[0])]
    if count < 2 or len(values) != count:
        raise ValueError(f"it gives {len(values)} scores a row, and the label has {count} levels")
    return [float(values[1])] if count == 2 else [float(value) for value in values]


def _of_map(given: list[Any], levels: tuple[str, ...]) -> list[float]:
    if len(given) != 1 or not isinstance(given[0], Mapping):
        raise ValueError("it does not give one mapping of classes to scores a row")
    by_name = {str(key): float(value) for key, value in given[0].items()}
    for names in (levels, tuple(str(code) for code in range(len(levels)))):
        if set(by_name) == set(names):
            return [by_name[name] for name in names]
    raise ValueError(f"its classes are not the label's levels ({', '.join(levels)})")
