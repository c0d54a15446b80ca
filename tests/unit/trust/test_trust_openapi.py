"""Every POST route against bodies that are nearly right: only 4xx, each a problem document.

The bodies start from accepted ones, so that faults reach the code behind the schema; then members
are dropped, added, retyped, blown up, and the bytes themselves are damaged.
"""

import copy
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.app import at_work, create_app
from clearinghouse.client.loopback import app_client
from clearinghouse.clock import FixedClock
from clearinghouse.httpsig import sign_request
from clearinghouse.ids import new_id
from clearinghouse.messages.identity import possession_bytes
from clearinghouse.settings import Settings
from clearinghouse.signing import SigningKey, b64encode

URL = "http://testserver"
SCHEMA = {
    "name": "tiny",
    "unit": "patient",
    "patient_id": None,
    "label": {"name": "sick", "kind": "category", "levels": ["no", "yes"]},
    "columns": [
        {"name": "sex", "kind": "category", "levels": ["F", "M"], "missing": False, "words": []}
    ],
    "strata": [["sex"]],
    "subgroups": ["sex"],
}


@dataclass
class Server:
    """A server with a market in it, and one organisation of each role."""

    client: httpx.Client
    openapi: dict[str, Any]
    keys: dict[str, SigningKey] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    count: int = 0

    def post(self, role: str, path: str, body: bytes, **headers: str) -> httpx.Response:
        self.count += 1
        key = self.keys[role]
        named = {"Content-Type": "application/json", "Idempotency-Key": f"k{self.count}"}
        named |= {name.replace("_", "-"): value for name, value in headers.items()}
        signed = sign_request("POST", URL + path, named, body, key, key.key_id, FixedClock())
        return self.client.post(URL + path, content=body, headers=named | signed)

    def accepted(self, role: str, path: str, message: dict[str, Any]) -> dict[str, Any]:
        answer = self.post(role, path, json.dumps(message).encode())
        assert answer.status_code == 200, answer.text
        return answer.json()

    def org(self, role: str) -> dict[str, Any]:
        return {
            "name": f"a {role}",
            "role": role,
            "public_key": self.keys[role].verify_key.base64,
            "age_recipient": "age1" + "q" * 58 if role == "developer" else None,
        }

    def new_key(self, role: str) -> dict[str, Any]:
        key = SigningKey.from_raw(bytes(range(32)))
        public = key.verify_key.base64
        signed = key.sign(possession_bytes(self.ids[role], public)) if role in self.ids else b""
        return {"public_key": public, "possession": b64encode(signed)}

    def bodies(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """Who sends what to which route; accepted as it stands, or but for its id."""
        blob = hashlib.sha256(b"ciphertext").hexdigest()
        layout = {
            "version": "bfv-8192-1032193-1",
            "n_blocks": 1,
            "columns": 2,
            "labels": 2,
            "cells": 2,
            "groups": [["sex", 2]],
        }
        purse = {
            "kind": "acceptance",
            "amount_micro": 300_000_000,
            "metric": "auc",
            "threshold_micro": 700_000,
            "confidence_micro": 900_000,
        }
        source = {"name": "cohort", "schema_id": self.ids["schema"], "size_class": 64}
        micro = {
            "tariff_micro": 6_000_000,
            "distance_price_micro": 1_000_000,
            "share_cap_micro": 1_500_000,
            "fee_micro": 50_000,
            "epsilon_target_micro": 500_000,
            "epsilon_score_micro": 1_000_000,
        }
        return {
            "/v1/orgs": ("provider", self.org("provider")),
            "/v1/schemas": ("provider", {"body": SCHEMA}),
            "/v1/sources": ("provider", {**source, "rows_root": "1" * 64, "leaves": 128}),
            "/v1/sources/{source_id}/summary": (
                "provider",
                {"level": ["sex"], "counts": [10, 20, 15, 19], "epsilon_micro": 1_000_000},
            ),
            "/v1/uploads": ("hospital", {"digest": "5" * 64, "size": 10, "kind": "test"}),
            "/v1/valsets": (
                "hospital",
                {
                    "schema_id": self.ids["schema"],
                    "size_class": 64,
                    "level": ["sex"],
                    "layout": layout,
                    "keys_blob": blob,
                    "upload_blobs": [blob],
                    "commitment": "2" * 64,
                },
            ),
            "/v1/requests": (
                "hospital",
                {
                    "valset_id": self.ids.get("valset", new_id("val")),
                    "source_ids": [self.ids.get("source", new_id("src"))],
                    "developer_ids": [self.ids.get("developer", new_id("org"))],
                    "records": 10,
                    "currency": "EUR",
                    **micro,
                    "purse": purse,
                },
            ),
            "/v1/agent/tasks/{task_id}": (
                "provider",
                {"answer": {"kind": "ask.commit", "commitment": "4" * 64}},
            ),
            "/v1/agent/tasks/{task_id}/refuse": ("hospital", {"reason": "no"}),
            "/v1/keys": ("provider", self.new_key("provider")),
            "/v1/apikeys": (
                "provider",
                {
                    "name": "a dashboard",
                    "prefix": "0" * 12,
                    "digest": "5" * 64,
                    "scopes": ["prices:read", "log:read"],
                    "lifetime_s": 3600,
                },
            ),
            "/v1/people": ("provider", {"email": "ada@example.org"}),
            "/v1/disputes": (
                "hospital",
                {
                    "request_id": new_id("req"),
                    "subject": new_id("ord"),
                    "reason": "delivery",
                    "remedy": "refund",
                    "words": "nothing came",
                    "receipts": [],
                    "evidence": {"blob": "5" * 64},
                },
            ),
            "/v1/requests/{request_id}/runs/{run_id}/cancel": ("hospital", {"reason": "a mistake"}),
            "/v1/requests/{request_id}/runs/{run_id}/audit": (
                "developer",
                {"envelope": {"payload": "e30=", "payloadType": "x", "signatures": []}},
            ),
            "/v1/requests/{request_id}/training": ("developer", {}),
            "/v1/requests/{request_id}/onward": (
                "developer",
                {
                    "order_id": new_id("ord"),
                    "recipient": new_id("org"),
                    "purpose": "train models",
                    "sealed_blob": "5" * 64,
                },
            ),
            "/v1/grants": (
                "provider",
                {
                    "source_id": self.ids.get("source", new_id("src")),
                    "recipient": "developers",
                    "attributes": ["sex", "sick"],
                    "purpose": "train models",
                    "expires": 2_000_000_000,
                },
            ),
            "/v1/grants/{grant_id}/withdraw": ("provider", {}),
            "/v1/sources/{source_id}/withdraw": ("provider", {}),
            "/v1/log/cosignatures": ("hospital", {"vkey": "w+1+k", "checkpoint": "a log\n1\n"}),
            "/v1/disputes/{dispute_id}/answer": ("provider", {"words": "it did", "evidence": {}}),
            "/v1/disputes/{dispute_id}/resolve": (
                "hospital",
                {"outcome": "refund", "words": "so it is", "reinstate": False},
            ),
        }

    def path(self, route: str) -> str:
        known = {"source_id": self.ids["source"], "task_id": new_id("tsk")}
        if route.endswith("/withdraw"):  # the source is needed by others
            known |= {"source_id": new_id("src"), "grant_id": new_id("grt")}
        known |= {"dispute_id": new_id("dsp"), "request_id": new_id("req"), "run_id": new_id("run")}
        return re.sub(r"\{(\w+)\}", lambda found: known[found[1]], route)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    app = create_app(Settings(folder, in_process=True, blob_bytes=2**20), FixedClock())
    with at_work(app.state.runner), app_client(app) as client:
        made = Server(client, app.openapi())
        for role in ("hospital", "provider", "developer"):
            made.keys[role] = SigningKey.generate()
            made.ids[role] = made.accepted(role, "/v1/orgs", made.org(role))["id"]
        made.ids["schema"] = made.accepted("hospital", "/v1/schemas", {"body": SCHEMA})["id"]
        source = made.bodies()["/v1/sources"][1]
        made.ids["source"] = made.accepted("provider", "/v1/sources", source)["id"]
        yield made


def routes(server: Server) -> list[str]:
    return [path for path, acts in server.openapi["paths"].items() if "post" in acts]


def check_problem(answer: httpx.Response) -> None:
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text)
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == answer.status_code
    assert {"type", "title", "status", "detail"} == set(document)


def test_trust_openapi_every_post_route_has_a_body_here(server: Server) -> None:
    """A new route must be added above before this passes."""
    assert sorted(routes(server)) == sorted(server.bodies())


# ---------------------------------------------------------------- damage

NASTY = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([-1, 0, 1, 2**31, 2**53 - 1, 2**53, 2**63, 2**64, -(2**63), 10**30]),
    st.sampled_from([0.5, -0.0, 1e308, 5e-324]),
    st.text(max_size=20),
    st.sampled_from(["", "\x00", "a\u202eb", "\ud800", "../../etc/passwd", "%s%n", "1" * 5000]),
    st.sampled_from(["req_" + "0" * 20, "val_" + "z" * 20, "0" * 64, "G" * 64, "A" * 43 + "="]),
    st.lists(st.integers(-5, 5), max_size=3),
    st.dictionaries(st.sampled_from(["kind", "name", "__proto__", ""]), st.integers(), max_size=2),
    st.just([[[[[[[[]]]]]]]]),
    st.just(list(range(3000))),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    children = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, child in children:
        found += places(child, (*path, key))
    return found


@st.composite
def damaged(draw: st.DrawFn, message: dict[str, Any]) -> dict[str, Any]:
    """The message with one or two members dropped, added or replaced."""
    result = copy.deepcopy(message)
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(places(result) or [("x",)]))
        parent = result
        for key in path[:-1]:
            parent = parent[key]
        act = draw(st.sampled_from(["drop", "replace", "add"]))
        if act == "drop" and path[-1] in (parent if isinstance(parent, dict) else {}):
            del parent[path[-1]]
        elif act == "add" and isinstance(parent, dict):
            parent[draw(st.text(max_size=5))] = copy.deepcopy(draw(NASTY))
        else:
            parent[path[-1]] = copy.deepcopy(draw(NASTY))
    return result


@given(data=st.data())
@settings(
    max_examples=250,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_trust_openapi_damaged_messages_get_problems_and_nothing_breaks(
    server: Server, data: st.DataObject
) -> None:
    route = data.draw(st.sampled_from(routes(server)))
    role, message = server.bodies()[route]
    role = data.draw(st.sampled_from([role, role, "developer", "hospital"]))
    spoiled = data.draw(damaged(message))
    body = json.dumps(spoiled).encode()  # lone surrogates leave as escapes
    answer = server.post(role, server.path(route), body)
    # A change may leave a message right (another name, another count): then it is accepted.
    if answer.status_code != 200:
        check_problem(answer)


BYTES = {
    "NaN": lambda text: text.replace(":", ': NaN, "x":', 1),
    "infinity": lambda text: text.replace(":", ': -Infinity, "x":', 1),
    "a name twice": lambda text: text[:-1] + "," + text[1:],
    "huge integer": lambda text: '{"x": ' + "9" * 5000 + "}",
    "a float": lambda text: text[:-1] + ', "x": 1.0}',
    "comment": lambda text: "/* */" + text,
    "two documents": lambda text: text + text,
    "cut short": lambda text: text[:-1],
    "a list": lambda text: f"[{text}]",
    "deep": lambda text: "[" * 50_000 + "]" * 50_000,
    "byte order mark": lambda text: "\ufeff" + text,
    "lone surrogate": lambda text: '{"\\ud800": 1}',
    "control character": lambda text: '{"a\x01": 1}',
    "empty": lambda text: "",
    "null": lambda text: "null",
}


@pytest.mark.parametrize("name", BYTES)
def test_trust_openapi_bytes_that_are_no_json_of_one_meaning(server: Server, name: str) -> None:
    for route, (role, message) in server.bodies().items():
        text = json.dumps(message)
        body = BYTES[name](text).encode("utf-8", "surrogatepass")
        check_problem(server.post(role, server.path(route), body))


@pytest.mark.parametrize(
    "headers",
    [
        {"Content_Encoding": "gzip"},
        {"Content_Encoding": "zstd"},
        {"Content_Type": "application/xml"},
        {"Content_Type": "multipart/form-data; boundary=x"},
        {"Content_Type": "application/json; charset=utf-16"},
        {"Idempotency_Key": "a" * 201},
        {"Idempotency_Key": "with space"},
    ],
    ids=lambda headers: "-".join(*headers.items())[:40],
)
@pytest.mark.parametrize("body", [b"\x1f\x8b\x08\x00bomb", b"<a/>", b"--x--"])
def test_trust_openapi_other_kinds_of_bodies(
    server: Server, headers: dict[str, str], body: bytes
) -> None:
    """No body is unpacked: what is not JSON as sent is refused, whatever it says it is."""
    for route, (role, _) in server.bodies().items():
        check_problem(server.post(role, server.path(route), body, **headers))


def test_trust_openapi_the_server_still_answers(server: Server) -> None:
    """After all of the above (and alone): alive, ready, and an accepted message is accepted."""
    for path in ("/healthz", "/readyz"):
        assert server.client.get(URL + path).status_code == 200
    server.accepted("provider", "/v1/sources", server.bodies()["/v1/sources"][1])


def test_trust_openapi_no_route_takes_an_address_to_call(server: Server) -> None:
    """Nothing in any message is a URL: the server cannot be made to call somebody."""

    def walk(node: Any) -> Iterator[Any]:
        if isinstance(node, dict):
            yield node
            for child in node.values():
                yield from walk(child)
        elif isinstance(node, list):
            for child in node:
                yield from walk(child)

    names = set()
    for node in walk(server.openapi["components"]["schemas"]):
        assert node.get("format") not in ("uri", "url", "uri-reference")
        names |= set(node.get("properties", {}))
    assert not [name for name in names if re.search(r"url|uri|callback|webhook|host$", name)]
