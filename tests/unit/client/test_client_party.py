import threading
import time
from functools import partial

import pytest
from starlette.responses import Response

from clearinghouse.client.held import run_held
from clearinghouse.client.keystore import Keystore
from clearinghouse.client.party import Party, do_task, run_tasks
from clearinghouse.errors import AuthenticationError, InputError, RefusedError, TableError
from clearinghouse.ids import new_id
from clearinghouse.messages.tasks import AskCommitAnswer, AskRevealTask, TaskView
from clearinghouse.signing import SigningKey


class Counter(Party):
    """Answers with a fresh number each time it is really asked; fails on demand."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.calls, self.failure = 0, None

    def handle(self, view):
        self.calls += 1
        if self.failure is not None:
            raise self.failure
        return AskCommitAnswer(commitment=f"{self.calls:064x}")


@pytest.fixture
def party(connect, schema):
    made = Counter("p", "provider", *connect("p"), schema)
    made.register()
    return made


def task(bench):
    view = TaskView(
        id=new_id("tsk"),
        request_id=new_id("req"),
        deadline=2**33,
        task=AskRevealTask(source_id=new_id("src")),
    )
    bench.tasks.append(view.model_dump())
    return view


def sent(bench, view):
    return [body for path, body in bench.posts if path.startswith(f"agent/tasks/{view.id}")]


def test_an_answer_is_drawn_once_whatever_gets_lost(bench, party, connect, schema):
    view, events = task(bench), []
    bench.trouble = [Response(status_code=503) for _ in range(party.transport.attempts)]
    assert not do_task(party, view, events.append)
    assert not sent(bench, view)
    # The process ends here and another one begins.
    again = Counter("p", "provider", *connect("p"), schema)
    assert do_task(again, view, events.append)
    assert (party.calls, again.calls) == (1, 0)
    assert sent(bench, view) == [{"answer": {"kind": "ask.commit", "commitment": f"{1:064x}"}}]
    assert [event["event"] for event in events] == ["task"]


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (RefusedError("the budget is used up"), "the budget is used up"),
        (ValueError("got the row 12345.678"), "(ValueError)"),
        (InputError("the value 12345.678 is odd"), "(InputError)"),
        (TableError("holds 12345.678", file="f", remedy="r"), "(TableError)"),
        (KeyError("12345.678"), "(KeyError)"),
    ],
)
def test_a_final_error_is_a_refusal_without_row_data(bench, party, failure, words):
    view, events = task(bench), []
    party.failure = failure
    assert do_task(party, view, events.append)
    (body,) = sent(bench, view)
    assert words in body["reason"]
    assert "12345" not in body["reason"]
    assert events[0]["event"] == "refused"
    assert "12345" not in str(events)
    assert "test_client_party.py" in events[0]["where"]


def test_a_full_disk_is_no_refusal(bench, party):
    view, events = task(bench), []
    party.failure = OSError(28, "No space left on device")
    assert not do_task(party, view, events.append)
    assert not sent(bench, view)
    party.failure = None
    assert do_task(party, view, events.append)


def test_an_answer_that_comes_too_late_ends_the_task(bench, party):
    view, events = task(bench), []
    bench.trouble = [bench.problem("conflict", 409, "expired")]
    assert do_task(party, view, events.append)
    assert events[0]["event"] == "late"


def test_an_answer_that_the_server_finds_wrong_is_taken_back(bench, party):
    view, events = task(bench), []
    bench.trouble = [bench.problem("bad-input", 422, "no such model")]
    assert do_task(party, view, events.append)
    assert "InputError" in sent(bench, view)[-1]["reason"]


@pytest.mark.parametrize(
    "run", [partial(run_tasks, idle_s=0.1), partial(run_held, wait_s=1)], ids=["polled", "held"]
)
def test_one_thread_serves_many_parties_until_it_is_stopped(run, bench, connect, schema):
    parties = []
    for index in range(5):
        parties.append(Counter(f"p{index}", "provider", *connect(f"p{index}"), schema))
        parties[-1].register()
    view, events, stop = task(bench), [], threading.Event()
    thread = threading.Thread(target=run, args=(parties, stop), kwargs={"emit": events.append})
    thread.start()
    deadline = time.monotonic() + 10
    while not sent(bench, view) and time.monotonic() < deadline:
        time.sleep(0.01)
    later = task(bench)
    while not sent(bench, later) and time.monotonic() < deadline:
        time.sleep(0.01)
    stop.set()
    thread.join(60)
    assert not thread.is_alive()
    assert sent(bench, view)
    assert sent(bench, later)


def test_what_ends_a_held_call_ends_the_work(bench, connect, schema):
    parties = [Counter(f"p{index}", "provider", *connect(f"p{index}"), schema) for index in (0, 1)]
    bench.keys.clear()
    with pytest.raises(AuthenticationError):
        run_held(parties, threading.Event(), wait_s=1, emit=lambda _event: None)


def test_registration_happens_once(bench, party, connect, schema):
    again = Counter("p", "provider", *connect("p"), schema)
    assert again.register() == party.org_id
    assert [path for path, _ in bench.posts] == ["orgs", "schemas"]
    with pytest.raises(RefusedError, match="not registered"):
        Counter("q", "provider", *connect("q"), schema).org_id  # noqa: B018


def test_keys_are_made_once_and_readable_by_their_owner_alone(tmp_path):
    first, again = Keystore.open(tmp_path / "a"), Keystore.open(tmp_path / "a")
    assert first.signing_key.key_id == again.signing_key.key_id
    assert first.age_recipient == again.age_recipient
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700
    for path in (tmp_path / "a").iterdir():
        assert path.stat().st_mode & 0o077 == 0
    first.remember("deep/note", {"n": 1})
    assert again.recall("deep/note") == {"n": 1}
    assert again.recall("other") is None
    again.forget("deep/note.json")
    again.forget("deep/note.json")
    assert first.read("deep/note.json") is None
    assert "AGE-SECRET" not in repr(first)
    with pytest.raises(InputError, match="leads out"):
        first.write("../outside", b"x")


def test_damaged_and_open_key_folders_are_refused(tmp_path):
    Keystore.open(tmp_path / "a")
    (tmp_path / "a" / "age.txt").write_text("AGE-SECRET-KEY-1NONSENSE")
    with pytest.raises(InputError, match="no age identity"):
        Keystore.open(tmp_path / "a")
    Keystore.open(tmp_path / "b")
    (tmp_path / "b").chmod(0o755)
    with pytest.raises(InputError, match="chmod 700"):
        Keystore.open(tmp_path / "b")
    (tmp_path / "c").mkdir(mode=0o700)
    SigningKey.generate().save(tmp_path / "c" / "signing.pem")
    (tmp_path / "c" / "signing.pem").chmod(0o644)
    with pytest.raises(InputError, match="chmod 600"):
        Keystore.open(tmp_path / "c")
