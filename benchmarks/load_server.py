"""The server that is loaded, its workers, a market on it, and scorings that it does meanwhile."""

import asyncio
import hashlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import psutil

from benchmarks.load_calls import Caller
from benchmarks.scoring_inputs import linear, sealed_set
from clearinghouse.blobs.disk import DiskStore
from clearinghouse.canonical import canonical_bytes
from clearinghouse.ids import new_id
from clearinghouse.messages.results import PriceList, PriceView
from clearinghouse.rounds.queue import PROTOCOL
from clearinghouse.store.jobs import Wanted
from clearinghouse.store.store import Store
from secure_eval.keyholder import KeyHolder

PRICES = 12
ROWS, COLUMNS = 32_000, 16
_COMMAND = (sys.executable, "-m", "clearinghouse.cli.main")
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


class Server:
    """A `clearinghouse serve` of its own, with so many `clearinghouse worker` beside it.

    Each is a session of its own, as services are, and not of one group with who calls.
    """

    def __init__(self, database: str, workers: int, **settings: str) -> None:
        """Start all of it.

        Args:
            database: URL of an empty PostgreSQL database, or empty for SQLite.
            workers: Worker processes, of one slot each.
            settings: Of the server, in capitals and without their prefix.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="clearinghouse-load-")
        self.folder = Path(self._folder.name)
        self.data = self.folder / "server"
        self.database = database or f"sqlite:///{self.data / 'clearinghouse.db'}"
        named = {f"CLEARINGHOUSE_{name}": value for name, value in settings.items()}
        self._environment = {**os.environ, "OMP_NUM_THREADS": "1", **named}
        self._environment["CLEARINGHOUSE_DATABASE_URL"] = self.database
        self.rss: list[float] = []
        self._started: list[subprocess.Popen[str]] = []
        try:
            line = self._start("serve", "--port", "0", "--workers", "0")
            if not line.startswith("listening on "):
                raise RuntimeError(f"no server: {(self.folder / 'log').read_text()[-2000:]}")
            self.url = line.removeprefix("listening on ")
            for _ in range(workers):
                self._start("worker", "--slots", "1")
            self.store = Store(self.database)
        except BaseException:
            self._end()
            raise
        self.watched = psutil.Process(self._started[0].pid)

    def _start(self, name: str, *arguments: str) -> str:
        """Start a command and return the first line it says."""
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [
                    *_COMMAND,
                    name,
                    "--data",
                    str(self.data),
                    "--parent",
                    str(os.getpid()),
                    *arguments,
                ],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self._environment,
                start_new_session=True,  # the kernel shares processors among sessions first
            )
        self._started.append(process)
        return (process.stdout.readline() if process.stdout else "").strip()

    def __enter__(self) -> Self:
        """Nothing more to do: it runs."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop everything and wait."""
        self.store.close()
        self._end()

    def _end(self) -> None:
        for process in reversed(self._started):
            process.terminate()
        for process in reversed(self._started):
            process.wait(90)
            if process.stdout:
                process.stdout.close()
        self._folder.cleanup()

    def note_memory(self) -> float:
        """Resident megabytes of the API process, kept for the peak."""
        self.rss.append(self.watched.memory_info().rss / 1e6)
        return self.rss[-1]

    async def watch(self) -> None:
        """Sample memory until cancelled."""
        while True:
            self.note_memory()
            await asyncio.sleep(0.1)

    def cpu_s(self) -> float:
        """Processor seconds that the API process has used."""
        used = self.watched.cpu_times()
        return float(used.user + used.system)

    def workers_mb(self) -> float:
        """Resident megabytes of all workers and the processes they compute in."""
        found = [psutil.Process(process.pid) for process in self._started[1:]]
        family = [one for process in found for one in (process, *process.children(recursive=True))]
        return sum(one.memory_info().rss for one in family) / 1e6


@dataclass(frozen=True, slots=True)
class Market:
    """Who calls, and about what."""

    hospital: Caller
    provider: Caller
    schema_id: str
    request_id: str


class Scorings:
    """Jobs that begin a scoring: one linear model on four blocks of encrypted rows."""

    def __init__(self, server: Server, request_id: str) -> None:
        """Seal rows under a fresh key and store what the jobs read."""
        self._server, self._request_id = server, request_id
        blobs = DiskStore(server.data / "blobs", max_bytes=2**30)
        holder = KeyHolder.generate()
        sealed, _ = sealed_set(holder, ROWS, COLUMNS)
        self._arguments = {
            "keys": blobs.put(holder.public_keys()),
            "layout": json.loads(sealed.layout.to_json()),
            "upload": [blobs.put(blob) for blob in sealed.blobs],
            "model": blobs.put(linear(COLUMNS, 1).to_json().encode()),
            "columns": list(range(COLUMNS)),
            "coins": [],
        }
        self._ids: list[str] = []
        self._open: list[str] = []

    def add(self) -> str:
        """Queue one more."""
        run = new_id("run")
        nonces = {name: secrets.token_hex(16) for name in ("nonce",)}
        arguments = {**self._arguments, **nonces, "seed": secrets.token_hex(32), "run": run}
        body = canonical_bytes(arguments)
        key = hashlib.sha256(body).hexdigest()
        wanted = Wanted(
            "score.begin", run, "to score a model", key, PROTOCOL, 0, 3600, body.decode()
        )
        with self._server.store.write() as tx:
            found = tx.jobs.add(tx.requests.get(self._request_id), wanted, time.time())
        self._ids.append(found.id)
        self._open.append(found.id)
        return found.id

    def _states(self, job_ids: Sequence[str]) -> dict[str, str]:
        with self._server.store.read() as tx:
            return {job_id: tx.jobs.get(job_id).state for job_id in job_ids}

    def _fill(self, at_once: int) -> None:
        states = self._states(self._open)
        self._open = [name for name in self._open if states[name] in ("queued", "running")]
        for _ in range(at_once - len(self._open)):
            self.add()

    async def keep_busy(self, at_once: int) -> None:
        """Have so many of them open all the time, until cancelled."""
        while True:
            await asyncio.to_thread(self._fill, at_once)
            await asyncio.sleep(0.1)

    def done(self) -> int:
        """How many are done.

        Raises:
            RuntimeError: One failed or was cancelled.
        """
        states = list(self._states(tuple(self._ids)).values())  # others are added meanwhile
        if not {"failed", "cancelled"}.isdisjoint(states):
            raise RuntimeError("a scoring failed, or its request did")
        return states.count("done")


async def make_market(server: Server, client: httpx.AsyncClient) -> Market:
    """A market of one request whose prices are stored, on a running server."""
    hospital, provider, developer = (Caller(server.url, client) for _ in range(3))
    await hospital.register("hospital")
    await provider.register("provider")
    developer_id = await developer.register("developer")
    schema_id = await hospital.post("/v1/schemas", {"body": SCHEMA})
    source_id = await provider.post("/v1/sources", source(schema_id))
    summary = {"level": ["sex"], "counts": [10, 20, 15, 19], "epsilon_micro": 1_000_000}
    await provider.post(f"/v1/sources/{source_id}/summary", summary)
    blob = hashlib.sha256(b"ciphertext").hexdigest()
    await hospital.call("PUT", f"/v1/blobs/{blob}?kind=test", b"ciphertext")
    valset_id = await hospital.post("/v1/valsets", _valset(schema_id, blob))
    with server.store.write() as tx:  # a stand-in for ciphertexts passes no test
        tx.cohorts.judge_valset(valset_id, "")
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
    with server.store.write() as tx:
        tx.requests.keep(request_id, "prices", _prices(request_id))
    return Market(hospital, provider, schema_id, request_id)


def source(schema_id: str) -> dict[str, object]:
    """A cohort to register."""
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
