"""The page of a rehearsal: one file that needs no script, no network and no other file."""

from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from clearinghouse.report.charts import all_charts
from clearinghouse.report.drawing import Chart
from clearinghouse.report.headline import (
    LOWER_IS_BETTER,
    best_score,
    headline,
    metric_words,
)
from clearinghouse.report.tables import (
    Table,
    budget_table,
    bytes_table,
    downstream_table,
    methods_table,
    parties_table,
    sources_table,
    statement_table,
    steps_table,
    subgroups_table,
    uncovered_words,
)
from clearinghouse.report.tables_scores import classes_table, score_groups_table, scores_table
from clearinghouse.report.winners import standing, winners
from clearinghouse.report.words import (
    clean,
    compact,
    count,
    count_of,
    mapping,
    money,
    number,
    one_line,
    percent,
    seconds,
    text_of,
)

LIMITS = (
    "The operator sees model weights in clear while it scores them.",
    "A server that deviates from the protocol can read a few bits per opening, unseen until the "
    "run is replayed: cryptography alone does not stop it.",
    "Delivered records are real records: handing them over is a disclosure its provider consented "
    "to, outside differential privacy. The real number each source delivers is seen by the market.",
    "The hospital knows its own noise, so it knows its exact histogram of a model's scores.",
    "Without an outside witness the operator could fork the log: show each reader another one.",
    "Figures on held-out rows, figures in clear and references on raw rows exist only in a "
    "rehearsal, which owns every table. A real market has no such figures.",
)
"""What the reader must not believe; stated on every page."""


def render_html(report: Mapping[str, object]) -> str:
    """Render a report as one self-contained HTML page.

    Args:
        report: The report dictionary; absent keys leave their section short, never fail.

    Returns:
        The page. Names in it are inert text, whatever they contain. The same report gives the same
        bytes.
    """
    folder = Path(__file__).parent / "templates"
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_inert,
    )
    style = Markup((folder / "report.css").read_text(encoding="utf-8"))  # noqa: S704 - our own file
    return environment.get_template("report.html.j2").render(style=style, **_context(report))


def _inert(value: object) -> object:
    """Strip control and direction characters from every text; markup is ours already."""
    return clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _context(report: Mapping[str, object]) -> dict[str, object]:
    best = best_score(report)
    charts = all_charts(report)
    return {
        "market": _market(report),
        "cards": headline(report).cards,
        "warnings": _texts(report.get("warnings")),
        "charts": charts,
        "svg": _svg,
        "tables": _tables(report, -1 if best is None else best[0]),
        "closer": winners(report, models=False),
        "better": winners(report, distances=False),
        "standing": standing(report),
        "uncovered": uncovered_words(report),
        "purse": _purse(report),
        "sources_note": _sources_note(report),
        "ledger": _ledger(report),
        "log": _log(report),
        "verify": _texts(report.get("verify")),
        "limits": LIMITS,
    }


def _svg(chart: Chart) -> Markup:
    """A chart's drawing: matplotlib escaped its text, `drawing` its label."""
    return Markup(chart.svg)  # noqa: S704


def _tables(report: Mapping[str, object], best: int) -> dict[str, Table]:
    return {
        "steps": steps_table(report),
        "bytes": bytes_table(report),
        "methods": methods_table(report),
        "subgroups": subgroups_table(report),
        "sources": sources_table(report),
        "scores": scores_table(report, best),
        "classes": classes_table(report),
        "score_groups": score_groups_table(report),
        "downstream": downstream_table(report),
        "budget": budget_table(report),
        "statement": statement_table(report),
        "parties": parties_table(report),
    }


def _texts(value: object) -> list[str]:
    return [clean(part) for part in value] if isinstance(value, list | tuple) else []


def _market(report: Mapping[str, object]) -> dict[str, str]:
    market, records = mapping(report.get("market")), mapping(report.get("records"))
    facts = [
        f"{count(market.get('records_wanted'))} records wanted",
        count_of(int(number(market.get("n_sources")) or 0), "source"),
        count_of(int(number(market.get("n_developers")) or 0), "developer"),
        f"schema {text_of(market.get('schema'))}",
        f"ran in {seconds(report.get('seconds_total'))}",
    ]
    if number(records.get("dummy")):
        facts.insert(1, f"{count(records.get('real'))} real, {count(records.get('dummy'))} padding")
    return {
        "name": text_of(market.get("name")),
        "customer": text_of(market.get("customer")),
        "facts": " · ".join(facts),
    }


def _purse(report: Mapping[str, object]) -> str:
    purse = mapping(report.get("purse"))
    if not purse:
        return ""
    currency = one_line(mapping(report.get("market")).get("currency", ""))
    metric = one_line(purse.get("metric", ""))
    side = "at most" if metric in LOWER_IS_BETTER else "at least"
    rule = f"{metric_words(metric)} of {side} {compact(purse.get('threshold'))}"
    sure = f"with {percent(purse.get('confidence'))} confidence"
    winner = purse.get("awarded_to")
    outcome = "Not awarded" if winner is None else f"Awarded to {one_line(winner)}"
    return (
        f"Purse ({text_of(purse.get('kind'))}) of {money(purse.get('amount'), currency)} for "
        f"{rule} {sure}. {outcome}: {text_of(purse.get('reason'))}."
    )


def _sources_note(report: Mapping[str, object]) -> str:
    clearing = mapping(report.get("clearing"))
    quotas = [number(units) or 0 for units in mapping(clearing.get("quotas")).values()]
    sold = sum(1 for units in quotas if units > 0)
    method = clearing.get("method")
    how = f" Cleared by {one_line(method)}." if method else ""
    return (
        f"{count_of(sold, 'source')} of {len(quotas)} sold {count(sum(quotas))} records.{how} "
        "A payment is the ask for every record plus the source's marginal value: a price for each "
        "unit, fixed by others' asks, and paid for real records only. A source gains nothing by "
        "misstating its ask, also if it falls short (docs/market.md)."
    )


def _ledger(report: Mapping[str, object]) -> tuple[bool, str]:
    ledger = mapping(report.get("ledger"))
    balanced = ledger.get("balanced") is True
    entries = count_of(int(number(ledger.get("entries")) or 0), "entry", "entries")
    return balanced, f"{entries}, {'balanced' if balanced else 'NOT balanced'}"


def _log(report: Mapping[str, object]) -> tuple[bool, str, str]:
    log = mapping(report.get("log"))
    verified = log.get("verified") is True
    entries = count_of(int(number(log.get("entries")) or 0), "entry", "entries")
    checkpoint = log.get("checkpoint")
    return (
        verified,
        f"{entries}, {'verified' if verified else 'NOT verified'}",
        "" if checkpoint is None else clean(checkpoint),
    )
