"""A source's price with its reasons, its history, and the market cleared again to check it."""

import hashlib
import json
from typing import Any

import numpy as np

from clearinghouse.canonical import canonical_bytes, digest
from clearinghouse.cli.options import Result, columns
from clearinghouse.cli.profile import Session, check_id, pick_request
from clearinghouse.errors import InputError, NotFoundError, VerificationError
from clearinghouse.messages.disputes import PriceHistory
from clearinghouse.messages.intake import RequestView
from clearinghouse.messages.results import (
    ClearingView,
    LogView,
    PriceList,
    PriceView,
    TargetView,
)
from clearinghouse.money import format_money

LOG_PAGE = 1000


def _source(session: Session, source_id: str | None) -> str:
    if source_id is not None:
        return check_id(source_id, "src", "source")
    known = session.keystore.recall("source")
    if known is None:
        raise InputError(f"{session.home} has no source of its own. Give one: src_...")
    return str(known["source_id"])


def quote(
    session: Session, source_id: str | None, request_id: str | None, *, check: bool
) -> Result:
    """One source's price: point, interval, parts, and what the market is worth without it.

    Raises:
        NotFoundError: The source is not in the request.
        VerificationError: Clearing again gives another price.
    """
    session.org_id()
    wanted, request = _source(session, source_id), pick_request(session.keystore, request_id)
    found = session.transport.get(f"/requests/{request}/prices", PriceList)
    for price in found.prices:
        if price.source_id == wanted:
            break
    else:
        raise NotFoundError(f"no price of {wanted} in {request}")
    currency = session.transport.get(f"/requests/{request}", RequestView).terms.currency
    value: dict[str, Any] = {"request_id": request, "currency": currency, **price.model_dump()}
    own = (session.keystore.recall("source") or {}).get("source_id") == wanted
    words = quote_words(price, currency, own=own)
    if check:
        told = recheck(session, request, found)
        value, words = {**value, "checked": told}, f"{words}\n{told}"
    return value, words


def quote_words(price: PriceView, currency: str, *, own: bool) -> str:
    """A price in sentences, to whom it is paid (`own`) or to others."""
    parts = price.components
    without = price.counterfactual["objective_without_micro"]
    low, high = format_money(price.low_micro), format_money(price.high_micro)
    firm = price.status == "firm"
    lines = [
        f"{price.source_id}: {format_money(price.point_micro)} {currency} per record "
        + ("(firm, as cleared)" if firm else f"({price.status}), 90% interval {low} to {high}"),
        f"parts: own ask {format_money(parts['reserve'])}, marginal value "
        f"{format_money(parts['marginal'])}, pot {format_money(parts['dividend'])}, held back "
        f"{format_money(parts['holdback'])}",
        f"without {'you' if own else 'it'} the whole match is worth {format_money(without)}, "
        f"{format_money(price.marginal_micro)} less",
        f"rests on {price.n_effective} records"
        + ("" if firm else f", {price.calls} redrawn markets, seed {price.seed}"),
        f"mechanism '{price.mechanism_version}', clearing {price.commit_hash}",
    ]
    return "\n".join(lines)


def history(session: Session, source_id: str | None) -> Result:
    """A source's prices over the requests that this home takes part in, all pages."""
    session.org_id()
    wanted = _source(session, source_id)
    prices, cursor = [], ""
    while True:
        query = f"cursor={cursor}" if cursor else ""
        page = session.transport.get(f"/sources/{wanted}/prices", PriceHistory, query=query)
        prices += page.prices
        if page.next_cursor is None:
            break
        cursor = page.next_cursor
    rows = [["request", "price", "from", "to", "status"]]
    rows += [
        [
            item.request_id,
            format_money(item.price.point_micro),
            format_money(item.price.low_micro),
            format_money(item.price.high_micro),
            item.price.status,
        ]
        for item in prices
    ]
    value = {"source_id": wanted, "prices": [item.model_dump() for item in prices]}
    if not prices:
        return value, f"{wanted}: no request has priced it yet"
    terms = session.transport.get(f"/requests/{prices[-1].request_id}", RequestView).terms
    value["currency"] = terms.currency
    return value, f"{columns(rows)}\nprices are in {terms.currency} per record"


# ---------------------------------------------------------------- the same prices again


def recheck(session: Session, request_id: str, prices: PriceList) -> str:
    """Clear the market again on this machine; every firm price must come out bit for bit.

    Raises:
        VerificationError: Something differs; the message says what.
    """
    target = session.transport.get(f"/requests/{request_id}/target", TargetView)
    clearing = session.transport.get(f"/requests/{request_id}/clearing", ClearingView)
    commit = commitment_of(clearing)
    firm = clearing.cleared_again
    by = commit if firm is None else commitment_of(firm)
    if any(price.commit_hash != by for price in prices.prices):
        raise VerificationError("the prices were made from another clearing than is shown")
    _check_log(session, request_id, target.frozen_digest, commit)
    compare(target, clearing)
    count = compare(target, firm or clearing, prices)
    return f"cleared again: {count} firm prices are the same to the last micro-unit"


def commitment_of(clearing: ClearingView) -> str:
    """Digest of the clearing as it was decided, before deliveries and payments were filled in."""
    return digest(canonical_bytes(clearing.decided()))


def _check_log(session: Session, request_id: str, frozen: str, commit: str) -> None:
    """The log holds a clearing of exactly these inputs and this outcome."""
    start = 0
    while True:
        page = session.transport.get(
            "/log/entries", LogView, query=f"start={start}&limit={LOG_PAGE}"
        )
        for entry in map(json.loads, page.entries):
            is_it = entry["type"] == "clearing.decided"
            if is_it and entry["objects"]["request"] == request_id:
                if (entry["hashes"]["inputs"], entry["hashes"].get("clearing")) != (frozen, commit):
                    raise VerificationError("the log has another clearing for this request")
                return
        start += len(page.entries)
        if not page.entries or start >= page.size:
            raise VerificationError("the log has no clearing for this request")


def compare(target: TargetView, clearing: ClearingView, prices: PriceList | None = None) -> int:
    """Compare quotas and firm prices, if given, with a new clearing; returns how many prices.

    Raises:
        VerificationError: They differ.
    """
    from matching.clearing import clear, marginal_values
    from valuation.quotes import firm

    orders, reserve = clearing.orders, clearing.reserve_micro
    supplies = np.array([target.capped[order.source_id] for order in orders], np.int64)
    supplies[[order.ask_micro is None for order in orders]] = 0
    keys = [
        hashlib.sha256(f"{target.frozen_digest}|{order.source_id}".encode()).digest()
        for order in orders
    ]
    plan = clear(
        np.array(target.distances_micro, np.int64),
        np.array(target.wanted, np.int64),
        supplies,
        np.array([min(order.ask_micro or 0, reserve) for order in orders], np.int64),
        reserve=reserve,
        tie_keys=keys,
    )
    if plan.quota.tolist() != [order.quota for order in orders]:
        raise VerificationError("clearing again orders other records")
    quotes = firm(plan, marginal_values(plan))
    checked = 0
    for index, price in enumerate(prices.prices if prices else ()):
        if price.status != "firm":
            continue
        found = quotes[index]
        told = (price.point_micro, price.marginal_micro)
        if (found.point, found.marginal_value) != told:
            raise VerificationError(f"clearing again gives {price.source_id} another price")
        checked += 1
    return checked
