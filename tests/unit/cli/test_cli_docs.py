"""Pages and commands: what a page tells to type exists, and no command is without a page."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from clearinghouse.cli.main import app

ROOT = Path(__file__).resolve().parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```[a-z]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
OPTION = re.compile(r"(?<![\w-])(--?[a-zA-Z][a-z-]*)")

Command = Any
"""typer brings its own copy of click, whose classes it does not name."""

Found = tuple[Command, tuple[str, ...], list[str]]


def code(text: str) -> Iterator[str]:
    """Everything that is set as code, a line at a time; lines that go on are joined."""
    for block in FENCE.findall(text):
        yield from block.replace("\\\n", " ").splitlines()
    yield from SPAN.findall(FENCE.sub("", text))


def calls(line: str) -> Iterator[list[str]]:
    """The words after each `clearinghouse` of a line that is a command."""
    line = line.partition(" #")[0]
    for part in re.split(r"[;&|]|\$\(", line):
        words = part.split()
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words.pop(0)
        if words and words[0] in ("clearinghouse", ".venv/bin/clearinghouse"):
            yield words[1:]


def resolve(words: list[str]) -> Found:
    """The command that the words name, its name, and the words that are left."""
    command: Command = typer.main.get_command(app)
    name: tuple[str, ...] = ()
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"no command is called {' '.join([*name, words[0]])}"
        command, name, words = command.commands[words[0]], (*name, words[0]), words[1:]
    return command, name, words


def options(command: Command) -> set[str]:
    found = {"--help"}
    for parameter in command.params:
        found |= {*parameter.opts, *parameter.secondary_opts}
    return found


def leaves(command: Command, name: tuple[str, ...] = ()) -> Iterator[str]:
    if not hasattr(command, "commands"):
        yield " ".join(name)
        return
    for word, child in command.commands.items():
        if not child.hidden:
            yield from leaves(child, (*name, word))


def check_line(line: str) -> None:
    for words in calls(line):
        words = [word.strip("[]()…,.:") for word in words if word not in ("NOUN", "VERB", "...")]
        command, name, rest = resolve([word for word in words if word])
        known = options(command)
        for option in OPTION.findall(" ".join(rest)):
            assert option in known, f"clearinghouse {' '.join(name)} has no {option}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_tells_to_type_exists(page: Path) -> None:
    for line in code(page.read_text(encoding="utf-8")):
        try:
            check_line(line)
        except AssertionError as error:
            raise AssertionError(f"{page.name}: `{line.strip()}`: {error}") from None


@pytest.mark.parametrize(
    "line",
    ["clearinghouse sources list", "A=1 clearinghouse serve --prot 1", "clearinghouse job kill x"],
)
def test_what_does_not_exist_is_found(line: str) -> None:
    with pytest.raises(AssertionError, match="no "):
        check_line(line)


def in_tables(text: str) -> Iterator[str]:
    """Commands of a table's first column, where `noun verb`, `other` stands for two of a noun."""
    for row in re.findall(r"^\| (`[a-z].*?) \|", text, re.MULTILINE):
        noun, *_ = row.strip("`").split()
        yield from (f"{noun} {span.split()[0]}" for span in SPAN.findall(row))


def test_every_command_is_on_a_page() -> None:
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    text = "\n".join(line for page in texts for line in (*code(page), *in_tables(page)))
    names = list(leaves(typer.main.get_command(app)))
    assert len(names) > 60
    missing = [name for name in names if not re.search(rf"(?<![\w-]){name}(?![\w-])", text)]
    assert not missing, f"on no page: {', '.join(missing)}"
