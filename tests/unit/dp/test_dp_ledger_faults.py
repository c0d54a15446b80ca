"""The ledger under kill -9 and races: never a free answer, never more than the limit."""

import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from dp.ledger import Interrupted, Ledger

COST, LIMIT = 400, 1000

CHILD = textwrap.dedent(
    """
    import os, secrets, signal, sqlite3, sys
    from pathlib import Path
    import dp.ledger as module

    folder, fatal = Path(sys.argv[1]), int(sys.argv[2])
    count = 0

    def step(_=None):
        # Called as each statement begins: the process dies with all before it done, this not.
        global count
        count += 1
        if count == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    real = sqlite3.connect
    def traced(*args, **keywords):
        connection = real(*args, **keywords)
        connection.set_trace_callback(step)
        return connection

    def draw():
        step()
        answer = secrets.token_bytes(8)
        with (folder / "drawn").open("ab") as stream:
            stream.write(answer)
        step()
        return answer

    ledger = module.Ledger.open(folder / "ledger", limit_micro=1000)
    sqlite3.connect = traced
    sent = ledger.release("key", "body", 400, draw, "crash test")
    step()
    (folder / "sent").write_bytes(sent)
    (folder / "steps").write_text(str(count))
    """
)


def crash(folder: Path, fatal: int) -> subprocess.CompletedProcess[bytes]:
    folder.mkdir()
    return subprocess.run([sys.executable, "-c", CHILD, str(folder), str(fatal)])


def retry(folder: Path) -> bytes | None:
    """Ask again under the same key, with a draw that would be a second one where there was one."""

    def draw() -> bytes:
        with (folder / "drawn").open("ab") as stream:
            stream.write(b"redrawn!")
        return b"redrawn!"

    ledger = Ledger.open(folder / "ledger", limit_micro=LIMIT)
    try:
        return ledger.release("key", "body", COST, draw, "crash test")
    except Interrupted:
        return None


def test_a_crash_between_any_two_steps_never_gives_a_free_answer(tmp_path) -> None:
    assert crash(tmp_path / "whole", 0).returncode == 0
    total = int((tmp_path / "whole" / "steps").read_text())
    assert total >= 14  # three transactions, two marks in the draw, one before sending
    seen: set[tuple[str, bool]] = set()
    for fatal in range(1, total + 1):
        folder = tmp_path / str(fatal)
        assert crash(folder, fatal).returncode == -signal.SIGKILL
        assert not (folder / "sent").exists()
        drawn = folder / "drawn"
        ledger = Ledger.open(folder / "ledger", limit_micro=LIMIT)
        spent, _ = ledger.balance()
        state = ledger.entries()[0].state if ledger.entries() else "none"
        before = drawn.read_bytes() if drawn.exists() else b""
        if before:
            assert spent == COST, "noise was drawn that nobody paid for"
        first, second = retry(folder), retry(folder)
        after = drawn.read_bytes() if drawn.exists() else b""
        assert len(after) <= 8, "two draws under one key"
        assert first == second
        assert ledger.balance()[0] == COST
        if state == "answered":
            assert first == before, "a stored answer is replayed, not redrawn"
        elif state == "started":
            assert first is None
        else:
            assert first == b"redrawn!"
        seen.add((state, bool(before)))
    # Every stage was hit: unpaid, paid, marked (before and after the noise), stored.
    assert seen == {
        ("none", False),
        ("charged", False),
        ("started", False),
        ("started", True),
        ("answered", True),
    }


def test_a_charge_without_a_draw_can_be_given_back_once(tmp_path) -> None:
    for fatal in range(1, 40):
        folder = tmp_path / str(fatal)
        crash(folder, fatal)
        ledger = Ledger.open(folder / "ledger", limit_micro=LIMIT)
        if ledger.entries() and ledger.entries()[0].state == "charged":
            break
    else:
        pytest.fail("no crash left a bare charge")
    assert ledger.balance()[0] == COST
    ledger.void("key")
    assert ledger.balance()[0] == 0
    with pytest.raises(Interrupted):
        ledger.void("key")
    assert retry(folder) is None, "a voided key is never drawn"
    assert ledger.balance()[0] == 0


RACER = textwrap.dedent(
    """
    import json, sys
    from dp.ledger import Conflict, Interrupted, Ledger, Refused

    path, name = sys.argv[1], sys.argv[2]
    ledger = Ledger.open(path, limit_micro=100)
    sys.stdin.readline()                     # all start together
    own = shared = lost = 0
    for i in range(25):
        try:
            ledger.release(f"{name}-{i}", "b", 1, lambda: b"x", "race")
            own += 1
        except Refused:
            pass
        try:
            ledger.release(f"all-{i}", "b", 1, lambda: open(sys.argv[3], "ab").write(b"x") * b"y",
                           "race")
            shared += 1
        except (Refused, Interrupted):
            lost += 1
    print(json.dumps([own, shared, lost]))
    """
)


def test_eight_processes_spend_exactly_the_limit(tmp_path) -> None:
    """Own keys and keys that all eight use at once; the ledger is also made by all at once."""
    path, drawn = tmp_path / "ledger", tmp_path / "drawn"
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(path), str(i), str(drawn)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(8)
    ]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    results = [json.loads(racer.communicate(timeout=120)[0]) for racer in racers]
    assert all(racer.returncode == 0 for racer in racers)
    ledger = Ledger.open(path, limit_micro=100)
    assert ledger.balance() == (100, 100)
    entries = ledger.entries()
    assert len(entries) == 100
    assert all(entry.state == "answered" for entry in entries)
    own = sum(result[0] for result in results)
    together = [entry for entry in entries if entry.key.startswith("all-")]
    assert own + len(together) == 100
    assert drawn.stat().st_size == len(together), "a shared key was drawn more than once"
