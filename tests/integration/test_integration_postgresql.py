"""A whole market between separate processes with PostgreSQL under the server."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import markets
import psycopg

from clearinghouse.log.verify import verify_log_directory


def test_a_rehearsal_passes_on_postgresql(ready_postgres: str, tmp_path: Path) -> None:
    market = markets.tiny(tmp_path / "market", developers=["logistic"], records=10)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "clearinghouse.cli.main", "rehearse", str(market)]
    done = subprocess.run(
        [*command, "--out", str(out), "--json"],
        env={**os.environ, "CLEARINGHOUSE_REHEARSAL_DATABASE_URL": ready_postgres},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["ledger"]["balanced"] is True
    assert report["log"]["verified"] is True
    assert all(score["exact_counts_match"] is True for score in report["scores"])
    found = verify_log_directory(out / "log")
    address = ready_postgres.replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(address) as connection:  # it was this database, and no other
        rows = connection.execute("SELECT body FROM entry ORDER BY position").fetchall()
        total = connection.execute("SELECT sum(amount_micro) FROM posting").fetchone()
        overdrawn = connection.execute(
            "SELECT count(*) FROM account WHERE balance_micro < 0 AND name NOT LIKE 'external:%'"
        ).fetchone()
    lines = (out / "log" / "entries.jsonl").read_bytes().splitlines()
    assert [bytes(row[0]) for row in rows][: len(lines)] == lines
    assert len(found.entries) == len(lines) > 10
    assert (total, overdrawn) == ((0,), (0,))
