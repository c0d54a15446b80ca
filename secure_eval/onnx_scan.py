"""Bytes of an ONNX file to a message, with bounds checked before anything large exists.

The wire format is walked first, message by message, without building objects: a file of 16 MB can
otherwise unfold into gigabytes of empty messages. Nothing is ever executed.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_NESTING = 12


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a file may be: its bytes, its protobuf fields and messages, its graph's nodes."""

    n_bytes: int
    fields: int
    messages: int
    nodes: int


IMPORT_LIMITS = Limits(16 << 20, 450_000, 50_000, 400)
"""For models that become integer models."""
REFUSED_FIELDS = {
    "functions": "local functions are not supported; export without them",
    "training_info": "training graphs are not supported; export for inference",
    "sparse_initializer": "sparse weights are not supported; export dense weights",
    "external_data": "external data is not supported; save all weights inside the file",
    "g": "subgraphs (If, Loop, Scan) are not supported; export a plain pipeline",
    "graphs": "subgraphs (If, Loop, Scan) are not supported; export a plain pipeline",
}
FOREIGN = {
    b"\x80": "a Python pickle",
    b"PK": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"\x93NUMPY": "a numpy file",
    b"\x89HDF": "an HDF5 file",
    b"{": "JSON text",
}


def load(source: str | Path | bytes, limits: Limits = IMPORT_LIMITS) -> Any:
    """Return the parsed ModelProto of a path or of bytes.

    Args:
        source: path or bytes of the file.
        limits: how large it may be.

    Raises:
        ValueError: too large, not ONNX, or with parts that are refused.
        ImportError: the package onnx is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise ImportError("from_onnx needs the package onnx (the extra named onnx)") from error
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    data = _read(source, limits.n_bytes)
    for magic, name in FOREIGN.items():
        if data.startswith(magic):
            raise ValueError(f"this is {name}, not an ONNX model; export the model to ONNX")
    descriptor = onnx.ModelProto.DESCRIPTOR
    _Walk(limits).message(memoryview(data), descriptor, 0)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise ValueError("the file is not an ONNX model: its bytes cannot be read") from error
    if not model.graph.node:
        raise ValueError("the file is not an ONNX model: it has no graph")
    if len(model.graph.node) > limits.nodes:
        raise ValueError(f"the graph has {len(model.graph.node)} nodes; at most {limits.nodes}")
    return model


def _read(source: str | Path | bytes, most: int) -> bytes:
    if isinstance(source, bytes):
        data = source
    else:
        with Path(source).open("rb") as stream:
            data = stream.read(most + 1)
    if len(data) > most:
        raise ValueError(f"the file is larger than {most} bytes; use a smaller model")
    return data


class _Walk:
    """Counts the fields of nested protobuf messages and refuses forbidden ones."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._fields = self._messages = 0
        self._known: dict[str, dict[int, Any]] = {}

    def message(self, data: memoryview, descriptor: Any, depth: int) -> None:
        """Walk one message; raise ValueError on malformed bytes or too many fields."""
        if depth > MAX_NESTING:
            raise ValueError("the file is not an ONNX model: messages are nested too deeply")
        self._messages += 1
        if self._messages > self._limits.messages:
            raise ValueError(
                f"the file has more than {self._limits.messages} messages; use a smaller model"
            )
        known = self._known.setdefault(descriptor.full_name, dict(descriptor.fields_by_number))
        position, size = 0, len(data)
        while position < size:
            self._fields += 1
            if self._fields > self._limits.fields:
                raise ValueError(
                    f"the file has more than {self._limits.fields} fields; use fewer or smaller "
                    "trees"
                )
            key = data[position]
            position += 1
            if key > 127:
                key, position = _varint(data, position - 1)
            wire, field = key & 7, known.get(key >> 3)
            if field is not None and field.name in REFUSED_FIELDS:
                raise ValueError(f"{descriptor.name}: {REFUSED_FIELDS[field.name]}")
            if wire == 0:
                _, position = _varint(data, position)
            elif wire == 1:
                position += 8
            elif wire == 5:
                position += 4
            elif wire == 2:
                length, position = _varint(data, position)
                if length > size - position:
                    raise ValueError("the file is not an ONNX model: it is cut short")
                if field is not None and field.message_type is not None:
                    part = data[position : position + length]
                    self.message(part, field.message_type, depth + 1)
                position += length
            else:
                raise ValueError("the file is not an ONNX model: unknown wire type")
        if position != size:
            raise ValueError("the file is not an ONNX model: it is cut short")


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    """Return a variable-length integer and the position after it."""
    result, shift = 0, 0
    while True:
        if position >= len(data) or shift > 63:
            raise ValueError("the file is not an ONNX model: it is cut short")
        byte = data[position]
        position += 1
        result |= (byte & 127) << shift
        if byte < 128:
            return result, position
        shift += 7
