"""Charts of the market: what each source sells and earns, and how the models score."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from clearinghouse.report.drawing import (
    AMBER,
    BLUE,
    GREEN,
    GRID,
    INK,
    MAX_ROWS,
    MUTED,
    ORANGE,
    PURPLE,
    SKY,
    WIDTH,
    Chart,
    column,
    draw,
    new_figure,
    row_axes,
    style_axes,
    tick_format,
)
from clearinghouse.report.tables import sources_in_order
from clearinghouse.report.words import (
    amount,
    count,
    count_of,
    decimal,
    items,
    mapping,
    money,
    number,
    one_line,
    pair,
    percent,
    shorten,
    text_of,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SERIES = (BLUE, ORANGE, GREEN, PURPLE, AMBER, SKY)
DASHES: tuple[Any, ...] = (
    "solid",
    (0, (5, 2)),
    (0, (2, 1.5)),
    (0, (6, 2, 1.5, 2)),
    (0, (9, 3)),
    (0, (1, 1)),
)
"""Models differ by dash as well as by hue."""


@dataclass(frozen=True, slots=True)
class _Sale:
    """A source's part of the clearing, or the sum of the small ones."""

    name: str
    records: float
    ask: Decimal | None
    paid: Decimal

    @property
    def asked(self) -> float:
        """The part of the payment that the ask explains."""
        if self.ask is None:
            return float(self.paid)
        return min(float(self.ask) * self.records, float(self.paid))


def _sales(report: Mapping[str, object]) -> list[_Sale]:
    """Sources that sold, largest first; beyond `MAX_ROWS` the small ones are one row."""
    clearing = mapping(report.get("clearing"))
    quotas, asks, payments = (mapping(clearing.get(k)) for k in ("quotas", "asks", "payments"))
    sales = [
        _Sale(
            one_line(name),
            number(quotas.get(name)) or 0.0,
            amount(asks.get(name)),
            amount(payments.get(name)) or Decimal(0),
        )
        for name in sources_in_order(report)
    ]
    sold = [sale for sale in sales if sale.records > 0]
    if len(sold) <= MAX_ROWS:
        return sold
    kept, rest = sold[: MAX_ROWS - 1], sold[MAX_ROWS - 1 :]
    records = sum(sale.records for sale in rest)
    asked = Decimal(str(sum(sale.asked for sale in rest)))
    paid = sum((sale.paid for sale in rest), Decimal(0))
    return [*kept, _Sale(f"{len(rest)} others", records, asked / Decimal(str(records)), paid)]


def _idle(report: Mapping[str, object]) -> str:
    quotas = mapping(mapping(report.get("clearing")).get("quotas"))
    idle = sum(1 for units in quotas.values() if not number(units))
    return f". {count_of(idle, 'source')} sold nothing" if idle else ""


def records_chart(report: Mapping[str, object]) -> Chart | None:
    """Records bought from each source."""
    sales = _sales(report)
    if not sales:
        return None
    total = sum(sale.records for sale in sales)

    def paint() -> "Figure":
        figure, axes = row_axes([sale.name for sale in sales], right=112)
        axes.set_xlim(0, max(sale.records for sale in sales))
        bars = [sale.records for sale in sales]
        axes.barh(range(len(sales)), bars, height=0.62, color=BLUE, linewidth=0)
        tick_format(axes, count)
        column(axes, 54, "records", [count(sale.records) for sale in sales])
        column(axes, 108, "share", [percent(sale.records / total) for sale in sales], MUTED)
        return figure

    summary = f"{sales[0].name} sells most: {count(sales[0].records)} of {count(total)}"
    summary += _idle(report)
    return draw("records", "Records bought from each source", summary, paint, note=summary)


def payments_chart(report: Mapping[str, object]) -> Chart | None:
    """What each source is paid, split into its ask and what it earns above it."""
    sales = [sale for sale in _sales(report) if sale.paid > 0]
    if not sales:
        return None
    currency = one_line(mapping(report.get("market")).get("currency", ""))

    def paint() -> "Figure":
        figure, axes = row_axes([sale.name for sale in sales], right=150)
        axes.set_xlim(0, max(float(sale.paid) for sale in sales))
        rows, asked = range(len(sales)), [sale.asked for sale in sales]
        above = [float(sale.paid) - sale.asked for sale in sales]
        axes.barh(rows, asked, height=0.62, color=BLUE, linewidth=0)
        axes.barh(rows, above, left=asked, height=0.62, color=ORANGE, linewidth=0)
        tick_format(axes, lambda value: f"{value:,.0f}" if value >= 10 else f"{value:g}")
        column(axes, 68, "\u25a0 asked", [f"{part:,.2f}" for part in asked], BLUE)
        column(axes, 148, "\u25a0 above ask", [f"{part:,.2f}" for part in above], ORANGE)
        return figure

    total = sum((sale.paid for sale in sales), Decimal(0))
    summary = f"{money(total, currency)} in all; above the ask is the source's marginal value"
    title = f"What each source is paid, {currency}".rstrip(", ")
    return draw("payments", title, summary, paint, note=summary)


def prices_chart(report: Mapping[str, object]) -> Chart | None:
    """Price a record with its interval, and the ask."""
    asks = mapping(mapping(report.get("clearing")).get("asks"))
    values = mapping(report.get("values"))
    order = [name for name in sources_in_order(report) if name in values]
    priced = [name for name in order if number(mapping(values[name]).get("price")) is not None]
    shown = priced[:MAX_ROWS]
    if not shown:
        return None
    currency = one_line(mapping(report.get("market")).get("currency", ""))

    def paint() -> "Figure":
        figure, axes = row_axes(shown, right=132)
        ends: list[float] = [0.0]
        for y, name in enumerate(shown):
            value = mapping(values[name])
            price, ask = number(value.get("price")) or 0.0, number(asks.get(name))
            span = pair([value.get("low"), value.get("high")])
            if span is not None:
                axes.plot(span, [y, y], color=BLUE, linewidth=3, alpha=0.45)
            if ask is not None:
                axes.plot([ask], [y], "|", color=INK, markersize=12, markeredgewidth=1.8)
            axes.plot([price], [y], "o", color=BLUE, markersize=8, clip_on=False)
            ends += [x for x in (price, ask, *(span or ())) if x is not None]
        axes.set_xlim(min(ends), 1.04 * max(ends) or 1.0)
        tick_format(axes, lambda value: f"{value:g}")
        column(axes, 62, "| ask", [money(asks.get(name)) for name in shown])
        prices = [money(mapping(values[name]).get("price")) for name in shown]
        column(axes, 122, "\u25cf price", prices, BLUE)
        return figure

    rest = len(priced) - len(shown)
    more = f"; {count_of(rest, 'other')} in the table" if rest else ""
    summary = f"Bar: 90% interval, where a price has one{more}"
    title = f"Price of one record, {currency}".rstrip(", ")
    return draw("prices", title, summary, paint, note=summary)


def roc_chart(report: Mapping[str, object]) -> Chart | None:
    """ROC curves from the noised counts, best AUC first."""
    auc = {text_of(s.get("developer")): number(s.get("auc")) for s in items(report.get("scores"))}
    for score in items(report.get("scores")):
        for one in items(score.get("classes")):
            name = f"{text_of(score.get('developer'))}: {text_of(one.get('level'))}"
            auc[name] = number(one.get("auc"))
    curves = [
        (one_line(name), points)
        for name, found in mapping(report.get("roc")).items()
        if len(points := _points(found)) >= 2
    ]
    if not curves:
        return None
    curves.sort(key=lambda curve: -(auc.get(curve[0]) or 0.0))

    def paint() -> "Figure":
        side = WIDTH - 70
        figure = new_figure(side + 52)
        box = (56 / WIDTH, 40 / (side + 52), side / WIDTH, side / (side + 52))
        axes = figure.add_axes(box)
        style_axes(axes)
        axes.set_xlim(-0.01, 1.01)
        axes.set_ylim(-0.01, 1.01)
        axes.grid(color=GRID, linewidth=0.8)
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
        for _, points in curves[len(SERIES) :]:
            axes.plot(*zip(*points, strict=True), color=MUTED, linewidth=1, alpha=0.5)
        best = curves[: len(SERIES)]
        for k, (name, points) in reversed(list(enumerate(best))):
            style = {"color": SERIES[k], "linestyle": DASHES[k], "linewidth": 2.2}
            axes.plot(*zip(*points, strict=True), **style)
            y = 0.04 + 0.062 * (len(best) - 1 - k)
            axes.plot([0.9, 0.99], [y, y], **style)
            label = f"{shorten(name, 20)} {decimal(auc.get(name))}"
            axes.text(0.88, y, label, ha="right", va="center", fontsize=11, parse_math=False)
        for line in axes.texts:
            line.set_color(INK)
        axes.set_xlabel("others flagged (false positive rate)", color=MUTED, fontsize=10)
        axes.set_ylabel("cases found (true positive rate)", color=MUTED, fontsize=10)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _position: percent(value))
        return figure

    named = ", ".join(f"{name} {decimal(auc.get(name))}" for name, _ in curves[: len(SERIES)])
    more = len(curves) - len(SERIES)
    rest = f"{count_of(more, 'more model')} in grey" if more > 0 else ""
    title = "ROC of each model, from noised counts of encrypted patients"
    return draw("roc", title, f"AUC: {named}. {rest}", paint, note=rest)


def _points(found: object) -> list[tuple[float, float]]:
    """Points of a curve, clipped to the unit square: noise may carry a count past its end."""
    pairs = [pair(point) for point in found] if isinstance(found, list | tuple) else []
    return [
        (min(max(point[0], 0.0), 1.0), min(max(point[1], 0.0), 1.0))
        for point in pairs
        if point is not None
    ]


def auc_chart(report: Mapping[str, object]) -> Chart | None:
    """AUC of each model with its interval, and the AUC a plaintext run gives."""
    scores = [one for one in items(report.get("scores")) if number(one.get("auc")) is not None]
    scores.sort(key=lambda one: -(number(one.get("auc")) or 0.0))
    shown = scores[:MAX_ROWS]
    if not shown:
        return None

    def paint() -> "Figure":
        figure, axes = row_axes([text_of(one.get("developer")) for one in shown], right=136)
        ends = [0.5]
        for y, one in enumerate(shown):
            auc = number(one.get("auc")) or 0.0
            clear = number(mapping(one.get("plaintext_reference")).get("auc"))
            span = pair(mapping(one.get("intervals")).get("auc"))
            unsure = one.get("status") == "undetermined"
            if span is not None:
                axes.plot(span, [y, y], color=MUTED if unsure else BLUE, linewidth=3, alpha=0.45)
            if clear is not None:
                axes.plot([clear], [y], "|", color=INK, markersize=12, markeredgewidth=1.8)
            axes.plot([auc], [y], "o", color=MUTED if unsure else BLUE, markersize=8)
            ends += [x for x in (auc, clear, *(span or ())) if x is not None]
        axes.set_xlim(max(0.0, min(ends) - 0.02), min(1.0, max(ends) + 0.02))
        axes.axvline(0.5, color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
        tick_format(axes, lambda value: f"{value:g}")
        clears = [mapping(one.get("plaintext_reference")).get("auc") for one in shown]
        column(axes, 56, "\u25cf blind", [decimal(one.get("auc")) for one in shown], BLUE)
        column(axes, 130, "| in clear", [decimal(value) for value in clears])
        return figure

    rest = len(scores) - len(shown)
    more = f"; {count_of(rest, 'other model')} in the table" if rest else ""
    summary = f"Bar: 90% interval. In clear: the same model without encryption or noise{more}"
    return draw("auc", "Blind AUC of each model", summary, paint, note=summary)
