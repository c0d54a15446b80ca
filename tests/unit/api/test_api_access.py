"""Who may read what: every route x every role, and foreign ids answered like unknown ones.

What a right id does in the wrong hands, route by route, is in `test_api_roles.py`.
"""

import hashlib
import json

import pytest
from databases import fresh_sqlite
from everything import everything, unknown_ids, without_ids

from api.app import at_work, create_app
from api.described import PUBLIC as OPEN
from api.tokens import ROUTES
from clearinghouse.apikeys import SCOPES
from clearinghouse.client.loopback import app_client
from clearinghouse.clock import FixedClock
from clearinghouse.settings import Settings

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
        unknown_id = unknown_ids(filled)
        unknown = problem(getattr(market, role).get(unknown_id), 404, "not-found")
        assert without_ids(foreign) == without_ids(unknown)


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
                unknown = party.get_by_key(unknown_ids(filled), party.tokens([needed]))
                assert without_ids(foreign) == without_ids(problem(unknown, 404, "not-found"))
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
