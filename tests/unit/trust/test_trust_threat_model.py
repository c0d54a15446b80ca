"""Threat model and evidence: each row with a proof that exists, or the word open."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("page", [PAGE, PAGE.with_name("evidence.md")], ids=lambda page: page.stem)
def test_trust_threat_model_every_test_it_names_exists(page: Path) -> None:
    found = LINK.findall(page.read_text())
    assert len(found) >= 60
    for name, place in found:
        path = (page.parent / place).resolve()
        assert path.is_file(), place
        assert name in functions_of(path), f"{place} has no {name}"


def test_trust_threat_model_no_row_of_the_evidence_is_without_a_test() -> None:
    lines = PAGE.with_name("evidence.md").read_text().splitlines()
    found = [line for line in lines if line.startswith("| ") and not line.startswith("| promise")]
    assert len(found) >= 24
    assert not [line for line in found if not LINK.search(line)]
