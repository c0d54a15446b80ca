"""No log of any process quotes a value: planted in every place an error can come from.

Every test plants a canary where a value would be, lets something go wrong there, and looks for it
in all that was logged, at the most talkative level. What must be logged is looked for as well, so
that a log which says nothing at all cannot pass.
"""

import base64
import io
import json
import logging
import threading
import warnings

import jobs
import pytest
import structlog
from jobs import WorkerCommand
from sqlalchemy import text

import api.routes.identity as identity_routes
from api.app import at_work, create_app
from clearinghouse.apikeys import SCOPES, make_token, prefix_of, token_digest
from clearinghouse.blobs import looks_secret
from clearinghouse.blobs.disk import DiskStore
from clearinghouse.cli import main as command
from clearinghouse.client.keystore import Keystore
from clearinghouse.client.loopback import app_client
from clearinghouse.client.party import do_task
from clearinghouse.client.recipes import integer_model, train
from clearinghouse.client.transport import Transport
from clearinghouse.clock import FixedClock
from clearinghouse.errors import ClearinghouseError
from clearinghouse.ids import new_id
from clearinghouse.journal import journal, write_logs
from clearinghouse.messages.identity import ApiKeyView, CreateApiKey
from clearinghouse.messages.intake import OrgView, RegisterOrg
from clearinghouse.party_process import error_event
from clearinghouse.rounds import pipeline
from clearinghouse.schema import parse_schema
from clearinghouse.settings import Settings
from clearinghouse.store.store import Store
from clearinghouse.worker import WorkerThread

CANARY = "61.774193548387096"
"""A value of a row, as a table or a message would hold it."""

TINY = parse_schema(
    {
        "name": "tiny",
        "label": {"name": "sick", "levels": ["no", "yes"]},
        "columns": {"sex": {"kind": "category", "levels": ["F", "M"]}},
        "strata": [["sex"]],
        "subgroups": ["sex"],
    },
    file="tiny",
)


@pytest.fixture
def log():
    """Everything that this process logs, down to the last detail."""
    stream = io.StringIO()
    kept = (logging.root.handlers[:], logging.root.level, threading.excepthook)
    write_logs(stream, logging.DEBUG)
    logging.root.setLevel(logging.DEBUG)
    yield stream
    logging.captureWarnings(False)
    logging.root.handlers[:], threading.excepthook = kept[0], kept[2]
    logging.root.setLevel(kept[1])
    structlog.reset_defaults()


def lines(log):
    """The lines, each of which is one JSON object."""
    return [json.loads(line) for line in log.getvalue().splitlines()]


def mistakes(log):
    """Types of the errors that were logged."""
    return [line["error"] for line in lines(log) if "error" in line]


def choke(*_ignored, **_also):
    """Fail as a library does that was given a value it cannot read."""
    return int(CANARY)


def test_errors_warnings_and_libraries_are_logged_without_their_words(log):
    try:
        choke()
    except ValueError as error:
        journal("test").error("mistake", exc_info=True)
        journal("test").error("mistake", exc_info=error)
        logging.getLogger("library").exception("cannot read %s", CANARY)
    logging.getLogger("library").debug(f"read {CANARY}")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(f"overflow in {CANARY}", RuntimeWarning, stacklevel=1)
    thread = threading.Thread(target=choke)
    thread.start()
    thread.join()
    assert CANARY not in log.getvalue()
    assert mistakes(log) == ["ValueError"] * 4
    assert all("test_trust_logs.py" in line["at"][0] for line in lines(log) if "at" in line)
    assert [line["event"] for line in lines(log)].count("foreign") == 3


class Party:
    """An organisation with its calls."""

    def __init__(self, folder, client, clock):
        self.keystore = Keystore.open(folder)
        self.transport = Transport(
            "http://testserver", self.keystore.signing_key, clock, client, attempts=1
        )
        key = self.keystore.signing_key.verify_key.base64
        message = RegisterOrg(name="h", role="hospital", public_key=key, age_recipient=None)
        self.org_id = self.transport.post("/orgs", message, OrgView).id


@pytest.fixture
def served(tmp_path, log):
    """A server in this process, and one party of it."""
    clock = FixedClock()
    app = create_app(Settings(tmp_path / "server", in_process=True), clock)
    with at_work(app.state.runner), app_client(app) as client:
        client.base_url = "http://testserver"
        yield app, client, Party(tmp_path / "home", client, clock)


def secrets_of(folder):
    """Every form in which the keys of a folder could be quoted."""
    found = []
    for path in [*folder.rglob("*.key"), *folder.rglob("*.pem"), *folder.rglob("age.txt")]:
        found += [line for line in path.read_text().splitlines() if len(line) > 30]
        body = "".join(line for line in path.read_text().splitlines() if "-----" not in line)
        if not body.startswith("AGE"):
            raw = base64.b64decode(body)
            found += [raw[-32:].hex(), base64.b64encode(raw[-32:]).decode()]
    return found


def test_the_servers_log_has_no_values_keys_or_tokens(served, log, tmp_path, monkeypatch):
    """Good calls, bad calls, wrong tokens, and mistakes of ours in the middle of a call."""
    app, client, party = served
    token = make_token()
    message = CreateApiKey(
        name="k", prefix=prefix_of(token), digest=token_digest(token), scopes=list(SCOPES),
        lifetime_s=3600,
    )  # fmt: skip
    party.transport.post("/apikeys", message, ApiKeyView)
    bearer = {"Authorization": f"Bearer {token}"}
    assert client.get("/v1/sources", headers=bearer).status_code == 200
    wrong = {"Authorization": f"Bearer {token[:-4]}{CANARY}"}
    assert client.get("/v1/sources", headers=wrong).status_code == 401
    assert client.get(f"/v1/sources/{CANARY}?age={CANARY}", headers=bearer).status_code == 404
    party.transport.put_blob(CANARY.encode() * 9, "test")
    for path in ("/schemas", "/valsets", "/uploads"):
        with pytest.raises(ClearinghouseError):
            party.transport._call("POST", path, body=json.dumps({"age": CANARY}).encode())
    monkeypatch.setattr(identity_routes.identity, "key_view", choke)
    with pytest.raises(ValueError, match="invalid literal"):  # a real server answers 500
        party.transport._call("GET", "/keys")
    monkeypatch.setattr(pipeline, "due", choke)
    app.state.desk.bell.ring()
    jobs.wait_for(lambda: "ValueError" in mistakes(log))
    told = log.getvalue()
    assert CANARY not in told
    assert token not in told
    assert token[13:] not in told
    found = [*secrets_of(tmp_path / "server"), *secrets_of(tmp_path / "home")]
    assert len(found) >= 8
    assert [secret for secret in found if secret in told] == []
    assert len(lines(log)) > 10


def test_an_error_of_the_database_quotes_no_parameter(tmp_path, log):
    store = Store(f"sqlite:///{tmp_path / 'test.db'}")
    with pytest.raises(Exception, match="no such table") as caught, store.write() as tx:
        tx._session.execute(text("INSERT INTO nowhere VALUES (:v)"), {"v": CANARY})
    assert CANARY not in str(caught.value)
    store.close()


def damaged_models():
    """Models of which one member is a canary, in every place and form."""
    plain = json.loads(integer_model(train("logistic", TINY, None, 7), TINY).to_json())
    for name in plain:
        for value in (CANARY, float(CANARY), [CANARY], [[float(CANARY)]], {CANARY: CANARY}):
            yield json.dumps({**plain, name: value})
        yield json.dumps({key: value for key, value in plain.items() if key != name} | {CANARY: 1})
    yield json.dumps(plain)[:-9] + CANARY
    yield CANARY
    yield f'{{"kind":"linear","kind":"{CANARY}"}}'


def test_a_jobs_error_quotes_nothing_of_what_it_read(tmp_path, log):
    """It becomes the job's reason, which other parties read."""
    blobs = DiskStore(tmp_path / "blobs", max_bytes=2**20)
    worker, words = WorkerThread(blobs), []
    for model in damaged_models():
        arguments = {"model": blobs.put(model.encode()), "schema": {}, "published_bins": 32}
        with pytest.raises(Exception) as caught:
            worker.run("model.inspect", arguments)
        words.append(str(caught.value))
    for junk in (CANARY.encode(), b"\x01\x02" + CANARY.encode()):
        arguments = {"proofs": blobs.put(junk), "root": "00" * 32, "leaves": 16, "most": 6}
        with pytest.raises(Exception) as caught:
            worker.run("rows.prove", arguments)
        words.append(str(caught.value))
    assert len(words) > 20
    assert [found for found in words if CANARY in found] == []
    assert CANARY not in log.getvalue()


def test_the_workers_log_has_no_values(tmp_path):
    """A worker of its own: a mistake of ours, bytes that cannot be read, a password in its URL."""
    url = f"sqlite:///{tmp_path / 'clearinghouse.db'}"
    store = Store(url)
    blobs = DiskStore(tmp_path / "blobs", max_bytes=2**20)
    request = jobs.add_request(store)
    names = [blobs.put(f"{CANARY}{number}".encode()) for number in range(2)]
    made = [
        jobs.add_job(store, request, jobs.wanted(number, arguments=json.dumps(
            {"proofs": name, "root": "00" * 32, "leaves": 16, "most": 6})), now=0.0)
        for number, name in enumerate(names)
    ]  # fmt: skip
    store.close()
    with WorkerCommand(tmp_path, url, fail="job.computed=error") as worker:
        worker.ready()
        reader = Store(url)
        jobs.wait_for(lambda: all(jobs.get_job(reader, job.id).error for job in made))
        reasons = [jobs.get_job(reader, job.id).reason for job in made]
        reader.close()
        events = worker.events()
        told = worker.log.read_text()
    assert CANARY not in told
    assert not [reason for reason in reasons if CANARY in reason]
    assert "RuntimeError" in [event.get("error") for event in events]


class Choking:
    """A party whose handling of a task chokes on a cell."""

    name, transport = "clinic", None

    def __init__(self, transport):
        self.transport = transport

    def answer(self, _view):
        return choke()


class Sent:
    """Takes what a party sends."""

    def __init__(self):
        self.messages = []

    def send(self, _path, message, **_options):
        self.messages.append(message.model_dump_json())
        return b"{}"


class View:
    """A task."""

    id, request_id = new_id("tsk"), new_id("req")

    class task:  # noqa: N801
        kind = "target.noise"


def test_agents_and_providers_say_and_send_no_value(log):
    """What a party logs, what it tells the server, and what ends its process."""
    sent, events = Sent(), []
    assert do_task(Choking(sent), View, events.append)
    said = json.dumps([*events, *sent.messages, error_event(caught_error())])
    assert CANARY not in said
    assert "ValueError" in said


def caught_error():
    try:
        return choke()
    except ValueError as error:
        return error


def test_a_command_that_chokes_says_where_and_not_on_what(monkeypatch, capsys):
    monkeypatch.setattr(command, "_command", lambda: choke)
    monkeypatch.setattr(command.sys, "argv", ["clearinghouse", "budget"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    told = capsys.readouterr().err
    assert ended.value.code == 1
    assert CANARY not in told
    assert "ValueError in test_trust_logs.py" in told
    assert not looks_secret(told.encode()[:256])
