"""Connections that send or take nothing are ended, so that none can be held open for free.

A body must keep coming: each piece within the limit, and after that time at least `LEAST_RATE`
bytes a second on average, or a caller could send one byte at a time for ever. An answer must be
taken likewise. What a call waits for in the server (an agent's long poll) is not counted.
"""

import asyncio
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import problem

LEAST_RATE = 1024


class StalledError(Exception):
    """The other side has stopped."""


class Stalls:
    """ASGI middleware.

    Args:
        app: The application.
        stall_s: Seconds without progress.
    """

    def __init__(self, app: ASGIApp, stall_s: float) -> None:
        self._app, self._stall_s = app, stall_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a call on with a watch on both bodies."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, size, is_whole, has_begun = time.monotonic(), 0, False, False

        async def hear() -> Message:
            nonlocal size, is_whole
            if is_whole:  # only a disconnect can come, which takes as long as the call does
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), self._stall_s)
            except TimeoutError:
                raise StalledError from None
            size += len(message.get("body", b""))
            is_whole = not message.get("more_body", False)
            took = time.monotonic() - began
            if not is_whole and took > self._stall_s and size < took * LEAST_RATE:
                raise StalledError
            return message

        async def say(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            try:
                await asyncio.wait_for(send(message), self._stall_s)
            except TimeoutError:
                raise StalledError from None

        try:
            await self._app(scope, hear, say)
        except StalledError:
            if has_begun:
                raise  # the server cuts the connection: the answer cannot be made whole
            words = "the body stopped coming; send it again, faster"
            headers = {"Connection": "close"}
            await problem(408, "stalled", words, headers)(scope, receive, send)
