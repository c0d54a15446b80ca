"""Who may read what: every route x every role, and foreign ids answered like unknown ones."""

import hashlib
import json
import re

import pytest
from databases import fresh_sqlite

from api.app import at_work, create_app
from api.described import PUBLIC as OPEN
from api.tokens import ROUTES
from clearinghouse.apikeys import SCOPES
from clearinghouse.client.loopback import app_client
from clearinghouse.clock import FixedClock
from clearinghouse.ids import new_id
from clearinghouse.rounds import disputes
from clearinghouse.rounds.releases import record_release
from clearinghouse.settings import Settings
from clearinghouse.store.records import Receipt, Run

EVERYBODY = {"hospital", "provider", "developer", "outsider"}
INSIDE = EVERYBODY - {"outsider"}

READS = {
    "/v1/orgs/{org_id}": EVERYBODY,
    "/v1/schemas/{schema_id}": EVERYBODY,
    "/v1/sources": EVERYBODY,
    "/v1/sources/{source_id}": EVERYBODY,
    "/v1/sources/{source_id}/summary": EVERYBODY,
    "/v1/valsets/{valset_id}": INSIDE,
    "/v1/valsets/{valset_id}/seeds": {"hospital"},
    "/v1/blobs/{digest}": {"hospital"},
    "/v1/uploads/{upload_id}": {"hospital"},
    "/v1/sources/{source_id}/withdrawal": {"provider"},
    "/v1/grants": EVERYBODY,
    "/v1/grants/{grant_id}": {"provider"},
    "/v1/deliveries": EVERYBODY,
    "/v1/onward": EVERYBODY,
    "/v1/requests": EVERYBODY,
    "/v1/requests/{request_id}": INSIDE,
    "/v1/requests/{request_id}/target": INSIDE,
    "/v1/requests/{request_id}/clearing": INSIDE,
    "/v1/requests/{request_id}/certificate": INSIDE,
    "/v1/requests/{request_id}/prices": INSIDE,
    "/v1/requests/{request_id}/jobs": INSIDE,
    "/v1/requests/{request_id}/runs": INSIDE,
    "/v1/requests/{request_id}/statement": INSIDE,
    "/v1/requests/{request_id}/runs/{run_id}/transcript": {"developer"},
    "/v1/receipts/{receipt_id}": INSIDE,
    "/v1/disputes": EVERYBODY,
    "/v1/disputes/{dispute_id}": INSIDE,
    "/v1/reputation": EVERYBODY,
    "/v1/orgs/{org_id}/statement": {"hospital"},
    "/v1/orgs/{org_id}/statement.html": {"hospital"},
    "/v1/sources/{source_id}/prices": EVERYBODY,
    "/v1/agent/tasks": EVERYBODY,
    "/v1/budgets": EVERYBODY,
    "/v1/log/entries": EVERYBODY,
    "/v1/log/tiles/tile/entries/{path}": EVERYBODY,
    "/v1/keys": EVERYBODY,
    "/v1/apikeys": EVERYBODY,
    "/v1/people": EVERYBODY,
}
PUBLIC = {
    "/v1/log/checkpoint",
    "/v1/log/proof",
    "/v1/log/consistency",
    "/v1/log/cosigned",
    "/v1/log/tiles/checkpoint",
    "/v1/log/tiles/tile/{level}/{path}",
    "/v1/openapi.json",
    "/healthz",
    "/readyz",
    "/metrics",
}


def ended_run(tx, desk, request, owner):
    """A run of the developer's model that failed after the hospital had paid for it."""
    details = {"kind": "linear", "edges": [0, 1], "threshold_edge": 1, "columns": [0]}
    model = {"org_id": owner, "name": "m", "digest": "6" * 64, "nonce_commitment": "7" * 64}
    run = Run(
        new_id("run"),
        request.id,
        "score",
        0,
        "running",
        "",
        "00" * 32,
        "00" * 16,
        new_id("mod"),
        model | details,
        {},
    )
    tx.runs.add(run)
    record_release(tx, desk, request, run, {"failed": True})
    tx.runs.fail(run.id, "for this test")
    return run.id


TARGET = json.dumps(
    {
        "run_id": new_id("run"),
        "level": ["sex"],
        "cells": 2,
        "labels": 2,
        "noised": [5, 4, 0, 9],
        "label_cost_applied": True,
        "wanted": [3, 2, 0, 5],
        "distances_micro": [[0] * 4] * 4,
        "supplies": {},
        "capped": {},
        "frozen_digest": "0" * 64,
    }
)


@pytest.fixture
def ids(market, app):
    """Ids of everything in a market of this test's own."""
    return everything(market, app.state.desk)


@pytest.fixture(scope="module")
def reading(tmp_path_factory, market_on):
    """A market with everything in it, and its ids: for tests that only read."""
    folder, clock = tmp_path_factory.mktemp("server"), FixedClock()
    fresh_sqlite(folder / "clearinghouse.db")
    app = create_app(Settings(folder, in_process=True, blob_bytes=2**20), clock)
    with at_work(app.state.runner), app_client(app) as client:
        client.base_url = "http://testserver"
        market = market_on(client, clock, app.state.desk.store)
        yield market, everything(market, app.state.desk)


def everything(market, desk):
    """Ids of everything, with results as if the request had gone on."""
    request_id, receipt_id = market.request_id, new_id("rcp")
    with desk.store.write() as tx:
        for kind in ("prices", "certificate"):
            tx.requests.keep(request_id, kind, "{}")
        tx.requests.keep(request_id, "target", TARGET)
        tx.requests.keep(
            request_id,
            "clearing",
            '{"draw_seed":null,"method":"m","objective_micro":0,"orders":[],"reserve_micro":0,'
            '"unserved":[]}',
        )
        tx.runs.add_receipt(Receipt(receipt_id, request_id, new_id("run"), "text"))
        request = tx.requests.get(request_id)
        run_id = ended_run(tx, desk, request, market.developer.org_id)
        dispute = disputes.open_dispute(
            tx,
            desk,
            request,
            new_id("ord"),
            "delivery",
            {},
            opener=tx.parties.get(market.hospital.org_id),
            respondent_id=market.provider.org_id,
        )
    return {
        "dispute_id": dispute.id,
        "org_id": market.hospital.org_id,
        "schema_id": market.schema_id,
        "source_id": market.source_id,
        "grant_id": market.grant_id,
        "valset_id": market.valset_id,
        "digest": market.blob,
        "upload_id": market.hospital.begin(b"in pieces")["id"],
        "request_id": request_id,
        "receipt_id": receipt_id,
        "task_id": new_id("tsk"),
        "run_id": run_id,
        "key_id": market.hospital.key.key_id,
        "apikey_id": market.hospital.api_key(["log:read"])[0],
        "email": "ada@example.org",
        "path": "000.p/1",
    }


WRITES = {
    ("post", "/v1/orgs"),
    ("post", "/v1/schemas"),
    ("post", "/v1/sources"),
    ("post", "/v1/sources/{source_id}/summary"),
    ("post", "/v1/sources/{source_id}/withdraw"),
    ("post", "/v1/grants"),
    ("post", "/v1/grants/{grant_id}/withdraw"),
    ("post", "/v1/requests/{request_id}/training"),
    ("post", "/v1/requests/{request_id}/onward"),
    ("post", "/v1/requests/{request_id}/runs/{run_id}/cancel"),
    ("post", "/v1/valsets"),
    ("post", "/v1/requests"),
    ("post", "/v1/agent/tasks/{task_id}"),
    ("post", "/v1/agent/tasks/{task_id}/refuse"),
    ("post", "/v1/disputes"),
    ("post", "/v1/disputes/{dispute_id}/answer"),
    ("post", "/v1/disputes/{dispute_id}/resolve"),
    ("post", "/v1/requests/{request_id}/runs/{run_id}/cancel"),
    ("post", "/v1/requests/{request_id}/runs/{run_id}/audit"),
    ("post", "/v1/keys"),
    ("post", "/v1/apikeys"),
    ("post", "/v1/people"),
    ("put", "/v1/blobs/{digest}"),
    ("post", "/v1/uploads"),
    ("patch", "/v1/uploads/{upload_id}"),
    ("delete", "/v1/uploads/{upload_id}"),
    ("delete", "/v1/keys/{key_id}"),
    ("delete", "/v1/apikeys/{apikey_id}"),
    ("delete", "/v1/people/{email}"),
}
"""All that changes something: signed by a key of an organisation, and by nothing else."""

QUERIES = {"put": "?kind=test", "patch": "?offset=0"}
"""What the routes that take bytes have in their URL."""

SIGNED_IN_ITSELF = {("post", "/v1/log/cosignatures")}
"""What anybody may hand in, because it holds by its own signature: see `test_api_witnesses`."""


def test_every_route_is_in_the_matrix(app):
    """A new route must be added above before this passes."""
    routes = {
        (method, path)
        for path, operations in app.openapi()["paths"].items()
        for method in operations
    }
    reads = {("get", path) for path in set(READS) | PUBLIC} - {("get", "/v1/openapi.json")}
    assert routes == reads | WRITES | SIGNED_IN_ITSELF
    assert (PUBLIC | {path for _, path in SIGNED_IN_ITSELF}) - {"/v1/openapi.json"} == OPEN
    assert set(ROUTES) <= set(READS)
    assert set(ROUTES.values()) == set(SCOPES)


@pytest.mark.parametrize("path", READS)
def test_reading(reading, path, problem):
    market, ids = reading
    filled = path.format(**ids)
    if path == "/v1/reputation":
        filled += f"?org_id={ids['org_id']}"
    for role in sorted(EVERYBODY):
        answer = getattr(market, role).get(filled)
        if role in READS[path]:
            assert answer.status_code == 200, (role, answer.text)
            continue
        foreign = problem(answer, 404, "not-found")
        unknown_id = _unknown(filled)
        unknown = problem(getattr(market, role).get(unknown_id), 404, "not-found")
        assert _without_ids(foreign) == _without_ids(unknown)


def test_reading_by_api_key(market, ids, problem):
    """A key reads what its scope opens and its organisation may see, and nothing else."""
    seen = 0
    for path in READS:
        filled, needed = path.format(**ids), ROUTES.get(path)
        if path == "/v1/reputation":
            filled += f"?org_id={ids['org_id']}"
        for role in sorted(EVERYBODY):
            party = getattr(market, role)
            others = party.tokens([scope for scope in SCOPES if scope != needed])
            problem(party.get_by_key(filled, others), 403, "out-of-scope")
            if needed is None:
                continue
            seen += 1
            answer = party.get_by_key(filled, party.tokens([needed]))
            if role in READS[path]:
                assert answer.status_code == 200, (role, answer.text)
                assert answer.content == party.get(filled).content
            else:
                foreign = problem(answer, 404, "not-found")
                unknown = party.get_by_key(_unknown(filled), party.tokens([needed]))
                assert _without_ids(foreign) == _without_ids(problem(unknown, 404, "not-found"))
    assert seen == len(ROUTES) * len(EVERYBODY)


def test_an_api_key_changes_nothing(market, ids):
    """Not even with every scope, whether alone or beside a signature."""
    token = market.hospital.tokens(list(SCOPES))
    bearer = {"Authorization": f"Bearer {token}"}
    for method, path in sorted(WRITES):
        filled = path.format(**ids) + QUERIES.get(method, "")
        signed = market.hospital.headers(method.upper(), filled, b"{}")
        beside = path != "/v1/orgs" and method not in QUERIES
        for headers in (bearer, bearer | signed) if beside else (bearer,):
            answer = market.hospital.client.request(method, filled, content=b"{}", headers=headers)
            assert answer.status_code in (401, 403, 422), answer.text
    with market.store.read() as tx:
        assert tx.apikeys.get(ids["apikey_id"], market.hospital.org_id).revoked is None


def test_no_write_is_replayed_or_taken_late(market, ids, clock, problem):
    """Every route that changes something uses a nonce up and looks at the age of the signature."""
    party = market.provider
    for method, path in sorted(WRITES):
        filled = path.format(**ids) + QUERIES.get(method, "")
        body = b"{}"
        if path == "/v1/blobs/{digest}":
            filled = f"/v1/blobs/{hashlib.sha256(body).hexdigest()}?kind=test"
        if path == "/v1/orgs":
            body = json.dumps(party.registration()).encode()

        def send(headers, method=method, filled=filled, body=body):
            return party.client.request(method, filled, content=body, headers=headers)

        headers = party.headers(method.upper(), filled, body, idempotency_key=f"once {path}")
        assert send(headers).status_code != 401, path
        assert "nonce" in problem(send(headers), 401, "unauthenticated"), path
        for seconds in (61, -61):
            party.clock.advance(-seconds)
            old = party.headers(method.upper(), filled, body)
            party.clock.advance(seconds)
            assert "s old" in problem(send(old), 401, "unauthenticated"), path


def test_deleting_what_is_foreign(market, ids, problem):
    for path, who in (("/v1/keys/{key_id}", "key"), ("/v1/apikeys/{apikey_id}", "API key")):
        for role in sorted(EVERYBODY - {"hospital"}):
            party = getattr(market, role)
            filled = path.format(**ids)
            foreign = problem(party.delete(filled), 404, "not-found")
            unknown = problem(party.delete(_unknown(filled)), 404, "not-found")
            assert _without_ids(foreign) == _without_ids(unknown) == f"no {who} ID"
    problem(market.outsider.delete("/v1/people/ada@example.org"), 404, "not-found")


def _unknown(path):
    """The same path with ids that nobody has."""
    path = re.sub(r"([a-z]{3})_[0-9a-z]{20}", lambda found: new_id(found[1]), path)
    return re.sub(r"[0-9a-f]{64}", "0" * 64, path)


def _without_ids(text):
    return re.sub(r"[a-z]{3}_[0-9a-z]{20}|[0-9a-f]{64}", "ID", text)


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
