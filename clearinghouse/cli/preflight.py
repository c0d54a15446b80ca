"""`model preflight`: import a model, compare it with its integer form, and run it encrypted.

Everything happens on made-up rows between the schema's public bounds; no table is read, nothing
is sent and nothing is spent.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clearinghouse.cli.developer import model_source
from clearinghouse.cli.options import Result
from clearinghouse.client.onnx_sandbox import imported_and_run
from clearinghouse.client.recipes import RECIPES, integer_model, train
from clearinghouse.columns import NumberColumn
from clearinghouse.errors import VerificationError
from clearinghouse.features import encode, features
from clearinghouse.model_columns import rows_of
from clearinghouse.packed_sets import fits
from clearinghouse.schema import Schema, load_schema
from clearinghouse.score_cards import task_of
from clearinghouse.tables import Table
from secure_eval.class_models import ClassModels, Model, model_parts
from secure_eval.exactness import (
    ExactnessReport,
    class_exactness,
    exactness,
    ordered_exactness,
    residual_exactness,
    score_room,
)
from secure_eval.integer_model import IntegerModel
from secure_eval.params import PARAMETERS
from secure_eval.rehearse import rehearse
from secure_eval.rehearse_classes import rehearse_classes

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
    label = schema.label
    labels: Integers | Floats = (rank * len(label.levels) // n).astype(np.int64)
    if label.kind == "number":
        labels = label.low + (label.high - label.low) * (rank + 0.5) / n
    return Table(schema, n, numbers, categories, labels, table.rows)


def preflight(model: str, schema_path: Path, seed: int) -> Result:
    """Everything a developer can know about a model before it meets a request.

    Raises:
        InputError: The model cannot be imported for this schema; the message says why.
        VerificationError: The encrypted run gave other counts than the integer model.
    """
    schema = load_schema(schema_path)
    table = synthetic(schema, ROWS, seed)
    started = time.monotonic()
    integer, report = _imported(model, schema, table, seed)
    imported_s = time.monotonic() - started
    started = time.monotonic()
    moved, seconds = _encrypted(integer, schema, table.take(np.arange(ENCRYPTED_ROWS)))
    encrypted_s = time.monotonic() - started
    parts = model_parts(integer)
    names = [feature.name for feature in features(schema)]
    used = {column.feature for part in parts for column in part.columns}
    value: dict[str, Any] = {
        "model": model,
        "schema": schema.name,
        "task": task_of(schema.label),
        "kind": integer.kind,
        "method": integer.method if isinstance(integer, ClassModels) else None,
        "histograms": len(parts),
        "columns": len({column for part in parts for column in part.columns}),
        "features": sorted(names[index] for index in used if index < len(names)),
        "bins": parts[0].bins,
        "score_bits": report.bits_used,
        "headroom": round(report.headroom, 6),
        "sha256": integer.digest(),
        "model_bytes": len(integer.to_json()),
        "label_agreement": report.label_agreement,
        "argmax_agreement": report.argmax_agreement,
        "largest_score_error": report.largest_score_error,
        "auc_change": report.auc_change,
        "synthetic_rows": ROWS,
        "encrypted_rows": ENCRYPTED_ROWS,
        "exact_counts_match": True,
        "bytes_per_block": moved,
        "rows_per_block": PARAMETERS.degree,
        "fits_packed_sets": fits(integer),
        "import_s": round(imported_s, 2),
        "encrypted_s": round(encrypted_s, 2),
        "steps_s": {name: round(spent, 2) for name, spent in seconds.items()},
        "epsilon_spent": "0.00",
    }
    return value, _words(value, len(names))


def _words(value: dict[str, Any], n_features: int) -> str:
    used = ", ".join(value["features"][:8]) + (", ..." if len(value["features"]) > 8 else "")
    classes = f", one score for each of {value['histograms']} classes ({value['method']})"
    return "\n".join(
        [
            f"{value['model']}: imported for schema '{value['schema']}' as an integer model",
            f"  kind {value['kind']}, {value['columns']} encrypted columns of {n_features} "
            f"features ({used})" + (classes if value["method"] else ""),
            f"  {value['bins']} hidden bins over a proven score range of "
            f"{value['score_bits']} bits ({100 * value['headroom']:.0f}% of the bins' range is "
            "unused)",
            f"  {_agreement(value)}",
            f"  encrypted run on {value['encrypted_rows']} rows: every count equals the integer "
            f"model's ({value['encrypted_s']:.1f} s: {_steps(value)})",
            f"  a scoring moves {value['bytes_per_block'] / 1e6:.1f} MB for each "
            f"{value['rows_per_block']} validation rows",
            "  packed validation sets score it too"
            if value["fits_packed_sets"]
            else "  it has trees: a validation set that is packed refuses it",
            f"  sha256 {value['sha256']}",
            "nothing was sent or spent",
        ]
    )


def _steps(value: dict[str, Any]) -> str:
    """What took how long; a market's parties are two machines, here they share one."""
    return ", ".join(f"{name} {spent:.1f}" for name, spent in value["steps_s"].items())


def _agreement(value: dict[str, Any]) -> str:
    """How integer and float model compare, in words."""
    said = []
    for key, what in (("label_agreement", "decide"), ("argmax_agreement", "rank a class first")):
        if value[key] is not None:
            said.append(f"{what} alike on {100 * value[key]:.2f}%")
    if value["largest_score_error"] is not None:
        said.append(f"differ in score by at most {value['largest_score_error']:.3g}")
    if value["auc_change"] is not None:
        said.append(f"differ in AUC by {value['auc_change']:+.2g}")
    if not said:
        return "the float model could not be run here; only integer and encrypted were compared"
    rows = value["synthetic_rows"]
    return f"integer and float model on {rows} made-up rows: they {', '.join(said)}"


def _imported(model: str, schema: Schema, table: Table, seed: int) -> tuple[Model, ExactnessReport]:
    """The integer model, and how it compares with the float model."""
    rows = encode(schema, table)
    if model in RECIPES:
        trained = train(model, schema, table, seed)
        integer = integer_model(trained, schema)
        if isinstance(integer, ClassModels):
            floats = np.column_stack([e.decision_function(rows) for e in trained.estimator])
            return integer, class_exactness(integer, floats, rows, labels=table.labels)
        if trained.task == "number":
            return integer, residual_exactness(integer, trained.predict(rows), rows, table.labels)
        scores = trained.estimator.decision_function(rows)
        return integer, exactness(integer, scores, rows, labels=table.labels)
    model_source(model, seed)  # says what is wrong with the name
    integer, found = imported_and_run(Path(model), schema, rows)
    if not isinstance(integer, ClassModels) and schema.label.kind == "number":
        nothing = np.zeros(len(rows)) if found.scores is None else found.scores
        report = residual_exactness(integer, nothing, rows, table.labels)
        unknown = replace(report, largest_score_error=None)
        return integer, unknown if found.scores is None else report
    if found.labels is None or found.scores is None:
        return integer, ExactnessReport(None, None, None, *score_room(*model_parts(integer)))
    of_class = found.scores if isinstance(integer, ClassModels) else found.scores[:, -1]
    return integer, ordered_exactness(integer, of_class, rows, found.labels)


def _encrypted(integer: Model, schema: Schema, table: Table) -> tuple[int, Mapping[str, float]]:
    """Run both roles on real ciphertexts; the bytes that moved, and seconds by what was done.

    Raises:
        VerificationError: A count differs.
    """
    groups = {
        name: (schema.stratum_codes(table, name), len(schema.stratum_names(name)))
        for name in schema.subgroups
    }
    rows = encode(schema, table)
    if isinstance(integer, ClassModels):
        codes = np.asarray(table.labels, dtype=np.int64)
        found = rehearse_classes(integer, rows, codes, groups=groups)
        for index, (part, histogram) in enumerate(zip(integer.models, found.classes, strict=True)):
            own = (codes == index).astype(np.int64)
            _same(histogram.counts, part, part.score(rows), own)
        return found.bytes_sent, found.seconds
    opened = rehearse(integer, rows, table.labels, groups=groups)
    is_number = schema.label.kind == "number"
    labels = np.zeros(table.n, np.int64) if is_number else np.asarray(table.labels, np.int64)
    _same(opened.counts, integer, integer.score(rows_of(schema, table)), labels)
    return opened.bytes_sent, opened.seconds


def _same(counts: Integers, model: IntegerModel, scores: Integers, labels: Integers) -> None:
    bins = np.searchsorted(model.edges, scores, side="right") - 1
    expected = np.zeros_like(counts)
    np.add.at(expected, (labels, bins), 1)
    if not np.array_equal(counts, expected):
        raise VerificationError(
            "the encrypted run gave other counts than the integer model. "
            "Please report this model: it must never happen"
        )
