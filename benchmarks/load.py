"""Load on loopback: price queries, signed writes, uploads and scorings together, on a real server.

An open loop: every call has a time at which it is due, and its latency counts from there, so a slow
answer cannot hide the calls that waited behind it. Caller, server and workers share the machine.
The prices are a stored document of 12 sources, read by the route that every price query takes
(signature, tenancy, database); how long it takes to compute them is not measured here. The server
does no jobs; worker processes beside it score one encrypted block after the other meanwhile.

SQLite always; PostgreSQL too where `LOAD_DATABASE_URLS` names five empty databases, with spaces.
At most eight minutes; `--quick` is two.
"""

import asyncio
import hashlib
import os
import secrets
import time
from collections.abc import AsyncIterator, Iterator, Sequence

import httpx
import psutil

from benchmarks.load_calls import BOUNDS_MS, Caller, Stream
from benchmarks.load_growth import by_entries, by_sources, by_tenants, ratio
from benchmarks.load_server import Scorings, Server, make_market, source
from clearinghouse.clock import SystemClock
from clearinghouse.httpsig import sign_request

READS_PER_S, WRITES_PER_S, UPLOADS_PER_S = 50, 10, 2
UPLOAD_BYTES = 2**20
LARGE_BYTES = 500_000_000
WORKERS = (1, 2, 3)
_LIMITS = httpx.Limits(
    max_connections=64,
    max_keepalive_connections=64,
    keepalive_expiry=2,  # before the server ends them, so that no call meets a closed one
)
_UNLIMITED = {"WRITES_PER_S": "100000", "READS_PER_S": "100000"}


def _client(seconds: float = 60) -> httpx.AsyncClient:
    return httpx.AsyncClient(timeout=seconds, trust_env=False, limits=_LIMITS)


# ---------------------------------------------------------------- everything together


async def _mixed(server: Server, seconds: float) -> tuple[list[Stream], dict[str, float]]:
    async with _client() as client:
        market = await make_market(server, client)
        price = f"/v1/requests/{market.request_id}/prices"

        async def upload() -> None:
            data = secrets.token_bytes(UPLOAD_BYTES)
            name = hashlib.sha256(data).hexdigest()
            await market.hospital.call("PUT", f"/v1/blobs/{name}?kind=test", data)

        async def write() -> None:
            await market.provider.post("/v1/sources", source(market.schema_id))

        streams = [
            Stream("price query", READS_PER_S, lambda: market.hospital.call("GET", price)),
            Stream("signed write", WRITES_PER_S, write),
            Stream("1 MiB upload", UPLOADS_PER_S, upload),
        ]
        scorings = await asyncio.to_thread(Scorings, server, market.request_id)
        await asyncio.gather(*(Stream("warm", 10, stream.act).run(2) for stream in streams))
        memory = {"before": server.note_memory()}
        beside = [
            asyncio.create_task(server.watch()),
            asyncio.create_task(scorings.keep_busy(2)),
        ]
        started, served = time.process_time(), server.cpu_s()
        await asyncio.gather(*(stream.run(seconds) for stream in streams))
        calls = sum(len(stream.took_ms) for stream in streams)
        memory["caller_cpu_ms"] = 1000 * (time.process_time() - started) / calls
        memory["api_cpu_ms"] = 1000 * (server.cpu_s() - served) / calls
        memory["workers"] = server.workers_mb()
        for task in beside:
            task.cancel()
        memory |= {"peak": max(server.rss), "after": server.note_memory()}
        memory["scored"] = await asyncio.to_thread(scorings.done)
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


def _together(database: str, seconds: float) -> str:
    """The table of one database."""
    with Server(database, workers=1) as server:
        streams, memory = asyncio.run(_mixed(server, seconds))
        large = asyncio.run(_large(server, LARGE_BYTES))
        answer = httpx.get(f"{server.url}/readyz", trust_env=False).json()
        kind = server.database.partition(":")[0]
    bounds = [*(f"< {bound}" for bound in BOUNDS_MS), f"{BOUNDS_MS[-1]} +"]
    return "\n".join(
        [
            f"{seconds:.0f} s on {kind}, load average {os.getloadavg()[0]:.1f}, "
            f"{psutil.cpu_count()} cores; {answer['entries']} log entries at the end; "
            f"{memory['scored']:.0f} scorings done meanwhile by one worker.",
            "",
            _table(
                ["calls", "number", "p50 ms", "p95 ms", "p99 ms", "worst ms", "errors", "p99 hold"],
                [stream.cells for stream in streams],
            ),
            "",
            _table(["calls by ms", *bounds], [stream.histogram for stream in streams]),
            "",
            f"API process: {memory['before']:.0f} MB resident before, {memory['peak']:.0f} MB at "
            f"most, {memory['after']:.0f} MB after; the worker with its process "
            f"{memory['workers']:.0f} MB.",
            f"Processor time for each call, whatever else the machine did: API "
            f"{memory['api_cpu_ms']:.1f} ms, caller {memory['caller_cpu_ms']:.1f} ms.",
            f"One upload of {large['bytes'] / 1e6:.0f} MB: {large['mb_per_s']:.0f} MB/s, the API "
            f"process grew by {large['growth_mb']:.0f} MB (to hold: 64 MB).",
        ]
    )


# ---------------------------------------------------------------- growth and workers


async def _growth(server: Server, quick: bool) -> list[str]:
    counts = {
        "sources": (10, 100) if quick else (10, 100, 1000),
        "entries": (1_000, 10_000) if quick else (1_000, 10_000, 100_000),
        "tenants": (1, 10) if quick else (1, 10, 100),
    }
    async with _client() as client:
        market = await make_market(server, client)
        sources = await by_sources(market, counts["sources"])
        tenants = await by_tenants(server, client, market, counts["tenants"])
        entries = await by_entries(server, market, counts["entries"])
    heads = (
        ["stored", "a page of 50 sources", "prices of a request", "signed write"],
        ["callers, 25 calls/s in all", "read", "signed write"],
        ["stored", "proof of an entry", "proof of growth", "signed write"],
    )
    return [
        _table(head, [*rows, ratio(rows)])
        for head, rows in zip(heads, (sources, tenants, entries), strict=True)
    ]


def _grown(database: str, quick: bool) -> str:
    with Server(database, workers=0, **_UNLIMITED) as server:
        kind = server.database.partition(":")[0]
        tables = asyncio.run(_growth(server, quick))
    return "\n\n".join([f"Growth on {kind}, medians and 95th percentiles in ms:", *tables])


async def _prepared(server: Server) -> str:
    async with _client() as client:
        return (await make_market(server, client)).request_id


def _scored(database: str, workers: int, jobs: int) -> list[str]:
    """So many scorings by so many worker processes."""
    with Server(database, workers=workers) as server:
        scorings = Scorings(server, asyncio.run(_prepared(server)))
        for _ in range(workers):
            scorings.add()
        _wait(scorings, workers)  # every process has loaded its libraries
        started = time.perf_counter()
        for _ in range(jobs):
            scorings.add()
        _wait(scorings, workers + jobs)
        took = time.perf_counter() - started
        return [str(workers), f"{jobs / took:.2f}", f"{server.workers_mb():.0f}"]


def _wait(scorings: Scorings, number: int) -> None:
    while scorings.done() < number:
        time.sleep(0.05)


# ---------------------------------------------------------------- the command


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def run(quick: bool) -> Iterator[str]:
    """Measure: mixed load, growth, and scorings by more and more worker processes."""
    named = os.environ.get("LOAD_DATABASE_URLS", "").split()
    if len(named) not in (0, 2 + len(WORKERS)):
        raise SystemExit(f"LOAD_DATABASE_URLS needs {2 + len(WORKERS)} empty databases")
    seconds, jobs = (15.0, 4) if quick else (60.0, 12)
    for url in ("", *named[:1]):
        yield _together(url, seconds)
    for url in ("", *named[1:2]):
        yield _grown(url, quick)
    places = named[2:] or [""] * len(WORKERS)
    rows = [_scored(url, n, jobs) for url, n in zip(places, WORKERS, strict=True)]
    kind = "PostgreSQL" if named else "SQLite"
    head = ["worker processes", "scorings a second", "resident MB of all workers"]
    yield f"{jobs} scorings on {kind}:\n\n{_table(head, rows)}"
