"""Signed calls at a steady rate, and how long each took."""

import asyncio
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import pairwise

import httpx

from clearinghouse.canonical import canonical_bytes
from clearinghouse.clock import SystemClock
from clearinghouse.httpsig import sign_request
from clearinghouse.signing import SigningKey

HOLD = {"price query": 250.0, "signed write": 500.0}
"""Promised p99 in milliseconds."""

AT_ONCE = 20
"""Calls of one kind that are under way at once; more wait here, as they would for a connection."""

BOUNDS_MS = (2, 5, 10, 20, 50, 100, 250, 500, 1000)


@dataclass
class Caller:
    """One organisation that signs its calls."""

    url: str
    client: httpx.AsyncClient
    key: SigningKey = field(default_factory=SigningKey.generate)

    async def call(self, method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
        """Make one call; anything but success raises."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if method == "POST":
            named |= {"Content-Type": "application/json", "Idempotency-Key": secrets.token_hex(16)}
        url = self.url + path
        signed = sign_request(method, url, named, body, self.key, self.key.key_id, SystemClock())
        answer = await self.client.request(method, url, content=body, headers=named | signed)
        answer.raise_for_status()
        return bytes(answer.content)

    async def post(self, path: str, message: object) -> str:
        """POST and return the id in the answer."""
        body = canonical_bytes(message)
        found = re.search(rb'"id":"([a-z]{3}_[0-9a-z]{20})"', await self.call("POST", path, body))
        if found is None:
            raise RuntimeError(f"{path} answered without an id")
        return found[1].decode("ascii")

    async def register(self, role: str) -> str:
        """Register under the caller's key."""
        recipient = "age1" + "q" * 58 if role == "developer" else None
        key = self.key.verify_key.base64
        return await self.post(
            "/v1/orgs",
            {"name": role, "role": role, "public_key": key, "age_recipient": recipient},
        )


@dataclass
class Stream:
    """Calls of one kind at a steady rate, and how long each took."""

    name: str
    per_s: float
    act: Callable[[], Awaitable[object]]
    took_ms: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    async def run(self, seconds: float) -> None:
        """Start every call when it is due, answered or not the one before."""
        start = time.perf_counter()
        waiting = []
        for number in range(int(seconds * self.per_s)):
            due = start + number / self.per_s
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            waiting.append(asyncio.create_task(self._one(due)))
        await asyncio.gather(*waiting)

    async def _one(self, due: float) -> None:
        try:
            async with self.turns:
                await self.act()
        except httpx.HTTPError as error:
            self.errors.append(type(error).__name__)
        self.took_ms.append((time.perf_counter() - due) * 1000)

    def quantile(self, part: float) -> float:
        """A quantile of the latencies, in milliseconds."""
        ordered = sorted(self.took_ms)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))]

    @property
    def cells(self) -> list[str]:
        """A table row: rate, quantiles, promise."""
        hold = f"{HOLD[self.name]:.0f} ms" if self.name in HOLD else ""
        quantiles = [f"{self.quantile(part):.1f}" for part in (0.5, 0.95, 0.99, 1.0)]
        number, errors = str(len(self.took_ms)), str(len(self.errors))
        return [f"{self.name}, {self.per_s:g}/s", number, *quantiles, errors, hold]

    @property
    def histogram(self) -> list[str]:
        """How many calls took up to each bound."""
        edges = (0, *BOUNDS_MS, float("inf"))
        counts = [sum(low <= took < high for took in self.took_ms) for low, high in pairwise(edges)]
        return [self.name, *map(str, counts)]
