"""Numbers and names as people read them. Nothing here fails on a missing or hostile value."""

import math
import unicodedata
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation

MISSING = "-"
"""Shown where the report has no value."""

_BIDI_CLASSES = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def clean(value: object) -> str:
    """A value as text without control characters, lone surrogates or text-direction overrides.

    Names come from users: an escape sequence must not reach a terminal, nor an override a page.
    """
    return "".join("\ufffd" if _is_unsafe(character) else character for character in str(value))


def _is_unsafe(character: str) -> bool:
    if character in "\n\t":
        return False
    if unicodedata.category(character) in {"Cc", "Cs"}:
        return True
    return unicodedata.bidirectional(character) in _BIDI_CLASSES


def one_line(value: object) -> str:
    """`clean`, with every run of white space as one space."""
    return " ".join(clean(value).split())


def shorten(value: object, length: int, tail: str = "\u2026") -> str:
    """At most `length` characters on one line, ending in `tail` where something was cut."""
    text = one_line(value)
    return text if len(text) <= length else text[: length - len(tail)] + tail


def number(value: object) -> float | None:
    """A finite float, or None for anything else (missing, text, nan, infinite, boolean)."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    try:
        result = float(value)
    except (ValueError, OverflowError):
        return None
    return result if math.isfinite(result) else None


def amount(value: object) -> Decimal | None:
    """A finite exact decimal, or None. Floats are read as they print."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    try:
        result = Decimal(str(value))
    except InvalidOperation:
        return None
    return result if result.is_finite() else None


def plain(value: Decimal) -> str:
    """Exact digits, at least two decimals, no exponent: 12.5 is 12.50, 1.000001 stays."""
    text = f"{value:f}"
    whole, _, part = text.partition(".")
    return f"{whole}.{part.rstrip('0').ljust(2, '0')}"


def money(value: object, currency: str = "", *, exact: bool = False) -> str:
    """An amount with two decimals (or all of them when `exact`) and its currency."""
    parsed = amount(value)
    if parsed is None:
        return MISSING
    digits = plain(parsed) if exact else f"{parsed:,.2f}"
    return f"{digits} {currency}".rstrip()


def decimal(value: object, digits: int = 3) -> str:
    """A number with a fixed count of decimals."""
    parsed = number(value)
    if parsed is None:
        return MISSING
    text = f"{parsed:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def significant(value: object, digits: int = 3) -> str:
    """A number with so many leading digits: 3421.7 is 3,422, 0.012345 is 0.0123."""
    parsed = number(value)
    if parsed is None:
        return MISSING
    if parsed == 0:
        return "0"
    places = digits - 1 - math.floor(math.log10(abs(parsed)))
    return f"{parsed:,.0f}" if places <= 0 else f"{parsed:,.{places}f}"


def compact(value: object, digits: int = 3) -> str:
    """A number without trailing zeros: 1.0 is 1, 0.7500 is 0.75."""
    text = decimal(value, digits)
    return text.rstrip("0").rstrip(".") if "." in text else text


def percent(value: object, digits: int = 0) -> str:
    """A share 0..1 in per cent."""
    parsed = number(value)
    if parsed is None:
        return MISSING
    return f"{decimal(100 * parsed, digits)}%"


def count(value: object) -> str:
    """A whole number with thousands separated."""
    parsed = number(value)
    return MISSING if parsed is None else f"{parsed:,.0f}"


def seconds(value: object) -> str:
    """A duration in the unit people would use."""
    parsed = number(value)
    if parsed is None:
        return MISSING
    if parsed < 0.1:
        return f"{1000 * parsed:.0f} ms"
    if parsed < 59.95:
        return f"{parsed:.1f} s"
    minutes, rest = divmod(round(parsed), 60)
    return f"{minutes} min {rest:02d} s"


def size(value: object) -> str:
    """A number of bytes in decimal units."""
    parsed = number(value)
    if parsed is None:
        return MISSING
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if parsed >= 0.9995 * scale:
            return f"{parsed / scale:.1f} {unit}"
    return f"{parsed:.0f} B"


def pair(value: object) -> tuple[float, float] | None:
    """An interval [low, high] of finite numbers, or None."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        return None
    low, high = number(value[0]), number(value[1])
    return None if low is None or high is None else (low, high)


def interval(value: object, digits: int = 3) -> str:
    """An interval as `0.690 to 0.850`, or the sign for missing."""
    ends = pair(value)
    return MISSING if ends is None else f"{ends[0]:.{digits}f} to {ends[1]:.{digits}f}"


def count_of(n: int, noun: str, plural: str | None = None) -> str:
    """A count with its noun: `1 source`, `3 sources`."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def text_of(value: object) -> str:
    """A field that may be a text, a list of texts or missing, on one line."""
    if value is None or value == "":
        return MISSING
    if isinstance(value, list | tuple):
        return "; ".join(one_line(part) for part in value) or MISSING
    return one_line(value)


def mapping(value: object) -> Mapping[str, object]:
    """The value if it is a mapping, else an empty one: an absent section is an empty section."""
    return value if isinstance(value, Mapping) else {}


def items(value: object) -> list[Mapping[str, object]]:
    """The mappings of a list, else nothing."""
    if not isinstance(value, list | tuple):
        return []
    return [part for part in value if isinstance(part, Mapping)]
