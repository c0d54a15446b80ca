"""Print the part of a pinned requirements file that the installed project's base needs.

Run inside an environment where the whole file and the project are installed:
`python docker/closure.py requirements/server.txt > party.txt`. Extras are left out.
"""

import re
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.utils import canonicalize_name

PROJECT = "eval-clearinghouse"


def closure(project: str) -> set[str]:
    """Names of everything that `project` needs without extras, itself left out."""
    found: set[str] = set()
    waiting = [(project, frozenset({""}))]
    while waiting:
        name, extras = waiting.pop()
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            continue
        for line in lines:
            needed = Requirement(line)
            marker = needed.marker
            if marker is not None and not any(marker.evaluate({"extra": e}) for e in extras):
                continue
            key = canonicalize_name(needed.name)
            if key not in found:
                found.add(key)
                waiting.append((key, frozenset({"", *needed.extras})))
    return found


def blocks(text: str) -> dict[str, str]:
    """Each requirement's lines, with its hashes, by name."""
    parts = re.findall(r"^([A-Za-z0-9][^=\s]*)(==(?:.*\\\n)*.*\n)", text, flags=re.MULTILINE)
    return {canonicalize_name(name.split("[")[0]): name + rest for name, rest in parts}


def main() -> None:
    """Print the lines; an unpinned need ends the run with an error."""
    pinned = blocks(Path(sys.argv[1]).read_text())
    needed = closure(PROJECT)
    missing = sorted(needed - set(pinned))
    if missing:
        raise SystemExit(f"not pinned in {sys.argv[1]}: {', '.join(missing)}")
    sys.stdout.write("".join(pinned[name] for name in sorted(needed)))


if __name__ == "__main__":
    main()
