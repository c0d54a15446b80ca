"""Every error as application/problem+json (RFC 9457), also those of the framework."""

import http
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.routing import Match

from clearinghouse.errors import ClearinghouseError, QuotaError, RateError
from clearinghouse.journal import journal

MEDIA_TYPE = "application/problem+json"
_TYPES = {404: "not-found", 405: "method-not-allowed", 413: "bad-input", 415: "bad-input"}

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")

_log = journal("api")


def problem(status: int, kind: str, detail: str, headers: dict[str, str] | None = None) -> Any:
    """A problem document as a response."""
    body = {
        "type": f"/problems/{kind}",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    return JSONResponse(body, status, headers, media_type=MEDIA_TYPE)


def explain(error: ValidationError) -> str:
    """What is wrong with a message: place and rule of the first fault, never the value."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"]) or "the message"
    return f"{place}: {first['msg']}"


def _allowed(request: Request) -> list[str]:
    """Every method that a path takes; the framework names those of the first route alone."""
    routes = request.app.routes
    return [
        method
        for method in _METHODS
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes
        )
    ]


def _after_s(error: ClearinghouseError) -> int:
    """Seconds after which the same call may do: room in a quota comes less soon than a token."""
    if isinstance(error, QuotaError):
        return 3600
    return error.after_s if isinstance(error, RateError) else 1


def install(app: FastAPI) -> None:
    """Make every error of the application a problem document."""

    @app.exception_handler(ClearinghouseError)
    def _ours(_request: Request, error: ClearinghouseError) -> Any:
        if error.status >= 500:
            _log.warning("problem", kind=error.problem_type)
        headers = None
        if error.status in (429, 503):
            headers = {"Retry-After": str(_after_s(error))}
        return problem(error.status, error.problem_type, str(error), headers)

    @app.exception_handler(ValidationError)
    def _message(_request: Request, error: ValidationError) -> Any:
        return problem(422, "bad-input", explain(error))

    @app.exception_handler(RequestValidationError)
    def _parameters(_request: Request, error: RequestValidationError) -> Any:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return problem(422, "bad-input", f"{place}: {first['msg']}")

    @app.exception_handler(HTTPException)
    def _framework(request: Request, error: HTTPException) -> Any:
        kind = _TYPES.get(error.status_code, "http")
        headers = dict(error.headers) if error.headers else None
        if error.status_code == 405:
            headers = {"Allow": ", ".join(_allowed(request))}
        return problem(error.status_code, kind, str(error.detail), headers)

    @app.exception_handler(ClientDisconnect)
    def _gone(_request: Request, _error: ClientDisconnect) -> Any:
        return problem(400, "cut-off", "the caller went away in the middle of the body")

    @app.exception_handler(Exception)
    def _ours_to_fix(_request: Request, error: Exception) -> Any:
        _log.error("internal", error=type(error).__name__)
        return problem(500, "internal", "the server made a mistake; it was written to its log")
