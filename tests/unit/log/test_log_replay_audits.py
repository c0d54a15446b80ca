"""Replay of a log with audits: by the model's owner, once, of a run that has ended."""

from collections.abc import Callable

import pytest
from planting import by
from told_market import Market

from clearinghouse.canonical import digest
from clearinghouse.ids import new_id
from clearinghouse.log.entries import Entry
from clearinghouse.log.replay import replay, verify_replay


def found(market: Market, place: int, *entries: Entry) -> list[tuple[int, str]]:
    market.entries[place:place] = entries
    return [(item.index, item.problem) for item in replay(market.entries).violations]


@pytest.mark.parametrize("kind", ["run.released", "receipt.issued", "request.closed"])
def test_a_run_may_be_audited_from_its_release_on_also_after_the_end(
    market: Market, kind: str
) -> None:
    assert found(market, market.at(kind) + 1, market.audit()) == []


def test_a_refuted_run_names_who_is_at_fault(market: Market) -> None:
    fault = market.operator.org
    market.entries.append(market.audit(0, fault=fault))
    verify_replay(market.entries)
    market.entries[-1] = market.audit(0)
    (problem,) = replay(market.entries).violations
    assert "without naming who is at fault" in problem.problem


def test_a_failed_run_may_be_audited(market: Market) -> None:
    run = new_id("run")
    words = digest({"run": run, "failed": True})
    failed = [market.begin(run), market.release(run, words), market.audit(run=run)]
    assert found(market, market.at("bid.revealed"), *failed) == []


BREACHES: dict[str, tuple[Callable[[Market], Entry], str]] = {
    "by another than it names": (
        lambda m: by(m.hospital, m.audit()),
        "not by the owner",
    ),
    "by the hospital in its own name": (
        lambda m: by(m.hospital, m.audit(owner=m.hospital.org)),
        "is not that owner's model",
    ),
    "by the operator in its own name": (
        lambda m: by(m.operator, m.audit(owner=m.operator.org)),
        "is not that owner's model",
    ),
    "of a run that never began": (
        lambda m: m.audit(run=new_id("run")),
        "without having begun",
    ),
    "of the target": (
        lambda m: m.audit(run=m.target_run),
        "begun for another request or model",
    ),
    "of another model": (
        lambda m: m.audit(model=new_id("mod")),
        "begun for another request or model",
    ),
    "neither reproduced nor refuted": (lambda m: m.audit(2), "does not say whether"),
}


@pytest.mark.parametrize("name", BREACHES)
def test_a_breach_is_named_by_its_entry(market: Market, name: str) -> None:
    make, words = BREACHES[name]
    place = market.at("receipt.issued")
    problems = [text for index, text in found(market, place, make(market)) if index == place]
    assert any(words in text for text in problems), problems


def test_before_the_end_of_the_run_and_twice_are_breaches(market: Market) -> None:
    place = market.at("run.released")
    early = found(market, place, market.audit())
    assert early[0] == (place, f"{market.run} was audited before it was released or failed")
    market.entries.append(market.audit())
    last = replay(market.entries).violations[-1]
    assert (last.index, last.problem) == (
        len(market.entries) - 1,
        f"{market.run} was audited before",
    )
