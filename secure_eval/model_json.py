"""Canonical JSON of an integer model: integers, names and float.hex strings, read strictly."""

import json
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from secure_eval.integer_model import IntegerModel

FORMAT = "integer-model/1"
CLASSES_FORMAT = "class-models/1"
MAX_BYTES = 8 << 20
MAX_CLASSES_BYTES = 64 << 20
INT64 = 1 << 63

Plain = dict[str, Any]
Reader = Callable[[Any, str], Any]


def dump(model: "IntegerModel") -> str:
    """Return the canonical text of a model (ASCII, sorted keys, no spaces)."""
    return _text(_plain(model))


def dump_classes(models: Sequence["IntegerModel"], method: str) -> str:
    """Return the canonical text of one model for each class."""
    plain = [_plain(model) for model in models]
    return _text({"format": CLASSES_FORMAT, "method": method, "models": plain})


def _text(plain: Plain) -> str:
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def _plain(model: "IntegerModel") -> Plain:
    return {
        "format": FORMAT,
        "kind": model.kind,
        "n_features": model.n_features,
        "columns": [
            {
                "feature": column.feature,
                "kind": column.kind,
                "low": float(column.low).hex(),
                "step": float(column.step).hex(),
                "size": column.size,
                "threshold": float(column.threshold).hex(),
            }
            for column in model.columns
        ],
        "weights": model.weights.tolist(),
        "bias": model.bias,
        "trees": [
            {name: getattr(tree, name).tolist() for name in ("column", "left", "right", "value")}
            for tree in model.trees
        ],
        "groups": [{"kind": kind, "columns": list(members)} for kind, members in model.groups],
        "bins": model.bins,
        "bin_edges": list(model.bin_edges),
        "threshold_bin": model.threshold_bin,
        "scale": float(model.scale).hex(),
        "offset": float(model.offset).hex(),
    }


def load(text: str | bytes) -> Plain:
    """Return the arguments of `IntegerModel` from its text, columns and trees as plain dicts.

    Raises:
        ValueError: naming the place that is unknown, missing or malformed.
    """
    return _checked(_object(_MODEL)(_parsed(text, MAX_BYTES), "model"), "model")


def load_classes(text: str | bytes) -> tuple[list[Plain], str]:
    """Return the arguments of each class's `IntegerModel`, and how the classes were made.

    Raises:
        ValueError: naming the place that is unknown, missing or malformed.
    """
    plain = _object(_CLASSES)(_parsed(text, MAX_CLASSES_BYTES), "model")
    if plain["format"] != CLASSES_FORMAT:
        raise ValueError(f"model.format: expected {CLASSES_FORMAT!r}")
    models = [_checked(item, f"model.models[{k}]") for k, item in enumerate(plain["models"])]
    return models, plain["method"]


def is_classes(text: str | bytes) -> bool:
    """Say whether a text claims to hold one model for each class, by its first bytes."""
    head = f'{{"format":"{CLASSES_FORMAT}"'
    return text.startswith(head.encode() if isinstance(text, bytes) else head)  # type: ignore[arg-type]


def _parsed(text: str | bytes, most: int) -> Any:
    if len(text) > most:
        raise ValueError(f"model: at most {most} bytes, got {len(text)}")
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        return json.loads(
            text,
            object_pairs_hook=_no_duplicates,
            parse_int=_parse_integer,
            parse_float=_no_float,
            parse_constant=_no_float,
        )
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"model: not JSON text ({type(error).__name__})") from error


def _checked(result: Plain, place: str) -> Plain:
    if result.pop("format") != FORMAT:
        raise ValueError(f"{place}.format: expected {FORMAT!r}")
    result["groups"] = tuple((item["kind"], tuple(item["columns"])) for item in result["groups"])
    result["bin_edges"] = tuple(result["bin_edges"].tolist())
    if not result["bin_edges"] or result["threshold_bin"] < 0:
        raise ValueError(f"{place}.bin_edges: expected edges and a threshold_bin from 0")
    return result


def _no_duplicates(pairs: list[tuple[str, Any]]) -> Plain:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("model: a key appears twice in one object")
    return result


def _no_float(_text: str) -> Any:
    raise ValueError("model: only integers are allowed, got another number")


def _parse_integer(text: str) -> int:
    if len(text) > 20:
        raise ValueError(f"model: expected 64-bit integers, got one of {len(text)} digits")
    return int(text)


def _integer(value: Any, place: str) -> int:
    if type(value) is not int or not -INT64 <= value < INT64:
        raise ValueError(f"{place}: expected a 64-bit integer, got {type(value).__name__}")
    return value


def _name(value: Any, place: str) -> str:
    if not isinstance(value, str) or len(value) > 32:
        raise ValueError(f"{place}: expected a short string, got {type(value).__name__}")
    return value


def _float(value: Any, place: str) -> float:
    text = _name(value, place)
    try:
        number = float.fromhex(text)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{place}: expected a float.hex string") from error
    if not math.isfinite(number) or number.hex() != text:
        raise ValueError(f"{place}: expected a finite float.hex string in canonical form")
    return number


def _integers(value: Any, place: str) -> Any:
    items = _list(_integer)(value, place)
    return np.array(items, dtype=np.int64)


def _list(reader: Reader) -> Reader:
    def read(value: Any, place: str) -> list[Any]:
        if not isinstance(value, list):
            raise ValueError(f"{place}: expected a list, got {type(value).__name__}")
        return [reader(item, f"{place}[{index}]") for index, item in enumerate(value)]

    return read


def _object(readers: dict[str, Reader]) -> Reader:
    def read(value: Any, place: str) -> Plain:
        if not isinstance(value, dict):
            raise ValueError(f"{place}: expected an object, got {type(value).__name__}")
        unknown, missing = sorted(set(value) - set(readers)), sorted(set(readers) - set(value))
        if unknown:
            raise ValueError(f"{place}: {len(unknown)} unknown keys, known are {sorted(readers)}")
        if missing:
            raise ValueError(f"{place}: missing key {missing[0]!r}")
        return {key: reader(value[key], f"{place}.{key}") for key, reader in readers.items()}

    return read


_COLUMN: dict[str, Reader] = {
    "feature": _integer,
    "kind": _name,
    "low": _float,
    "step": _float,
    "size": _integer,
    "threshold": _float,
}
_TREE: dict[str, Reader] = dict.fromkeys(("column", "left", "right", "value"), _integers)
_MODEL: dict[str, Reader] = {
    "format": _name,
    "kind": _name,
    "n_features": _integer,
    "columns": _list(_object(_COLUMN)),
    "weights": _integers,
    "bias": _integer,
    "trees": _list(_object(_TREE)),
    "groups": _list(_object({"kind": _name, "columns": _list(_integer)})),
    "bins": _integer,
    "bin_edges": _integers,
    "threshold_bin": _integer,
    "scale": _float,
    "offset": _float,
}
_CLASSES: dict[str, Reader] = {
    "format": _name,
    "method": _name,
    "models": _list(_object(_MODEL)),
}
