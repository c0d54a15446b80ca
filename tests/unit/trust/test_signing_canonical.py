"""Canonical JSON: one byte form for a value, and nothing with two readings."""

import enum
import hashlib
import json
from decimal import Decimal
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from clearinghouse.canonical import (
    MAX_INTEGER,
    canonical_bytes,
    commitment,
    digest,
    open_commitment,
    parse_canonical,
    parse_strict,
)
from clearinghouse.errors import InputError, VerificationError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-MAX_INTEGER, MAX_INTEGER) | TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=20,
)


def test_signing_canonical_example_of_the_standard() -> None:
    # RFC 8785 section 3.2.3: keys in the order of their UTF-16 code units.
    keys = {
        "\u20ac": "Euro Sign",
        "\r": "Carriage Return",
        "\ufb33": "Hebrew Letter Dalet With Dagesh",
        "1": "One",
        "\U0001f600": "Emoji: Grinning Face",
        "\u0080": "Control",
        "\u00f6": "Latin Small Letter O With Diaeresis",
    }
    found = list(json.loads(canonical_bytes(keys)))
    assert found == ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]
    # Section 3.2.2.2: only what must be escaped is, in the short form where there is one.
    text = '\u20ac$\u000f\nA\'B"\\\\"/'
    expected = '"\u20ac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"'.encode()
    assert canonical_bytes(text) == expected


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_signing_canonical_parse_inverts_and_order_does_not_matter(value: Any) -> None:
    data = canonical_bytes(value)
    assert parse_canonical(data) == value
    assert parse_strict(json.dumps(value, indent=1).encode()) == value
    if isinstance(value, dict):
        backwards = dict(reversed(value.items()))
        assert canonical_bytes(backwards) == data
    assert digest(value) == digest(data) == hashlib.sha256(data).hexdigest()


ASCII = st.text(st.characters(max_codepoint=127), max_size=20)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-MAX_INTEGER, MAX_INTEGER) | ASCII,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(ASCII, inner, max_size=9),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(PLAIN | VALUES)
def test_signing_canonical_quick_way_for_ascii_gives_the_standards_bytes(value: Any) -> None:
    assert canonical_bytes(value) == rfc8785.dumps(value)


def test_signing_canonical_every_ascii_character_as_key_and_as_text() -> None:
    characters = [chr(code) for code in range(128)]
    value = dict.fromkeys(characters, characters)
    assert canonical_bytes(value) == rfc8785.dumps(value)


class Colour(enum.StrEnum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


@pytest.mark.parametrize(
    "value",
    [
        1.0,
        0.5,
        float("nan"),
        float("inf"),
        2**53,
        -(2**53),
        "\ud800",
        {"\udfff": 1},
        {1: 2},
        {None: 2},
        b"bytes",
        {1, 2},
        Decimal("1.5"),
        Colour.RED,
        Number.ONE,
        object(),
    ],
    ids=lambda value: repr(value).partition(" at 0x")[0],
)
def test_signing_canonical_values_with_no_single_form_are_refused(value: Any) -> None:
    for wrapped in (value, [value], {"a": {"b": [value]}}):
        if isinstance(value, bytes) and wrapped is value:
            continue
        with pytest.raises(InputError):
            canonical_bytes(wrapped)


def test_signing_canonical_message_says_where() -> None:
    with pytest.raises(InputError, match=r"\$\.a\[1\]\.b: float"):
        canonical_bytes({"a": [0, {"b": 0.1}]})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"nul",
        b'{"a":1,"a":2}',
        b'{"x":{"a":1,"a":1}}',
        b'{"a":1,"\\u0061":2}',
        b"NaN",
        b"[Infinity]",
        b"[-Infinity]",
        b"1.0",
        b"[1e2]",
        b"9007199254740992",
        b"-9007199254740992",
        b"1" * 5000,
        b'"\\ud800"',
        b'{"\\udc00":1}',
        b'"\xff"',
        b'\xef\xbb\xbf"bom"',
        b"[" * 65 + b"]" * 65,
        b'{"a":' * 65 + b"1" + b"}" * 65,
        b"[" * 200_000,
        b'"tab\tinside"',
        b"[1,]",
        b"{'a':1}",
        b"01",
        b"1 2",
    ],
    ids=lambda data: repr(data[:24]),
)
def test_signing_canonical_parser_refuses(data: bytes) -> None:
    with pytest.raises(InputError):
        parse_strict(data)


def test_signing_canonical_parser_limits() -> None:
    deep = b"[" * 64 + b"]" * 64
    assert parse_strict(deep)
    assert canonical_bytes(parse_strict(deep)) == deep
    assert parse_strict(b'"[[[[\\"[[[["', max_depth=0) == '[[[["[[[['
    assert parse_strict(b"[[]]", max_bytes=4) == [[]]
    with pytest.raises(InputError, match="at most 3 bytes"):
        parse_strict(b"[[]]", max_bytes=3)
    with pytest.raises(InputError, match="1 deep"):
        parse_strict(b"[[]]", max_depth=1)


def test_signing_canonical_parser_may_take_finite_floats() -> None:
    assert parse_strict(b"[1.5,-0.25,1e3]", allow_floats=True) == [1.5, -0.25, 1000.0]
    for data in (b"1e999", b"-1e999", b"NaN", b"Infinity"):
        with pytest.raises(InputError):
            parse_strict(data, allow_floats=True)


def test_signing_canonical_other_spellings_are_not_canonical() -> None:
    assert parse_canonical(b'{"a":[1,"\xc3\xa9"]}') == {"a": [1, "é"]}
    for data in (
        b'{"a": 1}',
        b'{"b":1,"a":1}',
        b'"\\u00e9"',
        b"-0",
        b'"\\/"',
        b'{"a":1}\n',
        b'"\\u000A"',
    ):
        parse_strict(data)
        with pytest.raises(InputError, match="canonical form"):
            parse_canonical(data)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_signing_canonical_parser_raises_nothing_else_on_noise(data: bytes) -> None:
    try:
        value = parse_strict(data)
    except InputError:
        return
    assert parse_strict(canonical_bytes(value)) == value


def test_signing_canonical_commitment_opens_with_its_salt_and_body_only() -> None:
    body = {"ask": "2.00", "source": "s"}
    salt, published = commitment(body)
    assert len(salt) == 32
    assert published == hashlib.sha256(salt + canonical_bytes(body)).hexdigest()
    open_commitment(published, salt, body)
    open_commitment(published, salt, dict(reversed(body.items())))
    other = bytes([salt[0] ^ 1]) + salt[1:]
    for wrong in (
        (published, other, body),
        (published, salt, {"ask": "2.01", "source": "s"}),
        (published, salt[:31], body),
        (published, salt + b"{", body),
        (published.upper(), salt, body),
        ("", salt, body),
    ):
        with pytest.raises(VerificationError):
            open_commitment(*wrong)


def test_signing_canonical_bytes_cannot_move_between_salt_and_body() -> None:
    salt = bytes(31) + b"2"
    published = hashlib.sha256(salt + b"5").hexdigest()
    open_commitment(published, salt, 5)
    with pytest.raises(VerificationError, match="32 bytes"):
        open_commitment(published, salt[:31], 25)


def test_signing_canonical_commitments_to_one_body_differ() -> None:
    # 32 random bytes each: a repeat has odds 2**-256.
    found = {commitment("yes") for _ in range(50)}
    assert len({item.salt for item in found}) == len({item.digest for item in found}) == 50
