"""The ledger under kill -9 and races, on both databases: no free answer, never beyond the limit."""

import json
import signal
import subprocess
import sys
import textwrap
from itertools import cycle, islice
from pathlib import Path

import ledger_kills
import pytest

from dp.ledger import Interrupted, Ledger

COST = ledger_kills.COST
STAGES = {
    ("none", False),
    ("charged", False),
    ("started", False),
    ("started", True),
    ("answered", True),
}
"""Unpaid, paid, marked (before and after the noise), stored."""


def kill(place, limit: int, folder: Path, fatals: list[int]) -> list[list]:
    """Run the script; how each child ended."""
    found = subprocess.run(
        [
            sys.executable,
            ledger_kills.__file__,
            str(place.where),
            place.unit,
            str(limit),
            str(folder),
            *map(str, fatals),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(found.stdout)


def retry(ledger: Ledger, number: int, folder: Path) -> bytes | None:
    """Ask again under the same key, with a draw that would be a second one where there was one."""

    def draw() -> bytes:
        with (folder / f"{number}.drawn").open("ab") as stream:
            stream.write(b"redrawn!")
        return b"redrawn!"

    try:
        return ledger.release(f"key {number}", "body", COST, draw, "crash test")
    except Interrupted:
        return None


def judge(ledger: Ledger, number: int, folder: Path) -> tuple[str, bool]:
    """After a kill: nothing was free, nothing is doubled; the stage that it hit."""
    known = {entry.key: entry for entry in ledger.entries()}
    entry = known.get(f"key {number}")
    state = "none" if entry is None else entry.state
    drawn = folder / f"{number}.drawn"
    before = drawn.read_bytes() if drawn.exists() else b""
    spent = ledger.balance()[0]
    assert not (folder / f"{number}.sent").exists()
    assert entry is not None or not before, "noise was drawn that nobody paid for"
    first, second = retry(ledger, number, folder), retry(ledger, number, folder)
    after = drawn.read_bytes() if drawn.exists() else b""
    assert len(after) <= 8, "two draws under one key"
    assert first == second
    assert ledger.balance()[0] == spent + (COST if state == "none" else 0)
    if state == "answered":
        assert first == before, "a stored answer is replayed, not redrawn"
    elif state == "started":
        assert first is None
    else:
        assert first == b"redrawn!"
    return state, bool(before)


def test_a_kill_at_every_step_never_gives_a_free_or_doubled_answer(place, tmp_path) -> None:
    many_kills(place, tmp_path, 20)


@pytest.mark.long
def test_two_hundred_kills_never_give_a_free_or_doubled_answer(place, tmp_path) -> None:
    many_kills(place, tmp_path, 200)


def many_kills(place, folder: Path, kills: int) -> None:
    """At least `kills` children, spread evenly over every step; one ledger pays for all."""
    limit = COST * 1000
    whole = folder / "whole"
    whole.mkdir()
    ((code, steps),) = kill(place, limit, whole, [0])
    total = int(steps)
    assert code == 0
    assert total >= 14  # three transactions, two marks in the draw, one before sending
    ledger = place.open(limit_micro=limit)
    assert retry(ledger, 0, whole) == (whole / "0.sent").read_bytes()
    fatals = [0, *islice(cycle(range(1, total + 1)), max(kills, total))]
    ended = kill(place, limit, whole, fatals)
    assert ended[0][0] == 0, "the first key is replayed in this run"
    assert [code for code, _ in ended[1:]] == [-signal.SIGKILL] * (len(fatals) - 1)
    seen = {judge(ledger, number, whole) for number in range(1, len(fatals))}
    assert seen == STAGES
    assert ledger.balance()[0] == COST * len(ledger.entries()) == COST * len(fatals)


def test_what_was_drawn_or_never_charged_is_not_given_back(place, tmp_path) -> None:
    kill(place, COST, tmp_path, [0])
    paid_for = place.open(limit_micro=COST)
    assert paid_for.balance() == (COST, COST)
    with pytest.raises(Interrupted):
        paid_for.void("key 0")
    with pytest.raises(Interrupted):
        paid_for.void("key 1")


def test_a_bare_charge_is_given_back_once_and_never_drawn(place, tmp_path) -> None:
    limit = 100 * COST
    kill(place, limit, tmp_path, list(range(1, 30)))
    ledger = place.open(limit_micro=limit)
    (charged, *_) = [entry.key for entry in ledger.entries() if entry.state == "charged"]
    spent = ledger.balance()[0]
    ledger.void(charged)
    assert ledger.balance()[0] == spent - COST
    with pytest.raises(Interrupted):
        ledger.void(charged)
    number = int(charged.removeprefix("key "))
    assert retry(ledger, number, tmp_path) is None, "a voided key is never drawn"
    assert ledger.balance()[0] == spent - COST


RACER = textwrap.dedent(
    """
    import json, sys
    from dp.ledger import Interrupted, Ledger, Refused

    where, unit, name, drawn = sys.argv[1:]
    sys.stdin.readline()                     # all start together
    ledger = Ledger.open(where, unit=unit, limit_micro=100)
    own = 0
    for i in range(20):
        try:
            ledger.release(f"{name}-{i}", "b", 1, lambda: b"x", "race")
            own += 1
        except Refused:
            pass
        try:
            ledger.release(f"all-{i}", "b", 1, lambda: open(drawn, "ab").write(b"x") * b"y", "race")
        except (Refused, Interrupted):
            pass
    print(json.dumps(own))
    """
)


def test_eight_processes_spend_exactly_the_limit(place, tmp_path) -> None:
    """Own keys and keys that all eight use at once; the ledger is also made by all at once."""
    drawn = tmp_path / "drawn"
    command = [sys.executable, "-c", RACER, str(place.where), place.unit]
    racers = [
        subprocess.Popen(
            [*command, str(i), str(drawn)],
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
    own = sum(json.loads(racer.communicate(timeout=240)[0]) for racer in racers)
    assert all(racer.returncode == 0 for racer in racers)
    ledger = place.open(limit_micro=100)
    assert ledger.balance() == (100, 100)
    entries = ledger.entries()
    assert len(entries) == 100
    assert all(entry.state == "answered" for entry in entries)
    together = [entry for entry in entries if entry.key.startswith("all-")]
    assert own + len(together) == 100
    assert drawn.stat().st_size == len(together), "a shared key was drawn more than once"
