"""Bodies have one meaning, bounded size, and every fault is a problem document."""

import json

import pytest

from api.app import at_work, create_app
from clearinghouse.client.loopback import app_client
from clearinghouse.settings import Settings


def test_json_with_two_meanings(party, problem):
    provider = party()
    for body in (
        b'{"body": {}, "body": {}}',
        b'{"body": NaN}',
        b'{"body": 1.5}',
        b'{"body": 99999999999999999999}',
        b"{'body': {}}",
        b"\xff",
        b"",
        b"[" * 500,
    ):
        problem(provider.post("/v1/schemas", body), 422, "bad-input")


def test_unknown_missing_and_mistyped_fields(market, problem):
    terms = market.terms()
    for changed in (
        {**terms, "surprise": 1},
        {name: value for name, value in terms.items() if name != "records"},
        {**terms, "records": "10"},
        {**terms, "records": True},
        {**terms, "records": 0},
        {**terms, "valset_id": "val_short"},
        {**terms, "tariff_micro": 2**53},
        [],
        "text",
    ):
        problem(market.hospital.post("/v1/requests", changed), 422, "bad-input")


def test_a_problem_never_repeats_the_value(market, problem):
    detail = problem(
        market.hospital.post("/v1/requests", market.terms(records="canary-71.23456789")),
        422,
        "bad-input",
    )
    assert "canary" not in detail
    assert "records" in detail


def test_a_large_body(market, problem):
    message = {"name": "x" * 2**20, "schema_id": market.schema_id}
    problem(market.provider.post("/v1/sources", message), 413, "bad-input")


def test_a_large_summary_is_fine(market, problem):
    """Three megabytes pass the limit of summaries; what is wrong with them is their number."""
    message = {"level": ["sex"], "counts": [100_000] * 400_000, "epsilon_micro": 1}
    path = f"/v1/sources/{market.source_id}/summary"
    detail = problem(market.provider.post(path, message), 422, "bad-input")
    assert "4 counts" in detail


def test_framework_errors_are_problems(client, party, problem):
    provider = party()
    problem(client.get("/v1/nowhere"), 404, "not-found")
    problem(client.delete("/healthz"), 405, "method-not-allowed")
    problem(provider.get("/v1/agent/tasks?wait=x"), 422, "bad-input")
    problem(provider.get("/v1/agent/tasks?wait=11"), 422, "bad-input")
    problem(client.get("/v1/log/proof?index=5&size=1"), 422, "bad-input")


def test_an_idempotency_key_counts_once(market, problem):
    path = "/v1/requests"
    first = market.hospital.post(path, market.terms(records=7), idempotency_key="once")
    again = market.hospital.post(path, market.terms(records=7), idempotency_key="once")
    assert first.status_code == again.status_code == 200
    assert first.content == again.content
    other = market.hospital.post(path, market.terms(records=8), idempotency_key="once")
    problem(other, 409, "conflict")
    elsewhere = market.hospital.post(
        "/v1/schemas", {"body": market.terms()}, idempotency_key="once"
    )
    assert elsewhere.status_code in (409, 422)
    held = f"escrow:{first.json()['id']}"
    balances = market.hospital.get(f"{path}/{first.json()['id']}/statement").json()["balances"]
    assert balances[held] == 7 * 6_000_000 + 300_000_000


def test_spending_needs_a_key(market, client, problem):
    body = json.dumps(market.terms()).encode()
    headers = market.hospital.headers("POST", "/v1/requests", body)
    answer = client.post("/v1/requests", content=body, headers=headers)
    assert "Idempotency-Key" in problem(answer, 422, "bad-input")


def test_openapi_describes_what_is_taken(client):
    document = client.get("/v1/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    schemas = document["components"]["schemas"]
    names = [
        part.removeprefix("#/components/schemas/")
        for part in _references(document)
        if part.startswith("#/")
    ]
    assert set(names) <= set(schemas)
    assert {"OpenRequest", "AnswerTask", "RegisterOrg", "RequestView", "TaskList"} <= set(schemas)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if method == "post":
                assert "requestBody" in operation, path


def _references(node):
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value
            else:
                yield from _references(value)
    elif isinstance(node, list):
        for item in node:
            yield from _references(item)


def test_probes(client):
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json()["status"] == "ready"
    text = client.get("/metrics").text
    assert "clearinghouse_log_entries 1.0\n" in text


@pytest.mark.parametrize("kind", ["not-a-number", "-1"])
def test_a_lying_content_length_is_no_crash(party, client, kind):
    provider = party()
    path = f"/v1/blobs/{'0' * 64}?kind=x"
    headers = provider.headers("PUT", path, digest=bytes(32)) | {"content-length": kind}
    answer = client.put(path, content=b"", headers=headers)
    assert 400 <= answer.status_code < 500


def test_the_recorder_keeps_every_body(tmp_path, clock):
    """What travelled is on disk, so a search for private values can see all of it."""
    app = create_app(Settings(tmp_path / "s", in_process=True, record_bodies=tmp_path / "r"), clock)
    with at_work(app.state.runner), app_client(app) as client:
        client.base_url = "http://testserver"
        answer = client.post("/v1/orgs?where=query-canary", content=b"body-canary")
        text = client.get("/healthz").content
    kept = b"".join(path.read_bytes() for path in (tmp_path / "r").iterdir())
    for part in (b"query-canary", b"body-canary", answer.content, text):
        assert part in kept
    assert len(list((tmp_path / "r").iterdir())) == 4


def test_nothing_is_recorded_by_default(client, tmp_path):
    client.get("/healthz")
    assert not list(tmp_path.rglob("*.request"))
