"""While models are scored, a score is seen by its owner and the hospital only."""

import pytest
from log_world import make_world

from clearinghouse.ids import new_id
from clearinghouse.store.records import Receipt, Run


@pytest.fixture
def released(market, app, party):
    """A released run of the market's developer, in a request that is still scoring."""
    runner = app.state.runner
    runner._stop.set()  # nobody moves the request on meanwhile
    app.state.desk.bell.ring()
    runner._thread.join()
    run = Run(
        new_id("run"),
        market.request_id,
        "score",
        0,
        "running",
        "",
        "00" * 32,
        "00" * 16,
        new_id("mod"),
        {"org_id": market.developer.org_id, "name": "m", "kind": "linear", "digest": "a" * 64},
        {},
    )
    result = {"counts": [[1, 2], [3, 4]], "scorecard": {"auc": "0.9"}, "epsilon_micro": 5}
    with app.state.desk.store.write() as tx:
        tx.requests.enter(market.request_id, "score", 1.0)
        tx.runs.add(run)
        tx.runs.release(run.id, result)
        body = make_world().receipt().decode()
        tx.runs.add_receipt(Receipt(new_id("rcp"), market.request_id, run.id, body))
    return run


def seen_by(party, market):
    (run,) = party.get(f"/v1/requests/{market.request_id}/runs").json()["runs"]
    return run


def test_scores_are_not_shown_to_others_before_all_are_there(market, released, app):
    for insider in (market.hospital, market.developer):
        run = seen_by(insider, market)
        assert run["scorecard"] == {"auc": "0.9"}
        assert run["counts"] == [[1, 2], [3, 4]]
        assert run["receipt"] is not None
    hidden = seen_by(market.provider, market)
    assert (hidden["scorecard"], hidden["counts"], hidden["receipt"]) == ({}, [], None)
    assert hidden["model_name"] == "m"
    with app.state.desk.store.write() as tx:
        tx.requests.close(market.request_id, "done", "", 2.0)
    assert seen_by(market.provider, market) == seen_by(market.hospital, market)


def test_a_damaged_receipt_is_said_to_be_damaged_and_hides_nothing(market, released, app):
    with app.state.desk.store.read() as tx:
        receipt = tx.runs.receipts(market.request_id)[released.id]
    whole = seen_by(market.hospital, market)["audit"]
    # One receipt in twenty is drawn; of this request nobody asked for an audit.
    assert whole["state"] in ("none", "overdue")
    assert whole["drawn"] == (whole["state"] == "overdue")
    for body in ("text", receipt.body[: len(receipt.body) // 2]):
        with app.state.desk.store.write() as tx:
            tx.runs.renew_receipt(receipt.id, body)
        run = seen_by(market.hospital, market)
        assert (run["audit"]["state"], run["audit"]["drawn"]) == ("damaged", False)
        assert run["audit"]["reason"].startswith("receipt damaged: ")
        assert run["scorecard"] == {"auc": "0.9"}
