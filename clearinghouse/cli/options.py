"""What every command shares: its options, and one way to print a result."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

DEFAULT_HOME = Path(".clearinghouse")

Result = tuple[dict[str, Any], str]
"""What a machine reads and what a person reads."""

Json = Annotated[bool, typer.Option("--json", help="Machine-readable output on stdout.")]
Quiet = Annotated[bool, typer.Option("--no-progress", help="No progress on stderr.")]
Home = Annotated[
    Path,
    typer.Option(
        "--home", envvar="CLEARINGHOUSE_HOME", help="Folder of this party's keys, mode 0700."
    ),
]
Server = Annotated[
    str | None,
    typer.Option(
        "--server",
        envvar="CLEARINGHOUSE_SERVER",
        help="The server's address; what init remembered, if left out.",
    ),
]

SchemaOption = Annotated[
    Path | None, typer.Option("--schema", help="schema.yaml; remembered after the first time.")
]
RequestArgument = Annotated[
    str | None, typer.Argument(help="req_...; the newest this home knows if left out.")
]
RequestOption = Annotated[
    str | None, typer.Option("--request", help="req_...; where to look for it.")
]


def emit(as_json: bool, value: object, words: str) -> None:
    """Print a result once: as JSON for machines or as words for people."""
    sys.stdout.write((json.dumps(value, allow_nan=False) if as_json else words) + "\n")
    sys.stdout.flush()


def progress(as_json: bool, quiet: bool, words: str) -> None:
    """Say what a slow command does now, on stderr, where people read and scripts do not."""
    if not as_json and not quiet:
        sys.stderr.write(words + "\n")
        sys.stderr.flush()


def some(count: int, noun: str) -> str:
    """A number with its noun: 1 run, 2 runs."""
    return f"{count} {noun}" + ("" if count == 1 else "s")


def columns(rows: list[list[str]]) -> str:
    """Rows of cells (the first one the header) as aligned text; wide cells are not cut."""
    if not rows:
        return ""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
