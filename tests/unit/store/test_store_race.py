"""Eight processes race for one budget of money and one release of epsilon: never more, never less.

The budget is tight by construction, so the outcome is exact and not a matter of luck.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from clearinghouse.ids import new_id
from clearinghouse.store.records import Source

SCRIPT = Path(__file__).resolve().parents[2] / "support" / "spend.py"
WORKERS, TURNS, BUDGET = 8, 20, 100


def race(url, request_id, source_id):
    """Let all processes go at once; return what each says it got."""
    command = [sys.executable, str(SCRIPT), url, request_id, source_id, str(WORKERS), str(TURNS)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["codes"] == [0] * WORKERS
    assert len(told["found"]) == WORKERS
    return told["found"]


def test_eight_processes_spend_exactly_the_limit(store, store_url, request_id, org_id):
    source_id = new_id("src")
    with store.write() as tx:
        tx.ledger.transfer("fund", request_id, {"external:a": -BUDGET, "escrow:r": BUDGET})
        tx.cohorts.add_source(Source(source_id, org_id, "s", "sch_1", 1, "0" * 64, 1, False))
    found = race(store_url, request_id, source_id)
    paid = [name for result in found for name in result["paid"]]
    assert len(paid) == len(set(paid)) == BUDGET
    assert sum(result["published"] for result in found) == 1
    assert sum(result["refused"] for result in found) == 2 * WORKERS * TURNS - BUDGET - 1
    assert sum(result["collisions"] for result in found) == 0  # writers took turns
    assert sum(bool(result["paid"]) for result in found) > 1  # it was a race
    with store.read() as tx:
        assert tx.ledger.balance("escrow:r") == 0
        assert tx.ledger.balance("org:b") == BUDGET
        entries = [json.loads(entry) for entry in tx.log.entries(0, 1000)]
        logged = {name for entry in entries if (name := entry.get("spend"))}
        assert len(entries) == tx.log.size() == BUDGET + 1 + WORKERS * TURNS
        assert logged == set(paid)
        assert len(tx.cohorts.summaries([source_id])) == 1
