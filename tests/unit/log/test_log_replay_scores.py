"""Replay: a breach from the models to the end of a request is named by its entry."""

from dataclasses import replace

import pytest
from planting import (
    Plant,
    after,
    before,
    by,
    changed,
    check_blamed,
    instead,
    moved,
    without,
)
from told_market import Market

from clearinghouse.canonical import digest
from clearinghouse.ids import new_id
from clearinghouse.log.entries import Entry


def used_twice(market: Market) -> int:
    """A second run gets a receipt under the first one's number."""
    run, place = new_id("run"), market.at("bid.revealed")
    first = market.entries[market.at("receipt.issued")].objects["receipt"]
    new = [market.begin(run), market.release(run), market.receipt(run, receipt=first)]
    market.entries[place:place] = new
    return place + 2


def plain_statement(market: Market) -> Entry:
    """As of a request that ended early: no prices."""
    return replace(market.statement(), hashes={"statement": digest(b"statement")})


def two_statements(market: Market) -> int:
    market.entries.insert(market.at("request.closed"), plain_statement(market))
    return market.at("request.closed")


def no_award(market: Market) -> int:
    market.entries[market.at("statement.settled")] = plain_statement(market)
    del market.entries[market.at("award.decided")]
    return market.at("request.closed")


def early_statement(market: Market) -> int:
    del market.entries[market.at("statement.settled")]
    market.entries.insert(market.at("award.decided"), plain_statement(market))
    return market.at("request.closed")


def one_run_fixed(market: Market) -> int:
    opened = market.at("request.opened")
    amounts = {**market.entries[opened].amounts, "runs": 1}
    market.entries[opened] = replace(market.entries[opened], amounts=amounts)
    first = market.at("run.released")
    other = market.entries[first]
    objects = {**other.objects, "run": new_id("run")}
    market.entries.insert(first + 1, replace(other, objects=objects))
    return first + 1


def paid_in_rho(market: Market, **cost: int) -> int:
    """Runs are fixed at 500 millionths of rho each; the released one costs something else."""
    opened, run = market.at("request.opened"), market.at("run.released")
    amounts = {**market.entries[opened].amounts, "rho_run_micro": 500}
    market.entries[opened] = replace(market.entries[opened], amounts=amounts)
    market.entries[run] = replace(market.entries[run], amounts=cost)
    return run


PLANTED: dict[str, tuple[Plant, str]] = {
    # score
    "model before the clearing": (
        moved("model.submitted", "clearing.decided", "model.submitted"),
        "came before the clearing",
    ),
    "model submitted twice": (after("model.submitted", lambda m: m.submit()), "submitted before"),
    "release of a model never submitted": (
        without("model.submitted", "bid.committed", "bid.revealed", blamed="run.begun", number=1),
        "was never submitted to this request",
    ),
    "run begun on a set never tested": (
        without("checks.begun", blamed="run.begun"),
        "a set that was never tested",
    ),
    "set tested twice": (after("checks.begun", lambda m: m.tests()), "was tested before"),
    "another's set tested": (
        instead("checks.begun", lambda m: m.tests(valset=new_id("val"))),
        "tests another set",
    ),
    "target that never began": (
        instead("run.begun", lambda m: m.begin_target(run=new_id("run")), blamed="target.released"),
        "released without having begun",
    ),
    "run begun twice, with another seed": (
        before("run.released", lambda m: m.begin()),
        "was begun before",
    ),
    "run begun for another model": (
        after("run.begun", lambda m: m.begin(model=new_id("mod"))),
        "was never submitted to this request",
    ),
    "run begun under no version": (
        changed("run.begun", amounts={"protocol": 0}),
        "names no version of the scoring protocol",
    ),
    "release of a run that never began": (
        before("award.decided", lambda m: m.release(new_id("run"))),
        "released without having begun",
    ),
    "fault in a run that did not fail": (
        changed("run.released", objects={"fault": new_id("org")}),
        "in a run that did not fail",
    ),
    "release of other bytes than submitted": (
        changed("run.released", hashes={"model": digest(b"other model")}),
        "other bytes than were submitted",
    ),
    "release from another set": (
        changed("run.released", objects={"valset": new_id("val")}),
        "another set than the request's",
    ),
    "run released twice": (
        after("run.released", lambda m: m.release()),
        "its rows would pay twice",
    ),
    "run released under the target's name": (
        instead("run.released", lambda m: m.release(m.target_run)),
        "its rows would pay twice",
    ),
    "release that names no run's request": (
        changed("run.released", objects={"request": None}),
        "names no request",
    ),
    "release after the award": (
        after("award.decided", lambda m: m.release(new_id("run"))),
        "released after the award",
    ),
    "receipt for a run never released": (
        without("run.released", blamed="receipt.issued"),
        "which was not released before",
    ),
    "receipt before its release": (
        moved("receipt.issued", "run.released", "receipt.issued"),
        "which was not released before",
    ),
    "second receipt of a run": (
        after("receipt.issued", lambda m: m.receipt()),
        "has a receipt already",
    ),
    "receipt for another model": (
        changed("receipt.issued", objects={"model": new_id("mod")}),
        "names another model or set",
    ),
    "a run beyond those that were fixed": (one_run_fixed, "after all 1 runs"),
    "a run paid in the other lane": (
        lambda m: paid_in_rho(m, epsilon_micro=750_000),
        "takes 0 of rho; the request says 500 a run",
    ),
    "a run paid at another rho": (
        lambda m: paid_in_rho(m, epsilon_micro=0, rho_micro=501),
        "takes 501 of rho",
    ),
    "a run paid in both lanes": (
        lambda m: paid_in_rho(m, epsilon_micro=1, rho_micro=500),
        "from both lanes",
    ),
    "receipt number used twice": (used_twice, "was issued before"),
    # bids
    "bid on a model never submitted": (
        changed("bid.committed", objects={"model": new_id("mod")}),
        "was never submitted",
    ),
    "bid committed twice": (
        after("bid.committed", lambda m: m.commit_bid()),
        "has committed a bid already",
    ),
    "bid for another developer": (
        changed("bid.committed", objects={"owner": new_id("org")}),
        "not by the owner",
    ),
    "bid opened as another": (
        instead("bid.revealed", lambda m: m.reveal_bid(1)),
        "is not the one that was committed",
    ),
    "bid opened twice": (after("bid.revealed", lambda m: m.reveal_bid()), "was opened before"),
    "bid never committed": (
        without("bid.committed", blamed="bid.revealed"),
        "that was never committed",
    ),
    "bid below zero": (changed("bid.revealed", amounts={"ask": "-1.00"}), "must be a decimal"),
    "bid committed after others were opened": (
        moved("bid.revealed", "bid.committed", "bid.revealed"),
        "that was never committed",
    ),
    "score after the bids were opened": (
        after("bid.revealed", lambda m: m.release(new_id("run"))),
        "released after bids were opened",
    ),
    "bid opened after the award": (
        moved("bid.revealed", "statement.settled", "bid.revealed"),
        "opened after the award",
    ),
    # settle and audit
    "second award": (after("award.decided", lambda m: m.award()), "was awarded at entry"),
    "award without a purse": (
        changed("award.decided", amounts={"purse_micro": None}),
        "no purse is recorded",
    ),
    "award above the escrow": (
        instead("award.decided", lambda m: m.award(purse_micro=900_000_001)),
        "out of an escrow of",
    ),
    "award before the clearing": (
        moved("award.decided", "clearing.decided", "award.decided"),
        "awarded before the clearing",
    ),
    "statement before the award": (
        moved("statement.settled", "award.decided", "statement.settled"),
        "settled before the award",
    ),
    "second statement": (
        after("statement.settled", lambda m: m.statement()),
        "settled before, at entry",
    ),
    "purse for nothing": (
        without("run.released", "receipt.issued", blamed="award.decided"),
        "though no run was released",
    ),
    "two statements of one end": (
        two_statements,
        "has 2 statements",
    ),
    "done without an award": (no_award, "closed as done without an award"),
    "statement without prices before the award": (early_statement, "came before the award"),
    # disputes
    "dispute of no request": (
        changed("dispute.opened", objects={"request": new_id("req")}),
        "was never opened",
    ),
    "dispute opened by another": (
        instead("dispute.opened", lambda m: by(m.developer, m.claim())),
        "not by who opens it",
    ),
    "dispute opened twice": (after("dispute.opened", lambda m: m.claim()), "is open already"),
    "second dispute of one thing": (
        after("dispute.opened", lambda m: m.claim(dispute=new_id("dsp"))),
        "is disputed already",
    ),
    "answer due before the claim": (
        changed("dispute.opened", amounts={"answer_by": 1}),
        "before it was opened",
    ),
    "dispute never opened": (
        without("dispute.opened", blamed="dispute.answered"),
        "was never opened",
    ),
    "answer by another": (
        instead("dispute.answered", lambda m: by(m.hospital, m.reply())),
        "not by the respondent",
    ),
    "answer given twice": (after("dispute.answered", lambda m: m.reply()), "already"),
    "ruling by a party": (
        instead("dispute.resolved", lambda m: by(m.hospital, m.ruling())),
        "which is not the arbiter",
    ),
    "second ruling": (after("dispute.resolved", lambda m: m.ruling()), "was decided at entry"),
    "answer after the ruling": (
        after("dispute.resolved", lambda m: m.reply()),
        "was decided at entry",
    ),
    "expired before its deadline": (
        instead("dispute.resolved", lambda m: m.ruling("dispute.expired")),
        "expired before its deadline",
    ),
    "ruling that says nothing": (
        changed("dispute.resolved", amounts={"upheld": 2}),
        "whether the claim was upheld",
    ),
    "ruling about another request": (
        changed("dispute.resolved", objects={"request": new_id("req")}),
        "was never opened",
    ),
    "closed without a statement": (
        without("statement.settled", blamed="request.closed"),
        "closed without a statement",
    ),
    "closed as done without an award": (
        without("award.decided", blamed="statement.settled"),
        "settled before the award",
    ),
    "closed without saying how": (
        changed("request.closed", amounts={"failed": None}),
        "does not say whether",
    ),
    "closed twice": (after("request.closed", lambda m: m.close()), "was closed at entry"),
    "act after the end": (after("request.closed", lambda m: m.receipt()), "was closed at entry"),
    "act on a request never opened": (
        changed("award.decided", objects={"request": new_id("req")}),
        "was never opened",
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_log_replay_names_the_entry_that_breaks_a_rule(market: Market, name: str) -> None:
    check_blamed(market, *PLANTED[name])
