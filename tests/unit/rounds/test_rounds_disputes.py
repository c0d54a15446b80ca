"""Disputes: money freezes, silence admits, deadlines decide; all of it is logged."""

import pytest
from disputed import check_log, claim, own, paid, rule, scored_market, view

from clearinghouse.errors import ConflictError, InputError, NotFoundError, RefusedError
from clearinghouse.ids import new_id
from clearinghouse.messages.disputes import AnswerDispute
from clearinghouse.rounds import disputes, findings, outcomes, pipeline, rulings
from clearinghouse.rounds.releases import catch


@pytest.fixture
def market(tmp_path):
    with scored_market(tmp_path / "server") as made:
        yield made


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
