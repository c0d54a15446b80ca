"""Double entry: transfers sum to zero, happen once, and never overdraw an inside account."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clearinghouse.errors import RefusedError
from clearinghouse.ids import new_id


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


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 50)),
        max_size=12,
    )
)
def test_money_is_conserved_whatever_is_tried(store, request_id, moves):
    part = new_id("req")  # every example has accounts of its own
    accounts = tuple(f"{name}:{part}" for name in ("external", "escrow", "org:a", "org:b"))
    for number, (payer, payee, amount) in enumerate(moves):
        change = {accounts[payer]: -amount, accounts[payee]: amount}
        try:
            with store.write() as tx:
                tx.ledger.transfer(f"{part}:{number}", request_id, change)
        except (ValueError, RefusedError):
            continue
    with store.read() as tx:
        postings = [item for item in tx.ledger.postings(request_id) if part in item.account]
        balances = {account: tx.ledger.balance(account) for account in accounts}
    assert sum(balances.values()) == 0
    assert all(balances[account] >= 0 for account in accounts[1:])
    for account in accounts:
        posted = sum(item.amount_micro for item in postings if item.account == account)
        assert posted == balances[account]


def test_a_name_that_only_resembles_the_outside_cannot_be_overdrawn(store, request_id):
    for name in ("EXTERNAL:a", "external", "externals:a", " external:a"):
        with pytest.raises(RefusedError, match="too little"), store.write() as tx:
            tx.ledger.transfer(name, request_id, {name: -1, "org:b": 1})


def test_postings_come_in_one_order_whatever_language_the_server_speaks(store, request_id):
    names = ["a:b", "a_b", "B:a", "ab", "a:B", "é", "Z", "a-b"]
    with store.write() as tx:
        for name in names:
            tx.ledger.transfer(name, request_id, {"external:x": -1, "org:b": 1})
    with store.read() as tx:
        found = [item.transfer for item in tx.ledger.postings(request_id)]
    assert found[::2] == found[1::2] == sorted(names)


def test_amounts_beyond_32_bits_are_kept(store, request_id):
    large = 2**53 - 1
    with store.write() as tx:
        tx.ledger.transfer("t", request_id, {"external:a": -large, "org:b": large})
    with store.read() as tx:
        assert tx.ledger.balance("org:b") == large
