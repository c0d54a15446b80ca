"""A process that acts for the parties of a rehearsal: `python -m clearinghouse.party_process FILE`.

FILE is a JSON document (`read_config`). The process speaks JSON lines: events on stdout, and on
stdin, for the agent, one line {"source_ids": [...], "developer_ids": [...]} when all have
published. It ends when stdin closes, at SIGTERM, or with the process that started it. Neither
output ever carries a value of a table.
"""

import contextlib
import faulthandler
import json
import os
import queue
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from clearinghouse.canonical import parse_strict
from clearinghouse.client.developer import Developer
from clearinghouse.client.held import MOST_HELD, run_held
from clearinghouse.client.hospital import Hospital, HospitalTerms
from clearinghouse.client.keystore import Keystore
from clearinghouse.client.party import IDLE_S, Emit, Party, run_tasks
from clearinghouse.client.provider import Provider, SourceTerms
from clearinghouse.client.recipes import onnx_source, recipe_source
from clearinghouse.client.transport import Transport, make_client
from clearinghouse.clock import SystemClock
from clearinghouse.collector import collect_rarely
from clearinghouse.errors import ClearinghouseError, InputError, TableError, TryAgainError
from clearinghouse.lifeline import die_with
from clearinghouse.places import place
from clearinghouse.schema import Schema, load_schema
from clearinghouse.tables import Table, read_table, stratified_split

Role = Literal["agent", "providers", "developers"]
Connect = Callable[[Keystore], Transport]
"""Makes a party's transport from its keys."""
Receive = Callable[[], dict[str, Any] | None]
"""The next message from whoever runs the market; None when there will be none."""

AGENT_WAIT_S = 2
PARTIES_A_SECOND = 30
"""Idle polls that one process sends at most, so that many parties do not keep the server busy."""

MOST_IDLE_S = 3.0
THREADS = 4


@dataclass(frozen=True, slots=True)
class Config:
    """What one process does.

    Attributes:
        role: "agent" (one hospital), "providers" or "developers".
        url: The server's scheme, host and port.
        directory: Every party has the folder directory/role/name.
        schema: Path of the public schema.
        seed: Of splits and model training only.
        parties: One mapping for each party; see `_hospital`, `_provider` and `_developer`.
        request: The agent's terms: the fields of `OpenRequest` without ids.
    """

    role: Role
    url: str
    directory: Path
    schema: Path
    seed: int
    parties: tuple[Mapping[str, Any], ...]
    request: Mapping[str, Any]


def read_config(document: object) -> Config:
    """Check the outer form of a configuration.

    Raises:
        InputError: A key is missing, unknown or of another type.
    """
    needed = {"role", "url", "directory", "schema", "seed", "parties"}
    if not isinstance(document, dict) or not needed <= set(document) <= needed | {"request"}:
        raise InputError(f"a party configuration needs {', '.join(sorted(needed))}")
    role, seed = document["role"], document["seed"]
    if role not in ("agent", "providers", "developers"):
        raise InputError("role must be agent, providers or developers")
    if type(seed) is not int or not isinstance(document["parties"], list):
        raise InputError("seed must be a whole number and parties a list")
    parties, request = document["parties"], document.get("request", {})
    if not parties or not all(isinstance(item, dict) for item in [*parties, request]):
        raise InputError("parties must be at least one mapping, and request a mapping")
    if role == "agent" and (len(parties) != 1 or not request):
        raise InputError("an agent acts for one hospital and needs a request")
    names = [str(item.get("name", "")) for item in parties]
    if len(set(names)) < len(names) or not all(names) or any("/" in name for name in names):
        raise InputError("every party needs a name of its own without slashes")
    return Config(
        role,
        str(document["url"]),
        Path(str(document["directory"])),
        Path(str(document["schema"])),
        seed,
        tuple(parties),
        request,
    )


def serve(
    config: Config,
    connect: Connect,
    emit: Emit,
    receive: Receive,
    stop: threading.Event,
    *,
    held: bool = False,
) -> None:
    """Live a party process: register, publish, announce, act until `stop` is set.

    The same function runs in a process of its own and, with other callbacks, in a thread.

    Args:
        config: The parties.
        connect: Makes their transports.
        emit: Takes events.
        receive: Returns the agent's message.
        stop: Ends the work.
        held: Whether the server is asked to hold a call of each of a few parties. Those that are
            open at the end outlast this function by seconds, which suits a process that ends.

    Raises:
        ClearinghouseError: A party cannot be set up, or the server does not know it.
    """
    parties = make_parties(config, connect)

    def prepare(party: Party) -> dict[str, Any]:
        started = time.monotonic()
        found = _prepare(party)
        emit({"event": "published", **found, "seconds": round(time.monotonic() - started, 4)})
        return found

    with ThreadPoolExecutor(THREADS) as pool:
        announced = list(pool.map(prepare, parties))
    emit({"event": "ready", "role": config.role, "parties": announced})
    if isinstance(parties[0], Hospital):
        message = receive()
        if message is None:
            return
        request_id = parties[0].open_request(
            config.request, _ids(message, "source_ids"), _ids(message, "developer_ids")
        )
        emit({"event": "request", "request_id": request_id})
    if held and 1 < len(parties) <= MOST_HELD:
        run_held(parties, stop, wait_s=AGENT_WAIT_S, emit=emit)
        return
    idle_s = min(MOST_IDLE_S, max(IDLE_S, len(parties) / PARTIES_A_SECOND))
    run_tasks(parties, stop, idle_s=idle_s, wait_s=AGENT_WAIT_S, emit=emit)


def _prepare(party: Party) -> dict[str, Any]:
    org_id = party.register()
    found = {"name": party.name, "org_id": org_id}
    if isinstance(party, Provider):
        found["source_id"] = party.publish()
    if isinstance(party, Hospital):
        found["valset_id"] = party.seal()
    return found


def _ids(message: Mapping[str, Any], key: str) -> list[str]:
    ids = message.get(key)
    if not isinstance(ids, list) or not all(isinstance(item, str) for item in ids):
        raise InputError(f"the message to the agent must hold {key}, a list of ids")
    return ids


def make_parties(config: Config, connect: Connect) -> list[Party]:
    """Open every party's folder and table; nothing is sent yet.

    Raises:
        InputError: A table, schema or configuration is wrong.
    """
    schema = load_schema(config.schema)
    make = {"agent": _hospital, "providers": _provider, "developers": _developer}[config.role]
    return [make(config, schema, item, connect) for item in config.parties]


def _keystore(config: Config, item: Mapping[str, Any]) -> Keystore:
    return Keystore.open(config.directory / config.role / str(item["name"]))


def _whole(item: Mapping[str, Any], key: str) -> int:
    value = item.get(key)
    if type(value) is not int:
        raise InputError(f"party '{item['name']}' needs {key}, a whole number")
    return value


def _provider(
    config: Config, schema: Schema, item: Mapping[str, Any], connect: Connect
) -> Provider:
    """From name, table, size_class, ask_micro, epsilon_micro, limit_micro."""
    keystore = _keystore(config, item)
    terms = SourceTerms(
        _whole(item, "size_class"),
        _whole(item, "ask_micro"),
        _whole(item, "epsilon_micro"),
        _whole(item, "limit_micro"),
    )
    table = read_table(str(item.get("table")), schema)
    return Provider(str(item["name"]), keystore, connect(keystore), table, terms)


def _developer(
    config: Config, schema: Schema, item: Mapping[str, Any], connect: Connect
) -> Developer:
    """From name, recipe (a built-in one) or onnx (a path), and ask_micro for sealed bids."""
    keystore = _keystore(config, item)
    if item.get("onnx") is not None:
        make_model = onnx_source(Path(str(item["onnx"])))
    else:
        make_model = recipe_source(str(item.get("recipe")), config.seed)
    ask = None if item.get("ask_micro") is None else _whole(item, "ask_micro")
    return Developer(
        str(item["name"]), keystore, connect(keystore), schema, make_model, ask_micro=ask
    )


def _hospital(
    config: Config, schema: Schema, item: Mapping[str, Any], connect: Connect
) -> Hospital:
    """From name, table, limit_micro and, if wanted, size_class, holdout_fraction (text), packed.

    With a hold-out fraction only the validation part of the table is sealed: the second part of
    `stratified_split` with the configuration's seed.
    """
    keystore = _keystore(config, item)
    table = read_table(str(item.get("table")), schema)
    if item.get("holdout_fraction") is not None:
        fraction = Fraction(str(item["holdout_fraction"]))
        table = table.take(stratified_split(table.labels, fraction, config.seed)[1])
    size_class = item.get("size_class")
    terms = HospitalTerms(
        size_class=_default_class(table) if size_class is None else _whole(item, "size_class"),
        epsilon_target_micro=_whole(
            {**config.request, "name": item["name"]}, "epsilon_target_micro"
        ),
        limit_micro=_whole(item, "limit_micro"),
        packed=item.get("packed") is True,
    )
    return Hospital(str(item["name"]), keystore, connect(keystore), table, terms)


def _default_class(table: Table) -> int:
    return 1 << (table.n.bit_length() - 1)


# ---------------------------------------------------------------- the process itself


def main(arguments: Sequence[str]) -> int:
    """Run a party process; the exit code is that of the error that ended it, or 0."""
    die_with(os.getppid())
    collect_rarely()
    faulthandler.enable()  # a crash in native code leaves its place, never its data
    warnings.simplefilter("ignore")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stop.set())
    emit = _stdout_emitter()
    try:
        if len(arguments) != 1:
            raise InputError("usage: python -m clearinghouse.party_process CONFIG.json")
        config = read_config(parse_strict(Path(arguments[0]).read_bytes()))
        messages = _read_stdin(stop)
        with make_client(config.url) as client:

            def connect(keystore: Keystore) -> Transport:
                return Transport(
                    config.url,
                    keystore.signing_key,
                    SystemClock(),
                    client,
                    pause=stop.wait,
                )

            serve(config, connect, emit, messages.get, stop, held=True)
    except Exception as error:  # noqa: BLE001  the last line of a process: say what ended it
        if stop.is_set() and isinstance(error, TryAgainError):
            return 0  # a call was given up because the end was asked for
        emit(error_event(error))
        return error.exit_code if isinstance(error, ClearinghouseError) else 1
    return 0


def error_event(error: Exception) -> dict[str, Any]:
    """What may be said aloud about an error that ends a process: no value of any table."""
    if isinstance(error, TableError):
        where = f"{error.file}, column '{error.column}', row {error.row}"
        message, code = f"{where}: the table breaks its schema", error.exit_code
    elif isinstance(error, ClearinghouseError):
        message, code = str(error), error.exit_code
    else:
        message, code = place(error), 1
    return {"event": "error", "message": message, "exit_code": code}


def _stdout_emitter() -> Emit:
    lock = threading.Lock()

    def emit(event: dict[str, Any]) -> None:
        line = json.dumps(event, allow_nan=False) + "\n"
        with lock, contextlib.suppress(BrokenPipeError):
            sys.stdout.write(line)
            sys.stdout.flush()

    return emit


def _read_stdin(stop: threading.Event) -> "queue.Queue[dict[str, Any] | None]":
    """Messages from stdin; its end puts None and sets `stop`."""
    messages: queue.Queue[dict[str, Any] | None] = queue.Queue()

    def read() -> None:
        # Not sys.stdin: its lock, held while waiting, would abort the interpreter at its end.
        pending = b""
        while chunk := os.read(0, 1 << 16):
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                with contextlib.suppress(InputError):
                    messages.put(parse_strict(line))
        stop.set()
        messages.put(None)

    threading.Thread(target=read, daemon=True, name="stdin").start()
    return messages


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
