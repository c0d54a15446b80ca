"""Three hosts: api with PostgreSQL, worker, and a hospital's agent that takes no connection."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import databases
import markets
import requires

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "three_hosts.py"


def can_make_hosts() -> bool:
    """Whether this user may make a network namespace here and give it firewall rules."""
    if os.geteuid() != 0 or not all(shutil.which(tool) for tool in ("ip", "nft", "ss", "setpriv")):
        return False
    name = f"clr-try-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
        return False
    try:
        command = ["ip", "netns", "exec", name, "nft", "add", "table", "inet", "try"]
        return subprocess.run(command, capture_output=True).returncode == 0
    finally:
        subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def hosts() -> set[str]:
    """Names of the script's network namespaces on this machine."""
    told = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    names = {line.split()[0] for line in told.stdout.splitlines() if line}
    return {name for name in names if name.endswith(("-api", "-worker", "-agent"))}


requires.need("namespaces", can_make_hosts() and databases.find_programs() is not None)
REQUIRES = ("namespaces",)


def test_a_rehearsal_on_three_hosts_while_the_agent_takes_no_connection(tmp_path: Path) -> None:
    market = markets.tiny(tmp_path / "market", developers=["logistic"], records=10)
    out = tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, str(SCRIPT), str(market), "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as script:
        printed, errors = script.communicate(timeout=400)
    assert script.returncode == 0, errors
    told: dict[str, Any] = json.loads(printed)
    assert told["agent_host"] == {
        "listening": [],  # nothing of ours waits for a connection there
        "planted": 1,  # and with a socket that does,
        "from_itself": True,
        "from_api": False,  # no connection comes in,
        "from_worker": False,
        "agent_to_server": True,  # while the agent's own go out, to the server alone
        "agent_to_database": False,
    }
    assert ": verified" in told["verified"]["logistic.txt"]
    assert "entries verified" in told["verified"]["log"]
    report = json.loads((out / "report.json").read_text())
    assert report["ledger"]["balanced"] is True
    assert all(score["exact_counts_match"] is True for score in report["scores"])
    # Of this run nothing is left; others may rehearse on this machine at the same time.
    assert not [name for name in hosts() if name.startswith(f"clr{script.pid}-")]
