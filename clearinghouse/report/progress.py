"""What is happening now: seven bars on a terminal, a line a step elsewhere, silence when disabled.

Everything goes to the console that is given, standard error by default, so standard output stays
clean for what a program may read.
"""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.table import Column
from rich.text import Text

from clearinghouse.report.tables import STEPS
from clearinghouse.report.words import one_line, seconds


class _Clock(ProgressColumn):
    """Time since a step began, frozen when it ends; nothing before."""

    def render(self, task: Task) -> Text:
        began, ended = task.fields["began"], task.fields["ended"]
        if began is None:
            return Text(" " * 9)
        return Text(f"{seconds((ended or time.monotonic()) - began):>9}")


class Progress:
    """Shows the seven steps while a rehearsal runs.

    Use as a context manager. Steps may come in any order; a name outside the seven is shown too.
    Any text is shown as it is, never read as markup, without control characters.

    Args:
        enabled: False shows nothing at all.
        console: Where to; standard error by default.
    """

    def __init__(self, *, enabled: bool = True, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._enabled = enabled
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}
        self._current: str | None = None
        self._began = 0.0
        self._words = ""

    def __enter__(self) -> "Progress":
        if self._enabled and self._console.is_terminal:
            self._bars = Bars(
                TextColumn("{task.fields[mark]}", markup=False),
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=16),
                _Clock(),
                # Long words are cut; without the ratio they would squeeze the other columns.
                TextColumn(
                    "{task.fields[words]}",
                    markup=False,
                    style="dim",
                    table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
                ),
                console=self._console,
                expand=True,
                transient=False,
                refresh_per_second=8,
            )
            for name in STEPS:
                self._add(name)
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._finish(failed=kind is not None)
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def step(self, name: str, words: str = "") -> None:
        """Begin a step; the one before is done.

        Args:
            name: One of the seven step names, or another word for work around them.
            words: What happens in it, one sentence.
        """
        self._finish(failed=False)
        self._current, self._began, self._words = name, time.monotonic(), one_line(words)
        if not self._enabled:
            return
        if self._bars is None:
            self._line(f"{_place(name)} {one_line(name):<8} {self._words}".rstrip())
            return
        task = self._tasks[name] if name in self._tasks else self._add(name)
        # Without a total the bar pulses: the length of a step is not known before `advance`.
        self._bars.update(
            task, total=None, mark=">", words=self._words, began=self._began, ended=None
        )

    def advance(self, name: str, done: float, total: float, words: str = "") -> None:
        """Say how far a step is; on a terminal only.

        Args:
            name: The step.
            done: Units done, 0..total.
            total: Units in all; 0 means unknown.
            words: What is being done now; empty keeps the words shown.
        """
        if self._bars is None:
            return
        task = self._tasks[name] if name in self._tasks else self._add(name)
        self._bars.update(task, completed=done, total=total or None)
        if words:
            self._bars.update(task, words=one_line(words))

    def note(self, words: str) -> None:
        """Print one line above the bars, or as a line of its own."""
        if self._enabled:
            self._line(f"      {one_line(words)}" if self._bars is None else one_line(words))

    def _add(self, name: str) -> TaskID:
        if self._bars is None:
            raise ValueError("bars are added between __enter__ and __exit__ only")
        label = f"{_place(name)} {one_line(name):<8}"
        task = self._bars.add_task(label, total=1, mark=" ", words="", began=None, ended=None)
        self._tasks[name] = task
        return task

    def _finish(self, *, failed: bool) -> None:
        """Close the current step with its time; a failed one says so."""
        name, self._current = self._current, None
        if name is None or not self._enabled:
            return
        now = time.monotonic()
        if self._bars is None:
            if failed:
                took = seconds(now - self._began)
                self._line(f"{_place(name)} {one_line(name):<8} failed after {took}")
            return
        task = self._tasks[name]
        if failed:
            self._bars.update(task, total=1, completed=0, mark="!", ended=now, words="failed")
        else:
            self._bars.update(task, total=1, completed=1, mark="+", ended=now, words=self._words)

    def _line(self, words: str) -> None:
        self._console.print(Text(words), soft_wrap=True)


def _place(name: str) -> str:
    """`[2/7]` for a step, blanks for other work."""
    names = list(STEPS)
    return f"[{names.index(name) + 1}/{len(names)}]" if name in STEPS else "     "
