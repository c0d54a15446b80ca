"""Formatting never lies, never fails and never lets a control character through."""

import unicodedata
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearinghouse.report import words

ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.decimals(allow_nan=True, allow_infinity=True),
    st.lists(st.floats(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
FORMATTERS = [
    words.money,
    words.decimal,
    words.compact,
    words.percent,
    words.count,
    words.seconds,
    words.size,
    words.interval,
    words.text_of,
    words.one_line,
]


@pytest.mark.parametrize("show", FORMATTERS, ids=lambda f: f.__name__)
@given(value=ANYTHING)
def test_formatters_take_anything(show, value):
    assert isinstance(show(value), str)


ENDLESS = [float(x) for x in ("nan", "inf", "-inf")]


@pytest.mark.parametrize(
    "value", [*ENDLESS, *map(str, ENDLESS), Decimal("sNaN"), Decimal("Infinity")]
)
@pytest.mark.parametrize("show", FORMATTERS[:7], ids=lambda f: f.__name__)
def test_what_is_not_a_finite_number_is_shown_as_missing(show, value):
    assert show(value) == words.MISSING


@given(text=st.text())
def test_clean_text_reaches_no_terminal_control(text):
    hostile = f"a\x1b[31m\x07\x00{text}\u202e\u2066\ud800"
    cleaned = words.clean(hostile)
    assert len(cleaned) == len(hostile)
    assert not {unicodedata.category(c) for c in cleaned if c not in "\n\t"} & {"Cc", "Cs"}
    assert not set(cleaned) & set("\u202a\u202b\u202d\u202e\u2066\u2067\u2068")
    cleaned.encode()


@given(units=st.integers(-(10**18), 10**18))
def test_exact_money_reads_back_to_the_same_amount(units):
    value = Decimal(units).scaleb(-6)
    shown = words.money(str(value), "EUR", exact=True)
    assert shown.endswith(" EUR")
    assert Decimal(shown.removesuffix(" EUR")) == value


@given(units=st.integers(-(10**14), 10**14))
def test_shown_money_is_off_by_half_a_cent_at_most(units):
    shown = Decimal(words.money(str(Decimal(units).scaleb(-6))).replace(",", ""))
    assert abs(Fraction(shown) - Fraction(units, 10**6)) <= Fraction(1, 200)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0004, "0 ms"),
        (0.04, "40 ms"),
        (1.94, "1.9 s"),
        (59.96, "1 min 00 s"),
        (127, "2 min 07 s"),
        (None, "-"),
    ],
)
def test_seconds(value, shown):
    assert words.seconds(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0 B"), (999, "999 B"), (999.9, "1.0 kB"), (1_500_000, "1.5 MB"), (2e9, "2.0 GB")],
)
def test_size(value, shown):
    assert words.size(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(-0.0001, "0%"), (-0.12, "-12%"), (1.04, "104%"), (True, "-")]
)
def test_percent_has_no_negative_zero_and_no_booleans(value, shown):
    assert words.percent(value) == shown


@given(text=st.text(max_size=60), length=st.integers(5, 40))
def test_shortened_text_fits_and_says_that_it_was_cut(text, length):
    whole, short = words.one_line(text), words.shorten(text, length)
    assert len(short) <= length
    assert short == whole if len(whole) <= length else short.endswith("\u2026")
