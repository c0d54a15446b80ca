"""The end of a run as a terminal tells it: short tables, then the three numbers.

Our own words are ASCII; on a pipe the tables are too, and names that the output's encoding cannot
carry are replaced, so the story can be mailed, logged and grepped.
"""

import textwrap
from collections.abc import Mapping

from rich.box import SIMPLE_HEAD, Box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from clearinghouse.report.headline import Card, best_score, headline
from clearinghouse.report.tables import (
    Table,
    budget_table,
    downstream_table,
    methods_table,
    sources_table,
    statement_table,
    steps_table,
    subgroups_table,
    uncovered_words,
)
from clearinghouse.report.tables_scores import classes_table, scores_table
from clearinghouse.report.words import (
    clean,
    count,
    count_of,
    mapping,
    number,
    seconds,
    shorten,
    text_of,
)

MAX_ROWS = 12
"""Longer tables end with a line that says how many rows only the page shows."""

_PLAIN = Box(
    "    \n    \n -- \n    \n    \n    \n    \n    \n",
    ascii=True,
)


def tell(report: Mapping[str, object], console: Console) -> None:
    """Print the story of a run.

    Args:
        report: The report dictionary; absent sections are left out.
        console: Where to; its width is kept, and its styles are used on a terminal only.
    """
    _say(console, _title(report), "bold")
    best = best_score(report)
    tables = (
        steps_table(report),
        subgroups_table(report),
        sources_table(report),
        scores_table(report, -1 if best is None else best[0]),
        classes_table(report),
        methods_table(report),
        downstream_table(report),
        budget_table(report),
        statement_table(report),
    )
    for table in tables:
        _show(console, table.narrow())
    _notes(console, report)
    _say(console, "")
    _say(console, "Three numbers", "bold")
    for card in headline(report).cards:
        _card(console, card)


def _title(report: Mapping[str, object]) -> str:
    market, records = mapping(report.get("market")), mapping(report.get("records"))
    sources = count_of(int(number(market.get("n_sources")) or 0), "source")
    return (
        f"{text_of(market.get('name'))}: {count(records.get('delivered'))} of "
        f"{count(market.get('records_wanted'))} records for {text_of(market.get('customer'))} "
        f"from {sources}, in {seconds(report.get('seconds_total'))}"
    )


def _say(console: Console, words: object, style: str = "", indent: int = 0) -> None:
    """One paragraph, wrapped; user's text is never read as markup."""
    text = _fit(console, words)
    room = max(console.width - indent, 20)
    lines = [
        part
        for line in text.splitlines() or [""]
        for part in textwrap.wrap(line, room, break_on_hyphens=False) or [""]
    ]
    for line in lines:
        console.print(Text(" " * indent + line, style=style), soft_wrap=True)


def _fit(console: Console, words: object) -> str:
    """Text that the output can carry: clean, and without characters outside its encoding."""
    text = clean(words)
    try:
        return text.encode(console.encoding, "replace").decode(console.encoding)
    except LookupError:
        return text.encode("ascii", "replace").decode("ascii")


def _show(console: Console, table: Table) -> None:
    """A table with the rows that a terminal has patience for."""
    if not table.rows:
        return
    grid = RichTable(
        title=Text(table.title),
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD if console.is_terminal else _PLAIN,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for i, column in enumerate(table.columns):
        grid.add_column(
            Text(column.title),
            justify="right" if column.numeric else "left",
            overflow="fold",
            no_wrap=column.numeric and i > 0,
        )
    total = table.marked == len(table.rows) - 1 and len(table.rows) > MAX_ROWS
    shown = list(enumerate(table.rows))[:MAX_ROWS] + (list(enumerate(table.rows))[-1:] * total)
    for i, row in shown:
        cells = [
            Text(_fit(console, shorten(row[0], 30, "..."))),
            *(_fit(console, c) for c in row[1:]),
        ]
        style = "bold" if i == table.marked else ""
        grid.add_row(*(Text(str(cell)) for cell in cells), style=style)
    console.print()
    if console.is_terminal:
        console.print(grid)
    else:  # on a pipe, no spaces at the ends of lines
        with console.capture() as captured:
            console.print(grid)
        for line in captured.get().splitlines():
            console.print(Text(line.rstrip()), soft_wrap=True)
    if len(table.rows) > len(shown):
        _say(console, f"({len(table.rows) - len(shown)} more on the page)", "dim")


def _notes(console: Console, report: Mapping[str, object]) -> None:
    """What no table holds: uncovered patients, warnings, ledger, log, how to verify."""
    uncovered = uncovered_words(report)
    if uncovered:
        _say(console, "\nIn nobody's data, or too dear", "bold")
    for words in uncovered[:MAX_ROWS]:
        _say(console, f"- {words}", indent=2)
    if len(uncovered) > MAX_ROWS:
        _say(console, f"({len(uncovered) - MAX_ROWS} more on the page)", "dim", indent=2)
    warnings = report.get("warnings")
    for warning in warnings if isinstance(warnings, list | tuple) else ():
        _say(console, f"Warning: {text_of(warning)}", "yellow")
    ledger, log = mapping(report.get("ledger")), mapping(report.get("log"))
    balanced = "balanced" if ledger.get("balanced") is True else "NOT balanced"
    verified = "verified" if log.get("verified") is True else "NOT verified"
    _say(
        console,
        f"\nLedger: {count(ledger.get('entries'))} entries, {balanced}. "
        f"Log: {count(log.get('entries'))} entries, {verified}.",
    )
    commands = report.get("verify")
    for command in commands if isinstance(commands, list | tuple) else ():
        _command(console, text_of(command))


def _command(console: Console, command: str) -> None:
    """A shell command; one that is too long goes on after a backslash, so it can be pasted."""
    lines = textwrap.wrap(
        _fit(console, command),
        max(console.width - 6, 20),
        break_long_words=False,
        break_on_hyphens=False,
    )
    for i, line in enumerate(lines):
        end = " \\" if i < len(lines) - 1 else ""
        console.print(Text(("  " if i == 0 else "    ") + line + end, overflow="fold"))


def _card(console: Console, card: Card) -> None:
    _say(console, "")
    _say(console, card.title, "bold")
    _say(console, f"{card.figure.shown} {card.sentence}.", "bold cyan", indent=2)
    room = max(20, console.width - 18)
    told = [fact for fact in card.facts if "/intervals/" not in " ".join(fact.pointers)]
    for fact in told:
        label = shorten(_fit(console, fact.label), min(room, 52), "...")
        _say(console, f"{label}: {fact.shown}", indent=4)
    for caution in card.cautions:
        _say(console, f"! {caution}", "yellow", indent=4)
