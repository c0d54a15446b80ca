"""What an operator sees of calls: an id for each, counts and latencies, spans, a line in the log.

Routes are named by their templates, so that no id and no value becomes a label.
"""

import re
import secrets
import time
from collections.abc import MutableMapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clearinghouse.cause import Cause, because
from clearinghouse.journal import journal
from clearinghouse.traces import span

HEADER = "x-request-id"
PREFIX = "/v1"
_GIVEN = re.compile(r"[A-Za-z0-9._-]{1,64}")
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

_log = journal("calls")


class Calls:
    """Counts and latencies of calls."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("method", "route", "status")
        self.count = Counter("clearinghouse_calls", "API calls.", labels, registry=registry)
        self.seconds = Histogram(
            "clearinghouse_call_seconds",
            "Seconds to answer a call; a poll for tasks may wait on purpose.",
            ("method", "route"),
            buckets=_BUCKETS,
            registry=registry,
        )

    def saw(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a call."""
        self.count.labels(method, route, str(status)).inc()
        self.seconds.labels(method, route).observe(seconds)


class Observer:
    """ASGI middleware: accepts or makes the call's id, returns it, and measures."""

    def __init__(self, app: ASGIApp, calls: Calls) -> None:
        self._app, self._calls = app, calls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a call on under its id."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        call, started, status = _call_id(scope), time.monotonic(), 500

        async def say(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (HEADER.encode(), call.encode())]
            await send(message)

        method = _method(scope)
        with because(Cause(call)), span(f"api {method}") as note:
            try:
                await self._app(scope, receive, say)
            finally:
                route, seconds = _route(scope), time.monotonic() - started
                note("route", route)
                note("status", status)
                self._calls.saw(method, route, status, seconds)
                if method not in ("GET", "HEAD") or status >= 400:
                    _log.info(
                        "call", method=method, route=route, status=status, seconds=round(seconds, 4)
                    )


def _call_id(scope: Scope) -> str:
    """The caller's X-Request-Id where it is short and plain, else a new one."""
    for name, value in scope["headers"]:
        if name == HEADER.encode():
            given = str(value, "latin-1")
            if _GIVEN.fullmatch(given):
                return given
    return secrets.token_hex(8)


def _method(scope: MutableMapping[str, Any]) -> str:
    method = str(scope["method"])
    return method if method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE") else "other"


def _route(scope: MutableMapping[str, Any]) -> str:
    """The template of the route that was found; the framework may leave our prefix out."""
    found = str(getattr(scope.get("route"), "path", ""))
    if not found:
        return "unknown"
    is_short = scope["path"].startswith(f"{PREFIX}/") and not found.startswith(f"{PREFIX}/")
    return f"{PREFIX}{found}" if is_short else found
