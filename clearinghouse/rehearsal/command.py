"""`clearinghouse rehearse`: check everything, run the market, compare, and write the report."""

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from clearinghouse.collector import collect_rarely
from clearinghouse.errors import InputError
from clearinghouse.log.verify import export_log
from clearinghouse.market import Market, load_market, load_tables
from clearinghouse.rehearsal.drive import OnStep, drive
from clearinghouse.rehearsal.oracle import World
from clearinghouse.rehearsal.stage import HERE, Hosts, processes, threads
from clearinghouse.report.progress import Progress
from clearinghouse.tables import Table, stratified_split

if TYPE_CHECKING:
    from clearinghouse.rehearsal.findings import Findings

OUTPUTS = ("report.json", "report.html", "evidence.json", "training_set.parquet", "receipts", "log")
"""What a rehearsal writes into its folder; older ones of these names are replaced."""


def run_rehearsal(
    market_path: Path, out: Path, *, as_json: bool, quiet: bool, in_process: bool
) -> None:
    """Rehearse a market and write `out`; tell the story on stdout, progress on stderr.

    Raises:
        InputError: The market, a table or the output folder is wrong; nothing was written.
        ClearinghouseError: The market or one of its processes failed; nothing was written.
    """
    market = load_market(market_path)
    tables = load_tables(market)
    _check_out(out)
    with Progress(enabled=not (quiet or as_json)) as progress:
        findings = rehearse(market, tables, progress, in_process=in_process)
        write(findings, out)
    report = findings.report
    if as_json:
        sys.stdout.write(json.dumps(report, allow_nan=False) + "\n")
        return
    from clearinghouse.report.story import tell

    console = Console(width=None if sys.stdout.isatty() else 80, highlight=False)
    tell(report, console)
    console.print(f"\nThe report is in {out / 'report.html'}", soft_wrap=True)


def rehearse(
    market: Market,
    tables: dict[str, Table],
    progress: Progress,
    *,
    in_process: bool = False,
    on_step: OnStep | None = None,
    record_bodies: Path | None = None,
    hosts: Hosts = HERE,
) -> "Findings":
    """Run one market and examine it; every process and file it used is gone afterwards.

    Args:
        market: The market.
        tables: Its tables by name, checked.
        progress: Where progress is shown.
        in_process: Run every part in this process, without sockets.
        on_step: Called when a step has just finished.
        record_bodies: Folder for every HTTP body the server sees, for tests.
        hosts: Where the processes run.
    """
    started = time.monotonic()
    world = world_of(market, tables)
    sizes = {name: table.n for name, table in tables.items()}
    directory = Path(tempfile.mkdtemp(prefix="clearinghouse-"))
    try:
        stage_of = (
            threads(market, sizes, directory)
            if in_process
            else processes(market, sizes, directory, record_bodies=record_bodies, hosts=hosts)
        )
        with stage_of as stage:
            # Loaded while the parties are: it takes as long, and a market that is refused before
            # needs none of it.
            from clearinghouse.rehearsal.findings import examine

            if not in_process:
                collect_rarely()
            outcome = drive(stage, market, progress, on_step)
        findings = examine(market, world, outcome, directory)
        findings.report["seconds_total"] = round(time.monotonic() - started, 2)
        findings.report["warnings"] = [text for table in tables.values() for text in table.warnings]
        return findings
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def world_of(market: Market, tables: dict[str, Table]) -> World:
    """Split the customer's table as its agent does, from the same seed."""
    customer = tables[market.customer.name]
    holdout, validation = stratified_split(
        customer.labels, market.customer.holdout_fraction, market.seed
    )
    return World(
        market.schema,
        customer.take(validation),
        customer.take(holdout),
        {source.name: tables[source.name] for source in market.sources},
    )


def _check_out(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file. Name a folder")
    if not out.parent.exists():
        raise InputError(f"--out {out}: the folder {out.parent} does not exist. Make it first")


def write(findings: "Findings", out: Path) -> None:
    """Write the outputs, replacing those of an earlier rehearsal all at once."""
    from clearinghouse.report.html import render_html

    fresh = Path(tempfile.mkdtemp(prefix=".rehearsal-", dir=out.parent))
    try:
        _write_json(fresh / "report.json", findings.report, indent=2)
        _write_json(fresh / "evidence.json", findings.evidence)
        (fresh / "report.html").write_text(render_html(findings.report), encoding="utf-8")
        (fresh / "training_set.parquet").write_bytes(findings.training_set)
        (fresh / "receipts").mkdir()
        for name, text in findings.receipts.items():
            (fresh / "receipts" / f"{name}.txt").write_text(text, encoding="utf-8", newline="")
        export_log(
            [entry.encode() for entry in findings.entries],
            findings.checkpoint.checkpoint,
            findings.checkpoint.vkey,
            fresh / "log",
        )
        out.mkdir(exist_ok=True)
        for name in OUTPUTS:
            _replace(fresh / name, out / name)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _write_json(path: Path, value: Any, indent: int | None = None) -> None:
    text = json.dumps(value, allow_nan=False, indent=indent, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def _replace(source: Path, place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    elif place.exists() or place.is_symlink():
        place.unlink()
    source.rename(place)
