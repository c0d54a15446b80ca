"""Writes every HTTP body to a folder, so that privacy tests can search all that ever travelled."""

import itertools
import os
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Recorder:
    """ASGI middleware; off unless settings name a folder."""

    def __init__(self, app: ASGIApp, folder: Path) -> None:
        self._app, self._folder = app, folder
        self._numbers = itertools.count()
        folder.mkdir(parents=True, exist_ok=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a call on and keep both bodies."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"].strip("/").replace("/", "_")[:100]
        number = f"{os.getpid()}-{next(self._numbers):06d}"
        name = self._folder / f"{number}-{scope['method']}-{path}"
        with (
            name.with_suffix(".request").open("wb") as asked,
            name.with_suffix(".response").open("wb") as answered,
        ):
            asked.write(scope.get("query_string", b"") + b"\n")

            async def hear() -> Message:
                message = await receive()
                asked.write(message.get("body", b""))
                return message

            async def say(message: Message) -> None:
                answered.write(message.get("body", b""))
                await send(message)

            await self._app(scope, hear, say)
