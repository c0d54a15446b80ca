import hashlib
import json

import httpx
import numpy as np
import pytest
from selling import TERMS
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from clearinghouse.canonical import digest
from clearinghouse.client.keystore import Keystore
from clearinghouse.client.loopback import app_client
from clearinghouse.client.provider import Provider
from clearinghouse.client.transport import Transport
from clearinghouse.clock import SystemClock
from clearinghouse.errors import AuthenticationError
from clearinghouse.httpsig import verify_request
from clearinghouse.ids import new_id
from clearinghouse.messages.deliveries import Recipient
from clearinghouse.schema import Schema, parse_schema
from clearinghouse.signing import VerifyKey
from clearinghouse.tables import Table, from_records

HEART = {
    "name": "heart",
    "label": {"name": "disease", "levels": ["0", "1"]},
    "columns": {
        "age": {"kind": "number", "low": "20", "high": "90", "cuts": ["45", "55", "65"]},
        "sex": {"kind": "category", "levels": ["F", "M"]},
        "pain": {"kind": "category", "levels": ["1", "2", "3", "4"]},
        "chol": {"kind": "number", "low": "80", "high": "610", "missing": "true"},
        "rate": {"kind": "number", "low": "50", "high": "220", "missing": "true"},
        "sugar": {"kind": "category", "levels": ["no", "yes"], "missing": "true"},
    },
    "strata": [["sex"], ["age", "sex"]],
    "subgroups": ["sex", "age"],
}


def make_table(schema: Schema, n: int, seed: int, prevalence: float | None = None) -> Table:
    """Heart-like rows: disease rises with age, male sex and pain, falls with heart rate."""
    random = np.random.default_rng(seed)
    age = np.clip(random.normal(55, 10, n), 20, 90).round(1)
    male = random.random(n) < 0.7
    pain = random.integers(1, 5, n)
    rate = np.clip(random.normal(140, 20, n), 50, 220).round()
    risk = 0.06 * (age - 55) + 0.9 * male + 0.8 * (pain == 4) - 0.03 * (rate - 140) - 0.8
    sick = random.random(n) < 1 / (1 + np.exp(-risk))
    if prevalence is not None:
        sick = np.zeros(n, dtype=bool)
        sick[: round(prevalence * n)] = True
    records = [
        {
            "age": f"{age[i]:.1f}",
            "sex": "M" if male[i] else "F",
            "pain": str(pain[i]),
            "chol": None if random.random() < 0.3 else f"{random.uniform(150, 350):.0f}",
            "rate": None if random.random() < 0.1 else f"{rate[i]:.0f}",
            "sugar": (None, "no", "yes")[random.integers(0, 3)],
            "disease": str(int(sick[i])),
        }
        for i in range(n)
    ]
    return from_records(schema, records, file="made")


@pytest.fixture(scope="session")
def schema() -> Schema:
    return parse_schema(HEART, file="heart")


@pytest.fixture(scope="session")
def heart(schema):
    return lambda n, seed=0, prevalence=None: make_table(schema, n, seed, prevalence)


class Bench:
    """A small ASGI application: stores blobs, hands out ids, counts what it was asked.

    It checks every signature and remembers answers by idempotency key, as any server must.
    """

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.parts: dict[str, bytearray] = {}
        self.announced: dict[str, tuple[str, int]] = {}
        self.piece_bytes = 2**23
        self.posts: list[tuple[str, dict]] = []
        self.answers: dict[str, tuple[bytes, bytes]] = {}
        self.keys: dict[str, VerifyKey] = {}
        self.nonces: set[str] = set()
        self.trouble: list[Response] = []
        self.tasks: list[dict] = []
        self.ids: dict[str, str] = {}
        self.documents: dict[str, dict] = {}
        self.leave: dict = {"allowed": [], "refused": {}}
        self.app = Starlette(
            routes=[
                Route("/v1/blobs/{name}", self.put, methods=["PUT"]),
                Route("/v1/blobs/{name}", self.get, methods=["GET"]),
                Route("/v1/uploads", self.begin, methods=["POST"]),
                Route("/v1/uploads/{name}", self.piece, methods=["PATCH"]),
                Route("/v1/agent/tasks", self.open_tasks, methods=["GET"]),
                Route("/v1/{path:path}", self.post, methods=["POST"]),
                Route("/v1/echo", self.echo, methods=["GET"]),
                Route("/v1/requests/{path:path}", self.document, methods=["GET"]),
            ]
        )

    async def checked(self, request) -> tuple[bytes, str]:
        body = await request.body()
        if request.url.path == "/v1/orgs":
            key = VerifyKey.from_base64(json.loads(body)["public_key"])
            self.keys[key.key_id] = key

        def remember(key_id: str, nonce: str, _until: int) -> bool:
            fresh = nonce not in self.nonces
            self.nonces.add(nonce)
            return fresh

        signer = verify_request(
            request.method,
            str(request.url),
            request.headers.items(),
            body,
            self.keys.get,
            SystemClock(),
            remember,
        )
        return body, signer

    def problem(self, kind: str, status: int, detail: str) -> JSONResponse:
        document = {"type": f"/problems/{kind}", "title": kind, "status": status, "detail": detail}
        return JSONResponse(document, status, media_type="application/problem+json")

    async def put(self, request):
        body, _ = await self.checked(request)
        if hashlib.sha256(body).hexdigest() != request.path_params["name"]:
            return self.problem("bad-input", 422, "other bytes than the name says")
        if self.trouble:
            return self.trouble.pop(0)
        self.blobs[request.path_params["name"]] = body
        return Response(status_code=201)

    async def begin(self, request):
        body, _ = await self.checked(request)
        message = json.loads(body)
        name = "upl_" + message["digest"][:20]
        self.announced[name] = (message["digest"], message["size"])
        self.parts.setdefault(name, bytearray())
        return self.upload(name)

    async def piece(self, request):
        body, _ = await self.checked(request)
        name = request.path_params["name"]
        if self.trouble:
            return self.trouble.pop(0)
        if int(request.query_params["offset"]) != len(self.parts[name]):
            return self.problem("conflict", 409, "go on somewhere else")
        self.parts[name] += body
        digest, size = self.announced[name]
        if len(self.parts[name]) == size:
            self.blobs[digest] = bytes(self.parts[name])
            assert hashlib.sha256(self.blobs[digest]).hexdigest() == digest
        return self.upload(name)

    def upload(self, name):
        digest, size = self.announced[name]
        view = {"digest": digest, "size": size, "received": len(self.parts[name])}
        done = digest in self.blobs
        view |= {"id": None if done else name, "done": done, "expires": 0}
        return JSONResponse(view | {"piece_bytes": self.piece_bytes})

    async def get(self, request):
        await self.checked(request)
        data = self.blobs.get(request.path_params["name"])
        if data is None:
            return self.problem("not-found", 404, "no such blob")
        return Response(data)

    async def echo(self, request):
        _, signer = await self.checked(request)
        if self.trouble:
            return self.trouble.pop(0)
        return JSONResponse({"checkpoint": str(request.url), "vkey": signer})

    async def document(self, request):
        await self.checked(request)
        found = self.documents.get(request.path_params["path"])
        return JSONResponse(found) if found else self.problem("not-found", 404, "no such thing")

    async def open_tasks(self, request):
        try:
            await self.checked(request)
        except AuthenticationError as error:
            return self.problem("unauthenticated", 401, str(error))
        return JSONResponse({"tasks": self.tasks})

    async def post(self, request):
        try:
            body, signer = await self.checked(request)
        except AuthenticationError as error:
            return self.problem("unauthenticated", 401, str(error))
        if self.trouble:
            return self.trouble.pop(0)
        key = request.headers["idempotency-key"]
        if key in self.answers:
            known, answer = self.answers[key]
            if known != body:
                return self.problem("conflict", 409, "another body under this key")
            return Response(answer, media_type="application/json")
        path, message = request.path_params["path"], json.loads(body)
        self.posts.append((path, message))
        answer = json.dumps(self.view(path, message, signer)).encode()
        self.answers[key] = (body, answer)
        self.tasks = [task for task in self.tasks if f"agent/tasks/{task['id']}" not in path]
        return Response(answer, media_type="application/json")

    def view(self, path: str, message: dict, signer: str) -> dict:
        if path == "orgs":
            org = self.ids.setdefault(signer, new_id("org"))
            kept = {name: value for name, value in message.items() if name != "witness"}
            return {**kept, "id": org, "key_id": signer}
        if path == "schemas":
            identity = hashlib.sha256(json.dumps(message).encode()).hexdigest()
            return {
                "id": self.ids.setdefault(identity, new_id("sch")),
                "digest": identity,
                "body": message["body"],
            }
        if path == "sources":
            self.source = {
                **{name: value for name, value in message.items() if name != "size_release"},
                "id": new_id("src"),
                "org_id": self.ids[signer],
                "published": False,
            }
            return self.source
        if path.endswith("/summary"):
            return {**self.source, "published": True}
        if path == "grants":
            kept = {name: value for name, value in message.items() if name != "sender"}
            owner = self.ids[signer]
            view = {"id": new_id("grt"), "owner": owner, "sender": owner, "given": 0}
            return {**kept, **view, "withdrawn": None, "uses": []}
        if path.endswith("/training"):
            return self.leave
        if path.endswith("/withdraw"):
            empty = {"erased": None, "grants": [], "requests": [], "notices": 0, "models": []}
            return {"source_id": self.source["id"], "withdrawn": 1, **empty}
        if path == "valsets":
            kept = ("schema_id", "size_class", "level", "commitment")
            view = {name: message[name] for name in kept}
            return {**view, "id": new_id("val"), "org_id": self.ids[signer]}
        if path == "requests":
            view = {
                "id": new_id("req"),
                "org_id": self.ids[signer],
                "step": "match",
                "state": "running",
                "reason": "",
                "waiting_for": [],
                "done_tasks": 0,
                "open_tasks": 0,
                "terms": message,
                "terms_digest": digest(message),
                "step_seconds": {},
                "message_bytes": {},
            }
            self.documents[view["id"]] = view
            return view
        return {}


@pytest.fixture(scope="session")
def new_bench():
    return Bench


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def client(bench):
    with app_client(bench.app) as client:
        yield client


@pytest.fixture
def connect(bench, client, tmp_path):
    """A keystore and a transport to the bench for a named party, the same for the same name."""
    ours = client

    def make(name: str, client: httpx.Client | None = None) -> tuple[Keystore, Transport]:
        keystore = Keystore.open(tmp_path / name)
        bench.keys.setdefault(keystore.signing_key.key_id, keystore.signing_key.verify_key)
        pauses = []
        transport = Transport(
            "http://bench", keystore.signing_key, SystemClock(), client or ours, pause=pauses.append
        )
        transport.pauses = pauses
        return keystore, transport

    return make


@pytest.fixture
def provider(connect, heart):
    keystore, transport = connect("cleveland")
    made = Provider("cleveland", keystore, transport, heart(90, seed=1), TERMS)
    made.publish()
    return made


@pytest.fixture
def recipients(tmp_path):
    keystores = [Keystore.open(tmp_path / f"developer{i}") for i in range(2)]
    return keystores, [
        Recipient(org_id=new_id("org"), grant_id=new_id("grt"), age_recipient=k.age_recipient)
        for k in keystores
    ]
