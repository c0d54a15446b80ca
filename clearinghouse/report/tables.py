"""Every table of the report as plain text cells, used by the page and by the terminal alike."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from clearinghouse.report.winners import (
    CLASS_MEASURES,
    REFERENCES,
    Measure,
    ahead,
    difference,
    known,
    measures,
    method_words,
    sign_of,
)
from clearinghouse.report.words import (
    MISSING,
    amount,
    compact,
    count,
    decimal,
    interval,
    items,
    mapping,
    money,
    number,
    one_line,
    pair,
    percent,
    seconds,
    significant,
    size,
    text_of,
)

STEPS = {
    "intake": "Parties seal the validation rows and publish noised summaries",
    "match": "The agent opens a noised histogram of encrypted rows; transport finds the target",
    "clear": "Asks are committed, then revealed; one exact flow buys the records",
    "deliver": "Providers seal exactly the ordered records to the developers' keys",
    "score": "Models run on ciphertexts; only noised counts are opened",
    "settle": "Sources and models are paid from a ledger that sums to zero",
    "audit": "Every step is in a signed log; receipts verify offline",
}
"""The seven steps, in order, with what happens in each."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its head, whether it holds numbers, and whether only the page has room for it."""

    title: str
    numeric: bool = False
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table of text cells; the first cell of a row names the row.

    Attributes:
        marked: Index of the row to stress, or -1.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    marked: int = -1

    def narrow(self) -> "Table":
        """Without the columns that only a page has room for."""
        keep = [i for i, column in enumerate(self.columns) if not column.wide]
        rows = tuple(tuple(row[i] for i in keep) for row in self.rows)
        return Table(self.title, tuple(self.columns[i] for i in keep), rows, self.marked)


def step_bytes(report: Mapping[str, object]) -> dict[str, int]:
    """Bytes per step, for messages whose name is the step or begins with `step.` (or `/ : _ -`)."""
    totals: dict[str, int] = {}
    for message, value in mapping(report.get("bytes")).items():
        parsed = number(value)
        for step in STEPS:
            rest = message.removeprefix(step)
            if parsed is not None and rest != message and (not rest or rest[0] in "._/:- "):
                totals[step] = totals.get(step, 0) + int(parsed)
    return totals


def steps_table(report: Mapping[str, object]) -> Table:
    """The seven steps with seconds and bytes, then whatever else was timed."""
    timings, sent = mapping(report.get("timings_s")), step_bytes(report)
    names = [*STEPS, *(name for name in timings if name not in STEPS and name != "total")]
    rows = [
        (
            f"{i + 1} {name}" if name in STEPS else one_line(name),
            STEPS.get(name, "around the seven steps"),
            seconds(timings.get(name)),
            size(sent.get(name)),
        )
        for i, name in enumerate(names)
    ]
    columns = (Column("step"), Column("what happens"), Column("time", True), Column("sent", True))
    return Table("The seven steps", columns, tuple(rows))


def bytes_table(report: Mapping[str, object]) -> Table:
    """Bytes by kind of message, largest first."""
    sizes = mapping(report.get("bytes"))
    order = sorted(sizes, key=lambda name: -(number(sizes[name]) or 0.0))
    rows = tuple((one_line(name), size(sizes[name])) for name in order)
    return Table("Bytes by message", (Column("message"), Column("bytes", True)), rows)


def uncovered_words(report: Mapping[str, object]) -> list[str]:
    """The target cells that nobody serves, in words, the largest share first."""
    cells = items(mapping(report.get("match")).get("uncovered"))
    cells = sorted(cells, key=lambda cell: -(number(cell.get("share")) or 0.0))
    return [
        text_of(cell["words"])
        if cell.get("words")
        else f"{percent(cell.get('share'), 1)} of the patients (cell {text_of(cell.get('cell'))})"
        for cell in cells
    ]


def sources_in_order(report: Mapping[str, object]) -> list[str]:
    """Every source, the largest seller first, then by name."""
    clearing = mapping(report.get("clearing"))
    quotas = mapping(clearing.get("quotas"))
    names = {**mapping(report.get("values")), **mapping(clearing.get("asks")), **quotas}
    return sorted(names, key=lambda name: (-(number(quotas.get(name)) or 0.0), name))


def sources_table(report: Mapping[str, object]) -> Table:
    """What each source sells, asks, gets, and what it is worth."""
    clearing, values = mapping(report.get("clearing")), mapping(report.get("values"))
    fields = [mapping(clearing.get(key)) for key in ("quotas", "asks", "payments", "pot")]
    quotas, asks, payments, pot = fields
    rows: list[tuple[str, ...]] = []
    for name in sources_in_order(report):
        value = mapping(values.get(name))
        ends = pair([value.get("low"), value.get("high")])
        row = (
            one_line(name),
            count(quotas.get(name)),
            money(asks.get(name)),
            money(value.get("price")),
            interval(ends, 2),
            money(payments.get(name)),
            money(pot.get(name)),
            money(value.get("marginal")),
            decimal(value.get("shapley"), 2),
            decimal(value.get("leave_one_out"), 2),
            text_of(value.get("status")),
        )
        rows.append(row)
    columns: tuple[Column, ...] = (
        Column("source"),
        Column("records", True),
        Column("ask", True),
        Column("price", True),
        Column("90% interval", True, wide=True),
        Column("paid", True),
        Column("pot", True, wide=True),
        Column("marginal value", True, wide=True),
        Column("Shapley", True, wide=True),
        Column("leave one out", True, wide=True),
        Column("status"),
    )
    if not pot:
        rows, columns = [(*r[:6], *r[7:]) for r in rows], (*columns[:6], *columns[7:])
    return Table("Sources: records, prices and payments", columns, tuple(rows))


def subgroups_table(report: Mapping[str, object]) -> Table:
    """Target, delivered and available share of every level."""
    rows = []
    for attribute, levels in mapping(report.get("subgroups")).items():
        for level in items(levels):
            target, delivered = number(level.get("target")), number(level.get("delivered"))
            known = target is not None and delivered is not None
            points = round(100 * ((delivered or 0.0) - (target or 0.0)), 1) if known else None
            row = (
                f"{one_line(attribute)} {text_of(level.get('level'))}",
                percent(target, 1),
                _share_interval(level.get("interval")),
                percent(delivered, 1),
                percent(level.get("available"), 1),
                MISSING if points is None else f"{points + 0.0:+.1f}",
            )
            rows.append(row)
    columns = (
        Column("patients"),
        Column("target", True),
        Column("90% interval", True),
        Column("delivered", True),
        Column("available", True),
        Column("off by", True),
    )
    return Table("Demography: wanted, delivered, available", columns, tuple(rows))


def _share_interval(value: object) -> str:
    """Where the true share lies in 9 of 10 cases: `3 to 12%`."""
    ends = pair(value)
    return MISSING if ends is None else f"{100 * ends[0]:.0f} to {percent(ends[1], 0)}"


def methods_table(report: Mapping[str, object]) -> Table:
    """How close each way of choosing records comes; the best gap first, null last."""
    methods = mapping(mapping(report.get("match")).get("methods"))
    known = {name: mapping(value) for name, value in methods.items()}

    def rank(name: str) -> tuple[float, float]:
        gap, w2 = number(known[name].get("gap_closed")), number(known[name].get("w2"))
        first = float("inf") if gap is None else -gap
        return first, float("inf") if w2 is None else w2

    order = sorted(known, key=rank)
    rows = tuple(
        (
            method_words(name),
            percent(known[name].get("gap_closed")),
            decimal(known[name].get("w2")),
            decimal(known[name].get("mmd"), 4),
            count(known[name].get("rows")),
            _method_kind(name),
        )
        for name in order
    )
    columns = (
        Column("way of choosing records"),
        Column("gap closed", True),
        Column("W2", True),
        Column("MMD", True, wide=True),
        Column("rows", True),
        Column("kind"),
    )
    marked = order.index("clearinghouse") if "clearinghouse" in order else -1
    return Table("Distance to held-out patients", columns, rows, marked)


def _method_kind(name: str) -> str:
    if name == "clearinghouse":
        return "this market"
    return "not private" if name in REFERENCES else "baseline"


def downstream_table(report: Mapping[str, object]) -> Table:
    """The same recipe trained on each choice, tested on held-out patients; the best first.

    Of models that predict a number: errors in units of the label. Differences are the matched set
    minus the method; the last column speaks of the first figure.
    """
    found = {name: mapping(value) for name, value in mapping(report.get("downstream")).items()}
    told = measures(report)
    shown = decimal if told == CLASS_MEASURES else significant

    def rank(name: str) -> float:
        value = known(found[name], told[0])
        sign = -1 if told[0].highest else 1
        return float("inf") if value is None else sign * value

    order = sorted(found, key=rank)
    rows = tuple(
        (
            method_words(name),
            *(shown(known(found[name], measure)) for measure in told),
            count(found[name].get("n")),
            *(_apart(report, name, measure) for measure in told),
            _stands(report, name, told[0]),
        )
        for name in order
    )
    columns = (
        Column("trained on"),
        *(Column(measure.words, True) for measure in told),
        Column("rows", True, wide=True),
        Column(f"{told[0].words} diff., 90%", True),
        *(Column(f"{measure.words} diff., 90%", True, wide=True) for measure in told[1:]),
        Column("matched set is"),
    )
    marked = order.index("clearinghouse") if "clearinghouse" in order else -1
    return Table("Downstream: tested on held-out patients", columns, rows, marked)


def _apart(report: Mapping[str, object], name: str, measure: Measure) -> str:
    """The interval of matched set minus method: `-0.081 to +0.035`."""
    ends = difference(report, name, measure)
    if ends is None:
        return MISSING
    show = decimal if measure in CLASS_MEASURES else significant
    return f"{sign_of(ends[0], show)} to {sign_of(ends[1], show)}"


def _stands(report: Mapping[str, object], name: str, measure: Measure) -> str:
    """Whether the matched set is ahead of a method, and whether by more than noise."""
    if name == "clearinghouse":
        return "this market"
    entry = mapping(mapping(report.get("downstream")).get(name))
    side, sure = ahead(report, name, measure)
    if side == 0:
        return "level" if known(entry, measure) is not None else "undetermined"
    words = "ahead" if side > 0 else "behind"
    return {"clear": f"clearly {words}", "noise": f"{words}, in noise"}.get(sure, words)


def budget_table(report: Mapping[str, object]) -> Table:
    """Epsilon spent, limit and rest of every organisation."""
    rows = []
    for name, entry in mapping(report.get("budget")).items():
        spent, limit = amount(mapping(entry).get("spent")), amount(mapping(entry).get("limit"))
        left = None if spent is None or limit is None else limit - spent
        cells = (compact(value, 6) for value in (spent, limit, left))
        rows.append((one_line(name), *cells))
    columns = (
        Column("organisation"),
        Column("spent", True),
        Column("limit", True),
        Column("left", True),
    )
    return Table("Privacy budget (epsilon)", columns, tuple(rows))


def statement_table(report: Mapping[str, object]) -> Table:
    """The settled accounts that money is left in or went through to the outside, and their sum."""
    currency = one_line(mapping(report.get("market")).get("currency", ""))
    lines = [line for line in items(report.get("statement")) if amount(line.get("amount")) != 0]
    rows = [
        (text_of(line.get("account")), money(line.get("amount"), currency, exact=True))
        for line in lines
    ]
    amounts = [amount(line.get("amount")) for line in lines]
    if rows and None not in amounts:
        total = sum((value for value in amounts if value is not None), Decimal(0))
        rows.append(("sum", money(total, currency, exact=True)))
    columns = (Column("account"), Column("amount", True))
    marked = len(rows) - 1 if rows and None not in amounts else -1
    return Table("Statement", columns, tuple(rows), marked)


def parties_table(report: Mapping[str, object]) -> Table:
    """Who learned what, and what each never sees."""
    rows = tuple(
        (text_of(row.get("party")), text_of(row.get("learned")), text_of(row.get("never")))
        for row in items(report.get("who_saw_what"))
    )
    columns = (Column("party"), Column("learned"), Column("never sees"))
    return Table("Who saw what", columns, rows)
