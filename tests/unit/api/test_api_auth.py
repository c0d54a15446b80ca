"""Every call is signed by a registered key, once, over exactly what came."""

import json

import pytest

from clearinghouse.signing import SigningKey


def test_registering_and_being_known(party):
    provider = party("provider")
    answer = provider.get(f"/v1/orgs/{provider.org_id}")
    assert answer.status_code == 200
    assert answer.json() == {
        "id": provider.org_id,
        "name": "a provider",
        "role": "provider",
        "key_id": provider.key.key_id,
        "public_key": provider.key.verify_key.base64,
        "age_recipient": None,
        "standing_micro": 100_000,  # a newcomer's
    }


def test_unsigned(client, problem):
    for method, path in (
        ("GET", "/v1/agent/tasks"),
        ("POST", "/v1/sources"),
        ("POST", "/v1/orgs"),
        ("PUT", f"/v1/blobs/{'0' * 64}?kind=x"),
        ("GET", "/v1/log/entries"),
    ):
        body = b"{}" if path != "/v1/orgs" else _registration(SigningKey.generate())
        problem(client.request(method, path, content=body), 401, "unauthenticated")


def test_an_unregistered_key(stranger, problem):
    problem(stranger.get("/v1/agent/tasks"), 401, "unauthenticated")
    problem(stranger.post("/v1/schemas", {"body": {}}), 401, "unauthenticated")


def test_another_key_under_a_registered_name(party, client, problem):
    provider = party()
    forged = provider.headers("GET", "/v1/agent/tasks", key=SigningKey.generate())
    known = provider.key.key_id
    forged["Signature-Input"] = _with_key(forged["Signature-Input"], known)
    problem(client.get("/v1/agent/tasks", headers=forged), 401, "unauthenticated")


def _with_key(text, key_id):
    start = text.index('keyid="') + 7
    return text[:start] + key_id + text[text.index('"', start) :]


def test_a_registration_must_be_signed_by_the_key_it_registers(stranger, client, problem):
    body = _registration(SigningKey.generate())
    headers = stranger.headers("POST", "/v1/orgs", body)
    problem(client.post("/v1/orgs", content=body, headers=headers), 401, "unauthenticated")


def _registration(key):
    public = key.verify_key.base64
    return json.dumps(
        {"name": "x", "role": "provider", "public_key": public, "age_recipient": None}
    ).encode()


@pytest.mark.parametrize("role", ["clearinghouse", "admin", ""])
def test_nobody_registers_as_the_server(stranger, role, problem):
    message = json.loads(_registration(stranger.key)) | {"role": role}
    problem(stranger.post("/v1/orgs", message), 422, "bad-input")


def test_registering_again(party, problem):
    provider = party()
    known = provider.org_id
    assert provider.register().org_id == known
    provider.role = "auditor"
    message = json.loads(_registration(provider.key)) | {"role": "auditor"}
    problem(provider.post("/v1/orgs", message), 409, "conflict")


def test_a_replay(party, client, problem, schema):
    provider = party()
    body = json.dumps({"body": schema}).encode()
    headers = provider.headers("POST", "/v1/schemas", body, idempotency_key="k")
    assert client.post("/v1/schemas", content=body, headers=headers).status_code == 200
    again = client.post("/v1/schemas", content=body, headers=headers)
    assert "nonce" in problem(again, 401, "unauthenticated")


def test_what_was_signed_is_what_counts(party, client, problem):
    provider = party()
    body = b'{"body": {}}'
    headers = provider.headers("POST", "/v1/schemas", body, idempotency_key="k")
    for change in (
        {"content": b'{"body": {"a": 1}}', "headers": headers},
        {"content": body, "headers": headers | {"idempotency-key": "other"}},
        {"content": body, "headers": {k: v for k, v in headers.items() if k != "idempotency-key"}},
    ):
        problem(client.post("/v1/schemas", **change), 401, "unauthenticated")
    problem(client.post("/v1/schemas?x=1", content=body, headers=headers), 401, "unauthenticated")
    problem(client.post("/v1/sources", content=body, headers=headers), 401, "unauthenticated")
    problem(client.put("/v1/schemas", content=body, headers=headers), 405, "method-not-allowed")


def test_an_old_signature(party, client, clock, problem):
    provider = party()
    headers = provider.headers("GET", "/v1/agent/tasks")
    clock.advance(59)
    assert client.get("/v1/agent/tasks", headers=headers).status_code == 200
    clock.advance(2)
    problem(client.get("/v1/agent/tasks", headers=headers), 401, "unauthenticated")
