"""What a rehearsal does when something goes wrong: one reason, no half report, no orphans."""

import io
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import canary
import markets
import pytest

from clearinghouse.cli.main import run

CLI = [sys.executable, "-m", "clearinghouse.cli.main"]


@contextmanager
def running(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A rehearsal under way, with all its processes up."""
    market = markets.breast_cancer(tmp_path / "market", sites=3)
    out = tmp_path / "out"
    command = [*CLI, "rehearse", str(market), "--out", str(out), "--no-progress"]
    scratch(tmp_path).mkdir()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "TMPDIR": str(scratch(tmp_path))},
    )
    try:
        wait_for(lambda: {"server", "agent"} <= set(parts(process.pid)), 200)
        yield process, out
    finally:
        for pid in canary.descendants(process.pid) if process.poll() is None else []:
            os.kill(pid, signal.SIGKILL)
        process.wait(60)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def wait_for(condition: object, seconds: float) -> None:
    """Poll until the condition holds."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)


def parts(pid: int) -> dict[str, int]:
    """Process ids of the rehearsal's parts by role."""
    found = {}
    for child in canary.descendants(pid)[1:]:
        try:
            words = Path(f"/proc/{child}/cmdline").read_bytes().decode().split("\0")[:-1]
        except OSError:
            continue
        if "clearinghouse.party_process" in words:
            found[Path(words[-1]).stem] = child
        elif "serve" in words:
            found["server"] = child
        elif "clearinghouse.worker_process" in words:
            found["worker"] = child
    return found


def gone(pids: list[int]) -> bool:
    """Whether none of the processes runs any more."""
    return not any(map(runs, pids))


def runs(pid: int) -> bool:
    """Whether there is such a process and it is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def scratch(tmp_path: Path) -> Path:
    """Where the rehearsal makes its working folder."""
    return tmp_path / "scratch"


@pytest.mark.parametrize("role", ["providers", "developers", "agent", "server"])
def test_a_killed_part_ends_the_run_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    """The command runs in this process, its parts do not; they are killed from a thread."""
    market, out = markets.breast_cancer(tmp_path / "market", sites=3), tmp_path / "out"
    scratch(tmp_path).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch(tmp_path)))
    family: list[int] = []

    def kill() -> None:
        everybody = {"server", "agent", "providers", "developers"}
        wait_for(lambda: everybody <= set(parts(os.getpid())), 200)
        found = parts(os.getpid())
        family.extend(member for part in found.values() for member in canary.descendants(part))
        os.kill(found[role], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    printed, said = io.StringIO(), list[str]()
    with redirect_stdout(printed):
        code = run(["rehearse", str(market), "--out", str(out), "--no-progress"], said.append)
    killer.join()
    assert (code, printed.getvalue()) == (5, "")
    (line,) = said
    assert "\n" not in line
    assert f"the {role} process" in line
    assert "SIGKILL" in line
    assert len(family) >= 4
    wait_for(lambda: gone(family), 60)
    assert not out.exists()
    assert list(scratch(tmp_path).iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_cleans_up(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path) as (process, out):
        family = canary.descendants(process.pid)
        os.kill(process.pid, number)
        _, stderr = process.communicate(timeout=200)
        assert process.returncode == 130
        assert "interrupted" in stderr
        assert "Traceback" not in stderr
        wait_for(lambda: gone(family), 60)
        assert not out.exists()
    assert list(scratch(tmp_path).iterdir()) == []


def test_killing_the_rehearsal_itself_leaves_no_process(tmp_path: Path) -> None:
    with running(tmp_path) as (process, out):
        wait_for(lambda: len(parts(process.pid)) >= 4, 200)
        family = canary.descendants(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(60)
        wait_for(lambda: gone(family), 60)
        assert not out.exists()


BAD_TERMS = {
    "records": (0, "records"),
    "tariff": ("cheap", "tariff"),
    "epsilon": ({"source": 0, "target": 0.5, "score": 1.0}, "epsilon"),
    "developers": (["wizard"], "developers"),
    "colour": ("blue", "colour"),
}


@pytest.mark.parametrize("key", BAD_TERMS)
def test_bad_terms_are_refused_before_anything_is_written(tmp_path: Path, key: str) -> None:
    value, word = BAD_TERMS[key]
    market = markets.tiny(tmp_path / "market", **{key: value})
    refused(market, tmp_path / "out", word, "market.yaml")


BAD_CELLS = {
    "out of bounds": ("age", "131", "age"),
    "unknown level": ("smoker", "maybe", "smoker"),
    "unknown label": ("ill", "2", "ill"),
    "not a number": ("age", "nan", "age"),
    "empty where not declared": ("age", "", "age"),
}


@pytest.mark.parametrize("case", BAD_CELLS)
def test_a_bad_cell_is_named_by_file_column_and_row(tmp_path: Path, case: str) -> None:
    column, text, word = BAD_CELLS[case]
    market = markets.tiny(tmp_path / "market")
    table = market.parent / "few.csv"
    lines = table.read_text().splitlines()
    place = lines[0].split(",").index(column)
    cells = lines[3].split(",")
    cells[place] = text
    lines[3] = ",".join(cells)
    table.write_text("\n".join(lines) + "\n")
    refused(market, tmp_path / "out", word, "few.csv", "row 3")


def test_a_table_that_is_not_there_is_named(tmp_path: Path) -> None:
    market = markets.tiny(tmp_path / "market")
    (market.parent / "one.csv").unlink()
    refused(market, tmp_path / "out", "one.csv")
    command = [*CLI, "rehearse", str(market), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: ")


def refused(market: Path, out: Path, *words: str) -> None:
    """The command ends with 2 and one line that holds the words; nothing is written."""
    printed, said = io.StringIO(), []
    with redirect_stdout(printed):
        code = run(["rehearse", str(market), "--out", str(out)], said.append)
    assert code == 2
    assert printed.getvalue() == ""
    (line,) = said
    assert line.startswith("error: ")
    assert "\n" not in line
    for word in words:
        assert word in line
    assert not out.exists()
