"""Load on loopback: price queries, signed writes and uploads together, against a real server.

An open loop: every call has a time at which it is due, and its latency counts from there, so a slow
answer cannot hide the calls that waited behind it. Caller and server share the machine. The prices
are a stored document of 12 sources, read by the route that every price query takes (signature,
tenancy, database); how long it takes to compute them is not measured here.

`LOAD_DATABASE_URL` runs it on another database than SQLite in the server's folder.
"""

import asyncio
import hashlib
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import httpx
import psutil

from clearinghouse.canonical import canonical_bytes
from clearinghouse.clock import SystemClock
from clearinghouse.httpsig import sign_request
from clearinghouse.ids import new_id
from clearinghouse.messages.results import PriceList, PriceView
from clearinghouse.signing import SigningKey
from clearinghouse.store.store import Store

READS_PER_S, WRITES_PER_S, UPLOADS_PER_S = 50, 10, 2
UPLOAD_BYTES = 2**20
LARGE_BYTES = 500_000_000
PRICES = 12
HOLD = {"price query": 250.0, "signed write": 500.0}
"""Promised p99 in milliseconds."""

_BOUNDS_MS = (2, 5, 10, 20, 50, 100, 250, 500, 1000)
SCHEMA = {
    "name": "load",
    "unit": "patient",
    "patient_id": None,
    "label": {"name": "sick", "kind": "category", "levels": ["no", "yes"]},
    "columns": [
        {"name": "sex", "kind": "category", "levels": ["F", "M"], "missing": False, "words": []}
    ],
    "strata": [["sex"]],
    "subgroups": ["sex"],
}


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
            await self.act()
        except httpx.HTTPError as error:
            self.errors.append(type(error).__name__)
        self.took_ms.append((time.perf_counter() - due) * 1000)

    def quantile(self, part: float) -> float:
        """A quantile of the latencies, in milliseconds."""
        ordered = sorted(self.took_ms)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))]

    @property
    def row(self) -> str:
        """A table row: rate, quantiles, promise."""
        hold = f"{HOLD[self.name]:.0f} ms" if self.name in HOLD else ""
        numbers = (len(self.took_ms), *(self.quantile(part) for part in (0.5, 0.9, 0.99, 1.0)))
        text = "{} | {:.1f} | {:.1f} | {:.1f} | {:.1f}".format(*numbers)
        return f"| {self.name}, {self.per_s:g}/s | {text} | {len(self.errors)} | {hold} |"

    @property
    def histogram(self) -> str:
        """How many calls took up to each bound."""
        edges = (0, *_BOUNDS_MS, float("inf"))
        counts = [sum(low <= took < high for took in self.took_ms) for low, high in pairwise(edges)]
        return f"| {self.name} | " + " | ".join(map(str, counts)) + " |"


class Server:
    """A `clearinghouse serve` of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        database = os.environ.get("LOAD_DATABASE_URL", "")
        self.database = database or f"sqlite:///{folder / 'server' / 'clearinghouse.db'}"
        if database:
            environment["CLEARINGHOUSE_DATABASE_URL"] = database
        self.log = (folder / "log").open("wb")
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "clearinghouse.cli.main", "serve"),
                *("--data", str(folder / "server"), "--port", "0"),
            ],
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=environment,
        )
        line = (self.process.stdout.readline() if self.process.stdout else "").strip()
        if not line.startswith("listening on "):
            self.close()
            raise RuntimeError(f"the server did not start: {(folder / 'log').read_text()[-2000:]}")
        self.url = line.removeprefix("listening on ")
        self.watched = psutil.Process(self.process.pid)
        self.rss: list[float] = []

    def note_memory(self) -> float:
        """Resident megabytes of the API process, kept for the peak."""
        self.rss.append(self.watched.memory_info().rss / 1e6)
        return self.rss[-1]

    async def watch(self) -> None:
        """Sample memory until cancelled."""
        while True:
            self.note_memory()
            await asyncio.sleep(0.1)

    def close(self) -> None:
        """Stop it and wait."""
        self.process.terminate()
        self.process.wait(30)
        if self.process.stdout:
            self.process.stdout.close()
        self.log.close()


async def _market(server: Server, client: httpx.AsyncClient) -> tuple[Caller, Caller, str, str]:
    """Hospital, provider, schema and an open request whose prices are stored."""
    hospital, provider, developer = (Caller(server.url, client) for _ in range(3))
    await hospital.register("hospital")
    await provider.register("provider")
    developer_id = await developer.register("developer")
    schema_id = await hospital.post("/v1/schemas", {"body": SCHEMA})
    source_id = await provider.post("/v1/sources", _source(schema_id))
    summary = {"level": ["sex"], "counts": [10, 20, 15, 19], "epsilon_micro": 1_000_000}
    await provider.post(f"/v1/sources/{source_id}/summary", summary)
    blob = hashlib.sha256(b"ciphertext").hexdigest()
    await hospital.call("PUT", f"/v1/blobs/{blob}?kind=test", b"ciphertext")
    valset_id = await hospital.post("/v1/valsets", _valset(schema_id, blob))
    terms = {
        "valset_id": valset_id,
        "source_ids": [source_id],
        "developer_ids": [developer_id],
        "records": 10,
        "currency": "EUR",
        "tariff_micro": 6_000_000,
        "distance_price_micro": 1_000_000,
        "share_cap_micro": 1_500_000,
        "fee_micro": 50_000,
        "epsilon_target_micro": 500_000,
        "epsilon_score_micro": 1_000_000,
        "purse": {
            "kind": "acceptance",
            "amount_micro": 300_000_000,
            "metric": "auc",
            "threshold_micro": 700_000,
            "confidence_micro": 900_000,
        },
    }
    request_id = await hospital.post("/v1/requests", terms)
    store = Store(server.database)
    with store.write() as tx:
        tx.requests.keep(request_id, "prices", _prices(request_id))
    store.close()
    return hospital, provider, schema_id, request_id


def _source(schema_id: str) -> dict[str, object]:
    return {
        "name": "cohort",
        "schema_id": schema_id,
        "size_class": 64,
        "rows_root": secrets.token_hex(32),
        "leaves": 128,
    }


def _valset(schema_id: str, blob: str) -> dict[str, object]:
    return {
        "schema_id": schema_id,
        "size_class": 64,
        "level": ["sex"],
        "layout": {
            "version": "bfv-8192-1032193-1",
            "n_blocks": 1,
            "columns": 2,
            "labels": 2,
            "cells": 2,
            "groups": [["sex", 2]],
        },
        "keys_blob": blob,
        "upload_blobs": [blob],
        "commitment": "2" * 64,
    }


def _prices(request_id: str) -> str:
    """A price list of ordinary size."""
    prices = [
        PriceView(
            source_id=new_id("src"),
            point_micro=1_950_000 + number,
            low_micro=1_700_000,
            high_micro=2_250_000,
            basis="per record",
            status="firm",
            n_effective=120,
            components={"reserve": 1, "marginal": 2, "dividend": 3, "holdback": 4},
            counterfactual={"objective_without_micro": 812_345_678},
            shapley_micro=12_345_678,
            leave_one_out_micro=2_345_678,
            marginal_micro=3_345_678,
            calls=64,
            seed=7,
            mechanism_version="1",
            commit_hash="5" * 64,
        )
        for number in range(PRICES)
    ]
    return canonical_bytes(PriceList(request_id=request_id, prices=prices).model_dump()).decode()


async def _mixed(server: Server, seconds: float) -> tuple[list[Stream], dict[str, float]]:
    limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
    async with httpx.AsyncClient(timeout=60, trust_env=False, limits=limits) as client:
        hospital, provider, schema_id, request_id = await _market(server, client)
        price = f"/v1/requests/{request_id}/prices"

        async def upload() -> None:
            data = secrets.token_bytes(UPLOAD_BYTES)
            name = hashlib.sha256(data).hexdigest()
            await hospital.call("PUT", f"/v1/blobs/{name}?kind=test", data)

        streams = [
            Stream("price query", READS_PER_S, lambda: hospital.call("GET", price)),
            Stream(
                "signed write",
                WRITES_PER_S,
                lambda: provider.post("/v1/sources", _source(schema_id)),
            ),
            Stream("1 MiB upload", UPLOADS_PER_S, upload),
        ]
        await asyncio.gather(*(Stream("warm", 10, stream.act).run(2) for stream in streams))
        memory = {"before": server.note_memory()}
        watcher = asyncio.create_task(server.watch())
        started = time.process_time()
        await asyncio.gather(*(stream.run(seconds) for stream in streams))
        memory["caller_cpu"] = (time.process_time() - started) / seconds
        watcher.cancel()
        memory |= {"peak": max(server.rss), "after": server.note_memory()}
        return streams, memory


async def _large(server: Server, size: int) -> dict[str, float]:
    """One long upload in 1 MiB pieces: megabytes a second, and how the server's memory grows."""
    block = secrets.token_bytes(UPLOAD_BYTES)
    blocks = size // UPLOAD_BYTES
    whole = hashlib.sha256()
    for _ in range(blocks):
        whole.update(block)
    async with httpx.AsyncClient(timeout=600, trust_env=False) as client:
        caller = Caller(server.url, client)
        await caller.register("hospital")
        url = f"{server.url}/v1/blobs/{whole.hexdigest()}?kind=test"
        key = caller.key
        headers = {"Content-Length": str(blocks * UPLOAD_BYTES)}
        headers |= sign_request(
            "PUT", url, {}, None, key, key.key_id, SystemClock(), body_digest=whole.digest()
        )

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(blocks):
                yield block

        before = server.note_memory()
        server.rss.clear()
        watcher = asyncio.create_task(server.watch())
        started = time.perf_counter()
        answer = await client.put(url, content=pieces(), headers=headers)
        took = time.perf_counter() - started
        watcher.cancel()
        answer.raise_for_status()
    return {
        "bytes": blocks * UPLOAD_BYTES,
        "mb_per_s": blocks * UPLOAD_BYTES / 1e6 / took,
        "growth_mb": max(server.rss, default=before) - before,
    }


def run(quick: bool) -> str:
    """Measure; quick is 30 seconds of mixed load, otherwise 10 minutes."""
    seconds = 30.0 if quick else 600.0
    with tempfile.TemporaryDirectory(prefix="clearinghouse-load-") as name:
        server = Server(Path(name))
        try:
            streams, memory = asyncio.run(_mixed(server, seconds))
            large = asyncio.run(_large(server, LARGE_BYTES))
            answer = httpx.get(f"{server.url}/readyz", trust_env=False).json()
        finally:
            server.close()
    database = server.database.partition(":")[0]
    bounds = [*(f"< {bound}" for bound in _BOUNDS_MS), f"{_BOUNDS_MS[-1]} +"]
    return "\n".join(
        [
            f"{seconds:.0f} s on {database}, load average {os.getloadavg()[0]:.1f}, "
            f"{psutil.cpu_count()} cores; {answer['entries']} log entries at the end.",
            "",
            "| calls | number | p50 ms | p90 ms | p99 ms | worst ms | errors | p99 to hold |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
            *(stream.row for stream in streams),
            "",
            "| calls by ms | " + " | ".join(bounds) + " |",
            "| --- |" + " --- |" * len(bounds),
            *(stream.histogram for stream in streams),
            "",
            f"API process: {memory['before']:.0f} MB resident before, {memory['peak']:.0f} MB at "
            f"most, {memory['after']:.0f} MB after; the caller used {memory['caller_cpu']:.0%} of "
            "one core.",
            f"One upload of {large['bytes'] / 1e6:.0f} MB: {large['mb_per_s']:.0f} MB/s, the API "
            f"process grew by {large['growth_mb']:.0f} MB (to hold: 64 MB).",
        ]
    )
