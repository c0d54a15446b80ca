"""Checks the pages in docs/ and README.md: every relative link leads to a file that is there."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")


def broken() -> list[str]:
    """Links that lead nowhere, as "page: link"."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "CHANGELOG.md"]
    return [
        f"{page.relative_to(ROOT)}: {link}"
        for page in pages
        for link in LINK.findall(page.read_text(encoding="utf-8"))
        if not (page.parent / link).exists()
    ]


if __name__ == "__main__":
    found = broken()
    print("\n".join(found) or "docs: every link leads to a file")
    sys.exit(1 if found else 0)
