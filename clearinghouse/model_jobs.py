"""The job that reads a submitted model: strictly, and against the columns that were uploaded."""

from collections.abc import Mapping
from typing import Any

from clearinghouse.blobs import BlobStore
from clearinghouse.errors import InputError
from clearinghouse.model_columns import columns, label_column_of
from clearinghouse.packed_sets import check_fits
from clearinghouse.schema import Schema
from clearinghouse.score_cards import task_of
from secure_eval.class_models import ClassModels, model_parts, read_model
from secure_eval.exactness import score_room
from secure_eval.integer_model import IntegerModel
from secure_eval.quantise_residual import residual_unit

Arguments = Mapping[str, Any]


def inspect_model(blobs: BlobStore, arguments: Arguments) -> dict[str, Any]:
    """Read a submitted model strictly and find its columns among the uploaded ones."""
    model = read_model(blobs.get(arguments["model"]))
    if model.digest() != arguments["model"]:
        raise InputError("the model must be in its canonical text, as to_json gives")
    schema = Schema.from_dict(arguments["schema"])
    task, parts = task_of(schema.label), model_parts(model)
    wanted = schema.label.n_classes if task == "classes" else 1
    if (len(parts) if isinstance(model, ClassModels) else 1) != wanted or (
        isinstance(model, ClassModels) != (task == "classes")
    ):
        raise InputError(
            f"the label '{schema.label.name}' needs a model of "
            f"{f'{wanted} classes' if task == 'classes' else 'one score'}"
        )
    if arguments["packed"]:
        check_fits(model)
    most = int(arguments["published_bins"])
    for part in parts:
        if len(part.bin_edges) - 1 > most:
            raise InputError(
                f"this validation set publishes at most {most} bins, the model has "
                f"{len(part.bin_edges) - 1}; merge bins with with_edges"
            )
    maps = [_uploaded(schema, part) for part in parts]
    reading = [
        {
            "edges": part.edges.tolist(),
            "threshold_edge": part.bin_edges.index(part.threshold_bin),
        }
        for part in parts
    ]
    bits, headroom = score_room(*parts)
    found = {
        "kind": model.kind,
        "task": task,
        "columns": maps[0],
        "score_bits": bits,
        "headroom": f"{headroom:.6f}",
        **reading[0],
    }
    if task == "classes":
        return {**found, "columns": maps, "histograms": reading}
    label = label_column_of(schema)
    if label is None:
        return found
    (part,) = parts
    if part.threshold_bin != part.bins // 2:
        raise InputError("a residual model's threshold is its middle edge, the residual 0")
    width = schema.label.high - schema.label.low
    return {**found, "unit": f"{residual_unit(part, label):.17g}", "width": f"{width:.17g}"}


def _uploaded(schema: Schema, model: IntegerModel) -> list[int]:
    """Where the columns of a model are among the uploaded ones.

    Raises:
        InputError: One is not among them.
    """
    where = {column: index for index, column in enumerate(columns(schema))}
    unknown = [column for column in model.columns if column not in where]
    if unknown:
        raise InputError(
            f"the model reads a column of feature {unknown[0].feature} that is not among the "
            "encrypted columns of this schema; import it with the schema's columns"
        )
    return [where[column] for column in model.columns]
