"""The charts of the report. Each returns a `Chart`, or None when the report has nothing to show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clearinghouse.report.charts_market import (
    auc_chart,
    payments_chart,
    prices_chart,
    records_chart,
    roc_chart,
)
from clearinghouse.report.charts_scores import classes_chart, errors_chart, residual_charts
from clearinghouse.report.drawing import (
    BLUE,
    GRID,
    INK,
    MAX_ROWS,
    MUTED,
    ORANGE,
    PAPER,
    Chart,
    column,
    draw,
    row_axes,
    tick_format,
)
from clearinghouse.report.tables import STEPS, step_bytes
from clearinghouse.report.tables_scores import of_numbers
from clearinghouse.report.winners import REFERENCES, method_words
from clearinghouse.report.words import (
    compact,
    count_of,
    decimal,
    items,
    mapping,
    number,
    one_line,
    percent,
    seconds,
    size,
    text_of,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def all_charts(report: Mapping[str, object]) -> dict[str, list[Chart]]:
    """Every chart of a report by section; a section without data has an empty list."""
    sections: dict[str, Sequence[Chart | None]] = {
        "steps": [timeline(report)],
        "match": [gap_chart(report), w2_chart(report)],
        "demography": demography(report),
        "sources": [records_chart(report), payments_chart(report), prices_chart(report)],
        "scores": _scores(report),
        "budget": [budget_chart(report)],
    }
    return {name: [one for one in found if one is not None] for name, found in sections.items()}


def _scores(report: Mapping[str, object]) -> list[Chart | None]:
    """A number has errors and residuals where classes have curves."""
    if of_numbers(report):
        return [errors_chart(report), *residual_charts(report)]
    return [roc_chart(report), auc_chart(report), classes_chart(report)]


def timeline(report: Mapping[str, object]) -> Chart | None:
    """When each step began and how long it took."""
    timings, sent = mapping(report.get("timings_s")), step_bytes(report)
    lengths = [number(timings.get(step)) or 0.0 for step in STEPS]
    total = sum(lengths)
    if total <= 0:
        return None
    starts = [sum(lengths[:i]) for i in range(len(lengths))]

    def paint() -> "Figure":
        figure, axes = row_axes([f"{i + 1} {step}" for i, step in enumerate(STEPS)], right=132)
        axes.set_xlim(0, total)
        shown = [max(length, total / 250) for length in lengths]
        axes.barh(range(len(STEPS)), shown, left=starts, height=0.56, color=BLUE, linewidth=0)
        tick_format(axes, lambda value: f"{value:g} s")
        column(axes, 66, "took", [seconds(timings.get(step)) for step in STEPS])
        column(axes, 128, "sent", [size(sent.get(step)) for step in STEPS], MUTED)
        return figure

    longest = max(range(len(lengths)), key=lambda i: lengths[i])
    summary = f"The longest step is {list(STEPS)[longest]} with {seconds(lengths[longest])}"
    return draw("timeline", "Time and bytes of the seven steps", summary, paint, note=summary)


@dataclass(frozen=True, slots=True)
class _Level:
    """One level of an attribute with its three shares in 0..1, None where unknown."""

    name: str
    target: float | None
    delivered: float | None
    available: float | None


_HOLLOW: dict[str, Any] = {
    "marker": "o",
    "markersize": 7,
    "color": PAPER,
    "markeredgecolor": MUTED,
    "markeredgewidth": 1.5,
}
_FILLED: dict[str, Any] = {"marker": "o", "markersize": 8, "color": BLUE, "markeredgewidth": 0}
_DIAMOND: dict[str, Any] = {"marker": "D", "markersize": 5, "color": INK, "markeredgewidth": 0}


def demography(report: Mapping[str, object]) -> list[Chart]:
    """One dot chart an attribute: what the hospital has, what it got, what there was."""
    charts = []
    attributes = list(mapping(report.get("subgroups")).items())[:MAX_ROWS]
    for i, (attribute, found) in enumerate(attributes):
        levels = _levels(items(found))
        if levels:
            charts.append(_people(f"people{i}", one_line(attribute), levels))
    return charts


def _levels(found: Sequence[Mapping[str, object]]) -> list[_Level]:
    levels = [
        _Level(
            text_of(one.get("level")),
            number(one.get("target")),
            number(one.get("delivered")),
            number(one.get("available")),
        )
        for one in found
    ]
    if len(levels) <= MAX_ROWS:
        return levels
    largest = sorted(range(len(levels)), key=lambda i: -(levels[i].target or 0.0))
    keep = sorted(largest[: MAX_ROWS - 1])
    rest = [levels[i] for i in range(len(levels)) if i not in keep]
    summed = _Level(
        f"{len(rest)} others",
        sum(level.target or 0.0 for level in rest),
        sum(level.delivered or 0.0 for level in rest),
        sum(level.available or 0.0 for level in rest),
    )
    return [*(levels[i] for i in keep), summed]


def _people(name: str, attribute: str, levels: list[_Level]) -> Chart:
    def paint() -> "Figure":
        figure, axes = row_axes([level.name for level in levels], right=188)
        known = [share for one in levels for share in (one.target, one.delivered, one.available)]
        widest = max([0.02, *(share for share in known if share is not None)])
        axes.set_xlim(-0.03 * widest, 1.04 * widest)
        tick_format(axes, percent, 3)
        for y, one in enumerate(levels):
            if one.target is not None and one.delivered is not None:
                axes.plot([one.target, one.delivered], [y, y], color=BLUE, linewidth=2, alpha=0.5)
            marks = ((one.available, _HOLLOW), (one.delivered, _FILLED), (one.target, _DIAMOND))
            for share, look in marks:
                if share is not None:
                    axes.plot([share], [y], linestyle="none", clip_on=False, **look)
        column(axes, 52, "\u25c6 target", [percent(one.target) for one in levels])
        column(axes, 120, "\u25cf delivered", [percent(one.delivered) for one in levels], BLUE)
        column(axes, 188, "\u25cb available", [percent(one.available) for one in levels], MUTED)
        return figure

    summary = "; ".join(
        f"{one.name}: target {percent(one.target)}, delivered {percent(one.delivered)}, "
        f"available {percent(one.available)}"
        for one in levels
    )
    return draw(name, f"Patients by {attribute}", summary, paint)


def gap_chart(report: Mapping[str, object]) -> Chart | None:
    """Share of the gap that each way of choosing records closes, best first."""
    methods = mapping(mapping(report.get("match")).get("methods"))
    spread = number(mapping(methods.get("random")).get("gap_sd"))
    rows = _ranked(methods, "gap_closed", highest=True)
    if not rows:
        return None

    def paint() -> "Figure":
        figure, axes = row_axes([method_words(name) for name, _ in rows], left=158, right=52)
        values = [value for _, value in rows]
        low, high = min([0.0, *values]), max([1.0, *values])
        axes.set_xlim(low - 0.06 * (high - low), high + 0.06 * (high - low))
        if spread is not None:
            axes.axvspan(-2 * spread, 2 * spread, color=GRID, alpha=0.7, linewidth=0)
        for place, words in ((0.0, "random draw"), (1.0, "own patients")):
            axes.axvline(place, color=MUTED, linewidth=1)
            axes.text(place, -0.82, words, ha="center", va="center", fontsize=10, color=MUTED)
        tick_format(axes, percent)
        _method_dots(axes, rows)
        column(axes, 44, "", [percent(value) for value in values])
        return figure

    summary = ", ".join(f"{method_words(name)} {percent(value)}" for name, value in rows)
    title = "How much of the gap to this hospital's patients is closed"
    return draw("gap", title, summary, paint)


def w2_chart(report: Mapping[str, object]) -> Chart | None:
    """Transport distance to held-out patients for each way of choosing records, nearest first."""
    rows = _ranked(mapping(mapping(report.get("match")).get("methods")), "w2", highest=False)
    if not rows:
        return None

    def paint() -> "Figure":
        figure, axes = row_axes([method_words(name) for name, _ in rows], left=158, right=52)
        values = [value for _, value in rows]
        margin = 0.08 * (max(values) - min(values)) or 0.1
        axes.set_xlim(min(values) - margin, max(values) + margin)
        tick_format(axes, lambda value: f"{value:g}")
        _method_dots(axes, rows)
        column(axes, 44, "W2", [decimal(value) for value in values])
        return figure

    summary = ", ".join(f"{method_words(name)} {decimal(value)}" for name, value in rows)
    title = "Transport distance (W2) to held-out patients: left is closer"
    return draw("w2", title, summary, paint)


def _ranked(methods: Mapping[str, object], key: str, *, highest: bool) -> list[tuple[str, float]]:
    found = ((name, number(mapping(value).get(key))) for name, value in methods.items())
    known = [(name, value) for name, value in found if value is not None]
    return sorted(known, key=lambda row: (-row[1] if highest else row[1], row[0]))[:MAX_ROWS]


def _method_dots(axes: Any, rows: Sequence[tuple[str, float]]) -> None:
    """Ours filled, baselines as dark diamonds, yardsticks that break privacy hollow."""
    for y, (name, value) in enumerate(rows):
        look = _HOLLOW if name in REFERENCES else _DIAMOND
        look = {**_FILLED, "markersize": 10} if name == "clearinghouse" else look
        axes.plot([value], [y], linestyle="none", clip_on=False, **look)


def budget_chart(report: Mapping[str, object]) -> Chart | None:
    """Privacy budget spent against its limit, the fullest first."""
    found = [
        (one_line(name), number(mapping(entry).get("spent")), number(mapping(entry).get("limit")))
        for name, entry in mapping(report.get("budget")).items()
    ]
    rows = [(name, spent, limit) for name, spent, limit in found if spent is not None and limit]
    rows = sorted(rows, key=lambda row: (-row[2], -row[1] / row[2]))
    shown = rows[:MAX_ROWS]
    if not shown:
        return None

    def paint() -> "Figure":
        figure, axes = row_axes([name for name, _, _ in shown], right=92)
        axes.set_xlim(0, max(max(spent, limit) for _, spent, limit in shown))
        for y, (_, spent, limit) in enumerate(shown):
            colour = ORANGE if spent > limit else BLUE
            axes.barh(y, limit, height=0.62, color=GRID, linewidth=0)
            axes.barh(y, spent, height=0.34, color=colour, linewidth=0)
        tick_format(axes, lambda value: f"{value:g}")
        cells = [f"{compact(spent)} of {compact(limit)}" for _, spent, limit in shown]
        column(axes, 86, "spent", cells)
        return figure

    fullest = max(rows, key=lambda row: row[1] / row[2])
    rest = f"; {count_of(len(rows) - len(shown), 'other')} in the table" if rows != shown else ""
    summary = f"Most used: {fullest[0]} with {compact(fullest[1])} of {compact(fullest[2])}{rest}"
    title = "Privacy budget spent (epsilon), on its limit"
    return draw("budget", title, summary, paint, note=summary)
