"""Bars on a terminal, lines on a pipe, silence when disabled, standard output untouched."""

import io
import re

import pytest
from rich.console import Console

from clearinghouse.report.progress import Progress
from clearinghouse.report.tables import STEPS


def console(*, terminal):
    return Console(file=io.StringIO(), width=80, force_terminal=terminal)


def run(target, *, enabled=True):
    with Progress(enabled=enabled, console=target) as progress:
        progress.step("prepare", "reading tables")
        for step in STEPS:
            progress.step(step, f"about {step}")
            progress.advance(step, 1, 3, f"{step} part 1")
            progress.advance(step, 1, 0)
        progress.note("a note")
    return target.file.getvalue()


def visible(text):
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


def test_a_pipe_gets_one_line_a_step_and_the_note():
    lines = run(console(terminal=False)).splitlines()
    expected = [f"[{i + 1}/7] {step:<8} about {step}" for i, step in enumerate(STEPS)]
    assert lines == ["      prepare  reading tables", *expected, "      a note"]


def test_disabled_is_silent_on_both():
    assert run(console(terminal=False), enabled=False) == ""
    assert run(console(terminal=True), enabled=False) == ""


def test_a_terminal_shows_all_seven_steps_done():
    last = visible(run(console(terminal=True)))[-900:]
    for i, step in enumerate(STEPS):
        assert f"+ [{i + 1}/7] {step:<8}" in last
    assert "a note" in visible(run(console(terminal=True)))


def test_steps_to_come_are_listed_from_the_start():
    target = console(terminal=True)
    with Progress(console=target) as progress:
        progress.step("intake")
    text = visible(target.file.getvalue())
    assert "[7/7] audit" in text
    assert "+ [7/7]" not in text


@pytest.mark.parametrize("terminal", [False, True])
def test_a_failure_is_shown_and_passed_on(terminal):
    target = console(terminal=terminal)

    def die():
        with Progress(console=target) as progress:
            progress.step("score", "models on ciphertexts")
            raise RuntimeError("party died")

    with pytest.raises(RuntimeError, match="party died"):
        die()
    text = visible(target.file.getvalue())
    assert "failed" in text
    assert "+ [5/7]" not in text
    if terminal:
        assert target.file.getvalue().count("\x1b[?25h") == 1  # the cursor is back


def test_long_words_do_not_squeeze_the_step_names():
    target = console(terminal=True)
    with Progress(console=target) as progress:
        progress.step("match", "words " * 40)
    assert "[2/7] match" in visible(target.file.getvalue()).splitlines()[-6]


def test_names_are_neither_markup_nor_escapes():
    for terminal in (False, True):
        target = console(terminal=terminal)
        with Progress(console=target) as progress:
            progress.step("score", "[bold]gam[/bold]\x1b[35m")
            progress.note("[red]note[/red] [/nothing]")
        text = target.file.getvalue()
        assert "[bold]gam[/bold]" in text
        assert "[red]note[/red] [/nothing]" in text
        assert "\x1b[35m" not in text


def test_standard_output_stays_empty(capsys):
    with Progress() as progress:
        progress.step("intake", "sealing")
    out, err = capsys.readouterr()
    assert out == ""
    assert "[1/7] intake" in err
