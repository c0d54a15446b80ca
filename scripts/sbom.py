"""Print a software bill of materials (CycloneDX 1.5, JSON) of a pinned requirements file.

`python scripts/sbom.py requirements/server.txt > sbom.json`. Every package that `make setup` and
the images install is in that file by exact version and hash, so nothing needs to be installed or
asked to write the list. The same file gives the same bytes: no time and no random number is in it.
"""

import hashlib
import json
import re
import sys
import tomllib
import uuid
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(\[[^\]]*\])?==([^\s;\\]+)")
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def components(text: str) -> list[dict[str, Any]]:
    """Each pinned package with the SHA-256 of every file that may be installed for it."""
    found: list[dict[str, Any]] = []
    for line in text.splitlines():
        match = PINNED.match(line)
        if match is not None:
            name = re.sub(r"[-_.]+", "-", match[1]).lower()
            purl = f"pkg:pypi/{name}@{match[3]}"
            found.append(
                {
                    "type": "library",
                    "bom-ref": purl,
                    "name": name,
                    "version": match[3],
                    "purl": purl,
                    "hashes": [],
                }
            )
        if found:
            found[-1]["hashes"] += [{"alg": "SHA-256", "content": h} for h in HASH.findall(line)]
    return sorted(found, key=lambda item: str(item["bom-ref"]))


def document(path: Path) -> dict[str, Any]:
    """The whole bill."""
    data = path.read_bytes()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    serial = uuid.UUID(bytes=hashlib.sha256(data).digest()[:16], version=4)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": project["name"],
                "name": project["name"],
                "version": project["version"],
                "licenses": [{"license": {"id": project["license"]["text"]}}],
            },
            "properties": [
                {"name": "source", "value": path.name},
                {"name": "source:sha256", "value": hashlib.sha256(data).hexdigest()},
            ],
        },
        "components": components(data.decode("utf-8")),
    }


if __name__ == "__main__":
    print(json.dumps(document(Path(sys.argv[1])), indent=1))
