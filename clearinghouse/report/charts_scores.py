"""Charts of models of several classes, and of models that predict a number."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from clearinghouse.report.drawing import (
    BLUE,
    GRID,
    INK,
    MAX_ROWS,
    MUTED,
    WIDTH,
    Chart,
    column,
    draw,
    new_figure,
    row_axes,
    style_axes,
    tick_format,
)
from clearinghouse.report.words import (
    compact,
    count_of,
    decimal,
    items,
    mapping,
    number,
    one_line,
    pair,
    significant,
    text_of,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["classes_chart", "errors_chart", "residual_charts"]

MOST_RESIDUALS = 4
"""Models whose residuals are drawn; the others are in the table."""

SURE = 1.645
"""Standard deviations on both sides that hold 90% of the noise."""


def classes_chart(report: Mapping[str, object]) -> Chart | None:
    """AUC of each class against the rest, with its interval."""
    rows = [
        (text_of(score.get("developer")), one)
        for score in items(report.get("scores"))
        for one in items(score.get("classes"))
        if number(one.get("auc")) is not None
    ]
    shown = rows[:MAX_ROWS]
    if not shown:
        return None

    def paint() -> "Figure":
        names = [f"{name}: {one_line(one.get('level'))}" for name, one in shown]
        figure, axes = row_axes(names, left=146, right=132)
        ends = [0.5]
        for y, (_, one) in enumerate(shown):
            values = (number(one.get("auc")) or 0.0, number(one.get("plaintext_auc")))
            span = pair(mapping(one.get("intervals")).get("auc"))
            ends += _dot(axes, y, values, span, one.get("status") == "undetermined")
        axes.set_xlim(max(0.0, min(ends) - 0.02), min(1.0, max(ends) + 0.02))
        axes.axvline(0.5, color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
        tick_format(axes, lambda value: f"{value:g}", 3)
        column(axes, 54, "\u25cf blind", [decimal(one.get("auc")) for _, one in shown], BLUE)
        clears = [decimal(one.get("plaintext_auc")) for _, one in shown]
        column(axes, 126, "| in clear", clears)
        return figure

    rest = len(rows) - len(shown)
    more = f"; {count_of(rest, 'other')} in the table" if rest else ""
    summary = f"Bar: 90% interval. A class is told from all others together{more}"
    return draw("classes", "Blind AUC of each class against the rest", summary, paint, note=summary)


def errors_chart(report: Mapping[str, object]) -> Chart | None:
    """Mean squared error of each model that predicts a number, the smallest first."""
    scores = [one for one in items(report.get("scores")) if number(one.get("mse")) is not None]
    scores.sort(key=lambda one: number(one.get("mse")) or 0.0)
    shown = scores[:MAX_ROWS]
    if not shown:
        return None

    def paint() -> "Figure":
        figure, axes = row_axes([text_of(one.get("developer")) for one in shown], right=136)
        ends = [0.0]
        for y, one in enumerate(shown):
            clear = number(mapping(one.get("plaintext_reference")).get("mse"))
            span = pair(mapping(one.get("intervals")).get("mse"))
            values = (number(one.get("mse")) or 0.0, clear)
            ends += _dot(axes, y, values, span, one.get("status") == "undetermined")
        axes.set_xlim(0.0, 1.04 * max(ends) or 1.0)
        tick_format(axes, compact, 3)
        column(axes, 56, "\u25cf blind", [significant(one.get("mse")) for one in shown], BLUE)
        clears = [mapping(one.get("plaintext_reference")).get("mse") for one in shown]
        column(axes, 130, "| in clear", [significant(value) for value in clears])
        return figure

    rest = len(scores) - len(shown)
    more = f"; {count_of(rest, 'other model')} in the table" if rest else ""
    summary = (
        "Left is better. Bar: 90% interval, which holds wherever in their bins the residuals lie; "
        f"in clear: the same model without encryption, bins or noise{more}"
    )
    title = "Blind mean squared error of each model"
    return draw("errors", title, summary, paint, note=summary)


def _dot(
    axes: Any,
    y: int,
    values: tuple[float, float | None],
    span: tuple[float, float] | None,
    unsure: bool,
) -> list[float]:
    """A value with its interval and what it is in clear; returns every place that was drawn."""
    colour, (value, clear) = MUTED if unsure else BLUE, values
    if span is not None:
        axes.plot(span, [y, y], color=colour, linewidth=3, alpha=0.45)
    if clear is not None:
        axes.plot([clear], [y], "|", color=INK, markersize=12, markeredgewidth=1.8)
    axes.plot([value], [y], "o", color=colour, markersize=8, clip_on=False)
    return [value, *(span or ()), *([] if clear is None else [clear])]


def residual_charts(report: Mapping[str, object]) -> list[Chart]:
    """Residuals of each model: how many patients were predicted how far off."""
    found = []
    for place, score in enumerate(items(report.get("scores"))[:MOST_RESIDUALS]):
        bins = mapping(score.get("residuals"))
        edges, counts = _numbers(bins.get("edges")), _numbers(bins.get("counts"))
        # beyond the label's range nothing has a width
        kept = [i for i in range(len(counts)) if i + 1 < len(edges) and edges[i] < edges[i + 1]]
        if kept:
            drawn = [(edges[i], edges[i + 1], counts[i]) for i in kept]
            found.append(_residuals(f"residuals{place}", score, bins, drawn))
    return found


def _numbers(value: object) -> list[float]:
    parts = value if isinstance(value, list | tuple) else []
    return [number(part) or 0.0 for part in parts]


def _residuals(
    name: str,
    score: Mapping[str, object],
    bins: Mapping[str, object],
    drawn: list[tuple[float, float, float]],
) -> Chart:
    noise = SURE * (number(bins.get("noise_sd")) or 0.0)
    label = one_line(bins.get("label") or "the label")

    def paint() -> "Figure":
        figure = new_figure(220)
        axes = figure.add_axes((56 / WIDTH, 44 / 220, (WIDTH - 76) / WIDTH, 160 / 220))
        style_axes(axes)
        axes.grid(axis="y", color=GRID, linewidth=0.8)
        for low, high, count in drawn:
            size, middle = high - low, (low + high) / 2
            axes.bar(low, max(count, 0.0) / size, size, align="edge", color=BLUE, alpha=0.75)
            ends = [max(count - noise, 0.0) / size, max(count + noise, 0.0) / size]
            axes.plot([middle, middle], ends, color=INK, linewidth=1)
        axes.axvline(0.0, color=INK, linewidth=1.2)
        axes.set_xlim(drawn[0][0], drawn[-1][1])
        axes.set_ylim(bottom=0.0)
        axes.set_xlabel(f"prediction less {label}", color=MUTED, fontsize=10, parse_math=False)
        axes.set_ylabel("patients per unit", color=MUTED, fontsize=10)
        tick_format(axes, lambda value: f"{value:g}", 6)
        return figure

    total = sum(count for _, _, count in drawn)
    near = max(drawn, key=lambda bar: bar[2] / (bar[1] - bar[0]))
    summary = (
        f"Area: patients, noise included; lines: 90% of the noise. Right of 0 is predicted too "
        f"high. The fullest bin goes from {compact(near[0], 1)} to {compact(near[1], 1)}; "
        f"{compact(total, 0)} patients in all"
    )
    title = f"Residuals of {text_of(score.get('developer'))}, from noised counts"
    return draw(name, title, summary, paint, note=summary)
