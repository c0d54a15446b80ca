"""Rulings: the arbiter alone, once, signed; it names other winners within what is frozen."""

import json

import pytest
from desk_market import DeskMarket
from disputed import check_log, claim, own, rule, scored_market, view

from clearinghouse.canonical import digest
from clearinghouse.errors import ConflictError, InputError, RefusedError
from clearinghouse.ids import new_id
from clearinghouse.log.entries import parse_entry
from clearinghouse.rounds import views
from clearinghouse.signing import VerifyKey, verify_statement


@pytest.fixture
def market(tmp_path):
    with scored_market(tmp_path / "server") as made:
        yield made


def test_only_the_arbiter_rules_and_once(market):
    dispute = claim(market, market.hospital, market.orders[0].id)
    for stranger in (market.hospital, market.sellers[0], market.developers[0]):
        with pytest.raises(RefusedError, match="arbiter"):
            rule(market, dispute, "refund", caller=stranger)
    rule(market, dispute, "pay")
    with pytest.raises(RefusedError, match="decided already"):
        rule(market, dispute, "refund")
    again = claim(market, market.hospital, market.orders[0].id)
    with pytest.raises(ConflictError, match="disputed already"):
        claim(market, market.developers[0], market.orders[0].id)
    assert view(market, again).state == "open"


def test_a_ruling_is_signed_and_its_digest_is_in_the_log(market):
    dispute = claim(market, market.hospital, market.orders[0].id)
    rule(market, dispute, "forfeit")
    found = view(market, dispute).ruling
    key = VerifyKey.from_base64(market.desk.org.public_key)
    statement = verify_statement(
        found["envelope"], {key.key_id: key}, required=frozenset({key.key_id})
    )
    assert statement.predicate["outcome"] == "forfeit"
    with market.read() as tx:
        last = json.loads(tx.log.entries(tx.log.size() - 1, 1)[0])
    assert last["hashes"]["ruling"] == digest(found["envelope"])


# ---------------------------------------------------------------- a purse with another winner


def prizes(market, **named):
    numbers = {"first": 0, "second": 1}
    return {market.runs[numbers[name]].id: amount for name, amount in named.items()}


def test_a_ruling_names_another_winner(market):
    winner, other = market.developers
    dispute = claim(market, other, market.runs[0].id, reason="score")
    with pytest.raises(RefusedError, match="no part of the purse is frozen"):
        rule(market, dispute, "award", prizes=prizes(market, second=1))
    market.settle()
    spent = -market.balance(f"external:{market.hospital.id}")
    done = rule(market, dispute, "award", prizes=prizes(market, second=200_000_000))
    assert done.state == "resolved"
    assert (market.balance(own(winner)), market.balance(own(other))) == (0, 200_000_000)
    assert -market.balance(f"external:{market.hospital.id}") == spent - 100_000_000
    found = view(market, dispute)
    assert (found.frozen_micro, found.ruling["upheld"]) == (0, True)
    moved = {name: found.ruling[name] for name in ("paid_micro", "returned_micro", "prizes")}
    assert moved == {
        "paid_micro": 200_000_000,
        "returned_micro": 100_000_000,
        "prizes": prizes(market, second=200_000_000),
    }
    assert "dispute.resolved" in check_log(market)
    with market.read() as tx:
        entry = parse_entry(tx.log.entries(tx.log.size() - 1, 1)[0])
        shown = views.statement(tx, market.request(tx))
    assert entry.objects["winner_1"] == market.runs[1].id
    assert entry.amounts["prize_1_micro"] == entry.amounts["paid_micro"] == 200_000_000
    assert shown.balanced
    assert shown.award["winners"][0]["run_id"] == market.runs[0].id  # what the rule had said stays
    assert shown.award["ruled"] == [{"dispute": dispute.id, "prizes": moved["prizes"]}]


def test_a_ruling_may_divide_the_purse_and_leave_the_winner_the_greater_part(market):
    dispute = claim(market, market.developers[1], market.runs[1].id, reason="score", remedy="pay")
    market.settle()
    shares = prizes(market, first=180_000_000, second=120_000_000)
    rule(market, dispute, "award", prizes=shares)
    balances = [market.balance(own(org)) for org in market.developers]
    assert balances == [180_000_000, 120_000_000]
    assert view(market, dispute).ruling["upheld"]  # its developer gets more than the rule gave
    check_log(market)


def test_what_the_rule_gave_to_nobody_waits_for_the_developer_that_claims_it(tmp_path):
    made = DeskMarket(tmp_path / "server")
    made.deliver(0, made.orders[0].units)
    made.deliver(1, made.orders[1].units)
    made.confirm()
    made.runs = [made.score(0, "0.710000", "0.650000")]
    developer = made.developers[0]
    dispute = claim(made, developer, made.runs[0].id, reason="score", remedy="pay")
    made.settle()
    assert view(made, dispute).frozen_micro == 300_000_000
    assert made.balance(f"escrow:{made.request_id}") == 0
    rule(made, dispute, "award", prizes={made.runs[0].id: 300_000_000})
    assert made.balance(own(developer)) == 300_000_000
    assert view(made, dispute).ruling["upheld"]
    check_log(made)
    made.close()


def test_prizes_that_do_not_fit_are_refused_and_move_nothing(market):
    dispute = claim(market, market.developers[1], market.runs[0].id, reason="score")
    order = claim(market, market.hospital, market.orders[0].id)
    market.settle()
    before = market.balance(own(market.developers[0]))
    for refused, outcome, named, words in (
        (dispute, "award", {}, "name each winner"),
        (dispute, "award", {new_id("run"): 5}, "no scored run"),
        (dispute, "award", prizes(market, first=1, second=300_000_000), "more are named"),
        (dispute, "pay", prizes(market, second=1), "with the outcome award"),
        (order, "award", prizes(market, second=1), "only a dispute about a score"),
    ):
        with pytest.raises((InputError, RefusedError), match=words):
            rule(market, refused, outcome, prizes=named)
        assert view(market, refused).state == "open"
    assert market.balance(own(market.developers[0])) == before
    assert view(market, dispute).frozen_micro == 300_000_000
