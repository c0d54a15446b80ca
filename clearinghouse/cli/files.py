"""Values that the files people write share: paths, money, epsilon, size classes."""

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from clearinghouse.documents import Fields, exact_number
from clearinghouse.errors import InputError
from clearinghouse.money import parse_money


def file_beside(fields: Fields, key: str, folder: Path) -> Path:
    """A file that a key names, relative to the folder of the document."""
    path = folder / fields.text(key)
    if not path.is_file():
        raise InputError(
            f"{fields.file}: key '{fields.name(key)}' names a file that does not exist: {path}. "
            "Paths are relative to the file that names them"
        )
    return path


def money(fields: Fields, key: str, default: str | None = None) -> int:
    """An amount of money in micro-units."""
    value = default if default is not None and not fields.has(key) else fields.raw(key)
    if not isinstance(value, str | int) or exact_number(value) is None:
        raise fields.fail(key, "a decimal amount of money", value, f'Write {key}: "2.00"')
    return parse_money(value, name=f"{fields.file}: key '{fields.name(key)}'")


def epsilon(fields: Fields, key: str, default: Fraction) -> Fraction:
    """An epsilon above 0 and at most 100."""
    if not fields.has(key):
        return default
    value = fields.exact(key)
    if not 0 < value <= 100:
        raise fields.fail(key, "above 0 and at most 100", fields.raw(key), f"Write {key}: 1.0")
    return value


def size_class(fields: Fields) -> int | None:
    """A declared power of two, or None where it is left out."""
    if not fields.has("size_class"):
        return None
    size = fields.integer("size_class", least=1)
    if size & (size - 1):
        below = 1 << (size.bit_length() - 1)
        raise fields.fail("size_class", "a power of two", size, f"Write size_class: {below}")
    return size


def pure_limit(terms: Mapping[str, Any]) -> int:
    """The pure lane of a home's ledger: all of its budget, unless it was sealed for many runs."""
    return int(terms.get("pure_limit_micro", terms["limit_micro"]))


def public_size_class(terms: Mapping[str, Any]) -> int | None:
    """The size class that others know of a home's table: declared, or after a noised release."""
    known = terms.get("public_size_class", terms["size_class"])
    return None if known is None else int(known)


def choose_size_class(declared: int | None, rows: int, place: str) -> int:
    """The declared size class, or the largest power of two not above the rows.

    Raises:
        InputError: The declared one is above the rows.
    """
    if declared is None:
        return 1 << (rows.bit_length() - 1)
    if declared > rows:
        raise InputError(
            f"{place}: size class {declared} is above the table's rows. "
            "Declare a smaller power of two or leave it out"
        )
    return declared
