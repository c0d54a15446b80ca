"""How a chart becomes inline SVG: one look, colours from the page, no clock, no network, no fonts.

Charts are drawn with matplotlib `Figure` objects (no pyplot, so no global state is left behind) in
placeholder colours; the placeholders then become CSS variables, which lets one drawing serve a
light page, a dark page and a printed one. Matplotlib is imported when the first chart is drawn.
"""

import io
import logging
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from clearinghouse.report.words import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 460
"""Drawing width in points; a page shows it at 400 to 560 pixels, so text stays near 11 pixels."""

ROW = 23
"""Height of one row of a row chart, in points."""

MAX_ROWS = 20
"""A row chart shows this many rows at most; the caller sums up the rest."""

INK, MUTED, GRID, PAPER = "#010201", "#010202", "#010203", "#010204"
BLUE, ORANGE, GREEN, PURPLE, AMBER, SKY = (f"#01020{i}" for i in "56789a")

_CSS = {
    INK: "currentColor",
    MUTED: "var(--muted)",
    GRID: "var(--line)",
    PAPER: "var(--paper)",
    BLUE: "var(--blue)",
    ORANGE: "var(--orange)",
    GREEN: "var(--green)",
    PURPLE: "var(--purple)",
    AMBER: "var(--amber)",
    SKY: "var(--sky)",
}


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawn chart.

    Attributes:
        name: Unique within the page; prefixes every id of the drawing.
        title: A caption that says what is shown.
        summary: The same facts in words, for readers who cannot see the drawing.
        note: What everybody should read under the caption; may be empty.
        svg: One inline `<svg>` element, safe to put into a page as it is.
    """

    name: str
    title: str
    summary: str
    note: str
    svg: str


def new_figure(height: float) -> "Figure":
    """An empty figure `WIDTH` points wide."""
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH / 72, height / 72))


def row_axes(
    labels: Sequence[object], *, left: float = 112, right: float = 60, top: float = 22
) -> tuple["Figure", "Axes"]:
    """Axes with one horizontal row a label, the first on top; margins in points."""
    n, bottom = len(labels), 24
    height = top + bottom + n * ROW
    figure = new_figure(height)
    box = (left / WIDTH, bottom / height, (WIDTH - left - right) / WIDTH, n * ROW / height)
    axes = figure.add_axes(box)
    axes.set_ylim(n - 0.5, -0.5)
    short = [shorten(label, int(left / 6.3)) for label in labels]
    axes.set_yticks(range(n), short, parse_math=False)
    style_axes(axes)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.tick_params(axis="y", colors=INK, labelsize=11, length=0, pad=6)
    return figure, axes


def style_axes(axes: "Axes") -> None:
    """No frame, quiet ticks, marks above the grid."""
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_axisbelow(True)
    axes.tick_params(axis="both", colors=MUTED, labelsize=10, length=0, pad=4)


def column(axes: "Axes", offset: float, head: str, cells: Sequence[str], colour: str = INK) -> None:
    """A column of right-aligned numbers `offset` points right of the axes, under its head."""
    plot_width = axes.get_position().width * WIDTH
    x = 1 + offset / plot_width
    style: dict[str, Any] = {"ha": "right", "va": "center", "color": colour, "parse_math": False}
    place = axes.get_yaxis_transform()
    axes.text(x, -0.82, shorten(head, 14), transform=place, fontsize=10, **style)
    for i, cell in enumerate(cells):
        axes.text(x, i, cell, transform=place, fontsize=10.5, **style)


def tick_format(axes: "Axes", show: Callable[[float], str], n_ticks: int = 4) -> None:
    """At most `n_ticks` + 1 round x ticks, written by `show`."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(n_ticks, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _position: show(float(value))))


def draw(
    name: str, title: str, summary: str, paint: Callable[[], "Figure"], *, note: str = ""
) -> Chart:
    """Paint a figure and turn it into a `Chart`; the same data give the same bytes."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # cache notices are not for readers
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names in scripts the measuring font does not have
        from matplotlib import rc_context

        settings = {"svg.fonttype": "none", "svg.hashsalt": name, "axes.unicode_minus": False}
        with rc_context(settings):
            target = io.StringIO()
            nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
            paint().savefig(target, format="svg", transparent=True, metadata=nothing)
    words = f"{title}. {summary}"
    return Chart(name, title, summary, note, _inline(target.getvalue(), name, words))


def _inline(document: str, name: str, words: str) -> str:
    """Cut a whole SVG document down to one element that lives inside a page."""
    body = document[document.index("<svg") :]
    body = re.sub(r"<(metadata|style)\b.*?</\1>", "", body, flags=re.DOTALL)
    # Matplotlib escapes < and > in text, so what this matches is markup and never a name.
    body = re.sub(r"<[^>]*>", lambda tag: _rewrite(tag.group(), name), body)
    view = re.search(r'viewBox="[^"]*"', document)
    size = view.group() if view else ""
    head = f'<svg class="chart" role="img" aria-label="{escape(words)}" {size}>'
    return head + body[body.index(">") + 1 :].strip()


def _rewrite(tag: str, name: str) -> str:
    tag = re.sub(r"font-family: [^;\"]*;? ?", "", tag)
    tag = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", tag)
    tag = tag.replace("xlink:href", "href").replace(' transform="rotate(-0 ', ' data-r="(')
    tag = re.sub(r' data-r="[^"]*"', "", tag)
    tag = re.sub(r"\s+", " ", tag)
    return re.sub(r"#01020[0-9a]", lambda colour: _CSS[colour.group()], tag)
