"""Strict reading of the files people write: schema.yaml and market.yaml.

They are YAML, or JSON, which is YAML. Every plain scalar stays text until a key says what it is:
`levels: [yes, no]` are two words and not two booleans, `epsilon: 0.1` is exactly one tenth, and a
key written twice is an error.
"""

import difflib
import re
from collections.abc import Hashable, Mapping
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import yaml

from clearinghouse.errors import InputError

MAX_DOCUMENT_BYTES = 5_000_000
MAX_ITEMS = 10_000
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
# Lengths are bounded so that no number overflows a float or takes long to read.
_DECIMAL = re.compile(r"[+-]?(\d{1,99}(\.\d{0,199})?|\.\d{1,199})([eE][+-]?\d{1,2})?", re.ASCII)
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class _TextLoader(yaml.BaseLoader):
    """YAML without types and without code: text, None, lists and mappings with distinct keys."""

    def construct_scalar(self, node: yaml.ScalarNode) -> str | None:  # type: ignore[override]
        value = super().construct_scalar(node)
        return None if node.style is None and value in _NULLS else str(value)

    def construct_mapping(
        self, node: yaml.MappingNode, deep: bool = False
    ) -> dict[Hashable, object]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = getattr(key_node, "value", None)
            if not isinstance(key, str):
                raise yaml.MarkedYAMLError(
                    problem="a key must be text", problem_mark=node.start_mark
                )
            if key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"key '{key}' is written twice", problem_mark=key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def load_document(path: Path) -> object:
    """Read a YAML or JSON file into text, None, lists and dicts.

    Raises:
        InputError: The file is absent, unreadable, not UTF-8, too large or not YAML.
    """
    try:
        if path.stat().st_size > MAX_DOCUMENT_BYTES:
            raise InputError(
                f"{path}: larger than {MAX_DOCUMENT_BYTES} bytes. Give a schema or market file"
            )
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        reason = error.strerror or "cannot be read"
        raise InputError(f"{path}: {reason}. Check the path and its permissions") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text. Save it as UTF-8") from None
    try:
        loader = _TextLoader(text)
        try:
            document: object = loader.get_single_data()
        finally:
            loader.dispose()
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{path}: {_yaml_problem(error)}. Correct the YAML there") from None
    return document


def _yaml_problem(error: Exception) -> str:
    problem = getattr(error, "problem", None) or "not valid YAML"
    mark = getattr(error, "problem_mark", None)
    return f"{problem} (line {mark.line + 1})" if mark is not None else str(problem)


def exact_number(value: object) -> Fraction | None:
    """The exact value of a decimal text, an int or a float (by its shortest text), or None."""
    if isinstance(value, bool):
        return None
    text = str(value).strip() if isinstance(value, str | int | float) else ""
    return Fraction(Decimal(text)) if _DECIMAL.fullmatch(text) else None


def normal_text(value: object) -> str:
    """A level as text; numbers in one form, so that `0`, `0.0`, `00` and integer 0 are equal."""
    text = str(value).strip()
    if not _DECIMAL.fullmatch(text):
        return text
    return decimal_text(text)


def decimal_text(value: float | str) -> str:
    """The shortest fixed-point text of a number: "20", "0.5", "-2.6"; `float()` inverts it."""
    text = format(Decimal(str(value)), "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    sign, digits = ("-", text[1:]) if text.startswith("-") else ("", text.lstrip("+"))
    whole, _, part = digits.partition(".")
    digits = (whole.lstrip("0") or "0") + (f".{part}" if part else "")
    return digits if digits == "0" else sign + digits


class Fields:
    """One mapping of a document. Each key is read once; `close` refuses keys nobody read."""

    def __init__(self, value: object, *, file: str, path: str = "") -> None:
        self.file, self.path = file, path
        if not isinstance(value, Mapping):
            where = f"key '{path}'" if path else "the file"
            raise InputError(
                f"{file}: {where} must be a mapping of keys to values, not {shown(value)}. "
                "Write one `key: value` a line"
            )
        self._values: dict[str, object] = {str(key): item for key, item in value.items()}
        self._known: list[str] = []

    def fail(self, key: str, expected: str, value: object, remedy: str) -> InputError:
        """The error for a malformed key."""
        return InputError(
            f"{self.file}: key '{self.name(key)}' must be {expected}, not {shown(value)}. {remedy}"
        )

    def name(self, key: str) -> str:
        """The key with the keys around it, such as columns.age.low."""
        return f"{self.path}.{key}" if self.path else key

    def has(self, key: str) -> bool:
        """Whether the key is written and not null."""
        self._known.append(key)
        return self._values.get(key) is not None

    def keys(self) -> tuple[str, ...]:
        """Every key as written, all of them counted as known."""
        self._known.extend(self._values)
        return tuple(self._values)

    def raw(self, key: str) -> object:
        """The value of a key that must be there."""
        if not self.has(key):
            raise InputError(
                f"{self.file}: key '{self.name(key)}' is missing. Add `{key}: ...`"
                + (f" under '{self.path}'" if self.path else "")
            )
        return self._values[key]

    def text(self, key: str) -> str:
        """Printable text of 1 to 100 characters."""
        value = self.raw(key)
        text = str(value).strip() if isinstance(value, str | int) else ""
        if not 1 <= len(text) <= 100 or not text.isprintable():
            raise self.fail(key, "text of 1 to 100 characters", value, "Write a short name")
        return text

    def exact(self, key: str) -> Fraction:
        """A number, exactly as written."""
        value = self.raw(key)
        number = exact_number(value)
        if number is None:
            raise self.fail(key, "a number", value, "Write a decimal such as 0.5")
        return number

    def number(self, key: str) -> float:
        """A number as the nearest float."""
        return float(self.exact(key))

    def integer(self, key: str, *, least: int) -> int:
        """A whole number of at least `least`."""
        number = exact_number(self.raw(key))
        if number is None or number.denominator != 1 or number < least:
            raise self.fail(
                key, f"a whole number of at least {least}", self.raw(key), f"Write {key}: {least}"
            )
        return int(number)

    def flag(self, key: str, *, default: bool) -> bool:
        """True or false."""
        if not self.has(key):
            return default
        value = self.raw(key)
        flag = _BOOLEANS.get(str(value).lower()) if isinstance(value, bool | str) else None
        if flag is None:
            raise self.fail(key, "true or false", value, f"Write {key}: true")
        return flag

    def items(self, key: str) -> list[object]:
        """A list of at most 10,000 items."""
        value = self.raw(key)
        if not isinstance(value, list | tuple) or len(value) > MAX_ITEMS:
            raise self.fail(key, f"a list of up to {MAX_ITEMS}", value, f"Write {key}: [ ... ]")
        return list(value)

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts."""
        return text_list(self.items(key), file=self.file, name=self.name(key))

    def numbers(self, key: str) -> tuple[float, ...]:
        """A list of strictly increasing numbers."""
        values = [exact_number(item) for item in self.items(key)]
        exact = [value for value in values if value is not None]
        rising = all(a < b for a, b in pairwise(exact))
        if len(exact) != len(values) or not rising:
            raise self.fail(
                key, "a list of rising numbers", self.items(key), f"Write {key}: [45, 55, 65]"
            )
        return tuple(float(value) for value in exact)

    def part(self, key: str) -> "Fields":
        """The mapping under a key."""
        return Fields(self.raw(key), file=self.file, path=self.name(key))

    def close(self) -> None:
        """Refuse every key that was never asked for."""
        for key in self._values:
            if key in self._known:
                continue
            close = difflib.get_close_matches(key, self._known, n=1)
            guess = f" Did you mean '{close[0]}'?" if close else ""
            known = ", ".join(dict.fromkeys(self._known))
            raise InputError(
                f"{self.file}: unknown key '{self.name(key)}'.{guess} Known keys here: {known}"
            )


def text_list(items: list[object], *, file: str, name: str) -> tuple[str, ...]:
    """Check that every item is a short printable text (or a whole number) and return the texts."""
    for item in items:
        plain = isinstance(item, str | int | float) and not isinstance(item, bool)
        if not plain or not 1 <= len(str(item)) <= 100 or not str(item).isprintable():
            raise InputError(
                f"{file}: key '{name}' must be a list of short texts or numbers, and it holds "
                f"{shown(item)}. Put quotes around words such as null or true"
            )
    return tuple(str(item) for item in items)


def shown(value: object, limit: int = 60) -> str:
    """A value as an error message may quote it."""
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
