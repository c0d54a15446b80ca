"""`budget attacks`: known attacks on what a home's table would publish, beside what theory allows.

Everything happens on this machine and nothing is released: the attacked releases are drawn afresh,
shown to nobody but the attacks, and thrown away. They cost the owner's budget nothing for that
reason alone, so what the command prints (shares of trials, never a count) stays with the owner too.
"""

import secrets
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clearinghouse import cells
from clearinghouse.canonical import canonical_bytes, parse_canonical
from clearinghouse.cli.budget import LIMITS
from clearinghouse.cli.options import Result
from clearinghouse.cli.profile import PROFILE, open_keys, read_profile
from clearinghouse.client.provider import SUMMARY_SHARE
from clearinghouse.columns import NumberColumn
from clearinghouse.errors import InputError, RefusedError
from clearinghouse.money import MICRO, format_money
from clearinghouse.schema import Schema, load_schema
from clearinghouse.tables import Table, read_table
from dp.attack_report import Exhibit, attack_report, attack_table
from dp.attacks import Release
from dp.noise import geometric
from secure_eval.noise import Table as NoisedTable
from secure_eval.noise import table_noise

Ints = NDArray[np.int64]

QUICK, FULL = (200, 10), (2000, 50)
"""Trials of each attack, and fresh leaderboards."""


def attacks(
    home: Path,
    *,
    table: Path | None,
    schema: Path | None,
    epsilon_micro: int,
    runs: int,
    full: bool,
) -> Result:
    """Run every attack on the home's own table, or on a given one.

    Raises:
        InputError: No table is known, or it breaks its schema.
        RefusedError: A result is surely above its bound: something releases more than it says.
    """
    rows = _rows(home, table, schema)
    level = cells.finest_level(
        rows.schema,
        epsilon_micro=epsilon_micro,
        size_class=1 << (rows.n.bit_length() - 1),
        share=SUMMARY_SHARE,
    )
    trials, boards = FULL if full else QUICK
    report: dict[str, Any] = {
        "patients_attacked": rows.n,
        "level": list(level),
        "runs": runs,
        **attack_report(
            exhibit(rows.schema, rows, level),
            epsilon_micro=epsilon_micro,
            epsilon_score_micro=epsilon_micro,
            runs=runs,
            trials=trials,
            boards=boards,
            release=summary_path(epsilon_micro),
            score_release=opened_path("histogram", epsilon_micro),
        ),
    }
    return report, _words(report, epsilon_micro)


def verdict(report: dict[str, Any]) -> None:
    """Turn a broken bound into the exit code of a refusal.

    Raises:
        RefusedError: A success is above its bound with odds of a false alarm of one in a million.
    """
    if not report["holds"]:
        raise RefusedError(
            "an attack succeeds more often than epsilon allows: release nothing more from this "
            "table, and report the table above as a fault of this program"
        )


def _rows(home: Path, table: Path | None, schema: Path | None) -> Table:
    if table is not None or schema is not None:
        if table is None or schema is None:
            raise InputError("give --table and --schema together, or neither")
        return read_table(table, load_schema(schema))
    keystore = open_keys(home) if (home / PROFILE).is_file() else None
    terms = None
    if keystore is not None:
        terms = keystore.recall(LIMITS.get(read_profile(home).role, "none"))
    if keystore is None or terms is None:
        raise InputError(
            f"{home} works with no table of patients. Give --table TABLE --schema schema.yaml"
        )
    agreed = keystore.recall("schema")
    return read_table(str(terms["table"]), Schema.from_dict(agreed, file="schema.json"))


def exhibit(schema: Schema, table: Table, level: tuple[str, ...]) -> Exhibit:
    """An owner's rows in the market's embedding, their places, and codewords as all see them.

    A codeword stands at its strata; in every other column the schema tells no more than the middle
    of a number's range and the levels of a category, of which the first one is guessed.
    """
    book = cells.codebook(schema, level)
    parts = []
    for column in schema.columns:
        if column.name in level:
            strata = book.codes()[:, level.index(column.name)]
            parts.append(column.stratum_coordinates()[strata])
        elif isinstance(column, NumberColumn):
            parts.append(column.embed(np.full(book.n_cells, (column.low + column.high) / 2)))
        else:
            parts.append(column.embed(np.zeros(book.n_cells, np.int64)))
    codewords = np.repeat(np.hstack(parts), cells.n_labels(schema), axis=0)
    rows = schema.embedding(table)
    anchors = np.random.default_rng(0).normal(size=(rows.shape[1] + 2, rows.shape[1]))
    return Exhibit(rows, cells.places(table, level), codewords, anchors)


def summary_path(epsilon_micro: int) -> Release:
    """Counts as a provider publishes them: noised, encoded, read again."""

    def publish(counts: Ints) -> Ints:
        noised = geometric(counts, Fraction(epsilon_micro, MICRO))
        sent = canonical_bytes([int(value) for value in noised])
        return np.array(parse_canonical(sent), np.int64)

    return publish


def opened_path(name: str, epsilon_micro: int) -> Release:
    """Counts as an opening shows them: the derived noise of a fresh key and two nonces."""

    def publish(counts: Ints) -> Ints:
        nonces = (secrets.token_bytes(16), secrets.token_bytes(16))
        tables = [NoisedTable(name, len(counts), epsilon_micro)]
        return counts + table_noise(secrets.token_bytes(32), "run", nonces, tables)

    return publish


def _words(report: dict[str, Any], epsilon_micro: int) -> str:
    level = " x ".join(report["level"]) or "all together"
    head = (
        f"{report['patients_attacked']} patients attacked on this machine, nothing released; "
        f"counts by {level} and label at epsilon {format_money(epsilon_micro)}; "
        f"{report['confidence']:.0%} intervals"
    )
    foot = (
        "no attack is surely above its bound. Lines without a bound show what happens where "
        "nothing protects, and are no part of the market"
        if report["holds"]
        else "AN ATTACK IS ABOVE ITS BOUND"
    )
    return "\n".join([head, attack_table(report), *_by_luck(report), foot])


def _by_luck(report: dict[str, Any]) -> list[str]:
    """What to think of an interval that lies above its bound without being surely so."""
    above = [
        item
        for item in report["attacks"]
        if item["bound"] is not None and item["holds"] and item["low"] > item["bound"]
    ]
    if not above:
        return []
    lines = "1 interval lies" if len(above) == 1 else f"{len(above)} intervals lie"
    return [
        f"{lines} above its bound, as one in twenty does by luck; --full has ten times the trials "
        "and settles it"
    ]
