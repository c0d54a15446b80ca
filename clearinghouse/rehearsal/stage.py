"""The stage of a rehearsal: who plays, what each party is told, and the real processes they are."""

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import httpx

from clearinghouse.market import Market
from clearinghouse.money import MICRO, micro_epsilon
from clearinghouse.rehearsal.processes import (
    Child,
    PartyProcessError,
    children,
    rehearsal_environment,
)

START_S = 120.0
"""Longest time a party may take to register, publish or seal."""

TASK_S = 600
"""Deadline of every task: long enough for two cores, short enough to end a silent party."""


class Actor(Protocol):
    """A party process, or the same code in a thread."""

    name: str

    def expect(self, event: str, timeout_s: float) -> dict[str, Any] | None:
        """Wait for an event of that name; None if it does not come in time."""
        ...

    def send(self, message: dict[str, Any]) -> None:
        """Tell it something."""
        ...

    def check(self) -> None:
        """Raise if it has ended."""
        ...


@dataclass(frozen=True, slots=True)
class Stage:
    """Everything that runs.

    Attributes:
        url: The server's address.
        directory: Working folder; parties have folders `agent`, `providers`, `developers`.
        actors: Agent, providers and developers.
        connect: Makes an httpx client that reaches the server.
        pids: Process id of each part; empty in one process.
        server_data: The server's folder.
    """

    url: str
    directory: Path
    actors: Mapping[str, Actor]
    connect: Callable[[], AbstractContextManager[httpx.Client]]
    pids: Mapping[str, int]
    server_data: Path

    def check(self) -> None:
        """Raise if any part has ended; the server first, since others end when it is gone."""
        for actor in self.actors.values():
            actor.check()

    def expect(self, role: str, event: str) -> dict[str, Any]:
        """Wait for an event of a party.

        Raises:
            PartyProcessError: A part ended or reported an error; the server's end comes first.
        """
        deadline = time.monotonic() + START_S
        while True:
            self.check()
            try:
                found = self.actors[role].expect(event, 0.2)
            except PartyProcessError:
                self.check()
                raise
            if found is not None:
                return found
            if time.monotonic() > deadline:
                raise PartyProcessError(f"{role} did not report '{event}' within {START_S:.0f} s")


def party_configs(market: Market, sizes: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """The configuration of each party process, but for its address and folder.

    Args:
        market: The market.
        sizes: Rows of each table, for the default size class.
    """
    customer, epsilon = market.customer, market.epsilon
    common: dict[str, Any] = {"seed": market.seed}
    agent: dict[str, Any] = {
        "name": customer.name,
        "table": str(customer.table),
        "holdout_fraction": str(customer.holdout_fraction),
        "limit_micro": micro_epsilon(market.budget_limits.customer),
    }
    providers = [
        {
            "name": source.name,
            "table": str(source.table),
            "size_class": source.size_class or _size_class(sizes[source.name]),
            "ask_micro": int(source.price_per_record),
            "epsilon_micro": micro_epsilon(epsilon.source),
            "limit_micro": micro_epsilon(market.budget_limits.source),
        }
        for source in market.sources
    ]
    developers = [
        {
            "name": developer.name,
            "ask_micro": market.purse.asks.get(developer.name),
            **(
                {"onnx": str(developer.onnx)}
                if developer.onnx is not None
                else {"recipe": developer.recipe}
            ),
        }
        for developer in market.developers
    ]
    return {
        "agent": {**common, "role": "agent", "parties": [agent], "request": _terms(market)},
        "providers": {**common, "role": "providers", "parties": providers},
        "developers": {**common, "role": "developers", "parties": developers},
    }


def _size_class(rows: int) -> int:
    """Largest power of two not above the number of rows."""
    return int(1 << (rows.bit_length() - 1))


def _terms(market: Market) -> dict[str, Any]:
    """The fields of OpenRequest but for ids."""
    seconds = ("agent_s", "ask_s", "deliver_s", "model_s")
    return {
        "records": market.records,
        "currency": market.currency,
        "tariff_micro": int(market.tariff),
        "distance_price_micro": int(market.distance_price),
        "share_cap_micro": int(market.share_cap * MICRO),
        "fee_micro": int(market.fee * MICRO),
        "fairness_pot_micro": int(market.fairness_pot * MICRO),
        "epsilon_target_micro": micro_epsilon(market.epsilon.target),
        "epsilon_score_micro": micro_epsilon(market.epsilon.score),
        "purse": market.purse.wire,
        "deadlines": dict.fromkeys(seconds, TASK_S),
    }


def _write_configs(
    configs: Mapping[str, dict[str, Any]], market: Market, url: str, directory: Path
) -> dict[str, Path]:
    schema = directory / "schema.json"
    schema.write_text(json.dumps(market.schema.to_dict()))
    paths = {}
    for role, config in configs.items():
        paths[role] = directory / f"{role}.json"
        placed = {**config, "url": url, "directory": str(directory), "schema": str(schema)}
        paths[role].write_text(json.dumps(placed))
    return paths


@dataclass(frozen=True, slots=True)
class Hosts:
    """Where the processes of a rehearsal run, if not all on this host.

    Attributes:
        address: On which the server listens; the others and whoever drives can reach it.
        before: By part ("server", "sequencer", "worker", "agent", "providers", "developers"), a
            command that leads onto its host, such as `ip netns exec NAME`; parts that are not named
            run here. A sequencer or a worker of its own runs only if it is named; the server does
            not do its work then.
    """

    address: str = "127.0.0.1"
    before: Mapping[str, Sequence[str]] = field(default_factory=dict)


HERE = Hosts()


@contextmanager
def processes(
    market: Market,
    sizes: Mapping[str, int],
    directory: Path,
    *,
    record_bodies: Path | None = None,
    hosts: Hosts = HERE,
) -> Iterator[Stage]:
    """Server, agent, providers and developers as processes of their own, over HTTP.

    Raises:
        PartyProcessError: A process did not start.
    """
    from clearinghouse.client.transport import make_client

    data = directory / "server"
    arguments = ["clearinghouse.cli.main", "serve", "--data", str(data), "--port", "0", "--json"]
    arguments += ["--parent", str(os.getpid()), "--host", hosts.address]
    if "worker" in hosts.before:
        arguments += ["--workers", "0"]
    if "sequencer" in hosts.before:
        arguments += ["--no-sequencer"]
    if record_bodies is not None:
        arguments += ["--record-bodies", str(record_bodies)]
    with children() as started:
        if "sequencer" in hosts.before:
            started.append(_sequencer(directory, hosts.before["sequencer"]))
        server = Child("server", arguments, directory, hosts.before.get("server", ()))
        started.append(server)
        listening = server.expect("listening", START_S)
        if listening is None:
            raise PartyProcessError(f"the server did not listen within {START_S:.0f} s")
        url = str(listening["url"])
        paths = _write_configs(party_configs(market, sizes), market, url, directory)
        actors: dict[str, Actor] = {"server": server}
        if "worker" in hosts.before:
            worker = _worker(data, directory, hosts.before["worker"])
            started.append(worker)
            actors["worker"] = worker
        for role, path in paths.items():
            before = hosts.before.get(role, ())
            child = Child(role, ["clearinghouse.party_process", str(path)], directory, before)
            started.append(child)
            actors[role] = child
        yield Stage(
            url,
            directory,
            actors,
            lambda: make_client(url),
            {child.name: child.pid for child in started},
            data,
        )


def _sequencer(directory: Path, before: Sequence[str]) -> Child:
    """A sequencer with a folder of its own, where alone the log's key is."""
    arguments = ["clearinghouse.cli.main", "sequencer", "--data", str(directory / "sequencer")]
    arguments += ["--json", "--parent", str(os.getpid())]
    child = Child("sequencer", arguments, directory, before)
    if child.expect("sequencing", START_S) is None:
        raise PartyProcessError(f"the sequencer was not at work within {START_S:.0f} s")
    return child


def _worker(data: Path, directory: Path, before: Sequence[str]) -> Child:
    """A worker with a folder of its own: the blobs are the server's, the keys are not there."""
    folder = directory / "worker"
    folder.mkdir()
    (folder / "blobs").symlink_to(data / "blobs")
    arguments = ["clearinghouse.cli.main", "worker", "--data", str(folder), "--json"]
    return Child("worker", [*arguments, "--parent", str(os.getpid())], directory, before)


class ThreadActor:
    """A party process's main function in a thread of this process."""

    def __init__(self, name: str, target: Callable[["ThreadActor"], None]) -> None:
        self.name = name
        self.events: queue.Queue[dict[str, Any]] = queue.Queue()
        self.messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.failure: BaseException | None = None

        def run() -> None:
            try:
                target(self)
            except Exception as error:  # noqa: BLE001 - handed to the thread that waits
                self.failure = error

        self.thread = threading.Thread(target=run, name=name, daemon=True)
        self.thread.start()

    def expect(self, event: str, timeout_s: float) -> dict[str, Any] | None:
        """Wait for an event of that name; None if it does not come in time."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            try:
                found = self.events.get(timeout=0.1)
            except queue.Empty:
                self.check()
                continue
            if found.get("event") == event:
                return found
        return None

    def send(self, message: dict[str, Any]) -> None:
        """Tell it something."""
        self.messages.put(message)

    def check(self) -> None:
        """Raise what ended the thread, if something has."""
        if self.failure is not None:
            raise self.failure


@contextmanager
def threads(market: Market, sizes: Mapping[str, int], directory: Path) -> Iterator[Stage]:
    """The same parts in threads of this process, without sockets; for quick tests."""
    from anyio.from_thread import start_blocking_portal

    from api.app import create_app
    from clearinghouse.client.loopback import app_client
    from clearinghouse.client.transport import Transport
    from clearinghouse.clock import SystemClock
    from clearinghouse.party_process import read_config, serve
    from clearinghouse.settings import settings_from_environment

    data, url = directory / "server", "http://loopback"
    stop = threading.Event()
    app = create_app(
        replace(settings_from_environment(data, rehearsal_environment(os.environ)), in_process=True)
    )
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(app.router.lifespan_context(app)),
        app_client(app) as client,
    ):
        paths = _write_configs(party_configs(market, sizes), market, url, directory)
        actors: dict[str, Actor] = {}

        def play(role: str) -> Callable[[ThreadActor], None]:
            config = read_config(json.loads(paths[role].read_text()))

            def target(actor: ThreadActor) -> None:
                def connect(keystore: Any) -> Transport:
                    return Transport(url, keystore.signing_key, SystemClock(), client)

                serve(config, connect, actor.events.put, actor.messages.get, stop)

            return target

        for role in paths:
            actors[role] = ThreadActor(role, play(role))
        try:
            yield Stage(url, directory, actors, lambda: nullcontext(client), {}, data)
        finally:
            stop.set()
            for actor in actors.values():
                actor.send({})
                if isinstance(actor, ThreadActor):
                    actor.thread.join(timeout=10)


def python_version() -> str:
    """Version of the interpreter, for the report."""
    return sys.version.split()[0]
