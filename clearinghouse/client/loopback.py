"""Calls to an application in this process, without a socket: for rehearsals and tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal


class _Loopback(httpx.BaseTransport):
    """Hands each request to an ASGI application on its own event loop in another thread."""

    def __init__(self, app: Any, portal: BlockingPortal) -> None:
        self._inner = httpx.ASGITransport(app)
        self._portal = portal

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one request; both bodies are held in memory."""
        body = request.read()
        status, headers, content = self._portal.call(self._call, request, body)
        return httpx.Response(status, headers=headers, content=content, request=request)

    async def _call(
        self, request: httpx.Request, body: bytes
    ) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        copy = httpx.Request(request.method, request.url, headers=request.headers, content=body)
        response = await self._inner.handle_async_request(copy)
        return response.status_code, response.headers.raw, await response.aread()


@contextmanager
def app_client(app: Any) -> Iterator[httpx.Client]:
    """A client of `app` that any number of threads may share.

    The application's lifespan is not run: whoever made the application starts and ends it.
    """
    with (
        start_blocking_portal() as portal,
        httpx.Client(transport=_Loopback(app, portal), trust_env=False) as client,
    ):
        yield client
