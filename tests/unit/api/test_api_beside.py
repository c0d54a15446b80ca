"""Signed calls of many organisations at once, on both databases: what is theirs alone is exact."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from api.app import create_app
from clearinghouse.log.entries import parse_entry
from clearinghouse.settings import Settings
from clearinghouse.world.check import check_world

CALLERS, ACTS = 4, 5


@pytest.fixture
def app(tmp_path, store_url, clock):
    return create_app(Settings(tmp_path / "server", database_url=store_url, in_process=True), clock)


def ok(answer):
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_organisations_register_sources_beside_one_another(app, party, schema, clock):
    with ThreadPoolExecutor(CALLERS) as pool:
        parties = list(pool.map(lambda _: party(), range(CALLERS)))
        schema_id = ok(parties[0].post("/v1/schemas", {"body": schema}))["id"]

        def act(caller):
            found = []
            for number in range(ACTS):
                message = {"name": f"s{number}", "schema_id": schema_id, "size_class": 1}
                message |= {"rows_root": "0" * 64, "leaves": 2}
                key = f"{caller.org_id}.{number}"
                twice = [ok(caller.post("/v1/sources", message, key))["id"] for _ in range(2)]
                assert twice[0] == twice[1]  # the same call again is the same source
                found.append(twice[0])
            return found

        made = dict(zip([caller.org_id for caller in parties], pool.map(act, parties), strict=True))
    desk = app.state.desk
    with desk.store.read() as tx:
        assert tx.log.waiting() == 0
        entries = [parse_entry(body) for body in tx.log.entries(0, 1000)]
        for owner, sources in made.items():
            places = [tx.cohorts.source(source).place for source in sources]
            assert places == sorted(places)
            assert [entries[place].objects["source"] for place in places] == sources
            assert {entries[place].objects["owner"] for place in places} == {owner}
    assert len(entries) == 1 + CALLERS + CALLERS * ACTS
    found = check_world(desk.settings, clock.now())
    assert found.is_well, found.troubles


def test_of_one_signed_call_that_comes_many_times_at_once_one_is_taken(party, schema):
    caller = party()
    schema_id = ok(caller.post("/v1/schemas", {"body": schema}))["id"]
    message = {"name": "s", "schema_id": schema_id, "size_class": 1}
    body = json.dumps(message | {"rows_root": "0" * 64, "leaves": 2}).encode()
    headers = caller.headers("POST", "/v1/sources", body, idempotency_key="once")

    def send(_turn):
        return caller.client.post("/v1/sources", content=body, headers=headers).status_code

    with ThreadPoolExecutor(6) as pool:
        codes = sorted(pool.map(send, range(6)))
    assert codes == [200] + [401] * 5
