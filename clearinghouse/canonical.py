"""One byte form for every JSON value that is hashed or signed: RFC 8785, without floats.

Two parties that sign "the same" JSON must sign the same bytes, so a value has exactly one form here
and everything that could have two readings is refused: floats, integers beyond 2**53 - 1,
duplicate keys, lone surrogates, NaN. Fractions travel as decimal strings.
"""

import hashlib
import hmac
import json
import math
import re
import secrets
from typing import Any, NamedTuple, NoReturn

import rfc8785

from clearinghouse.errors import InputError, VerificationError

MAX_INTEGER = 2**53 - 1
MAX_DEPTH = 64
MAX_BYTES = 4 * 2**20
SALT_BYTES = 32

# A whole string (or an unfinished one, to the end: so the scan stays linear), or one bracket.
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)


class Commitment(NamedTuple):
    """A salted hash to publish, and the salt to keep until it is opened or erased."""

    salt: bytes
    digest: str


def canonical_bytes(value: object) -> bytes:
    """Return the RFC 8785 bytes of a JSON value made of dict, list, str, int, bool and None.

    Raises:
        InputError: It holds a float, an integer beyond 2**53 - 1, a lone surrogate, a key that is
            no string, another type, or nests deeper than 64.
    """
    _check(value, "$", 1, allow_floats=False)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    if text.isascii():  # then Python orders keys and escapes as the standard does, much faster
        return text.encode()
    return rfc8785.dumps(value)  # type: ignore[arg-type]  # _check has proven the type


def parse_strict(
    data: bytes,
    *,
    allow_floats: bool = False,
    max_bytes: int = MAX_BYTES,
    max_depth: int = MAX_DEPTH,
) -> Any:
    """Read JSON that has one meaning only (`json.loads` keeps the last of duplicate keys, say).

    Args:
        data: UTF-8 bytes.
        allow_floats: Also accept finite floats (for values that are never signed).
        max_bytes: Largest accepted length.
        max_depth: Deepest accepted nesting of arrays and objects.

    Raises:
        InputError: It is not such JSON.
    """
    if len(data) > max_bytes:
        raise InputError(f"JSON must be at most {max_bytes} bytes, not {len(data)}")
    _check_depth(data, max_depth)
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_int=_integer,
            parse_float=_float if allow_floats else _refuse_float,
            parse_constant=_refuse_constant,
        )
    except UnicodeDecodeError as error:
        raise InputError(f"JSON must be UTF-8 (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise InputError(f"not JSON: {error.msg} at character {error.pos}") from None
    _check(value, "$", 1, allow_floats=allow_floats)
    return value


def parse_canonical(data: bytes) -> Any:
    """Read JSON and insist that `data` is its RFC 8785 form, byte for byte.

    Raises:
        InputError: It is not JSON, or has another form.
    """
    value = parse_strict(data)
    if canonical_bytes(value) != data:
        raise InputError("JSON must be in canonical form (RFC 8785): sorted keys, no spaces")
    return value


def digest(value: object) -> str:
    """Return the SHA-256 (hex) of bytes as they are, or of any other value's canonical form."""
    data = value if isinstance(value, bytes) else canonical_bytes(value)
    return hashlib.sha256(data).hexdigest()


def commitment(body: object) -> Commitment:
    """Commit to a JSON value: SHA-256(salt || canonical body) with 32 fresh random bytes.

    The hash tells nothing about the body, however easily guessed, until the salt is shown; once
    the salt is destroyed it never will.
    """
    salt = secrets.token_bytes(SALT_BYTES)
    return Commitment(salt, hashlib.sha256(salt + canonical_bytes(body)).hexdigest())


def open_commitment(published: str, salt: bytes, body: object) -> None:
    """Check that `salt` and `body` are what `published` committed to.

    Raises:
        VerificationError: They are not, or the salt is not 32 bytes (a salt of another length
            would let bytes move between salt and body).
    """
    if len(salt) != SALT_BYTES:
        raise VerificationError(f"a commitment's salt has {SALT_BYTES} bytes, not {len(salt)}")
    found = hashlib.sha256(salt + canonical_bytes(body)).hexdigest()
    if not hmac.compare_digest(found.encode(), published.encode()):
        raise VerificationError("salt and body do not open the published commitment")


def _check(value: object, place: str, depth: int, *, allow_floats: bool) -> None:
    """Refuse whatever RFC 8785 could not carry or we do not want signed; `place` says where."""
    if depth > MAX_DEPTH + 1:
        raise InputError(f"JSON must nest at most {MAX_DEPTH} deep")
    kind = type(value)  # exact types: an IntEnum or str subclass may print as something else
    if value is None or kind is bool:
        return
    if kind is int:
        if abs(value) > MAX_INTEGER:  # type: ignore[arg-type]
            raise InputError(f"{place}: integers go up to 2**53 - 1; use a decimal string")
    elif kind is str:
        _check_text(value, place)  # type: ignore[arg-type]
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check(item, f"{place}[{index}]", depth + 1, allow_floats=allow_floats)
    elif isinstance(value, dict):
        for key, item in value.items():
            if type(key) is not str:
                raise InputError(f"{place}: keys must be strings, not {type(key).__name__}")
            _check_text(key, place)
            _check(item, f"{place}.{key}", depth + 1, allow_floats=allow_floats)
    elif not (allow_floats and kind is float and math.isfinite(value)):  # type: ignore[arg-type]
        raise InputError(
            f"{place}: {kind.__name__} has no canonical form; use an int or a decimal string"
        )


def _check_text(text: str, place: str) -> None:
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(f"{place}: text holds a lone surrogate") from None


def _check_depth(data: bytes, max_depth: int) -> None:
    """Count brackets outside strings first: the parser itself recurses."""
    depth = 0
    for token in _TOKENS.finditer(data):
        first = token[0][0]
        if first in b"[{":
            depth += 1
            if depth > max_depth:
                raise InputError(f"JSON must nest at most {max_depth} deep")
        elif first in b"]}":
            depth -= 1


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise InputError("JSON object has a duplicate key")
    return result


def _integer(text: str) -> int:
    if len(text) > 17 or abs(int(text)) > MAX_INTEGER:
        raise InputError("JSON integers go up to 2**53 - 1; use a decimal string")
    return int(text)


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise InputError("JSON number is too large")
    return number


def _refuse_float(_text: str) -> NoReturn:
    raise InputError("a number in the JSON is not an integer; use a decimal string")


def _refuse_constant(text: str) -> NoReturn:
    raise InputError(f"{text} is not JSON")
