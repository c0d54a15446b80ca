"""The bill of materials names all that is installed, by version and hash, and nothing else."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
PINNED = ROOT / "requirements" / "server.txt"


def bill() -> Any:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "sbom.py", PINNED],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout), done.stdout


def test_trust_sbom_holds_every_pinned_package_with_its_hashes() -> None:
    found, text = bill()
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.5")
    pinned = PINNED.read_text()
    names = {f"{item['name']}=={item['version']}" for item in found["components"]}
    lines = re.findall(r"^([A-Za-z0-9._-]+)(?:\[.*\])?==([^\s;\\]+)", pinned, flags=re.MULTILINE)
    assert names == {f"{re.sub(r'[-_.]+', '-', name).lower()}=={v}" for name, v in lines}
    assert len(names) == len(found["components"]) > 30
    hashes = [part["content"] for item in found["components"] for part in item["hashes"]]
    assert sorted(hashes) == sorted(re.findall(r"sha256:([0-9a-f]{64})", pinned))
    assert all(item["hashes"] for item in found["components"])
    assert bill()[1] == text
