"""Prices: asked again they are the same bytes and cost nothing; their history comes in pages."""

import pytest

from clearinghouse.messages.results import PriceList, PriceView
from clearinghouse.store.records import PastPrice


def price(source_id, point):
    return PriceView(
        source_id=source_id,
        point_micro=point,
        low_micro=point,
        high_micro=point,
        basis="per record",
        status="firm",
        n_effective=3,
        components={"reserve": 1, "marginal": point - 1, "dividend": 0, "holdback": 0},
        counterfactual={"objective_without_micro": 5},
        shapley_micro=1,
        leave_one_out_micro=1,
        marginal_micro=1,
        calls=0,
        seed=0,
        mechanism_version="v",
        commit_hash="a" * 64,
    )


def check_repeats(market, app, number):
    """So many queries by three parties: one answer, nothing spent, nothing written."""
    found = PriceList(
        request_id=market.request_id, prices=[price(market.source_id, 7)]
    ).model_dump_json()
    store = app.state.desk.store
    market.wait_for_task()
    with store.write() as tx:
        tx.requests.keep(market.request_id, "prices", found)
        before = tx.log.size(), tx.ledger.balances("")
    path = f"/v1/requests/{market.request_id}/prices"
    parties = (market.hospital, market.provider, market.developer)
    answers = {parties[turn % 3].get(path).content for turn in range(number)}
    assert answers == {found.encode()}
    with store.read() as tx:
        assert (tx.log.size(), tx.ledger.balances("")) == before


def test_a_hundred_queries_are_one_answer(market, app):
    check_repeats(market, app, 100)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_ten_thousand_queries_are_one_answer(market, app):
    check_repeats(market, app, 10_000)


def test_price_history_comes_in_pages_for_those_who_took_part(market, app, problem):
    requests = [market.request_id]
    for records in range(20, 24):
        opened = market.hospital.post("/v1/requests", market.terms(records=records))
        requests.append(opened.json()["id"])
    with app.state.desk.store.write() as tx:
        for place, request_id in enumerate(requests):
            body = price(market.source_id, 10 + place).model_dump_json()
            tx.prices.add(PastPrice(market.source_id, request_id, 1000 + place // 2, body))
    path = f"/v1/sources/{market.source_id}/prices?limit=2"
    points, cursor, pages = [], "", 0
    while cursor is not None:
        page = market.provider.get(path + (f"&cursor={cursor}" if cursor else "")).json()
        points += [(item["at_s"], item["price"]["point_micro"]) for item in page["prices"]]
        cursor, pages = page["next_cursor"], pages + 1
    assert pages == 3
    assert sorted(point for _, point in points) == [10, 11, 12, 13, 14]
    assert [at for at, _ in points] == [1000, 1000, 1001, 1001, 1002]
    assert market.outsider.get(path).json()["prices"] == []
    problem(market.provider.get(f"{path}&cursor=x"), 422, "bad-input")
    problem(market.provider.get("/v1/sources/src_" + "0" * 20 + "/prices"), 404, "not-found")


def test_a_new_party_stands_at_the_floor(market):
    (source,) = market.outsider.get("/v1/sources").json()["sources"]
    assert source["standing_micro"] == 100_000
    org = market.outsider.get(f"/v1/orgs/{market.provider.org_id}").json()
    assert org["standing_micro"] == 100_000
    found = market.outsider.get(f"/v1/reputation?org_id={market.provider.org_id}").json()
    assert (found["status"], found["outcomes"]) == ("new", [])
