"""Every public mechanism that draws noise says what it guarantees, on which grounds, and why.

Found by reading the source: a public function or method that draws, directly or through private
helpers of its module. What draws is what the noise modules export.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = ("dp", "secure_eval", "clearinghouse/client", "clearinghouse/onsite")
DRAWING = {"geometric", "discrete_gaussian", "noised_size", "table_noise", "randomise", "CoinPlan"}
HEADINGS = ("Guarantee", "Assumes", "Proof")

NO_RELEASE = {
    "dp/attack_report.py": "attacks on a party's own table, on its own machine",
    "dp/audit_spending.py": "an adversary of a ledger, for audits",
    "secure_eval/arbiter.py": "computes a committed draw again from its opened key",
    "secure_eval/noise.py:coin_plan": "a layout of coins, no draw",
}

MECHANISMS = {
    "dp/noise.py:geometric",
    "dp/gaussian.py:discrete_gaussian",
    "dp/size.py:noised_size",
    "secure_eval/noise.py:geometric",
    "secure_eval/noise.py:table_noise",
    "secure_eval/coins.py:CoinPlan.noise",
    "secure_eval/agent.py:AgentRun.characters",
    "secure_eval/agent_target.py:AgentTarget.noise_message",
    "clearinghouse/client/provider.py:Provider.summary",
    "clearinghouse/client/sizes.py:released",
    "clearinghouse/onsite/counting.py:noised",
    "secure_eval/agent.py:AgentRun.digits",
}
"""What the walk has to find, so that it cannot go blind."""

BEYOND = {
    "dp/laws.py:coins_micro_rho",
    "dp/coins.py:delta_of",
    "secure_eval/class_agent.py:ClassesAgentRun.characters",
    "secure_eval/target.py:TargetOpening.release",
    "secure_eval/evaluator.py:ScoringRun.release",
    "secure_eval/class_run.py:ClassesScoringRun.release",
}
"""Others that promise privacy: laws and costs of coins, and what is built on the mechanisms."""


def definitions(path: Path) -> dict[str, tuple[ast.AST, list[str]]]:
    """Functions and methods by qualified name, with the docstrings from inside to outside."""
    tree = ast.parse(path.read_text())
    own = [ast.get_docstring(tree) or ""]
    found: dict[str, tuple[ast.AST, list[str]]] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = (node, [ast.get_docstring(node) or "", *own])
        if isinstance(node, ast.ClassDef):
            texts = [ast.get_docstring(node) or "", *own]
            for item in node.body:
                if isinstance(item, ast.FunctionDef):
                    inner = [ast.get_docstring(item) or "", *texts]
                    found[f"{node.name}.{item.name}"] = (item, inner)
    return found


def used(node: ast.AST) -> set[str]:
    """Names that a definition's body reads."""
    names = {item.id for item in ast.walk(node) if isinstance(item, ast.Name)}
    return names | {item.attr for item in ast.walk(node) if isinstance(item, ast.Attribute)}


def drawing(path: Path) -> Iterator[str]:
    """Qualified names of the public definitions of a module that draw noise."""
    place = path.relative_to(ROOT).as_posix()
    known = definitions(path)
    reads = {name: used(node) for name, (node, _) in known.items()}
    draws = {name for name in known if reads[name] & DRAWING}
    if place == "secure_eval/noise.py":
        draws.add("geometric")
    if place == "secure_eval/coins.py":
        draws.add("CoinPlan.noise")
    if place == "dp/gaussian.py":
        draws.add("discrete_gaussian")
    while True:
        hidden = {name.split(".")[-1] for name in draws if name.split(".")[-1].startswith("_")}
        more = {name for name in known if reads[name] & hidden} - draws
        if not more:
            break
        draws |= more
    for name in draws:
        if not any(part.startswith("_") for part in name.split(".")):
            yield f"{place}:{name}"


def found_by_walking() -> set[str]:
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    found = {name for path in paths for name in drawing(path)}
    return {
        name for name in found if name not in NO_RELEASE and name.split(":")[0] not in NO_RELEASE
    }


def missing(docstrings: list[str]) -> list[str]:
    """Headings that the best docstring of the chain lacks: one has to have them all."""
    lacks = [
        [word for word in HEADINGS if not re.search(rf"^\s*{word}:", text, re.MULTILINE)]
        for text in docstrings
    ]
    return min(lacks, key=len)


def test_the_walk_finds_every_mechanism_that_is_known() -> None:
    found = found_by_walking()
    assert found >= MECHANISMS
    assert len(found) < 20, found  # it tells mechanisms from those who only name a law


@pytest.mark.parametrize("name", sorted(found_by_walking() | MECHANISMS | BEYOND))
def test_a_mechanism_says_what_it_guarantees_assumes_and_why(name: str) -> None:
    place, _, qualified = name.partition(":")
    _, docstrings = definitions(ROOT / place)[qualified]
    assert missing(docstrings) == [], name


def test_a_docstring_without_a_proof_is_noticed() -> None:
    whole = "Draw.\n\nGuarantee:\n    epsilon-DP.\nAssumes: nothing.\nProof: none.\n"
    assert missing([whole]) == []
    assert missing(["Draw.", whole.replace("Proof", "Remark")]) == ["Proof"]
    assert missing(["Guarantee: a.\nAssumes: b.", "Proof: c."]) == ["Proof"]
