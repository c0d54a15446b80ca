"""Double entry: transfers sum to zero, happen once, and never overdraw an inside account."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearinghouse.errors import RefusedError
from clearinghouse.store.store import Store


def test_an_unbalanced_or_empty_transfer_is_a_mistake(store, request_id):
    for amounts in ({"external:a": -5, "org:b": 4}, {"external:a": 0}, {}):
        with pytest.raises(ValueError, match="sum to zero"), store.write() as tx:
            tx.ledger.transfer("t", request_id, amounts)
    with store.read() as tx:
        assert tx.ledger.postings(request_id) == ()


def test_a_transfer_counts_once(store, request_id):
    with store.write() as tx:
        tx.ledger.transfer("t", request_id, {"external:a": -5, "org:b": 5, "org:c": 0})
    with pytest.raises(RefusedError, match="posted before"), store.write() as tx:
        tx.ledger.transfer("t", request_id, {"external:a": -5, "org:b": 5})
    with store.read() as tx:
        assert tx.ledger.balance("org:b") == 5
        assert tx.ledger.balance("external:a") == -5
        assert len(tx.ledger.postings(request_id)) == 2


def test_only_the_outside_may_be_below_zero(store, request_id):
    with pytest.raises(RefusedError, match="too little"), store.write() as tx:
        tx.ledger.transfer("t", request_id, {"org:a": -1, "org:b": 1})
    with store.read() as tx:
        assert tx.ledger.balance("org:b") == 0


ACCOUNTS = ("external:x", "escrow:r", "org:a", "org:b")


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(ACCOUNTS), st.sampled_from(ACCOUNTS), st.integers(0, 50)),
        max_size=12,
    )
)
def test_money_is_conserved_whatever_is_tried(tmp_path_factory, moves):
    store = Store(f"sqlite:///{tmp_path_factory.mktemp('ledger') / 'l.db'}")
    request_id = _request(store)
    for number, (payer, payee, amount) in enumerate(moves):
        try:
            with store.write() as tx:
                tx.ledger.transfer(f"t{number}", request_id, {payer: -amount, payee: amount})
        except (ValueError, RefusedError):
            continue
    with store.read() as tx:
        postings = tx.ledger.postings(request_id)
        balances = {account: tx.ledger.balance(account) for account in ACCOUNTS}
    store.close()
    assert sum(balances.values()) == 0
    assert all(balances[account] >= 0 for account in ACCOUNTS[1:])
    for account in ACCOUNTS:
        posted = sum(item.amount_micro for item in postings if item.account == account)
        assert posted == balances[account]


def _request(store):
    from clearinghouse.ids import new_id
    from clearinghouse.messages.intake import OpenRequest
    from clearinghouse.store.records import Org, Request, SchemaRecord, Valset

    org = Org(new_id("org"), "h", "hospital", new_id("key"), "x", None)
    valset = new_id("val")
    terms = OpenRequest.model_construct(valset_id=valset)
    with store.write() as tx:
        tx.parties.add(org)
        tx.cohorts.add_schema(SchemaRecord("sch_1", "d", "{}"))
        tx.cohorts.add_valset(Valset(valset, org.id, "sch_1", "{}"))
        request = Request(new_id("req"), org.id, valset, terms, "0", "match", "running", "", 0)
        tx.requests.add(request, [], 0.0)
    return request.id
