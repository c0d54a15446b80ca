"""`model preflight`: import a model, compare it with its integer form, and run it encrypted.

Everything happens on made-up rows between the schema's public bounds; no table is read, nothing
is sent and nothing is spent.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clearinghouse.cli.developer import model_source
from clearinghouse.cli.options import Result
from clearinghouse.client.recipes import RECIPES, integer_model, train
from clearinghouse.columns import NumberColumn
from clearinghouse.errors import InputError, VerificationError
from clearinghouse.features import encode, features
from clearinghouse.schema import Schema, load_schema
from clearinghouse.tables import Table
from secure_eval.exactness import exactness
from secure_eval.integer_model import IntegerModel
from secure_eval.params import PARAMETERS
from secure_eval.rehearse import rehearse

ROWS = 512
ENCRYPTED_ROWS = 64
MISSING = 0.1

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def synthetic(schema: Schema, n: int, seed: int) -> Table:
    """Made-up rows: numbers uniform between the bounds, levels uniform, a tenth missing.

    The label follows a random linear rule, so that a recipe has something to learn.
    """
    random = np.random.default_rng(seed)
    numbers: dict[str, Floats] = {}
    categories: dict[str, Integers] = {}
    for column in schema.columns:
        absent = random.random(n) < MISSING if column.missing else np.zeros(n, dtype=np.bool_)
        if isinstance(column, NumberColumn):
            values = random.uniform(column.low, column.high, n)
            whole = column.is_small_range
            values = np.rint(values) if whole else values
            numbers[column.name] = np.where(absent, np.nan, values)
        else:
            codes = random.integers(0, len(column.levels), n)
            categories[column.name] = np.where(absent, -1, codes).astype(np.int64)
    blank = np.zeros(n, np.int64)
    table = Table(schema, n, numbers, categories, blank, np.arange(1, n + 1, dtype=np.int64))
    rows = encode(schema, table)
    spread = np.maximum(rows.std(axis=0), 1e-9)
    risk = (rows - rows.mean(axis=0)) / spread @ random.normal(size=rows.shape[1])
    rank = np.argsort(np.argsort(risk))
    classes = max(2, len(schema.label.levels))
    labels = (rank * classes // n).astype(np.int64)
    return Table(schema, n, numbers, categories, labels, table.rows)


def preflight(model: str, schema_path: Path, seed: int) -> Result:
    """Everything a developer can know about a model before it meets a request.

    Raises:
        InputError: The model cannot be imported for this schema; the message says why.
        VerificationError: The encrypted run gave other counts than the integer model.
    """
    schema = load_schema(schema_path)
    table = synthetic(schema, ROWS, seed)
    rows = encode(schema, table)
    started = time.monotonic()
    integer, agreement, error = _imported(model, schema, table, rows, seed)
    imported_s = time.monotonic() - started
    started = time.monotonic()
    first = table.take(np.arange(ENCRYPTED_ROWS))
    found = _encrypted(integer, schema, first)
    encrypted_s = time.monotonic() - started
    names = [feature.name for feature in features(schema)]
    used = sorted({names[column.feature] for column in integer.columns})
    value: dict[str, Any] = {
        "model": model,
        "schema": schema.name,
        "kind": integer.kind,
        "columns": len(integer.columns),
        "features": used,
        "bins": integer.bins,
        "score_bits": int(integer.high - integer.low).bit_length(),
        "sha256": integer.digest(),
        "model_bytes": len(integer.to_json()),
        "label_agreement": agreement,
        "largest_score_error": error,
        "synthetic_rows": ROWS,
        "encrypted_rows": ENCRYPTED_ROWS,
        "exact_counts_match": True,
        "bytes_per_block": found,
        "rows_per_block": PARAMETERS.degree,
        "import_s": round(imported_s, 2),
        "encrypted_s": round(encrypted_s, 2),
        "epsilon_spent": "0.00",
    }
    return value, _words(value, len(names))


def _words(value: dict[str, Any], n_features: int) -> str:
    agreement = value["label_agreement"]
    floats = (
        "the float model could not be run here, so only integer and encrypted were compared"
        if agreement is None
        else f"integer and float model decide alike on {100 * agreement:.1f}% of "
        f"{value['synthetic_rows']} made-up rows"
    )
    if value["largest_score_error"] is not None:
        floats += f", largest score difference {value['largest_score_error']:.3g}"
    used = ", ".join(value["features"][:8]) + (", ..." if len(value["features"]) > 8 else "")
    return "\n".join(
        [
            f"{value['model']}: imported for schema '{value['schema']}' as an integer model",
            f"  kind {value['kind']}, {value['columns']} encrypted columns of {n_features} "
            f"features ({used})",
            f"  {value['bins']} hidden bins over a proven score range of "
            f"{value['score_bits']} bits",
            f"  {floats}",
            f"  encrypted run on {value['encrypted_rows']} rows: every count equals the integer "
            f"model's ({value['encrypted_s']:.1f} s)",
            f"  a scoring moves {value['bytes_per_block'] / 1e6:.1f} MB for each "
            f"{value['rows_per_block']} validation rows",
            f"  sha256 {value['sha256']}",
            "nothing was sent or spent",
        ]
    )


def _imported(
    model: str, schema: Schema, table: Table, rows: Floats, seed: int
) -> tuple[IntegerModel, float | None, float | None]:
    """The integer model, its label agreement with the float model, and the largest difference."""
    if model in RECIPES:
        trained = train(model, schema, table, seed)
        integer = integer_model(trained, schema)
        floats = trained.estimator.decision_function(rows)
        report = exactness(integer, floats, rows)
        return integer, report.label_agreement, report.largest_score_error
    integer = model_source(model, seed)(schema, table)
    return integer, _onnx_agreement(Path(model), integer, rows), None


def _onnx_agreement(path: Path, integer: IntegerModel, rows: Floats) -> float | None:
    """Share of rows with the label that ONNX's reference evaluator gives; None if it cannot."""
    from onnx import TensorProto, load
    from onnx.reference import ReferenceEvaluator

    types = {TensorProto.FLOAT: np.float32, TensorProto.DOUBLE: np.float64}
    try:
        proto = load(path)
        feeds: dict[str, Any] = {}
        constants = {tensor.name for tensor in proto.graph.initializer}
        inputs = [item for item in proto.graph.input if item.name not in constants]
        start = 0
        for item in inputs:
            kind = types.get(item.type.tensor_type.elem_type, np.int64)
            dims = item.type.tensor_type.shape.dim
            width = rows.shape[1] if len(inputs) == 1 else dims[1].dim_value
            feeds[item.name] = rows[:, start : start + width].astype(kind)
            start += width
        outputs = ReferenceEvaluator(proto).run(None, feeds)
    except Exception:  # noqa: BLE001  an operator that the reference lacks is no fault of the model
        return None
    for output in outputs:
        found = np.asarray(output)
        if found.shape == (len(rows),) and found.dtype.kind in "iu":
            return float(np.mean((found > 0) == (integer.predict(rows) > 0)))
    return None


def _encrypted(integer: IntegerModel, schema: Schema, table: Table) -> int:
    """Run both roles on real ciphertexts; the bytes that moved.

    Raises:
        InputError: The label is a number.
        VerificationError: A count differs.
    """
    if schema.label.kind != "category":
        raise InputError(f"the label '{schema.label.name}' is a number; models score classes only")
    groups = {
        name: (schema.stratum_codes(table, name), len(schema.stratum_names(name)))
        for name in schema.subgroups
    }
    rows, labels = encode(schema, table), np.asarray(table.labels, dtype=np.int64)
    found = rehearse(integer, rows, labels, groups=groups)
    bins = np.searchsorted(integer.edges, integer.score(rows), side="right") - 1
    expected = np.zeros_like(found.counts)
    np.add.at(expected, (labels, bins), 1)
    if not np.array_equal(found.counts, expected):
        raise VerificationError(
            "the encrypted run gave other counts than the integer model. "
            "Please report this model: it must never happen"
        )
    return found.bytes_sent
