import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import uvicorn
from ports import free_port

from clearinghouse.errors import InputError, TableError
from clearinghouse.party_process import error_event, read_config

CANARY = "0.12345678901234567"


@pytest.fixture
def url(bench):
    port = free_port()
    settings = uvicorn.Config(bench.app, host="127.0.0.1", port=port, log_level="error")
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(60)


@pytest.fixture
def config(tmp_path, schema, heart):
    """Writes the table, the schema and a providers' configuration; returns its path."""

    def make(url: str, value: str | None = None):
        records = heart(40, seed=1).records()
        if value is not None:
            records[7]["age"] = value
        table = tmp_path / "a.csv"
        with table.open("w", newline="") as handle:
            writer = csv.DictWriter(handle, fieldnames=list(records[0]))
            writer.writeheader()
            writer.writerows(records)
        (tmp_path / "schema.json").write_text(json.dumps(schema.to_dict()))
        document = {
            "role": "providers",
            "url": url,
            "directory": str(tmp_path / "parties"),
            "schema": str(tmp_path / "schema.json"),
            "seed": 7,
            "parties": [
                {
                    "name": name,
                    "table": str(table),
                    "size_class": 32,
                    "ask_micro": 1,
                    "epsilon_micro": 1_000_000,
                    "limit_micro": 1_000_000,
                }
                for name in ("one", "two")
            ],
        }
        path = tmp_path / "providers.json"
        path.write_text(json.dumps(document))
        return path

    return make


def start(path):
    return subprocess.Popen(
        [sys.executable, "-m", "clearinghouse.party_process", str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize("end", ["stdin", "sigterm"])
def test_a_process_announces_its_parties_and_ends_quietly(bench, url, config, end):
    with start(config(url)) as process:
        events = []
        while not events or events[-1]["event"] != "ready":
            events.append(json.loads(process.stdout.readline()))
        ready = events[-1]["parties"]
        assert [party["name"] for party in ready] == ["one", "two"]
        assert all(party["source_id"].startswith("src_") for party in ready)
        if end == "stdin":
            process.stdin.close()
        else:
            process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert process.stderr.read() == b""
    assert {path for path, _ in bench.posts} >= {"orgs", "schemas", "sources"}


def test_a_bad_table_ends_the_process_without_a_word_of_its_values(url, config):
    with start(config(url, value=CANARY)) as process:
        out, err = process.communicate(timeout=60)
    event = json.loads(out.splitlines()[-1])
    assert process.returncode == event["exit_code"] == 2
    assert "a.csv, column 'age', row 8" in event["message"]
    assert CANARY not in (out + err).decode()


def test_a_process_dies_with_the_one_that_started_it(url, config, tmp_path):
    path = config(url)
    # The middle process starts the party process, says its id and waits to be killed.
    middle = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import subprocess, sys\n"
            f"child = subprocess.Popen([sys.executable, '-m', 'clearinghouse.party_process', "
            f"{str(path)!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
            "while b'ready' not in child.stdout.readline(): pass\n"
            "print(child.pid, flush=True)\n"
            "sys.stdin.read()\n",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with middle:
        pid = int(middle.stdout.readline())
        os.kill(pid, 0)  # it is there
        middle.kill()
    deadline = time.monotonic() + 10
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(pid)


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as handle:
            return handle.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    "change",
    [
        {"role": "nurses"},
        {"parties": []},
        {"parties": [{"name": "a"}, {"name": "a"}]},
        {"parties": [{"name": "../a"}]},
        {"parties": [{}]},
        {"seed": "7"},
        {"more": 1},
        {"role": "agent"},
    ],
)
def test_malformed_configurations_are_refused(change, tmp_path):
    good = {
        "role": "providers",
        "url": "http://127.0.0.1:1",
        "directory": str(tmp_path),
        "schema": "s",
        "seed": 7,
        "parties": [{"name": "a"}],
    }
    assert read_config(good).parties == ({"name": "a"},)
    with pytest.raises(InputError):
        read_config({**good, **change})


def test_errors_are_told_without_values():
    table = TableError(f"holds {CANARY}", file="f.csv", remedy="r", column="c", row=3)
    assert error_event(table) == {
        "event": "error",
        "message": "f.csv, column 'c', row 3: the table breaks its schema",
        "exit_code": 2,
    }
    try:
        float(f"x{CANARY}")
    except ValueError as error:
        event = error_event(error)
    assert CANARY not in event["message"]
    assert event["message"].startswith("ValueError in test_client_process.py")
    assert event["exit_code"] == 1
