"""The threat model's page: 33 rows, each with a proof that exists or the word open."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "threat-model.md"
LINK = re.compile(r"\[(test_[a-z0-9_]+)\]\((\.\./tests/[a-z0-9_/]+\.py)\)")


@cache
def functions_of(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def rows() -> list[list[str]]:
    lines = [line for line in PAGE.read_text().splitlines() if re.match(r"\| T\d+ \|", line)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_trust_threat_model_has_all_rows_in_order() -> None:
    assert [row[0] for row in rows()] == [f"T{number}" for number in range(1, 34)]
    for number, _, control, status, proof in rows():
        assert status in ("held", "partly", "open"), number
        assert LINK.findall(proof), number
        # What is not wholly held says in words what is missing, and only that does.
        assert ("**Open" in control) == (status != "held"), number


def test_trust_threat_model_every_test_it_names_exists() -> None:
    found = LINK.findall(PAGE.read_text())
    assert len(found) >= 60
    for name, place in found:
        path = (PAGE.parent / place).resolve()
        assert path.is_file(), place
        assert name in functions_of(path), f"{place} has no {name}"
