"""Strict reading of ONNX nodes and constant tensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
MAX_ELEMENTS = 1_000_000
TYPES = {1: np.float32, 6: np.int32, 7: np.int64, 11: np.float64}
REFUSED_LOCATION = 1  # TensorProto.EXTERNAL


@dataclass(frozen=True, slots=True)
class Node:
    """One operator with its attributes read; `place` names it in messages."""

    place: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]

    def refuse(self, reason: str) -> ValueError:
        """Return an error that names this node."""
        return ValueError(f"{self.place}: {reason}")

    def allow(self, *names: str) -> None:
        """Raise ValueError if an attribute is not among the names."""
        for name in self.attributes:
            if name not in names:
                raise self.refuse(f"attribute {name!r} is not supported")

    def floats(self, name: str, default: Sequence[float] = ()) -> NDArray[np.float64]:
        """Return a list attribute of finite numbers, or its `_as_tensor` twin."""
        values = self.attributes.get(name)
        if values is None:
            values = self.attributes.get(f"{name}_as_tensor", default)
        result = self._array(name, values, "fiu").astype(np.float64)
        if not np.isfinite(result).all():
            raise self.refuse(f"{name} holds a number that is not finite")
        return result

    def integers(self, name: str, default: Sequence[int] = ()) -> NDArray[np.int64]:
        """Return a list attribute of integers."""
        return self._array(name, self.attributes.get(name, default), "iu").astype(np.int64)

    def _array(self, name: str, values: Any, kinds: str) -> Array:
        result = np.asarray(values)
        if result.size and result.dtype.kind not in kinds:
            raise self.refuse(f"{name} holds {result.dtype}, expected numbers")
        return result.ravel()

    def integer(self, name: str, default: int) -> int:
        """Return an integer attribute."""
        value = self.attributes.get(name, default)
        if not isinstance(value, int):
            raise self.refuse(f"{name} must be an integer")
        return value

    def text(self, name: str, default: str) -> str:
        """Return a string attribute."""
        value = self.attributes.get(name, default.encode())
        if not isinstance(value, bytes) or len(value) > 64:
            raise self.refuse(f"{name} must be a short string")
        return value.decode("ascii", "replace")


def read_node(proto: Any, index: int) -> Node:
    """Read one NodeProto; at most 64 attributes, no graphs, no references to functions."""
    label = proto.name[:64] or str(index)
    place = f"node {label!r} ({proto.op_type[:64]})"
    if proto.domain not in {"", "ai.onnx", "ai.onnx.ml"}:
        raise ValueError(f"{place}: custom domain {proto.domain[:64]!r} is not supported")
    attributes: dict[str, Any] = {}
    for item in proto.attribute:
        if item.name in attributes or item.ref_attr_name:
            raise ValueError(f"{place}: attribute {item.name[:64]!r} is repeated or a reference")
        attributes[item.name] = _attribute(item, place)
    return Node(place, proto.op_type, tuple(proto.input), tuple(proto.output), attributes)


def _attribute(item: Any, place: str) -> Any:
    """Return the value of an attribute; lists of numbers as arrays without Python objects."""
    kinds = {1: "f", 2: "i", 3: "s", 4: "t", 6: "floats", 7: "ints", 8: "strings"}
    field = kinds.get(item.type)
    if field is None:
        raise ValueError(f"{place}: attribute {item.name[:64]!r} has a type that is not supported")
    value = getattr(item, field)
    if field == "t":
        return read_tensor(value, f"{place}.{item.name[:64]}")
    if field == "floats":
        return np.fromiter(value, dtype=np.float32, count=_bounded(value, item, place))
    if field == "ints":
        return np.fromiter(value, dtype=np.int64, count=_bounded(value, item, place))
    if field == "strings":
        _bounded(value, item, place)
        return list(value)
    return value


def _bounded(value: Any, item: Any, place: str) -> int:
    if len(value) > MAX_ELEMENTS:
        raise ValueError(
            f"{place}: attribute {item.name[:64]!r} has {len(value)} elements; "
            f"at most {MAX_ELEMENTS}"
        )
    return len(value)


def read_tensor(proto: Any, place: str) -> Array:
    """Return a constant as an array, its size checked against its bytes before it is made.

    Raises:
        ValueError: external, too large, of another type, NaN, or with sizes that do not agree.
            Infinite numbers pass: only edges of bins may be so, all other uses refuse them.
    """
    if proto.data_location == REFUSED_LOCATION or proto.external_data:
        raise ValueError(f"{place}: external data is not supported; save weights inside the file")
    kind = TYPES.get(proto.data_type)
    if kind is None:
        raise ValueError(f"{place}: tensors of type {proto.data_type} are not supported")
    dims = tuple(proto.dims)
    elements = 1
    for dim in dims:
        if not 0 <= dim <= MAX_ELEMENTS:
            raise ValueError(f"{place}: a dimension is {dim}; expected 0 to {MAX_ELEMENTS}")
        elements *= dim
    if elements > MAX_ELEMENTS or len(dims) > 4:
        raise ValueError(f"{place}: {elements} elements in {len(dims)} dimensions are too many")
    dtype = np.dtype(kind).newbyteorder("<")
    if proto.raw_data:
        if len(proto.raw_data) != elements * dtype.itemsize:
            raise ValueError(f"{place}: {len(proto.raw_data)} bytes for {elements} elements")
        flat = np.frombuffer(proto.raw_data, dtype=dtype)
    else:
        fields = {1: "float_data", 6: "int32_data", 7: "int64_data", 11: "double_data"}
        values = getattr(proto, fields[proto.data_type])
        if len(values) != elements:
            raise ValueError(f"{place}: {len(values)} values for {elements} elements")
        flat = np.fromiter(values, dtype=kind, count=elements)
    if dtype.kind == "f" and np.isnan(flat).any():
        raise ValueError(f"{place}: a weight is not finite (NaN)")
    return flat.astype(kind).reshape(dims)
