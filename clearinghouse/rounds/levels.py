"""The schema of a stored record."""

import json

from clearinghouse.schema import Schema
from clearinghouse.store.records import SchemaRecord


def read_schema(record: SchemaRecord) -> Schema:
    """The schema of a stored record."""
    return Schema.from_dict(json.loads(record.body), file=record.id)
