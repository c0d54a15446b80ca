"""The schema of a stored record, and the labels this version can work with."""

import json

from clearinghouse import cells
from clearinghouse.errors import InputError
from clearinghouse.schema import Schema
from clearinghouse.store.records import SchemaRecord


def read_schema(record: SchemaRecord) -> Schema:
    """The schema of a stored record."""
    return Schema.from_dict(json.loads(record.body), file=record.id)


def label_classes(schema: Schema) -> int:
    """Number of label classes.

    Raises:
        InputError: The label is a number, which this version does not match or score.
    """
    if not schema.label.levels:
        raise InputError(
            f"the label '{schema.label.name}' is a number; this version matches and scores labels "
            "with levels only. Cut it into levels"
        )
    return cells.n_labels(schema)
