"""Tags of rows that were not sold, so that recipients can tell whether another source sold them.

A tag is HMAC-SHA-256 under the request's draw seed of the source's id and the row, cut to 16 bytes.
With it comes a sealed opening of the row's commitment, encrypted under a key made of the row.

What a recipient learns: whether a row that it already knows is among the next rows of this source.
It can try guesses in the same way, as with any hash of a row; so tags are sealed to grant holders,
cover only the rows that come next in the public order, differ between requests and sources, and
never reach the server in the clear. Who cannot name the row learns nothing: not the salt, not the
place in the tree, not whether a tag is of a row at all, for missing rows are filled with random
bytes. Who holds an equal row opens the commitment and so knows that the source had committed to it
before: tags cannot be made up afterwards to accuse somebody.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from clearinghouse.canonical import canonical_bytes, parse_strict
from clearinghouse.errors import InputError, VerificationError
from clearinghouse.rows import SALT_BYTES, RowProof, record_bytes, row_leaf
from clearinghouse.tables import Record

FORMAT = "clearinghouse shown/1"
MAX_SHOWN_BYTES = 2**28
TAG_BYTES = 16
_HASH = 32


@dataclass(frozen=True, slots=True)
class Next:
    """One row that comes next, with what opens its commitment."""

    place: int
    record: Record
    salt: bytes
    proof: RowProof


@dataclass(frozen=True, slots=True)
class Tag:
    """One tag as a recipient reads it.

    Attributes:
        place: Of the row.
        tag: 16 bytes, from the row or random.
        box: The encrypted opening.
        number: Its place in the list, which the encryption depends on.
    """

    place: int
    tag: bytes
    box: bytes
    number: int


def tag_of(seed: bytes, source_id: str, row: bytes) -> bytes:
    """The tag of a row (its canonical bytes) in one source and one request."""
    text = b"clearinghouse shown row v1|" + source_id.encode() + b"|" + row
    return hmac.digest(seed, text, "sha256")[:TAG_BYTES]


def write_shown(seed: bytes, source_id: str, rows: Sequence[Next | int], tree_size: int) -> bytes:
    """The document that is sealed; its size depends on the number of tags and the tree alone.

    Args:
        seed: The request's draw seed.
        source_id: Whose rows they are.
        rows: Rows, or the place number of each that is missing.
        tree_size: Leaves of the source's tree.
    """
    size = 8 + SALT_BYTES + _HASH * (tree_size.bit_length() - 1)
    tags = []
    for number, item in enumerate(rows):
        if isinstance(item, Next):
            row, opening = record_bytes(item.record), _opening(item)
            tag, box = tag_of(seed, source_id, row), _masked(seed, source_id, row, number, opening)
            place = item.place
        else:
            place, tag, box = item, secrets.token_bytes(TAG_BYTES), secrets.token_bytes(size)
        tags.append({"place": place, "tag": tag.hex(), "box": base64.b64encode(box).decode()})
    return canonical_bytes({"format": FORMAT, "source_id": source_id, "tags": tags})


def read_shown(data: bytes, source_id: str) -> tuple[Tag, ...]:
    """Read what `write_shown` wrote.

    Raises:
        InputError: It has another form or is of another source.
    """
    document = parse_strict(data, max_bytes=MAX_SHOWN_BYTES, max_depth=8)
    keys = {"format", "source_id", "tags"}
    if not isinstance(document, dict) or set(document) != keys or document["format"] != FORMAT:
        raise InputError(f"shown tags must be a {FORMAT} document")
    if document["source_id"] != source_id or not isinstance(document["tags"], list):
        raise InputError("shown tags must be a list, of the source they were asked of")
    return tuple(_tag(number, value) for number, value in enumerate(document["tags"]))


def _tag(number: int, value: object) -> Tag:
    try:
        if not isinstance(value, dict) or set(value) != {"place", "tag", "box"}:
            raise ValueError
        if type(value["place"]) is not int or value["place"] < 0:
            raise ValueError
        tag = bytes.fromhex(value["tag"])
        box = base64.b64decode(value["box"], validate=True)
    except (ValueError, TypeError, binascii.Error):
        raise InputError("a shown tag needs a place, a tag and a box, nothing else") from None
    return Tag(value["place"], tag, box, number)


def open_tag(
    seed: bytes, source_id: str, tag: Tag, record: Record, root: bytes, size: int
) -> tuple[bytes, RowProof] | None:
    """Salt and proof of the commitment behind a tag, for who holds an equal row.

    Returns:
        None if the tag is of another row, or nothing that this source committed to.
    """
    row = record_bytes(record)
    if not hmac.compare_digest(tag.tag, tag_of(seed, source_id, row)):
        return None
    plain = _masked(seed, source_id, row, tag.number, tag.box)
    depth = size.bit_length() - 1
    if len(plain) != 8 + SALT_BYTES + _HASH * depth:
        return None
    salt, rest = plain[8 : 8 + SALT_BYTES], plain[8 + SALT_BYTES :]
    path = tuple(rest[_HASH * step : _HASH * (step + 1)] for step in range(depth))
    proof = RowProof(int.from_bytes(plain[:8], "big"), row_leaf(salt, record), path)
    try:
        proof.verify(root, size)
    except VerificationError:
        return None
    return salt, proof


def _opening(item: Next) -> bytes:
    return item.proof.index.to_bytes(8, "big") + item.salt + b"".join(item.proof.path)


def _masked(seed: bytes, source_id: str, row: bytes, number: int, data: bytes) -> bytes:
    """Encrypt or decrypt: each number has a stream of its own, so equal rows share none.

    Nothing vouches for the plaintext but the commitment that it has to open.
    """
    text = f"clearinghouse shown opening v1|{source_id}|{number}|".encode() + row
    stream = hashlib.shake_256(hmac.digest(seed, text, "sha256")).digest(len(data))
    return bytes(a ^ b for a, b in zip(data, stream, strict=True))
