"""Replay: a breach from the intake to the deliveries is named by its entry."""

import pytest
from planting import (
    Plant,
    after,
    before,
    by,
    changed,
    check_blamed,
    instead,
    late_commitment,
    moved,
    without,
)
from told_market import Market

from clearinghouse.canonical import digest
from clearinghouse.ids import new_id


def size_twice(market: Market) -> int:
    at = market.at("request.opened")
    market.entries[at:at] = [market.size(), market.size()]
    return at + 1


PLANTED: dict[str, tuple[Plant, str]] = {
    # intake
    "source registered twice": (
        after("source.registered", lambda m: m.entries[m.at("source.registered")]),
        "registered already",
    ),
    "source registered for another": (
        changed("source.registered", objects={"owner": new_id("org")}),
        "not by the owner",
    ),
    "summary of an unknown source": (
        without("source.registered", blamed="summary.released"),
        "is no registered source",
    ),
    "second summary of a source": (
        before("valset.sealed", lambda m: m.summary("a")),
        "has released its summary already",
    ),
    "size of a set released twice": (size_twice, "was released before"),
    "size of a set never sealed": (
        before("source.registered", lambda m: m.size()),
        "is no source or sealed set",
    ),
    "set sealed twice": (
        after("valset.sealed", lambda m: m.entries[m.at("valset.sealed")]),
        "is sealed already",
    ),
    "request on a set never sealed": (
        without("valset.sealed", blamed="request.opened"),
        "is no sealed set of that owner",
    ),
    "request without an escrow": (
        changed("request.opened", amounts={"escrow_micro": None}),
        "no escrow is recorded",
    ),
    "request opened twice": (
        after("request.opened", lambda m: m.entries[m.at("request.opened")]),
        "is open already",
    ),
    "request of another's set": (
        after(
            "request.opened",
            lambda m: m.developer.write(
                "request.opened",
                objects={
                    "request": new_id("req"),
                    "valset": m.valset,
                    "owner": m.developer.org,
                },
                hashes={"terms": digest(b"terms")},
                amounts={"escrow_micro": 1},
            ),
        ),
        "is no sealed set of that owner",
    ),
    "request never opened": (
        without("request.opened", blamed="checks.begun"),
        "was never opened",
    ),
    # match and clear
    "second target": (after("target.released", lambda m: m.target()), "was released at entry"),
    "inputs frozen without a target": (
        without("target.released", blamed="inputs.frozen"),
        "no target was released before",
    ),
    "inputs frozen again": (after("inputs.frozen", lambda m: m.frozen()), "were frozen before"),
    "inputs frozen after an ask": (
        moved("inputs.frozen", "ask.revealed", "ask.committed"),
        "before the inputs were frozen",
    ),
    "ask opened before it was committed": (
        before("ask.committed", lambda m: m.reveal("a")),
        "opens an ask that it never committed",
    ),
    "ask committed after others were opened": (late_commitment, "committed after asks were opened"),
    "ask committed twice": (
        after("ask.committed", lambda m: m.commit("a")),
        "has committed its ask already",
    ),
    "ask committed for another's source": (
        changed("ask.committed", objects={"source": new_id("src")}),
        "is no registered source of",
    ),
    "ask of a source without a summary": (
        without("summary.released", blamed="ask.committed"),
        "has not released its summary",
    ),
    "ask opened as another": (
        instead("ask.revealed", lambda m: m.reveal("a", ask=1_990_000)),
        "is not the one it committed",
    ),
    "ask opened twice": (
        after("ask.revealed", lambda m: m.reveal("a")),
        "has opened its ask already",
    ),
    "ask opened after the clearing": (
        after("clearing.decided", lambda m: m.reveal("b")),
        "opened after the clearing",
    ),
    "second clearing": (
        after("clearing.decided", lambda m: m.clearing()),
        "was cleared at entry",
    ),
    "clearing on other inputs": (
        instead("clearing.decided", lambda m: m.clearing(b"other inputs")),
        "other inputs than the frozen ones",
    ),
    "clearing by somebody else": (
        instead("clearing.decided", lambda m: by(m.hospital, m.clearing())),
        "which is not the operator",
    ),
    "no clearing at all": (
        without("clearing.decided", blamed="use.ordered"),
        "used before the clearing",
    ),
    "ask opened by another seller": (
        instead("ask.revealed", lambda m: by(m.sellers["b"], m.reveal("a"))),
        "is no registered source of",
    ),
    "ask opened below zero": (
        changed("ask.revealed", amounts={"ask": "-1.00"}),
        "must be a decimal",
    ),
    "clearing without frozen inputs": (
        without("inputs.frozen", "ask.committed", "ask.revealed", blamed="clearing.decided"),
        "before its inputs were frozen",
    ),
    "clearing without asks": (
        without("ask.committed", "ask.revealed", blamed="clearing.decided"),
        "without a committed ask",
    ),
    "target of no run": (changed("target.released", objects={"run": None}), "names no run"),
    # deliver
    "delivery of what was not sold": (
        without("ask.revealed", blamed="delivery.sealed"),
        "opened no ask here",
    ),
    "delivery by another seller": (
        instead("delivery.sealed", lambda m: by(m.sellers["b"], m.seal("a"))),
        "is no registered source of",
    ),
    "delivery sealed twice": (after("delivery.sealed", lambda m: m.seal("a")), "sealed before"),
    "delivery of more than was ordered": (
        instead("delivery.sealed", lambda m: m.seal("a", real=31)),
        "real records up to them",
    ),
    "delivery without its count": (
        changed("delivery.sealed", amounts={"real": None}),
        "needs whole units",
    ),
    "delivery never sealed": (
        without("delivery.sealed", blamed="delivery.received"),
        "was never sealed for this request",
    ),
    "delivery received as other bytes": (
        instead("delivery.received", lambda m: m.receive("a", b"other bytes")),
        "other bytes than were sealed",
    ),
    "seller confirms its own delivery": (
        before("delivery.received", lambda m: m.receive("a", by=m.sellers["a"])),
        "confirms its own delivery",
    ),
    "delivery confirmed twice": (
        after("delivery.received", lambda m: m.receive("a")),
        "has confirmed",
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_log_replay_names_the_entry_that_breaks_a_rule(market: Market, name: str) -> None:
    check_blamed(market, *PLANTED[name])
