"""Log, ledgers and report tell one epsilon; a release that was never charged is found out."""

import sqlite3
from dataclasses import replace
from pathlib import Path

import markets
import pytest

from clearinghouse.errors import VerificationError
from clearinghouse.log.entries import make_entry, parse_entry
from clearinghouse.market import Market, load_market, load_tables
from clearinghouse.rehearsal.command import world_of
from clearinghouse.rehearsal.drive import Outcome, drive
from clearinghouse.rehearsal.findings import examine
from clearinghouse.rehearsal.oracle import World
from clearinghouse.rehearsal.stage import threads
from clearinghouse.report.progress import Progress
from clearinghouse.signing import SigningKey

Finished = tuple[Market, World, Outcome, Path]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("epsilon")
    path = markets.tiny(folder / "market", developers=["logistic"], records=10)
    market = load_market(path)
    tables = load_tables(market)
    directory = folder / "work"
    directory.mkdir()
    sizes = {name: table.n for name, table in tables.items()}
    with threads(market, sizes, directory) as stage:
        outcome = drive(stage, market, Progress(enabled=False), None)
    return market, world_of(market, tables), outcome, directory


def test_an_honest_market_agrees(finished: Finished) -> None:
    market, world, outcome, directory = finished
    findings = examine(market, world, outcome, directory)
    spent = {name: entry["spent"] for name, entry in findings.report["budget"].items()}
    assert spent == {"clinic": 1.5, "one": 1, "few": 1, "some": 1}


def test_a_logged_release_that_no_ledger_knows_is_found(finished: Finished) -> None:
    market, world, outcome, directory = finished
    released = next(
        entry
        for entry in map(parse_entry, (text.encode() for text in outcome.entries))
        if entry.type == "run.released"
    )
    planted = make_entry(
        released.type,
        now_s=1_800_000_000,
        actor=released.actor,
        key=SigningKey.generate().key_id,
        objects=dict(released.objects),
        hashes=dict(released.hashes),
        amounts={"epsilon_micro": 250_000},
        commit=None,
    )
    entries = (*outcome.entries, planted.data.decode())
    with pytest.raises(VerificationError, match=r"clinic.*1\.75.*1\.50"):
        examine(market, world, replace(outcome, entries=entries), directory)


def test_an_opening_that_was_never_charged_is_found(finished: Finished, tmp_path: Path) -> None:
    market, world, outcome, directory = finished
    path = directory / "agent" / "clinic" / "ledger.sqlite"
    kept = path.read_bytes()
    with sqlite3.connect(path) as ledger:  # a hospital that opened without paying
        ledger.execute("DROP TRIGGER release_stays")
        ledger.execute("DELETE FROM release WHERE cost = 500000")
        ledger.execute("UPDATE account SET spent = spent - 500000 WHERE lane = 'epsilon'")
    ledger.close()
    try:
        with pytest.raises(VerificationError, match=r"clinic.*1\.50.*1\.00"):
            examine(market, world, outcome, directory)
    finally:
        path.write_bytes(kept)
