"""What a right id does in the wrong hands: nothing, and mostly it is not even there."""

from everything import unknown_ids, without_ids

from clearinghouse.ids import new_id

EVERYBODY_ELSE = ("developer", "outsider", "provider")


def test_deleting_what_is_foreign(market, ids, problem):
    for path, who in (("/v1/keys/{key_id}", "key"), ("/v1/apikeys/{apikey_id}", "API key")):
        for role in EVERYBODY_ELSE:
            party = getattr(market, role)
            filled = path.format(**ids)
            foreign = problem(party.delete(filled), 404, "not-found")
            unknown = problem(party.delete(unknown_ids(filled)), 404, "not-found")
            assert without_ids(foreign) == without_ids(unknown) == f"no {who} ID"
    problem(market.outsider.delete("/v1/people/ada@example.org"), 404, "not-found")


def test_writing_with_foreign_ids(market, problem):
    """A foreign source, validation set or task is not there for others."""
    outsider, provider = market.outsider, market.provider
    path = f"/v1/sources/{market.source_id}/summary"
    problem(outsider.post(path, market.summary), 404, "not-found")
    problem(market.hospital.post(path, market.summary), 404, "not-found")
    for stranger in (outsider, market.hospital, market.developer):
        problem(stranger.post("/v1/grants", market.grant()), 404, "not-found")
        for thing in (f"grants/{market.grant_id}", f"sources/{market.source_id}"):
            problem(stranger.post(f"/v1/{thing}/withdraw", {}), 404, "not-found")
    training = f"/v1/requests/{market.request_id}/training"
    problem(outsider.post(training, {}), 404, "not-found")
    problem(provider.post(training, {}), 409, "refused")
    task = market.wait_for_task()
    answer = {"answer": {"kind": "target.noise", "noise_blob": market.blob}}
    for stranger in (outsider, provider, market.developer):
        for suffix, message in (("", answer), ("/refuse", {"reason": "no"})):
            detail = problem(
                stranger.post(f"/v1/agent/tasks/{task['id']}{suffix}", message), 404, "not-found"
            )
            assert detail == f"no task {task['id']}"
    assert market.wait_for_task() == task


def test_roles(market, party, problem):
    """A right id in the wrong role's hands does nothing."""
    source = {
        "name": "x",
        "schema_id": market.schema_id,
        "size_class": 1,
        "rows_root": "0" * 64,
        "leaves": 2,
    }
    for who in (market.hospital, market.developer, party("auditor")):
        problem(who.post("/v1/sources", source), 409, "refused")
    for who in (market.provider, market.developer, party("auditor")):
        problem(who.post("/v1/valsets", market.valset()), 409, "refused")
        problem(who.post("/v1/requests", market.terms()), 409, "refused")


def test_another_hospitals_validation_set(market, party, problem):
    other = party("hospital")
    problem(other.post("/v1/requests", market.terms()), 404, "not-found")
    foreign_blob = problem(other.post("/v1/valsets", market.valset()), 422, "bad-input")
    assert "uploaded" in foreign_blob


def test_parties_see_only_their_own_tasks(market):
    market.wait_for_task()
    for other in (market.provider, market.developer, market.outsider):
        assert other.get("/v1/agent/tasks").json() == {"tasks": []}


def test_disputes_are_opened_answered_and_resolved_by_those_who_may(market, ids, problem, app):
    """Outsiders find nothing; parties cannot rule; the operator's key can."""
    opened = {
        "request_id": ids["request_id"],
        "subject": new_id("ord"),
        "reason": "delivery",
        "remedy": "refund",
        "words": "nothing came",
    }
    problem(market.outsider.post("/v1/disputes", opened), 404, "not-found")
    problem(market.hospital.post("/v1/disputes", opened), 404, "not-found")
    path = f"/v1/disputes/{ids['dispute_id']}"
    ruling = {"outcome": "refund", "words": "so it is"}
    for stranger in (market.hospital, market.provider, market.developer):
        problem(stranger.post(f"{path}/resolve", ruling), 409, "refused")
    problem(market.outsider.post(f"{path}/resolve", ruling), 404, "not-found")
    problem(market.outsider.post(f"{path}/answer", {"words": "no"}), 404, "not-found")
    problem(market.hospital.post(f"{path}/answer", {"words": "no"}), 409, "refused")
    assert market.provider.post(f"{path}/answer", {"words": "no"}).json()["state"] == "answered"
    operator = type(market.hospital)(market.hospital.client, market.hospital.clock)
    operator.key = app.state.desk.key
    assert [item["id"] for item in operator.get("/v1/disputes").json()["disputes"]] == [
        ids["dispute_id"]
    ]
    assert operator.get(path).status_code == 200
    done = operator.post(f"{path}/resolve", ruling).json()
    assert (done["state"], done["ruling"]["outcome"]) == ("resolved", "refund")
    mine = market.hospital.get("/v1/disputes").json()["disputes"]
    assert [item["state"] for item in mine] == ["resolved"]
    assert market.developer.get("/v1/disputes").json() == {"disputes": []}
