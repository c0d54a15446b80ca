"""Schemathesis against a running server: every check it has, valid and invalid data, signed calls.

What the OpenAPI document says is held against what the server does: statuses, kinds of content,
headers, schemas of answers, methods, missing headers, invalid data that is taken and valid data
that is not. The server is a process of its own and must be the same one afterwards.
"""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
from schemathesis import openapi
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

from clearinghouse.clock import SystemClock
from clearinghouse.httpsig import sign_request
from clearinghouse.store.store import Store

URL = "http://testserver"
"""As callers address and sign it; the connection goes to the port that the system chose."""

SEED = 20_261_125

MEANT = [
    "PATCH /v1/uploads/{upload_id}",  # more bytes than were announced
    "GET /v1/log/consistency",  # two sizes in the wrong order
    "GET /v1/log/proof",
    "GET /v1/sources/{source_id}/prices",  # a cursor that no page gave
    "POST /v1/agent/tasks/{task_id}",  # an answer of another kind, blobs that nobody uploaded
    "POST /v1/apikeys",  # a scope twice
    "POST /v1/disputes",
    "POST /v1/disputes/{dispute_id}/answer",
    "POST /v1/disputes/{dispute_id}/resolve",
    "POST /v1/grants",  # an end in the past, attributes that the schema has not
    "POST /v1/keys",  # 32 bytes that are no point of the curve
    "POST /v1/log/cosignatures",
    "POST /v1/orgs",
    "POST /v1/requests",
    "POST /v1/requests/{request_id}/runs/{run_id}/audit",
    "POST /v1/schemas",  # the body is a schema of tables, which JSON Schema cannot describe
    "POST /v1/sources",  # sizes that are no powers of two
    "POST /v1/sources/{source_id}/summary",
    "POST /v1/uploads",  # more bytes than this server takes
    "POST /v1/valsets",
    "PUT /v1/blobs/{digest}",  # bytes of another digest
]
"""Where a well-formed message may mean nonsense: only there 413 or 422 answers valid data."""

REJECTED = "Schema-valid request rejected"

KEY = ("idempotency-key",)
TAKEN = ["2xx", "401", "403", "404", "409", "413", "422", "429"]
PHASES = ("examples", "coverage", "fuzzing", "stateful")

MANY = ("POST /v1/agent/tasks/{task_id}", "POST /v1/requests")
"""Messages with so many members that all cases of the two take as long as those of all others."""

ROLES = (
    (r"POST /v1/(sources|grants)", "provider"),
    (r"POST /v1/requests/[^/]+/(training|runs/[^/]+/audit)", "developer"),
)


@dataclass
class Server:
    """A server process with a market in it."""

    process: subprocess.Popen[str]
    url: str
    market: Any
    clock: SystemClock

    def sign(self, call: requests.PreparedRequest) -> requests.PreparedRequest:
        """Sign a call as the party that may do it, over exactly what is sent."""
        body = call.body or b""
        body = body.encode() if isinstance(body, str) else body
        path = call.path_url
        roles = (role for form, role in ROLES if re.match(form, f"{call.method} {path}"))
        key = getattr(self.market, next(roles, "hospital")).key
        names = {name: value for name, value in call.headers.items() if name.lower() in KEY}
        made = sign_request(call.method, URL + path, names, body, key, key.key_id, self.clock)
        call.headers.update(made)
        return call


class Signed(requests.auth.AuthBase):
    def __init__(self, server: Server) -> None:
        self.server = server

    def __call__(self, call: requests.PreparedRequest) -> requests.PreparedRequest:
        return self.server.sign(call)


@pytest.fixture
def server(tmp_path: Path, store_url: str, market_on: Any) -> Iterator[Server]:
    """A server whose limits of calls do not hide what a call does."""
    settings = {
        "PUBLIC_URL": URL,
        "DATABASE_URL": store_url,
        "READS_PER_S": "1000000",
        "WRITES_PER_S": "1000000",
        "BLOB_BYTES": str(2**20),
        "OPEN_REQUESTS": "1000000",
    }
    environment = {f"CLEARINGHOUSE_{name}": value for name, value in settings.items()}
    command = [sys.executable, "-m", "clearinghouse.cli.main", "serve", "--port", "0"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--data", str(tmp_path / "server"), "--workers", "0", "--json"],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, **environment},
        )
    assert process.stdout is not None
    try:
        url = json.loads(process.stdout.readline())["url"]
        with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
            store, clock = Store(store_url), SystemClock()
            market = market_on(client, clock, store)
            store.close()
        yield Server(process, url, market, clock)
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


@dataclass
class Told:
    """What came of a run."""

    statuses: Counter[int]
    operations: set[str]
    faults: list[str]


def run(
    server: Server,
    *phases: str,
    examples: int = 1,
    leave_out: Sequence[str] = (),
    document: dict[str, Any] | None = None,
) -> Told:
    """Run phases with at most so many examples for each operation, from one seed."""
    config = SchemathesisConfig.from_dict(
        {
            "seed": SEED,
            "continue-on-failure": True,
            "generation": {
                "deterministic": True,
                "max-examples": examples,
                "no-shrink": True,
                "with-security-parameters": False,
                "database": "none",
            },
            "phases": {name: {"enabled": name in phases} for name in PHASES},
            "operations": [
                *({"include-name": name, "enabled": False} for name in leave_out),
                {
                    "include-name": MEANT,
                    "checks": {"positive_data_acceptance": {"expected-statuses": TAKEN}},
                },
            ],
        }
    )
    if document is None:
        document = described(server)
    schema = openapi.from_dict(document, config=config)
    config.projects.default.base_url = server.url
    schema.auth.set_from_requests(Signed(server))
    told = Told(Counter(), set(), [])
    for event in from_schema(schema).execute():
        note(told, event)
    return told


def described(server: Server) -> dict[str, Any]:
    """The OpenAPI document as the server gives it."""
    found: dict[str, Any] = httpx.get(f"{server.url}/v1/openapi.json", trust_env=False).json()
    return found


def note(told: Told, event: Any) -> None:
    if isinstance(event, events.FatalError):
        raise event.exception
    if isinstance(event, events.NonFatalError):
        told.faults.append(f"{event.label}: {event.value}")
    if not isinstance(event, events.ScenarioFinished):
        return
    for case, interaction in event.recorder.interactions.items():
        if interaction.response is not None:
            told.statuses[interaction.response.status_code] += 1
            told.operations.add(event.recorder.cases[case].value.operation.label)
    for case, nodes in event.recorder.checks.items():
        body = event.recorder.cases[case].value.body
        for found in (node.failure_info for node in nodes if node.failure_info):
            if found.failure.title == REJECTED and has_float(body):
                continue
            message = " ".join(str(found.failure.message).split())
            told.faults.append(
                f"{event.label}: {found.failure.title}: {message}\n{found.code_sample[:1000]}"
            )


def has_float(value: object) -> bool:
    """Whether 1.0 stands somewhere in it: an integer for JSON Schema, and refused by the server.

    Numbers are written in one way only (RFC 8785), and no schema can say so.
    """
    if isinstance(value, dict | list):
        return any(map(has_float, value.values() if isinstance(value, dict) else value))
    return isinstance(value, float)


def check(server: Server, told: Told) -> None:
    """Nothing was found, the answers were of the right hundreds, and it is still that process."""
    assert not told.faults, "\n\n".join(told.faults[:20])
    assert all(200 <= status < 500 for status in told.statuses), told.statuses
    assert server.process.poll() is None
    ready = httpx.get(f"{server.url}/readyz", trust_env=False)
    assert ready.status_code == 200, ready.text


def operations(document: dict[str, Any]) -> set[str]:
    return {
        f"{method.upper()} {path}" for path, acts in document["paths"].items() for method in acts
    }


ON_SQLITE = pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)


@ON_SQLITE
def test_what_the_document_says_is_what_the_server_does(server: Server) -> None:
    """Every case that the document defines, but for two large messages, and drawn ones of all."""
    told = run(server, "coverage", leave_out=MANY)
    drawn = run(server, "fuzzing", examples=2)
    check(server, told)
    check(server, drawn)
    assert drawn.operations == operations(described(server))
    assert told.operations == drawn.operations - set(MANY)
    # Valid ones are taken, and the checks see more than refusals.
    assert {200, 401, 404, 405, 409, 415, 422} <= set(told.statuses)


@ON_SQLITE
def test_a_document_that_is_wrong_is_found_out(server: Server) -> None:
    """Planted: a route that is open though it says it is signed, one whose statuses are hidden."""
    document = described(server)
    document["paths"] = {
        path: document["paths"][path] for path in ("/healthz", "/v1/orgs/{org_id}", "/v1/people")
    }
    document["paths"]["/healthz"]["get"]["security"] = [{"signature": []}]
    del document["paths"]["/v1/orgs/{org_id}"]["get"]["responses"]["404"]
    del document["paths"]["/v1/people"]["post"]["requestBody"]["content"]["application/json"]
    document["paths"]["/v1/people"]["post"]["requestBody"]["content"]["application/xml"] = {
        "schema": {"type": "object"}
    }
    found = "\n".join(run(server, "coverage", document=document).faults)
    assert "GET /healthz: API accepts requests without authentication" in found
    assert "GET /v1/orgs/{org_id}: Undocumented status code" in found
    assert "POST /v1/people: Schema-valid request rejected" in found


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_longer_on_both_databases(server: Server) -> None:
    """All cases of all operations, 100 drawn ones for each, and sequences of calls."""
    for phase, examples in (("coverage", 1), ("fuzzing", 100), ("stateful", 30)):
        told = run(server, phase, examples=examples)
        check(server, told)
        assert told.statuses, phase
        print(phase, sum(told.statuses.values()), dict(told.statuses))
