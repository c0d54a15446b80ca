"""The body of a delivery, before it is sealed and after it is opened.

Every entry, record or dummy, is the same number of bytes for a given schema and tree, so the size
of the sealed body depends on the order alone and not on how many records there really were.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clearinghouse.canonical import canonical_bytes, parse_strict
from clearinghouse.columns import NumberColumn
from clearinghouse.errors import InputError
from clearinghouse.rows import RowProof
from clearinghouse.schema import Schema
from clearinghouse.tables import Record

FORMAT = "clearinghouse delivery/1"
MAX_BODY_BYTES = 2**30
NUMBER_CHARACTERS = 48
_KEYS = {"pad", "place", "proof", "record", "salt", "weight"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One place of an order.

    Attributes:
        place: Row-major (cell, label) it was drawn for.
        weight: 1 for a record, 0 for a dummy.
        record: The row as text; every value None in a dummy.
        salt: Opens the row commitment, 32 bytes.
        proof: Inclusion of the commitment in the source's tree.
    """

    place: int
    weight: int
    record: Record
    salt: bytes
    proof: RowProof


@dataclass(frozen=True, slots=True)
class Body:
    """An opened delivery."""

    order_id: str
    source_id: str
    purpose: str
    entries: tuple[Entry, ...]


def entry_bytes(schema: Schema, tree_size: int) -> int:
    """Bytes of every entry, from the schema and the declared tree only.

    Raises:
        InputError: The tree is not a power of two.
    """
    if tree_size < 1 or tree_size & (tree_size - 1):
        raise InputError(f"a row tree must have a power of two of leaves, not {tree_size}")
    path = (tree_size.bit_length() - 1) * len(f'"{"0" * 64}",')
    return 512 + path + record_room(schema)


def record_room(schema: Schema) -> int:
    """Most bytes that a record of this schema may take."""
    room = 2
    for column in schema.columns:
        levels = () if isinstance(column, NumberColumn) else column.levels
        room += _room(column.name, levels)
    return room + _room(schema.label.name, schema.label.levels)


def _room(name: str, levels: Sequence[str]) -> int:
    longest = max((len(canonical_bytes(level)) for level in levels), default=NUMBER_CHARACTERS)
    return len(canonical_bytes(name)) + max(longest, len("null")) + 2


def check_room(schema: Schema, records: Sequence[Mapping[str, str | None]]) -> None:
    """Refuse records that would not fit an entry, before anything is committed.

    Raises:
        InputError: A number needs more than 46 characters.
    """
    numbers = [column.name for column in schema.columns if isinstance(column, NumberColumn)]
    if schema.label.kind == "number":
        numbers.append(schema.label.name)
    for index, record in enumerate(records):
        for name in numbers:
            if len(record[name] or "") > NUMBER_CHARACTERS - 2:
                raise InputError(
                    f"column '{name}', row {index + 1}: the number takes more than "
                    f"{NUMBER_CHARACTERS - 2} characters. Round it"
                )


def write_body(
    schema: Schema,
    tree_size: int,
    *,
    order_id: str,
    source_id: str,
    purpose: str,
    entries: Sequence[Entry],
) -> bytes:
    """The canonical JSON of a delivery; its length depends on the number of entries only."""
    room = entry_bytes(schema, tree_size)
    return canonical_bytes(
        {
            "format": FORMAT,
            "order_id": order_id,
            "source_id": source_id,
            "purpose": purpose,
            "records": [_padded(entry, room) for entry in entries],
        }
    )


def _padded(entry: Entry, room: int) -> dict[str, Any]:
    value: dict[str, Any] = {
        "place": entry.place,
        "weight": entry.weight,
        "record": dict(entry.record),
        "salt": entry.salt.hex(),
        "proof": entry.proof.to_dict(),
        "pad": "",
    }
    missing = room - len(canonical_bytes(value))
    if missing < 0:
        raise InputError(f"an entry of a delivery is {-missing} bytes too long for its schema")
    value["pad"] = "0" * missing
    return value


def read_body(data: bytes) -> Body:
    """Read an opened delivery; records and proofs are not checked against anything yet.

    Raises:
        InputError: It has another form.
    """
    document = parse_strict(data, max_bytes=MAX_BODY_BYTES, max_depth=16)
    keys = {"format", "order_id", "source_id", "purpose", "records"}
    if not isinstance(document, dict) or set(document) != keys or document["format"] != FORMAT:
        raise InputError(f"a delivery must be a {FORMAT} document with {', '.join(sorted(keys))}")
    names = (document["order_id"], document["source_id"], document["purpose"])
    if not all(isinstance(name, str) for name in names):
        raise InputError("order_id, source_id and purpose of a delivery must be text")
    if not isinstance(document["records"], list):
        raise InputError("the records of a delivery must be a list")
    return Body(*names, tuple(_entry(value) for value in document["records"]))


def _entry(value: object) -> Entry:
    if not isinstance(value, dict) or set(value) != _KEYS:
        raise InputError(f"an entry must hold {', '.join(sorted(_KEYS))}, nothing else")
    place, weight, record, salt = (value[k] for k in ("place", "weight", "record", "salt"))
    if type(place) is not int or place < 0 or type(weight) is not int or weight not in (0, 1):
        raise InputError("an entry needs a place from 0 and a weight of 0 or 1")
    if not isinstance(record, dict) or not all(
        text is None or isinstance(text, str) for text in record.values()
    ):
        raise InputError("an entry's record must hold text or null only")
    if not isinstance(salt, str) or len(salt) != 64:
        raise InputError("an entry's salt must be 64 hexadecimal digits")
    try:
        raw = bytes.fromhex(salt)
    except ValueError:
        raise InputError("an entry's salt must be 64 hexadecimal digits") from None
    return Entry(place, weight, record, raw, RowProof.from_dict(value["proof"]))
