"""Request bodies in the OpenAPI document.

Routes read the raw bytes, which are signed and hashed, so the framework cannot see the message
classes by itself.
"""

from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from api.described import complete
from clearinghouse.messages.base import Message

_REF = "#/components/schemas/{model}"
_taken: set[type[Message]] = set()


def takes(kind: type[Message]) -> dict[str, Any]:
    """What a route says of its JSON body."""
    _taken.add(kind)
    schema = {"$ref": _REF.format(model=kind.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def describe(app: FastAPI) -> None:
    """Add to the application's OpenAPI document what the framework does not know of our routes."""
    plain = app.openapi

    def whole() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = plain()
            kinds: Any = [(kind, "validation") for kind in sorted(_taken, key=lambda k: k.__name__)]
            _, found = models_json_schema(kinds, ref_template=_REF)
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            for name, schema in found.get("$defs", {}).items():
                schemas.setdefault(name, schema)
            complete(document)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = whole  # type: ignore[method-assign]
