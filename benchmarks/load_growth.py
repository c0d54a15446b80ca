"""How calls grow with what is stored: sources, log entries, organisations."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence

import httpx
from sqlalchemy import insert

from benchmarks.load_calls import Caller, Stream
from benchmarks.load_server import Market, Server, source
from clearinghouse.log import merkle
from clearinghouse.store.tables import EntryRow, NodeRow

CALLS = 60
AT_ONCE = 8
TENANTS_S = 6.0

Act = Callable[[], Awaitable[object]]


async def _median_ms(act: Act) -> tuple[float, float]:
    """Median and 95th percentile of calls that are made one after the other."""
    took = []
    for _ in range(CALLS):
        started = time.perf_counter()
        await act()
        took.append((time.perf_counter() - started) * 1000)
    ordered = sorted(took)
    return ordered[CALLS // 2], ordered[int(0.95 * CALLS)]


async def _many(number: int, act: Act) -> None:
    """Do something so many times, some of them at once."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def one() -> None:
        async with turns:
            await act()

    await asyncio.gather(*(one() for _ in range(number)))


async def by_sources(market: Market, counts: Sequence[int]) -> list[list[str]]:
    """List a page of sources, read one's prices, register one more."""

    async def register() -> None:
        await market.provider.post("/v1/sources", source(market.schema_id))

    rows, there = [], 1
    for count in counts:
        await _many(count - there, register)
        there = count
        path = f"/v1/sources?schema_id={market.schema_id}"
        listed = await _median_ms(lambda path=path: market.hospital.call("GET", path))
        priced = await _median_ms(
            lambda: market.hospital.call("GET", f"/v1/requests/{market.request_id}/prices")
        )
        written = await _median_ms(register)
        there += CALLS
        rows.append([f"{count:,} sources", *_cells(listed, priced, written)])
    return rows


async def by_entries(server: Server, market: Market, counts: Sequence[int]) -> list[list[str]]:
    """Prove an entry, prove that the log only grew, register one more source."""
    rows = []
    for count in counts:
        await asyncio.to_thread(_fill, server, count)
        with server.store.read() as tx:
            size = tx.log.size()
        spread = itertools.count()

        async def prove(size: int = size, spread: Iterator[int] = spread) -> None:
            index = next(spread) * 7919 % size
            await market.hospital.call("GET", f"/v1/log/proof?index={index}&size={size}")

        async def grew(size: int = size, spread: Iterator[int] = spread) -> None:
            old = 1 + next(spread) * 7919 % size
            await market.hospital.call("GET", f"/v1/log/consistency?old={old}&size={size}")

        async def register() -> None:
            await market.provider.post("/v1/sources", source(market.schema_id))

        found = [await _median_ms(act) for act in (prove, grew, register)]
        rows.append([f"{size:,} log entries", *_cells(*found)])
    return rows


class _Written(merkle.MemoryNodes):
    """A tree in memory that keeps the nodes it is given, as rows."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, object]] = []

    def put(self, level: int, index: int, node: bytes) -> None:
        super().put(level, index, node)
        self.rows.append({"level": level, "position": index, "hash": node})


def _fill(server: Server, count: int) -> None:
    """Copies of an entry, so that the tree has at least this size: what they say costs nothing.

    Rows are written in bulk; `Logbook.append` writes the same, one entry after the other.
    """
    with server.store.write() as tx:
        nodes, size = _Written(), tx.log.size()
        if size >= count:
            return
        for start in range(0, size, 1000):
            for body in tx.log.entries(start, 1000):
                merkle.append(nodes, body)
        nodes.rows.clear()
        fresh = [{"position": index, "body": body} for index in range(size, count)]
        for _ in fresh:
            merkle.append(nodes, body)
        session = tx._session
        if tx.log.is_sequenced_at_once:  # then ids are positions; PostgreSQL gives its own
            fresh = [{**row, "id": row["position"]} for row in fresh]
        session.execute(insert(EntryRow), fresh)
        session.execute(insert(NodeRow), nodes.rows)
    with server.store.read() as tx:
        if tx.log.root(count) != merkle.root(nodes):
            raise RuntimeError("the log was not filled as it would have grown")


async def by_tenants(
    server: Server, client: httpx.AsyncClient, market: Market, counts: Sequence[int]
) -> list[list[str]]:
    """The same load, spread over more and more organisations that read and write."""
    callers: list[Caller] = []

    async def join() -> None:
        caller = Caller(server.url, client)
        await caller.register("provider")
        callers.append(caller)

    rows = []
    for count in counts:
        await _many(count - len(callers), join)
        turn = itertools.count()

        async def read(turn: Iterator[int] = turn) -> None:
            caller = callers[next(turn) % len(callers)]
            await caller.call("GET", f"/v1/sources?schema_id={market.schema_id}")

        async def write(turn: Iterator[int] = turn) -> None:
            caller = callers[next(turn) % len(callers)]
            await caller.post("/v1/sources", source(market.schema_id))

        streams = [Stream("read", 20, read), Stream("write", 5, write)]
        await asyncio.gather(*(stream.run(TENANTS_S) for stream in streams))
        found = [(stream.quantile(0.5), stream.quantile(0.95)) for stream in streams]
        rows.append([f"{count:,} organisations", *_cells(*found)])
    return rows


def _cells(*found: tuple[float, float]) -> list[str]:
    return [f"{median:.1f} / {late:.1f}" for median, late in found]


def ratio(rows: Sequence[Sequence[str]]) -> list[str]:
    """How much the medians grew from the first row to the last."""
    first, last = rows[0], rows[-1]
    pairs = zip(first[1:], last[1:], strict=True)
    return ["last : first", *(f"{_median(new) / _median(old):.2f}" for old, new in pairs)]


def _median(cell: str) -> float:
    return float(cell.partition(" / ")[0])
