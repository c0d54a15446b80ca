"""The ledger in one process: payment before drawing, replay, conflict, and no way back."""

import os
import secrets
import sqlite3
import threading
from collections.abc import Callable

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dp.ledger import Conflict, Damaged, Interrupted, Ledger, LedgerError, Refused, Unavailable


def draws(answers: list[bytes]) -> Callable[[], bytes]:
    """A draw that never gives the same bytes twice and remembers what it gave."""

    def draw() -> bytes:
        answers.append(f"answer {len(answers)}".encode())
        return answers[-1]

    return draw


@pytest.fixture
def ledger(place) -> Ledger:
    return place.open(limit_micro=1000, rho_limit_micro=10)


def test_a_release_is_paid_and_a_repeat_is_replayed_free(ledger) -> None:
    made: list[bytes] = []
    first = ledger.release("k", "body", 400, draws(made), "summary")
    for _ in range(3):
        assert ledger.release("k", "body", 400, draws(made), "summary") == first
    assert made == [first]
    assert ledger.balance() == (400, 1000)
    (entry,) = ledger.entries()
    assert (entry.key, entry.cost_micro, entry.state, entry.lane) == (
        "k",
        400,
        "answered",
        "epsilon",
    )
    assert entry.answer_digest is not None


def test_the_limit_is_exact_and_a_refusal_draws_nothing(ledger) -> None:
    made: list[bytes] = []
    ledger.release("a", "x", 999, draws(made), "p")
    with pytest.raises(Refused, match="1 of 1000 are left"):
        ledger.release("b", "x", 2, draws(made), "p")
    ledger.release("c", "x", 1, draws(made), "p")
    with pytest.raises(Refused):
        ledger.release("d", "x", 1, draws(made), "p")
    assert len(made) == 2
    assert ledger.balance() == (1000, 1000)
    assert [entry.key for entry in ledger.entries()] == ["a", "c"]


def test_a_refused_key_may_be_used_later(ledger) -> None:
    with pytest.raises(Refused):
        ledger.release("a", "x", 1001, draws([]), "p")
    assert ledger.release("a", "y", 5, draws([]), "p") == b"answer 0"


@pytest.mark.parametrize(
    "again",
    [
        {"body_digest": "other"},
        {"cost_micro": 399},
        {"lane": "rho"},
    ],
)
def test_another_request_under_a_key_is_a_conflict(ledger, again) -> None:
    made: list[bytes] = []
    base = {"key": "k", "body_digest": "body", "cost_micro": 400, "purpose": "p"}
    ledger.release(**base, draw=draws(made))
    with pytest.raises(Conflict):
        ledger.release(**{**base, **again}, draw=draws(made))
    assert len(made) == 1
    assert ledger.balance() == (400, 1000)


def test_a_draw_that_fails_keeps_its_cost_and_is_never_repeated(ledger) -> None:
    def broken() -> bytes:
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        ledger.release("k", "b", 10, broken, "p")
    made: list[bytes] = []
    with pytest.raises(Interrupted):
        ledger.release("k", "b", 10, draws(made), "p")
    with pytest.raises(Interrupted):
        ledger.void("k")
    assert made == []
    assert ledger.balance() == (10, 1000)


def test_what_is_no_bytes_is_refused_and_stays_paid(ledger) -> None:
    with pytest.raises(ValueError, match="must return bytes"):
        ledger.release("k", "b", 10, lambda: 5, "p")  # type: ignore[arg-type, return-value]
    assert ledger.balance() == (10, 1000)


def test_lanes_are_apart(ledger) -> None:
    ledger.release("a", "b", 10, draws([]), "p", lane="rho")
    assert ledger.balance("rho") == (10, 10)
    assert ledger.balance("epsilon") == (0, 1000)
    with pytest.raises(Refused):
        ledger.release("c", "b", 1, draws([]), "p", lane="rho")
    with pytest.raises(ValueError, match="lane"):
        ledger.balance("delta")  # type: ignore[arg-type]


def test_a_draw_sees_its_charge_already_committed(ledger, place) -> None:
    seen = []

    def look() -> bytes:
        other = place.open(limit_micro=1000, rho_limit_micro=10)
        seen.append((other.balance(), [entry.state for entry in other.entries()]))
        return b"x"

    ledger.release("k", "b", 7, look, "p")
    assert seen == [((7, 1000), ["started"])]


def test_a_second_caller_during_the_draw_gets_no_second_draw(ledger) -> None:
    inside, go = threading.Event(), threading.Event()
    made: list[bytes] = []

    def slow() -> bytes:
        inside.set()
        assert go.wait(60)
        return draws(made)()

    thread = threading.Thread(target=ledger.release, args=("k", "b", 7, slow, "p"))
    thread.start()
    assert inside.wait(60)
    with pytest.raises(Interrupted):
        ledger.release("k", "b", 7, draws(made), "p")
    go.set()
    thread.join()
    assert ledger.release("k", "b", 7, draws(made), "p") == b"answer 0"
    assert made == [b"answer 0"]
    assert ledger.balance() == (7, 1000)


def test_a_budget_is_fixed_for_life(ledger, place) -> None:
    ledger.release("k", "b", 400, draws([]), "p")
    again = place.open(limit_micro=1000, rho_limit_micro=10)
    assert again.balance() == (400, 1000)
    for limits in ({"limit_micro": 2000, "rho_limit_micro": 10}, {"limit_micro": 1000}):
        with pytest.raises(ValueError, match="fixed for life"):
            place.open(**limits)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM release",
        "DELETE FROM account",
        "UPDATE release SET cost = 1",
        "UPDATE release SET state = 'charged', answer = NULL",
        "UPDATE release SET answer = 'x'",
        "UPDATE account SET allowed = 9999",
        "UPDATE account SET spent = 1001",
        "UPDATE account SET spent = -1",
    ],
)
def test_the_books_themselves_refuse_to_go_back(ledger, place, statement) -> None:
    ledger.release("k", "b", 400, draws([]), "p")
    before = ledger.entries(), ledger.balance()
    with pytest.raises((sqlite3.IntegrityError, psycopg.Error)):
        place.run(statement)
    assert (ledger.entries(), ledger.balance()) == before


def test_half_a_millionth_is_no_amount(tmp_path) -> None:
    ledger = Ledger.open(tmp_path / "ledger.sqlite", limit_micro=1000)
    with sqlite3.connect(ledger.where) as other, pytest.raises(sqlite3.IntegrityError):
        other.execute("UPDATE account SET spent = 0.5")
    other.close()


def test_totals_that_do_not_agree_stop_every_release(ledger, place) -> None:
    ledger.release("k", "b", 400, draws([]), "p")
    place.run("UPDATE account SET spent = 0 WHERE lane = 'epsilon'")
    made: list[bytes] = []
    with pytest.raises(Damaged):
        ledger.balance()
    with pytest.raises(Damaged):
        ledger.release("l", "b", 1, draws(made), "p")
    assert made == []


def test_only_the_owner_can_read_the_file(tmp_path) -> None:
    ledger = Ledger.open(tmp_path / "ledger.sqlite", limit_micro=1)
    assert os.stat(ledger.where).st_mode & 0o077 == 0


@pytest.mark.parametrize("cost", [0, -1, 1.5, True])
def test_refused_costs(ledger, cost) -> None:
    with pytest.raises(ValueError, match="cost"):
        ledger.release("k", "b", cost, draws([]), "p")
    assert ledger.entries() == ()


def test_two_units_in_one_database_have_budgets_of_their_own(ledger_database) -> None:
    first, second = (
        Ledger.open(ledger_database, limit_micro=10, unit=f"{os.getpid()} {name}") for name in "ab"
    )
    first.release("k", "b", 10, draws([]), "p")
    assert (first.balance(), second.balance()) == ((10, 10), (0, 10))
    again = Ledger.open(ledger_database, limit_micro=10, unit=f"{os.getpid()} a")
    with pytest.raises(Refused):
        again.release("another home, same patients", "b", 1, draws([]), "p")


def test_a_database_that_is_away_is_said_and_nothing_is_drawn(ledger_database) -> None:
    with pytest.raises(ValueError, match="postgresql://"):
        Ledger.open("mysql://127.0.0.1/x", limit_micro=1)
    with pytest.raises(ValueError, match="malformed"):
        Ledger.open("postgresql://a:secret@h/x?nonsense=1", limit_micro=1, unit="u")
    with pytest.raises(ValueError, match="name of the patients"):
        Ledger.open(ledger_database, limit_micro=1)
    with pytest.raises(Unavailable, match="does not answer"):
        Ledger.open("postgresql://nobody@127.0.0.1:9/x", limit_micro=1, unit="u")
    ledger, made = Ledger("postgresql://nobody@127.0.0.1:9/x", "u"), []
    with pytest.raises(Unavailable):
        ledger.release("k", "b", 1, draws(made), "p")
    assert made == []


def test_refused_keys_and_limits(ledger, tmp_path) -> None:
    for key, body in (("", "b"), ("k", "")):
        with pytest.raises(ValueError, match="key"):
            ledger.release(key, body, 1, draws([]), "p")
    for limit in (-1, 1.0, True):
        with pytest.raises(ValueError, match="limit"):
            Ledger.open(tmp_path / "other", limit_micro=limit)  # type: ignore[arg-type]


steps = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from("xy"), st.integers(1, 6)), max_size=12
)


@settings(max_examples=40, deadline=None)
@given(steps)
def test_any_history_agrees_with_a_simple_model(in_memory, history) -> None:
    """A dictionary of answers and a sum, kept by hand, predict every outcome."""
    ledger = Ledger.open(in_memory / f"{secrets.token_hex(8)}.sqlite", limit_micro=15)
    known: dict[str, tuple[str, int, bytes]] = {}
    made: list[bytes] = []
    for key, body, cost in history:
        spent = sum(c for _, c, _ in known.values())
        expected: type[LedgerError] | None = None
        if key in known:
            expected = None if known[key][:2] == (body, cost) else Conflict
        elif spent + cost > 15:
            expected = Refused
        if expected is None:
            answer = ledger.release(key, body, cost, draws(made), "p")
            assert known.setdefault(key, (body, cost, answer))[2] == answer
        else:
            with pytest.raises(expected):
                ledger.release(key, body, cost, draws(made), "p")
    assert ledger.balance() == (sum(c for _, c, _ in known.values()), 15)
    assert len(made) == len(known) == len(ledger.entries())


def test_erased_answers_are_gone_and_are_never_drawn_again(tmp_path):
    """Costs stay, bytes leave the file, and the trigger that guards releases is back."""
    made = Ledger.open(tmp_path / "l.sqlite", limit_micro=1000)
    secret = b"counts that nobody may find again"
    assert made.release("k", "body", 400, lambda: secret, "p") == secret
    files = lambda: b"".join(p.read_bytes() for p in tmp_path.iterdir())  # noqa: E731
    assert secret in files()
    made.erase()
    assert secret not in files()
    assert made.balance() == (400, 1000)
    with pytest.raises(Interrupted, match="erased by its owner"):
        made.release("k", "body", 400, lambda: b"again", "p")
    connection = sqlite3.connect(tmp_path / "l.sqlite")
    with pytest.raises(sqlite3.IntegrityError, match="only moves forward"):
        connection.execute("UPDATE release SET answer = x'00'")
    connection.close()
    made.erase()
