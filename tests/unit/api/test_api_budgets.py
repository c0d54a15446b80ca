"""GET /v1/budgets and quotas: sums by owner over all of its data, from the log."""

import json
from dataclasses import replace

import pytest


def entries(market, kind):
    found = market.provider.get("/v1/log/entries").json()["entries"]
    return [entry for entry in map(json.loads, found) if entry["type"] == kind]


def test_a_provider_sees_its_summary_and_nobody_elses(market):
    mine = market.provider.get("/v1/budgets").json()
    assert mine["owner_id"] == market.provider.org_id
    assert (mine["epsilon_micro"], mine["promised_micro"]) == (1_000_000, 0)
    (data,) = mine["data"]
    assert (data["data_id"], data["size_class"]) == (market.source_id, 64)
    (release,) = data["releases"]
    assert (release["kind"], release["request_id"]) == ("summary", None)
    (logged,) = entries(market, "summary.released")
    assert logged["amounts"]["epsilon_micro"] == release["epsilon_micro"]
    for other in (market.developer, market.outsider):
        assert other.get("/v1/budgets").json()["data"] == []


def test_an_open_request_is_a_promise_until_it_is_released(market, app):
    terms = market.terms()
    cost = terms["epsilon_target_micro"] + terms["epsilon_score_micro"]
    before = market.hospital.get("/v1/budgets").json()
    assert (before["epsilon_micro"], before["promised_micro"]) == (0, cost)
    (opened,) = entries(market, "request.opened")
    assert opened["amounts"]["runs"] == 1
    assert opened["amounts"]["most_epsilon_micro"] == cost
    desk = app.state.desk
    with desk.store.write() as tx:
        desk.record(
            tx,
            "target.released",
            desk.org,
            objects={
                "request": market.request_id,
                "owner": market.hospital.org_id,
                "valset": market.valset_id,
            },
            hashes={"release": "0" * 64},
            amounts={"epsilon_micro": terms["epsilon_target_micro"]},
        )
    after = market.hospital.get("/v1/budgets").json()
    assert after["epsilon_micro"] == terms["epsilon_target_micro"]
    assert after["promised_micro"] == terms["epsilon_score_micro"]
    assert after["data"][0]["releases"][0]["kind"] == "target"


def test_a_second_sealed_set_of_the_same_owner_does_not_start_from_zero(market):
    second = market.hospital.post("/v1/valsets", market.valset(commitment="2" * 64)).json()["id"]
    assert second != market.valset_id
    answer = market.hospital.post("/v1/requests", {**market.terms(), "valset_id": second})
    assert answer.status_code == 200, answer.text
    found = market.hospital.get("/v1/budgets").json()
    assert {item["data_id"] for item in found["data"]} == {market.valset_id, second}
    assert found["promised_micro"] == sum(item["promised_micro"] for item in found["data"])
    assert found["data"][0]["promised_micro"] == found["data"][1]["promised_micro"] > 0


def test_a_quota_counts_everything_that_the_owner_released_or_promised(market, app, problem):
    terms = market.terms()
    cost = terms["epsilon_target_micro"] + terms["epsilon_score_micro"]
    desk, promised = app.state.desk, cost
    object.__setattr__(desk, "settings", replace(desk.settings, owner_epsilon_micro=2 * cost - 1))
    words = problem(market.hospital.post("/v1/requests", terms), 409, "refused")
    assert "over all of its data" in words
    assert market.hospital.get("/v1/budgets").json()["promised_micro"] == promised
    object.__setattr__(desk, "settings", replace(desk.settings, owner_epsilon_micro=2 * cost))
    assert market.hospital.post("/v1/requests", terms).status_code == 200
    shown = market.hospital.get("/v1/budgets").json()
    assert (shown["quota_micro"], shown["promised_micro"]) == (2 * cost, 2 * cost)
    problem(market.hospital.post("/v1/requests", terms), 409, "refused")


@pytest.mark.parametrize("runs", [0, 2, 1001, "1"])
def test_runs_fit_the_developers(market, runs, problem):
    problem(
        market.hospital.post("/v1/requests", {**market.terms(), "runs": runs}), 422, "bad-input"
    )
