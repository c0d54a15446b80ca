"""A server in this process, and parties that sign their calls by hand."""

import hashlib
import json
from dataclasses import dataclass, field

import httpx
import pytest
from everything import everything

from api.app import at_work, create_app
from clearinghouse.apikeys import make_token, prefix_of, token_digest
from clearinghouse.client.loopback import app_client
from clearinghouse.clock import FixedClock
from clearinghouse.httpsig import sign_request
from clearinghouse.settings import Settings
from clearinghouse.signing import SigningKey

URL = "http://testserver"
SCHEMA = {
    "name": "tiny",
    "unit": "patient",
    "patient_id": None,
    "label": {"name": "sick", "kind": "category", "levels": ["no", "yes"]},
    "columns": [
        {
            "name": "sex",
            "kind": "category",
            "levels": ["F", "M"],
            "missing": False,
            "words": [],
        }
    ],
    "strata": [["sex"]],
    "subgroups": ["sex"],
}
AGE = "age1" + "q" * 58


@dataclass
class Party:
    """Signs calls with its own key."""

    client: httpx.Client
    clock: FixedClock
    role: str = "provider"
    key: SigningKey = field(default_factory=SigningKey.generate)
    org_id: str = ""
    count: int = 0
    made: dict = field(default_factory=dict)

    def headers(self, method, path, body=b"", *, key=None, digest=None, **extra):
        """All headers of a signed call."""
        headers = {name.replace("_", "-"): value for name, value in extra.items()}
        signed = sign_request(
            method,
            URL + path,
            headers,
            None if digest else body,
            key or self.key,
            (key or self.key).key_id,
            self.clock,
            body_digest=digest,
        )
        return headers | signed

    def get(self, path):
        return self.client.get(path, headers=self.headers("GET", path))

    def post(self, path, message, idempotency_key=None):
        """POST with a fresh Idempotency-Key, unless one is given."""
        self.count += 1
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        named = idempotency_key or f"{self.key.key_id}.{self.count}"
        headers = self.headers("POST", path, body, idempotency_key=named)
        return self.client.post(path, content=body, headers=headers)

    def put(self, data, kind="test", digest=None):
        digest = digest or hashlib.sha256(data).hexdigest()
        path = f"/v1/blobs/{digest}?kind={kind}"
        headers = self.headers("PUT", path, data)
        return self.client.put(path, content=data, headers=headers)

    def begin(self, data, **changes):
        """Announce a blob that comes in pieces."""
        message = {"digest": hashlib.sha256(data).hexdigest(), "size": len(data), "kind": "test"}
        return ok(self.post("/v1/uploads", message | changes))

    def patch(self, upload_id, offset, piece, announced=None):
        """Send a piece, signed over its own hash or over an announced one."""
        path = f"/v1/uploads/{upload_id}?offset={offset}"
        headers = self.headers("PATCH", path, announced or piece)
        return self.client.patch(path, content=piece, headers=headers)

    def delete(self, path):
        headers = self.headers("DELETE", path)
        return self.client.delete(path, headers=headers)

    def api_key(self, scopes, lifetime_s=3600):
        """A new API key's id and token."""
        token = make_token()
        message = {
            "name": "a dashboard",
            "prefix": prefix_of(token),
            "digest": token_digest(token),
            "scopes": scopes,
            "lifetime_s": lifetime_s,
        }
        answer = self.post("/v1/apikeys", message)
        assert answer.status_code == 200, answer.text
        return answer.json()["id"], token

    def tokens(self, scopes):
        """A token with these scopes, made once."""
        if tuple(scopes) not in self.made:
            self.made[tuple(scopes)] = self.api_key(scopes)[1]
        return self.made[tuple(scopes)]

    def get_by_key(self, path, token):
        return self.client.get(path, headers={"Authorization": f"Bearer {token}"})

    def registration(self):
        return {
            "name": f"a {self.role}",
            "role": self.role,
            "public_key": self.key.verify_key.base64,
            "age_recipient": AGE if self.role == "developer" else None,
        }

    def register(self):
        answer = self.post("/v1/orgs", self.registration())
        assert answer.status_code == 200, answer.text
        self.org_id = answer.json()["id"]
        return self


@pytest.fixture
def clock():
    return FixedClock()


@pytest.fixture
def app(server_folder, clock):
    return create_app(Settings(server_folder, in_process=True, blob_bytes=2**20), clock)


@pytest.fixture
def client(app):
    with at_work(app.state.runner), app_client(app) as opened:
        opened.base_url = URL
        yield opened


@pytest.fixture
def party(client, clock):
    """Makes registered parties."""

    def make(role="provider"):
        return Party(client, clock, role).register()

    return make


@pytest.fixture
def stranger(client, clock):
    """A key that nobody registered."""
    return Party(client, clock)


def problem(answer, status, kind):
    """Check that an answer is this problem."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["type"] == f"/problems/{kind}"
    assert document["status"] == status
    assert set(document) == {"type", "title", "status", "detail"}
    return document["detail"]


@pytest.fixture(name="problem")
def problem_fixture():
    return problem


@pytest.fixture
def schema():
    return SCHEMA


@pytest.fixture
def make_market(party, schema, app):
    """Makes registered markets: up to an open request, with a stand-in for ciphertexts."""
    return lambda: Market(party, schema, app.state.desk.store)


@pytest.fixture(scope="session")
def market_on():
    """Makes a market on a server that runs elsewhere, by its client, its clock and its store."""
    return lambda client, clock, store: Market(
        lambda role="provider": Party(client, clock, role).register(), SCHEMA, store
    )


@pytest.fixture
def market(make_market):
    """A registered market."""
    return make_market()


@pytest.fixture
def ids(market, app):
    """Ids of everything in a market of this test's own."""
    return everything(market, app.state.desk)


class Market:
    """One hospital, provider and developer, and their objects."""

    def __init__(self, party, schema, store):
        self.store = store
        self.hospital, self.provider = party("hospital"), party("provider")
        self.developer, self.outsider = party("developer"), party("provider")
        self.schema_id = self.hospital.post("/v1/schemas", {"body": schema}).json()["id"]
        self.source_id = ok(
            self.provider.post(
                "/v1/sources",
                {
                    "name": "cohort",
                    "schema_id": self.schema_id,
                    "size_class": 64,
                    "rows_root": "1" * 64,
                    "leaves": 128,
                },
            )
        )["id"]
        self.summary = {"level": ["sex"], "counts": [10, 20, 15, 19], "epsilon_micro": 1_000_000}
        ok(self.provider.post(f"/v1/sources/{self.source_id}/summary", self.summary))
        self.clock = self.provider.clock
        self.grant_id = ok(self.provider.post("/v1/grants", self.grant()))["id"]
        self.blob = hashlib.sha256(b"ciphertext").hexdigest()
        assert self.hospital.put(b"ciphertext").status_code == 201
        self.valset_id = ok(self.hospital.post("/v1/valsets", self.valset()))["id"]
        with store.write() as tx:  # a stand-in for ciphertexts passes no test
            tx.cohorts.judge_valset(self.valset_id, "")
        self.request_id = ok(self.hospital.post("/v1/requests", self.terms()))["id"]

    def grant(self, **changes):
        return {
            "source_id": self.source_id,
            "recipient": "developers",
            "attributes": ["sex", "sick"],
            "purpose": "train models",
            "expires": int(self.clock.now()) + 86400,
            **changes,
        }

    def valset(self, **changes):
        return {
            "schema_id": self.schema_id,
            "size_class": 64,
            "level": ["sex"],
            "layout": {
                "version": "bfv-8192-1032193-1",
                "n_blocks": 1,
                "columns": 2,
                "labels": 2,
                "cells": 2,
                "groups": [["sex", 2]],
            },
            "keys_blob": self.blob,
            "upload_blobs": [self.blob],
            "commitment": "2" * 64,
            **changes,
        }

    def terms(self, **changes):
        return {
            "valset_id": self.valset_id,
            "source_ids": [self.source_id],
            "developer_ids": [self.developer.org_id],
            "records": 10,
            "currency": "EUR",
            "tariff_micro": 6_000_000,
            "distance_price_micro": 1_000_000,
            "share_cap_micro": 1_500_000,
            "fee_micro": 50_000,
            "epsilon_target_micro": 500_000,
            "epsilon_score_micro": 1_000_000,
            "purse": {
                "kind": "acceptance",
                "amount_micro": 300_000_000,
                "metric": "auc",
                "threshold_micro": 700_000,
                "confidence_micro": 900_000,
            },
            **changes,
        }

    def wait_for_task(self):
        """The hospital's first task."""
        tasks = self.hospital.get("/v1/agent/tasks?wait=10").json()["tasks"]
        assert len(tasks) == 1
        return tasks[0]

    def wait_for_noise_task(self):
        """The task that follows when the target's noise is committed to."""
        task = self.wait_for_task()
        answer = {"kind": "target.commit", "noise_commitment": "7" * 64}
        done = self.hospital.post(f"/v1/agent/tasks/{task['id']}", {"answer": answer})
        assert done.status_code == 200, done.text
        return self.wait_for_task()


def ok(answer):
    assert answer.status_code == 200, answer.text
    return answer.json()
