"""The OpenAPI document, completed: problems, signatures and the forms of ids.

The framework sees neither who may call (signatures are checked by `api.calls`) nor our problem
documents, and calls every refusal a 422 of its own. What is said here is held against the running
server by `tests/unit/api/test_api_schemathesis.py`.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from api.problems import MEDIA_TYPE
from api.tokens import ROUTES

PUBLIC = frozenset(
    {
        "/v1/log/checkpoint",
        "/v1/log/proof",
        "/v1/log/consistency",
        "/v1/log/cosigned",
        "/v1/log/cosignatures",
        "/v1/log/tiles/checkpoint",
        "/v1/log/tiles/tile/{level}/{path}",
        "/healthz",
        "/readyz",
        "/metrics",
    }
)
"""What anybody may call; the rest is signed, or read by an API key where a scope opens it."""

_PROBLEMS = {
    401: "The signature, nonce or API key does not hold.",
    403: "The API key's scopes do not name this.",
    404: "There is no such thing, or it is not the caller's to see.",
    408: "The body stopped coming.",
    409: "Not allowed now: state, role, budget, or an Idempotency-Key of another call.",
    413: "The body is longer than it may be.",
    415: "The body is not JSON as sent.",
    422: "A parameter or the message is malformed, or does not fit what it names.",
    429: "The organisation calls too often or has as much open or stored as it may.",
    503: "The server is busy or away; the same call may be repeated.",
    507: "The disk is full; the same call may be repeated later.",
}
_WAITS = frozenset({429, 503})
_WRITES = frozenset({"post", "put", "delete", "patch"})

_ID = "^[a-z]{3}_[0-9a-z]{20}$"
_FORMS = {
    "digest": "^[0-9a-f]{64}$",
    "key_id": "^[!-~]{1,100}$",
    "email": r"^[^\s@/\x00-\x20\x7f]+@[^\s@/\x00-\x20\x7f]+$",
    "path": r"^(x[0-9]{3}/){0,4}[0-9]{3}(\.p/[1-9][0-9]{0,2})?$",
}
"""Forms of parameters in paths; another form is nobody's id and is answered like one."""

_JSON = "application/json"
_BYTES = "application/octet-stream"
_CONTENTS = {
    ("get", "/v1/blobs/{digest}"): _BYTES,
    ("get", "/v1/log/tiles/checkpoint"): "text/plain",
    ("get", "/v1/log/tiles/tile/entries/{path}"): _BYTES,
    ("get", "/v1/log/tiles/tile/{level}/{path}"): _BYTES,
    ("get", "/metrics"): "text/plain",
    ("post", "/v1/agent/tasks/{task_id}"): _JSON,
    ("post", "/v1/agent/tasks/{task_id}/refuse"): _JSON,
    ("post", "/v1/requests/{request_id}/runs/{run_id}/cancel"): _JSON,
}
"""Answers of routes that name no message."""

_KEYED = frozenset(
    {
        "/v1/sources/{source_id}/summary",
        "/v1/requests",
        "/v1/agent/tasks/{task_id}",
        "/v1/disputes",
        "/v1/disputes/{dispute_id}/answer",
        "/v1/disputes/{dispute_id}/resolve",
    }
)
"""Writes that spend money or privacy: they need an Idempotency-Key, others may have one."""

_UNKEYED = frozenset({"/v1/orgs"})

_SCHEMES = {
    "signature": {
        "type": "apiKey",
        "in": "header",
        "name": "Signature",
        "description": (
            "RFC 9421 with Ed25519 over @method, @target-uri, content-digest and, where it is"
            " sent, idempotency-key; parameters created, keyid, nonce, tag. See docs/protocol.md."
        ),
    },
    "apikey": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key; its scopes name what it may read.",
    },
}
_PROBLEM = {
    "type": "object",
    "title": "Problem",
    "description": "RFC 9457.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "pattern": "^/problems/[a-z-]+$"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
    },
    "additionalProperties": False,
}


def complete(document: dict[str, Any]) -> None:
    """Say in an OpenAPI document what the framework does not know of our routes."""
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Problem"] = _PROBLEM
    components["securitySchemes"] = _SCHEMES
    for path, method, operation in _operations(document):
        operation["security"] = list(_security(path, method))
        content = _CONTENTS.get((method, path))
        if content is not None:
            operation["responses"]["200"]["content"] = {content: {}}
        if (method, path) == ("put", "/v1/blobs/{digest}"):
            operation["responses"]["200"] = {"description": "The caller had these bytes here."}
        for parameter in operation.get("parameters", ()):
            _shape(parameter)
        if operation["security"] and method in ("post", "delete") and path not in _UNKEYED:
            operation.setdefault("parameters", []).append(_idempotency_key(path in _KEYED))
        operation["responses"].pop("422", None)
        for status in sorted(_statuses(path, method, operation)):
            operation["responses"].setdefault(str(status), _response(status))


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield path, method, operation


def _security(path: str, method: str) -> Iterable[dict[str, list[str]]]:
    if path in PUBLIC:
        return
    yield {"signature": []}
    if method == "get" and path in ROUTES:
        yield {"apikey": []}


def _shape(parameter: dict[str, Any]) -> None:
    """The form of a parameter in a path; those in a query have theirs from the route."""
    name, schema = parameter["name"], parameter["schema"]
    if parameter["in"] != "path" or schema.get("type") != "string":
        return
    form = _FORMS.get(name, _ID if name.endswith("_id") else None)
    if form is not None:
        schema.setdefault("pattern", form)


def _idempotency_key(required: bool) -> dict[str, Any]:
    return {
        "name": "Idempotency-Key",
        "in": "header",
        "required": required,
        "description": "The same key with the same body is the same call: done once.",
        "schema": {"type": "string", "pattern": "^[!-~]{1,200}$"},
    }


def _statuses(path: str, method: str, operation: dict[str, Any]) -> set[int]:
    """Every status a route may answer besides its success."""
    if not path.startswith("/v1/"):
        return set()
    found = {503}
    takes_body = "requestBody" in operation or method == "put"
    if operation["security"]:
        found |= {401, 403, 404, 429}
    if operation.get("parameters") or takes_body:
        found |= {404, 422}
    if method in _WRITES or path == "/v1/blobs/{digest}":
        found |= {409, 507}
    if takes_body:
        found |= {408, 413, 415}
    return found


def _response(status: int) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "description": _PROBLEMS[status],
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    if status in _WAITS:
        answer["headers"] = {
            "Retry-After": {
                "description": "Seconds.",
                "required": True,
                "schema": {"type": "string", "pattern": "^[0-9]+$"},
            }
        }
    return answer
