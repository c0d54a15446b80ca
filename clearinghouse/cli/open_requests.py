"""Open requests as a provider sees them before it registers: would its table, price and grants fit.

The server names the requests and their released targets. How many of the wanted records a table
holds is counted here and told to nobody.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from clearinghouse import cells
from clearinghouse.cli.profile import Session
from clearinghouse.client.consents import GrantTerms
from clearinghouse.consent import is_within
from clearinghouse.errors import ClearinghouseError
from clearinghouse.messages.consent import OpenRequestList, OpenRequestView
from clearinghouse.money import format_money
from clearinghouse.tables import Table

__all__ = ["open_requests", "request_words"]

MOST_CELLS_SHOWN = 5


def open_requests(
    session: Session | None, table: Table, grants: Sequence[GrantTerms], ask_micro: int
) -> dict[str, Any]:
    """Open requests of a table's schema, and what stands in the way of selling to them.

    Args:
        session: Of the home that asks; None where no server is known.
        table: What would be sold.
        grants: What its owner would allow.
        ask_micro: Its price a record.
    """
    if session is None:
        return {"asked": False, "reason": "no server is known to this home", "requests": []}
    try:
        session.org_id()
        found = session.transport.get("/requests", OpenRequestList, query="state=open").requests
    except ClearinghouseError as error:
        return {"asked": False, "reason": str(error), "requests": []}
    digest = table.schema.digest()
    rows = [
        {
            **view.model_dump(),
            "granted": _is_granted(view, grants),
            "price_fits": ask_micro <= view.tariff_micro,
            "held_here": _held(view, table),
        }
        for view in found
        if view.schema_digest == digest
    ]
    return {"asked": True, "reason": "", "requests": rows}


def _is_granted(view: OpenRequestView, grants: Sequence[GrantTerms]) -> bool:
    return any(is_within(view.purpose, terms.purpose) and not terms.attributes for terms in grants)


def _held(view: OpenRequestView, table: Table) -> int | None:
    """Wanted records that the table has, cell by cell; None while nothing is known to be wanted."""
    if not view.wanted:
        return None
    schema = table.schema
    exact = cells.counts(table, view.level).reshape(-1, cells.n_labels(schema))
    words = [
        schema.cell_words(tuple(view.level), tuple(int(code) for code in codes))
        for codes in cells.codebook(schema, view.level).codes()
    ]
    counts = {cell: row.tolist() for cell, row in zip(words, exact, strict=True)}
    levels = list(schema.label.levels)
    held = 0
    for place in view.wanted:
        of_labels = counts.get(place.cell, [0] * len(levels))
        own = sum(of_labels) if place.label is None else of_labels[levels.index(place.label)]
        held += min(place.records, own)
    return held


def request_words(value: Mapping[str, Any]) -> list[str]:
    """Open requests as lines."""
    if not value["asked"]:
        return [f"open requests were not asked for: {value['reason']}"]
    if not value["requests"]:
        return ["no request of this schema is open today"]
    lines = ["requests of this schema that are open today (each fixed its sources when it opened):"]
    for item in value["requests"]:
        lines.append(
            f"  {item['id']}: {item['records']} records, up to "
            f"{format_money(item['tariff_micro'])} {item['currency']} each, to '{item['purpose']}'"
            + ("" if item["granted"] else "; YOUR GRANTS DO NOT COVER IT")
            + ("" if item["price_fits"] else "; YOUR PRICE IS ABOVE IT")
        )
        lines += _wanted_words(item)
    return lines


def _wanted_words(item: Mapping[str, Any]) -> list[str]:
    wanted = [
        f"{cell['records']} of {cell['cell']}" + (f" / {cell['label']}" if cell["label"] else "")
        for cell in item["wanted"][:MOST_CELLS_SHOWN]
    ]
    if not wanted:
        return ["    its target is not open yet"]
    more = len(item["wanted"]) - len(wanted)
    rest = f" and {more} more kinds" if more > 0 else ""
    return [
        f"    wants {'; '.join(wanted)}{rest}",
        f"    your table holds {item['held_here']} of these (counted here, told to nobody)",
    ]
