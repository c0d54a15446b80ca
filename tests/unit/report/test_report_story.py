"""The story fits the terminal, survives any name and ends with the three numbers."""

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from clearinghouse.report.headline import headline
from clearinghouse.report.story import tell

SHAPES = [
    {},
    {"n_sources": 60, "n_developers": 9, "baseline_wins": True},
    {"n_sources": 1, "n_developers": 1, "covered": True, "awarded": False},
    {"gap_reason": "the gap is smaller than its standard error " * 3, "undetermined": True},
    {"hostile": True},
]


def told(report, *, width=80, terminal=False, encoding="utf-8"):
    target = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="")
    tell(report, Console(file=target, width=width, force_terminal=terminal))
    target.flush()
    return target.buffer.getvalue().decode(encoding)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("width", [80, 120])
def test_no_line_is_wider_than_the_console(sample, shape, width):
    lines = told(sample(**shape), width=width).splitlines()
    assert len(lines) > 60
    assert max(cell_len(line) for line in lines) <= width
    assert not [line for line in lines if line != line.rstrip()]


@pytest.mark.parametrize("shape", SHAPES[:4], ids=str)
def test_a_pipe_gets_plain_ascii(sample, shape):
    text = told(sample(**shape))
    assert text.isascii()
    assert "\x1b" not in text


def test_an_ascii_output_carries_any_name(sample):
    report = sample()
    report["market"]["customer"] = "Universitätsklinikum 京都"
    report["clearing"]["quotas"] = {"Zürich": 3}
    text = told(report, encoding="ascii")
    assert "Universit?tsklinikum ??" in text
    assert "Z?rich" in text
    assert "Universitätsklinikum 京都" in told(report)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_ends_with_the_three_numbers(sample, shape):
    report = sample(**shape)
    end = told(report).split("\nThree numbers\n")[1]
    places = [end.index(f"  {card.figure.shown} ") for card in headline(report).cards]
    assert places == sorted(places)
    for card in headline(report).cards:
        assert card.title in end
        for caution in card.cautions:
            assert caution in " ".join(end.split())


def test_names_are_neither_markup_nor_escapes(sample):
    text = told(sample(hostile=True), width=200, terminal=True)
    assert "[bold]<svg onload=alert(1)>" in text
    assert "\x1b[31m" not in text
    assert "\u202e" not in text


def test_long_tables_are_cut_and_say_so_but_keep_the_sum(sample):
    report = sample(n_sources=60)
    text = told(report)
    assert "(48 more on the page)" in text
    statement = text.split("Statement\n")[1].split("\n\n")[0]
    assert "sum" in statement
    moved = [line for line in report["statement"] if float(line["amount"])]
    assert f"({len(moved) + 1 - 13} more on the page)" in statement


def test_a_long_command_can_be_pasted(sample):
    report = sample()
    command = "clearinghouse verify " + " ".join(f"receipts/model_{i:02d}.txt" for i in range(12))
    report["verify"] = [command]
    lines = told(report).splitlines()
    first = next(i for i, line in enumerate(lines) if "clearinghouse verify" in line)
    joined = lines[first].strip()
    while joined.endswith("\\"):
        first += 1
        joined = joined[:-1] + lines[first].strip()
    assert joined == command


def test_an_empty_report_is_a_short_story():
    assert "Three numbers" in told({})
