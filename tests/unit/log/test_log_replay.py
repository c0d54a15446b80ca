"""Replay: a whole market told by its entries, and every planted breach of a rule named by entry."""

from dataclasses import replace

import pytest
from told_market import (
    ASKS,
    Market,
    Plant,
    after,
    before,
    by,
    changed,
    instead,
    late_commitment,
    moved,
    without,
)

from clearinghouse.canonical import digest
from clearinghouse.errors import VerificationError
from clearinghouse.ids import new_id
from clearinghouse.log.entries import Entry
from clearinghouse.log.replay import MAX_VIOLATIONS, replay, verify_replay


@pytest.fixture
def market() -> Market:
    return Market()


def test_log_replay_recomputes_a_whole_market(market: Market) -> None:
    found = verify_replay(market.entries)
    assert found.violations == ()
    assert found.epsilon_by_owner == {
        market.hospital.org: 1_250_000,
        **{seller.org: 1_000_000 for seller in market.sellers.values()},
    }
    assert found.epsilon_by_data == {
        market.valset: 1_250_000,
        **dict.fromkeys(market.sources.values(), 1_000_000),
    }
    story = found.requests[market.request]
    assert story.asks == {market.sources[name]: ask for name, ask in ASKS.items()}
    assert story.runs == {market.run: market.model}
    assert (story.escrow_micro, story.purse_micro) == (900_000_000, 300_000_000)
    assert story.closed == market.at("request.closed")
    assert story.failed is False


def test_log_replay_every_prefix_of_a_good_log_is_good(market: Market) -> None:
    """An auditor who comes in the middle of a market finds nothing wrong with it."""
    for size in range(len(market.entries)):
        assert replay(market.entries[:size]).violations == ()


def test_log_replay_a_request_that_failed_has_a_statement_but_no_award(market: Market) -> None:
    cut = market.entries[: market.at("clearing.decided")]
    plain = replace(market.statement(), hashes={"statement": digest(b"statement")})
    found = verify_replay([*cut, plain, market.close(failed=1)])
    assert found.requests[market.request].failed is True


def test_log_replay_a_failed_run_pays_epsilon_and_gets_no_receipt(market: Market) -> None:
    run = new_id("run")
    words = digest({"run": run, "failed": True})
    failed = [market.begin(run), market.release(run, words, fault=market.developer.org)]
    place = market.at("bid.revealed")
    entries = [*market.entries[:place], *failed, *market.entries[place:]]
    assert verify_replay(entries).epsilon_by_owner[market.hospital.org] == 2_000_000
    entries.insert(place + 2, market.receipt(run))
    found = replay(entries).violations
    assert [(item.index, item.problem) for item in found] == [
        (place + 2, f"names {run}, which failed")
    ]


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


def size_twice(market: Market) -> int:
    at = market.at("request.opened")
    market.entries[at:at] = [market.size(), market.size()]
    return at + 1


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
    "receipt number used twice": (used_twice, "was issued before"),
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
    plant, words = PLANTED[name]
    place = plant(market)
    found = replay(market.entries).violations
    assert [item.index for item in found][:1] == [place], [str(item) for item in found]
    at_place = [item.problem for item in found if item.index == place]
    assert any(words in problem for problem in at_place), at_place
    with pytest.raises(VerificationError, match=rf"^log: entry {place} "):
        verify_replay(market.entries)


def test_log_replay_leaving_out_any_entry_is_found_where_a_later_one_needs_it(
    market: Market,
) -> None:
    # Registrations are `verify_entries`' to miss (no key may act without); a confirmation, a
    # receipt and an end that have not come yet are no breach.
    may_lack = {
        "org.registered",
        "delivery.received",
        "receipt.issued",
        "bid.revealed",
        "request.closed",
        "dispute.answered",
        "dispute.resolved",
    }
    for place, entry in enumerate(market.entries[1:], start=1):
        rest = market.entries[:place] + market.entries[place + 1 :]
        assert bool(replay(rest).violations) == (entry.type not in may_lack), entry.type


def test_log_replay_reports_a_flood_up_to_its_limit(market: Market) -> None:
    flood = [market.close() for _ in range(MAX_VIOLATIONS + 50)]
    assert len(replay([*market.entries, *flood]).violations) == MAX_VIOLATIONS
