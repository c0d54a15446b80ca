"""A provider by hand: preview, register and publish a source, then answer what sells it."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from clearinghouse import cells
from clearinghouse.cli.epsilon import meaning
from clearinghouse.cli.files import choose_size_class, epsilon, file_beside, money, size_class
from clearinghouse.cli.grants import grant_value, grant_words, read_grants
from clearinghouse.cli.open_requests import open_requests, request_words
from clearinghouse.cli.options import Result, columns
from clearinghouse.cli.profile import Session, check_id
from clearinghouse.client.consents import GrantTerms
from clearinghouse.client.listing import list_sources
from clearinghouse.client.provider import SUMMARY_SHARE, Provider, SourceTerms
from clearinghouse.consent import DISCLOSURE
from clearinghouse.documents import Fields, load_document
from clearinghouse.errors import InputError, RefusedError
from clearinghouse.messages.intake import SourceView
from clearinghouse.money import MICRO, format_money, micro_epsilon
from clearinghouse.rows import tree_size
from clearinghouse.schema import Schema, load_schema
from clearinghouse.tables import Table, read_table
from dp import size as dp_size
from dp.noise import geometric
from matching.target import SUPPLY_GATE, noise_below, noise_quantile

TERMS = "source-terms"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """source.yaml as it was read.

    Attributes:
        name: Of the source, as everybody sees it.
        table: CSV or Parquet file of the rows; never sent.
        schema: The public schema.
        size_class: Declared power of two, or None for the largest not above the rows.
        ask_micro: Price per record.
        epsilon_micro: Spent once, on the summary.
        epsilon_size_micro: Spent once on a noised number of rows, in place of a declared class.
        limit_micro: Most epsilon these rows may ever cost.
        grants: Who may get records, for what and how long.
    """

    name: str
    table: Path
    schema: Path
    size_class: int | None
    ask_micro: int
    epsilon_micro: int
    epsilon_size_micro: int
    limit_micro: int
    grants: tuple[GrantTerms, ...]


def read_source_file(path: Path) -> SourceFile:
    """Read source.yaml strictly; its paths are relative to it.

    Raises:
        InputError: A key is missing, unknown or malformed, or a file is not there.
    """
    fields = Fields(load_document(path), file=str(path))
    cost = epsilon(fields, "epsilon", Fraction(1))
    noised = epsilon(fields, "epsilon_size", Fraction(1)) if fields.has("epsilon_size") else 0
    found = SourceFile(
        name=fields.text("name"),
        table=file_beside(fields, "table", path.parent),
        schema=file_beside(fields, "schema", path.parent),
        size_class=size_class(fields),
        ask_micro=money(fields, "price_per_record"),
        epsilon_micro=micro_epsilon(cost),
        epsilon_size_micro=micro_epsilon(noised) if noised else 0,
        limit_micro=micro_epsilon(epsilon(fields, "epsilon_limit", cost + noised)),
        grants=read_grants(fields),
    )
    fields.close()
    if found.limit_micro < found.epsilon_micro + found.epsilon_size_micro:
        raise InputError(
            f"{path}: key 'epsilon_limit' must be at least epsilon (and epsilon_size), for the "
            "summary alone costs that. Raise it, or leave it out"
        )
    if found.epsilon_size_micro and found.size_class is not None:
        raise InputError(
            f"{path}: keys 'size_class' and 'epsilon_size' exclude each other: a size is declared "
            "or released with noise. Leave one out"
        )
    return found


# ---------------------------------------------------------------- preview


def preview(path: Path, session: Session | None = None) -> Result:
    """What registering would publish and cost; reads the table, spends and sends nothing.

    With a session it also asks the server for the open requests that the source would fit.

    Raises:
        InputError: The file, the schema or the table is wrong.
    """
    found = read_source_file(path)
    schema = load_schema(found.schema)
    table = read_table(found.table, schema)
    size, leaves = _likely_size(found, table.n, str(path))
    level = cells.finest_level(
        schema, epsilon_micro=found.epsilon_micro, size_class=size, share=SUMMARY_SHARE
    )
    n_cells, labels = cells.codebook(schema, level).n_cells, cells.n_labels(schema)
    noise = meaning(found.epsilon_micro)
    epsilon, counts = found.epsilon_micro / MICRO, n_cells * labels
    sells_above = noise_quantile(epsilon, counts, SUPPLY_GATE)
    value: dict[str, Any] = {
        "name": found.name,
        "schema": schema.name,
        "schema_digest": schema.digest(),
        "size_class": size,
        "leaves": leaves,
        "epsilon_size": format_money(found.epsilon_size_micro),
        "level": list(level),
        "cells": n_cells,
        "labels": labels,
        "counts": counts,
        "sells_above": sells_above,
        "epsilon": format_money(found.epsilon_micro),
        "noise_sd": f"{noise.sd:.3f}",
        "interval_90": [-noise.half_width, noise.half_width],
        "guess_at_most": f"{meaning(found.epsilon_micro + found.epsilon_size_micro).guess:.4f}",
        "price_per_record": format_money(found.ask_micro),
        "grants": [grant_value(item) for item in found.grants],
        "disclosure": DISCLOSURE,
        "example": _example(counts, size, found.epsilon_micro),
        "open_requests": open_requests(session, table, found.grants, found.ask_micro),
        "kept_here": {
            "rows": table.n,
            "admitted": round(1 - noise_below(epsilon, counts, sells_above - table.n), 3),
            "warnings": list(table.warnings),
        },
    }
    return value, _preview_words(value, schema)


def _likely_size(found: SourceFile, rows: int, place: str) -> tuple[int, int]:
    """Size class and leaves; where they will follow from a noised n, as without its noise."""
    cost = found.epsilon_size_micro
    if cost:
        return dp_size.size_class(rows, cost), dp_size.room(rows, cost)
    size = choose_size_class(found.size_class, rows, place)
    return size, tree_size(size, rows)


def _preview_words(value: dict[str, Any], schema: Schema) -> str:
    level = " x ".join(value["level"]) or f"all {schema.unit}s together"
    share = value["size_class"] / value["counts"]
    low, high = value["interval_90"]
    admitted = 100 * value["kept_here"]["admitted"]
    is_noised = value["epsilon_size"] != format_money(0)
    size_cost = f", and {value['epsilon_size']} for the number of them" if is_noised else ""
    lines = [
        f"registering source '{value['name']}' would publish, and nothing else:",
        f"  name, schema '{value['schema']}' and size class {value['size_class']}",
        f"  one hash that commits to every row, in a tree of {value['leaves']} leaves that does "
        "not tell how many rows there are",
        f"  {value['counts']} noised counts: {value['cells']} cells ({level}) x "
        f"{value['labels']} label levels, about {share:.1f} {schema.unit}s each",
        f"  noise of each count: sd {value['noise_sd']}, within {low}..+{high} in 9 of 10 cases",
        f"it can sell only if these counts sum to more than {value['sells_above']}, which noise "
        f"alone does once in a million; yours will in {admitted:.0f} of 100 cases",
        f"it would spend epsilon {value['epsilon']} once{size_cost}: whoever guesses whether one "
        f"{schema.unit} is in the table is right at most "
        f"{100 * float(value['guess_at_most']):.1f}% of the time",
        f"kept here until a request: the ask of {value['price_per_record']} a record",
        f"never leaves: the {value['kept_here']['rows']} rows, unless you sell some of them "
        "under these grants:",
        *(f"  {grant_words(item)}" for item in value["grants"]),
        DISCLOSURE,
        f"such counts look like this (an invented table, nothing of yours): {value['example']}",
        *request_words(value["open_requests"]),
    ]
    if is_noised:
        lines.insert(
            2,
            f"  the number of {schema.unit}s with noise, for epsilon {value['epsilon_size']} more: "
            "size class, level and leaves follow from it and may differ from these",
        )
    lines += [f"  note: {warning}" for warning in value["kept_here"]["warnings"]]
    return "\n".join([*lines, "this preview cost nothing"])


def _example(counts: int, size_class: int, epsilon_micro: int) -> list[int]:
    """A few counts of an invented, even table of the size class, with noise as it would be."""
    even = np.full(min(counts, 8), size_class // counts, np.int64)
    return [int(value) for value in geometric(even, Fraction(epsilon_micro, 1_000_000))]


# ---------------------------------------------------------------- register, list, show


def register(session: Session, path: Path) -> Result:
    """Commit the rows, register the source, publish its summary, give its grants, all once.

    Raises:
        InputError: The file is wrong, or asks for other terms than were published.
        ProtocolError: The table is not the one that was committed to.
    """
    found = read_source_file(path)
    schema = session.schema(found.schema)
    table = read_table(found.table, schema)
    terms: dict[str, Any] = {
        "name": found.name,
        "table": str(found.table.resolve()),
        "size_class": None
        if found.epsilon_size_micro
        else choose_size_class(found.size_class, table.n, str(path)),
        "ask_micro": found.ask_micro,
        "epsilon_micro": found.epsilon_micro,
        "epsilon_size_micro": found.epsilon_size_micro,
        "limit_micro": found.limit_micro,
        "grants": [grant_value(item) for item in found.grants],
    }
    known = session.keystore.recall(TERMS)
    # the ledger fixes its limit when it is made; the rest may change until it is published
    is_published = session.keystore.recall("source") is not None
    fixed = ("name", "size_class", "epsilon_micro", "epsilon_size_micro", "grants")
    public = fixed if is_published else ()
    for key in ("limit_micro", *public):
        if known is not None and known.get(key, 0) != terms[key]:
            raise InputError(
                f"{path}: '{key}' differs from what this home published ({known.get(key)}). Only "
                "price_per_record and the table's place may change; grants have commands of their "
                "own (grant give, grant withdraw); use another --home for another source"
            )
    session.join(schema)
    session.keystore.remember(TERMS, terms)
    provider = make_provider(session, terms, table)
    source_id = provider.publish()
    session.keystore.remember(TERMS, {**terms, "public_size_class": provider.size.size_class})
    view = session.transport.get(f"/sources/{source_id}", SourceView)
    spent, limit = provider.budget.spent, provider.budget.limit
    value = {**view.model_dump(), "spent": format_money(spent), "limit": format_money(limit)}
    words = (
        f"{source_id}: '{view.name}' is registered and its summary published\n"
        f"epsilon {format_money(spent)} of {format_money(limit)} spent\n"
        + "".join(f"granted: {grant_words(item)}\n" for item in terms["grants"])
        + f"{DISCLOSURE}\n"
        "next: clearinghouse source deliver --watch"
    )
    return value, words


def listing(session: Session, everywhere: bool) -> Result:
    """Sources of this home's schema, or of all schemas."""
    schema_id = session.schema_id()
    session.org_id()
    found = list_sources(session.transport, None if everywhere else schema_id)
    rows = [["source", "name", "owner", "size", "state"]]
    rows += [[s.id, s.name, s.org_id, str(s.size_class), _state(s)] for s in found]
    value = {"sources": [source.model_dump() for source in found]}
    return value, columns(rows) if found else "no source is registered for this schema yet"


def show(session: Session, source_id: str | None) -> Result:
    """One source as everybody sees it; without an id, this home's own."""
    known = session.keystore.recall("source")
    if source_id is None and known is None:
        raise InputError(f"{session.home} has no source of its own. Give an id: src_...")
    wanted = known["source_id"] if source_id is None else check_id(source_id, "src", "source")
    view = session.transport.get(f"/sources/{wanted}", SourceView)
    words = (
        f"{view.id}: '{view.name}' of {view.org_id}, size class {view.size_class}, "
        f"{_state(view)}\n"
        f"rows committed under {view.rows_root} ({view.leaves} leaves)"
    )
    return view.model_dump(), words


def _state(view: SourceView) -> str:
    if view.withdrawn:
        return "WITHDRAWN by its owner"
    return "summary published" if view.published else "no summary yet"


# ---------------------------------------------------------------- deliver


def make_provider(session: Session, terms: dict[str, Any], table: Table) -> Provider:
    """The provider of a home."""
    return Provider(
        str(terms["name"]),
        session.keystore,
        session.transport,
        table,
        SourceTerms(
            terms["size_class"],
            int(terms["ask_micro"]),
            int(terms["epsilon_micro"]),
            int(terms["limit_micro"]),
            epsilon_size_micro=int(terms.get("epsilon_size_micro", 0)),
            grants=tuple(
                GrantTerms(**{**item, "attributes": tuple(item["attributes"])})
                for item in terms["grants"]
            ),
        ),
    )


def open_provider(session: Session) -> Provider:
    """The provider of a home whose source was registered before.

    Raises:
        RefusedError: None was.
        InputError: The table is gone or not the one that was committed to.
    """
    terms, source = session.keystore.recall(TERMS), session.keystore.recall("source")
    if terms is None or source is None:
        raise RefusedError(
            f"{session.home} has no registered source. Run: clearinghouse source register "
            "source.yaml"
        )
    table = read_table(terms["table"], session.schema())
    provider = make_provider(session, terms, table)
    if provider.commitments.root.hex() != source["rows_root"]:
        raise InputError(
            f"{terms['table']}: not the table that was committed to. Put the old one back, or "
            "register the new one as a new source in another --home"
        )
    return provider
