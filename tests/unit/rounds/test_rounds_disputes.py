"""Disputes: money freezes, silence admits, a ruling moves exactly what was frozen; all logged."""

import json

import pytest
from desk_market import DeskMarket

from clearinghouse.canonical import digest
from clearinghouse.errors import ConflictError, InputError, NotFoundError, RefusedError
from clearinghouse.ids import new_id
from clearinghouse.log.entries import parse_entry
from clearinghouse.log.replay import replay
from clearinghouse.messages.disputes import AnswerDispute, OpenDispute, ResolveDispute
from clearinghouse.rounds import disputes, findings, outcomes, pipeline, rulings, views
from clearinghouse.rounds.releases import catch
from clearinghouse.signing import VerifyKey, verify_statement
from valuation.ladders import bound


@pytest.fixture
def market(tmp_path):
    made = DeskMarket(tmp_path / "server")
    made.deliver(0, made.orders[0].units)
    made.deliver(1, made.orders[1].units - 1)
    made.confirm()
    made.runs = [made.score(0), made.score(1, "0.800000", "0.750000")]
    yield made
    made.close()


def claim(market, caller, subject, reason="delivery", remedy="refund", **more):
    message = OpenDispute(
        request_id=market.request_id,
        subject=subject,
        reason=reason,
        remedy=remedy,
        words="the labels are invented",
        evidence={"finding": "7" * 64},
        **more,
    )
    with market.write() as tx:
        return disputes.claim(tx, market.desk, caller, market.request(tx), message)


def rule(market, dispute, outcome, caller=None, **more):
    with market.write() as tx:
        return rulings.resolve(
            tx,
            market.desk,
            caller or market.desk.org,
            tx.disputes.get(dispute.id),
            ResolveDispute(outcome=outcome, words="so it is", **more),
        )


def view(market, dispute):
    with market.read() as tx:
        return disputes.view(tx, tx.disputes.get(dispute.id))


def own(org):
    return f"org:{org.id}"


def paid(market, number):
    order = market.orders[number]
    return bound(order.ladder, order.units - number)


def check_log(market):
    with market.read() as tx:
        entries = [parse_entry(body) for body in tx.log.entries(0, 1000)]
    kinds = [entry.type for entry in entries]
    # The market was put together without its earlier steps; its disputes must be in order.
    wrong = [item for item in replay(entries).violations if item.type.startswith("dispute")]
    assert wrong == []
    return kinds


def test_disputed_payments_stay_frozen_until_the_ruling(market):
    seller, customer = market.sellers[0], market.hospital
    dispute = claim(market, customer, market.orders[0].delivery_id)
    assert dispute.respondent_id == seller.id
    market.settle()
    assert market.balance(own(seller)) == 0
    assert market.balance(own(market.sellers[1])) == paid(market, 1)
    assert view(market, dispute).frozen_micro == paid(market, 0)
    assert market.balance(f"escrow:{market.request_id}") == 0
    spent = -market.balance(f"external:{customer.id}")
    done = rule(market, dispute, "refund")
    assert done.state == "resolved"
    assert market.balance(own(seller)) == 0
    assert -market.balance(f"external:{customer.id}") == spent - paid(market, 0)
    assert view(market, dispute).frozen_micro == 0
    assert "dispute.resolved" in check_log(market)


@pytest.mark.parametrize("outcome", ["pay", "refund", "forfeit"])
def test_money_that_was_paid_already_is_frozen_as_far_as_it_is_there(market, outcome):
    seller, customer = market.sellers[0], market.hospital
    market.settle()
    had, spent = market.balance(own(seller)), -market.balance(f"external:{customer.id}")
    dispute = claim(market, customer, market.orders[0].id, remedy="forfeit")
    assert market.balance(own(seller)) == 0
    assert view(market, dispute).frozen_micro == had == paid(market, 0)
    rule(market, dispute, outcome)
    back = had if outcome != "pay" else 0
    assert market.balance(own(seller)) == had - back
    assert -market.balance(f"external:{customer.id}") == spent - back
    with market.read() as tx:
        found = outcomes.view(tx, market.desk, seller.id)
    broken = [item for item in found.outcomes if item.kind == "dispute"]
    assert [item.good for item in broken] == ([False] if outcome != "pay" else [])


def test_a_deposit_is_lost_by_forfeit_only(market):
    seller, order = market.sellers[0], market.orders[0]
    for outcome in ("refund", "forfeit"):
        claimed = claim(market, market.hospital, order.id, remedy="forfeit")
        name = f"{market.request_id}:deposit-{outcome}:{order.id}"
        with market.write() as tx:
            request = market.request(tx)
            account = disputes.payee(tx, request, f"deposit:{order.id}", own(seller))
            assert account == f"frozen:{claimed.id}:deposit:{own(seller)}"
            tx.ledger.transfer(name, request.id, {"external:x": -9, account: 9})
        before = market.balance(own(seller))
        rule(market, claimed, outcome)
        assert market.balance(own(seller)) - before == (9 if outcome == "refund" else 0)
    # Not to the customer: it must not gain by disputing more than it would have paid.
    assert market.balance(disputes.fund(market.desk.org.id)) == 9


def test_a_disputed_score_freezes_the_purse(market):
    winner, other = market.developers
    dispute = claim(market, other, market.runs[0].id, reason="score")
    market.settle()
    assert market.balance(own(winner)) == 0
    assert view(market, dispute).frozen_micro == 300_000_000
    rule(market, dispute, "pay")
    assert market.balance(own(winner)) == 300_000_000


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


def test_disputes_of_one_second_keep_their_order(market):
    subjects = [market.orders[1].id, market.runs[0].id, market.orders[0].id, market.runs[1].id]
    for subject in subjects:
        reason = "score" if subject.startswith("run_") else "delivery"
        claim(market, market.hospital, subject, reason=reason)
    with market.read() as tx:
        found = tx.disputes.of(market.request_id)
    assert len({item.opened_s for item in found}) == 1
    assert [item.subject for item in found] == subjects


def test_a_sellers_claim_keeps_its_full_price_from_the_refund(market):
    """The recipients counted one record too few, says the seller."""
    seller, order = market.sellers[1], market.orders[1]
    dispute = claim(market, seller, order.id, reason="payment", remedy="pay")
    assert dispute.respondent_id == market.hospital.id
    market.settle()
    assert market.balance(own(seller)) == 0
    assert view(market, dispute).frozen_micro == order.payment_micro
    rule(market, dispute, "pay")
    assert market.balance(own(seller)) == order.payment_micro
    with market.read() as tx:
        found = outcomes.view(tx, market.desk, market.hospital.id)
    assert [item.good for item in found.outcomes if item.kind == "dispute"] == [False]


# ---------------------------------------------------------------- states and deadlines


def test_silence_admits_the_claim(market):
    dispute = claim(market, market.hospital, market.orders[0].id)
    market.settle()
    market.clock.advance(7 * 86400 - 1)
    pipeline.due(market.desk)
    assert view(market, dispute).state == "open"
    market.clock.advance(2)
    pipeline.due(market.desk)
    found = view(market, dispute)
    assert (found.state, found.frozen_micro) == ("expired", 0)
    assert found.ruling["upheld"]
    assert found.ruling["returned_micro"] == paid(market, 0)
    assert "dispute.expired" in check_log(market)


def test_a_claim_without_a_ruling_fails(market):
    dispute = claim(market, market.hospital, market.orders[0].id)
    with market.write() as tx:
        answered = rulings.answer(
            tx, market.desk, market.sellers[0], dispute, AnswerDispute(words="they are not")
        )
    assert (answered.state, answered.deadline) == ("answered", dispute.opened_s + 30 * 86400)
    market.settle()
    market.clock.advance(30 * 86400 + 1)
    pipeline.due(market.desk)
    found = view(market, dispute)
    assert (found.state, found.ruling["upheld"]) == ("expired", False)
    assert market.balance(own(market.sellers[0])) == paid(market, 0)
    assert check_log(market).count("dispute.answered") == 1


def test_answers_come_from_the_respondent_once_and_in_time(market):
    dispute = claim(market, market.hospital, market.orders[0].id)
    said = AnswerDispute(words="no")
    with market.write() as tx:
        with pytest.raises(RefusedError, match="only org_"):
            rulings.answer(tx, market.desk, market.hospital, dispute, said)
        first = rulings.answer(tx, market.desk, market.sellers[0], dispute, said)
        assert rulings.answer(tx, market.desk, market.sellers[0], first, said) == first
        other = AnswerDispute(words="yes")
        with pytest.raises(ConflictError, match="another answer"):
            rulings.answer(tx, market.desk, market.sellers[0], first, other)
    late = claim(market, market.hospital, market.orders[1].id)
    market.clock.advance(8 * 86400)
    with market.write() as tx, pytest.raises(RefusedError, match="no longer"):
        rulings.answer(tx, market.desk, market.sellers[1], late, said)


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


def test_claims_that_do_not_fit_are_refused(market):
    order, run = market.orders[0], market.runs[0]
    with pytest.raises(InputError, match="by its run"):
        claim(market, market.hospital, run.id)
    with pytest.raises(InputError, match="by its run"):
        claim(market, market.hospital, order.id, reason="score")
    with pytest.raises(NotFoundError, match="no order or run"):
        claim(market, market.hospital, new_id("ord"))
    with pytest.raises(NotFoundError, match="no receipt or delivery"):
        claim(market, market.hospital, order.id, receipts=[new_id("rcp")])
    with pytest.raises(RefusedError, match="can ask for payment"):
        claim(market, market.sellers[0], order.id)
    with pytest.raises(RefusedError, match="can ask for payment"):
        claim(market, market.hospital, order.id, remedy="pay")
    market.settle()
    market.clock.advance(31 * 86400)  # nobody cosigns the log: the audit ends by its deadline
    pipeline.due(market.desk)
    while pipeline.advance(market.desk, market.request_id):
        pass
    market.clock.advance(31 * 86400)
    with pytest.raises(RefusedError, match="30 days only"):
        claim(market, market.hospital, order.id)


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


# ---------------------------------------------------------------- steps and evidence


def test_a_failed_test_opens_a_dispute_with_a_way_back(market):
    run = market.runs[1]
    with market.write() as tx:
        catch(tx, market.desk, market.request(tx), run, "digits are no digits")
        assert tx.parties.get(market.hospital.id).suspended
        (dispute,) = tx.disputes.of(market.request_id)
    assert (dispute.reason, dispute.opener_id) == ("test", market.desk.org.id)
    assert dispute.respondent_id == market.hospital.id
    rule(market, dispute, "pay")
    with market.read() as tx:
        assert tx.parties.get(market.hospital.id).suspended == ""
    with market.write() as tx:
        catch(tx, market.desk, market.request(tx), market.runs[0], "again")
        (second,) = tx.disputes.pending(market.request_id)
    rule(market, second, "forfeit")
    with market.read() as tx:
        assert tx.parties.get(market.hospital.id).suspended
        found = outcomes.view(tx, market.desk, market.hospital.id)
    assert [item.good for item in found.outcomes] == [False]
    check_log(market)


def test_an_upheld_failure_can_be_forgiven(market):
    with market.write() as tx:
        catch(tx, market.desk, market.request(tx), market.runs[1], "digits are no digits")
        (dispute,) = tx.disputes.of(market.request_id)
    rule(market, dispute, "forfeit", reinstate=True)
    with market.read() as tx:
        assert not tx.parties.get(market.hospital.id).suspended


def test_what_cannot_be_replayed_says_so(market):
    dispute = claim(market, market.hospital, market.orders[0].id)
    assert findings.examine(market.desk)
    assert not findings.examine(market.desk)
    assert view(market, dispute).finding["verdict"] == "nothing to replay"


# ---------------------------------------------------------------- reputation


def test_reputation_comes_from_attested_outcomes_alone(market):
    with market.read() as tx:
        fresh = outcomes.view(tx, market.desk, market.sellers[0].id)
    assert (fresh.status, fresh.standing_micro) == ("new", 100_000)
    market.settle()
    with market.read() as tx:
        found = outcomes.view(tx, market.desk, market.sellers[0].id)
        hospital = outcomes.view(tx, market.desk, market.hospital.id)
        developer = outcomes.view(tx, market.desk, market.developers[0].id)
    attesters = {org.id for org in market.developers}
    assert {item.attester_id for item in found.outcomes} == attesters
    assert all(item.good for item in found.outcomes)
    assert found.standing_micro > 100_000
    assert [item.good for item in hospital.outcomes] == [True]
    assert developer.outcomes == []  # no receipt, no outcome
    market.clock.advance(180 * 86400)
    with market.read() as tx:
        later = outcomes.view(tx, market.desk, market.sellers[0].id)
    assert later.good_micro == found.good_micro // 2
    assert later.standing_micro < found.standing_micro
