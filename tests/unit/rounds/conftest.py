"""A small market of real parties around a server in this process."""

import sqlite3
import threading
import time
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest
from databases import fresh_sqlite
from tiny_market import SCHEMA, TERMS

from api.app import at_work, create_app
from clearinghouse.client.developer import Developer
from clearinghouse.client.hospital import Hospital, HospitalTerms
from clearinghouse.client.keystore import Keystore
from clearinghouse.client.loopback import app_client
from clearinghouse.client.party import run_tasks
from clearinghouse.client.provider import Provider, SourceTerms
from clearinghouse.client.recipes import recipe_source
from clearinghouse.client.transport import Transport
from clearinghouse.messages.intake import RequestView
from clearinghouse.schema import load_schema
from clearinghouse.settings import Settings
from clearinghouse.tables import read_table


def make_schema(folder):
    path = folder / "schema.yaml"
    path.write_text(SCHEMA)
    return load_schema(path)


def make_table(folder, schema, name, n, shift, seed):
    rng = np.random.default_rng(seed)
    age = np.clip(rng.normal(50 + shift, 12, n), 20, 90).round(1)
    sex = rng.choice(["F", "M"], n)
    chance = 1 / (1 + np.exp(-(age - 52) / 6 - (sex == "M") * 0.8))
    sick = np.where(rng.random(n) < chance, "yes", "no")
    rows = "".join(f"{a},{s},{y}\n" for a, s, y in zip(age, sex, sick, strict=True))
    path = folder / f"{name}.csv"
    path.write_text("age,sex,sick\n" + rows)
    return read_table(path, schema)


EXACT = 20_000_000
"""An epsilon whose noise is zero but for once in some 10^8 draws: what hangs on it is certain."""


class Ahead:
    """The system's clock, which a test may put ahead instead of waiting."""

    def __init__(self):
        self.by = 0.0

    def now(self):
        return time.time() + self.by


class Rest:
    """What ends a party's work, and until then lets it rest while there is no task for it.

    A party that asks the server again and again whether there is one costs more than it answers.
    """

    def __init__(self, stop):
        self._stop, self._called = stop, threading.Event()

    def is_set(self):
        return self._stop.is_set()

    def set(self):
        self._called.set()

    call = set

    @property
    def is_called(self):
        return self._called.is_set()

    def wait(self, seconds):
        end = time.monotonic() + seconds
        self._called.wait()
        self._called.clear()
        self._stop.wait(max(0.0, end - time.monotonic()))


@dataclass
class World:
    """Parties of one market, each with its own key and folder."""

    folder: object
    client: object
    url: str
    schema: object
    providers: list = field(default_factory=list)
    developers: list = field(default_factory=list)
    hospital: object = None
    request_id: str = ""
    events: list = field(default_factory=list)
    recipes: tuple = ("logistic",)
    attempts: int = 8
    limits: HospitalTerms = field(default_factory=lambda: HospitalTerms(64, 500_000, 5_000_000))
    patients: object = None
    """The hospital's table, where a test brings its own."""
    app: object = None
    """The server, if it is in this process."""
    clock: Ahead = field(default_factory=Ahead)

    @property
    def desk(self):
        return self.app and self.app.state.desk

    def connect(self, name):
        keystore = Keystore.open(self.folder / name)
        key = keystore.signing_key
        return keystore, Transport(self.url, key, self.clock, self.client, attempts=self.attempts)

    def gather(self, **terms):
        """Register everybody, seal, publish, open the request."""
        self.gather_sellers()
        self.gather_hospital("h", **terms)

    def gather_sellers(self):
        """Providers that have published, and developers."""
        for name, rows, shift, ask in (("a", 120, 0, 1_000_000), ("b", 70, 8, 1_500_000)):
            table = make_table(self.folder, self.schema, name, rows, shift, seed=len(name) + rows)
            source = SourceTerms(64, ask, EXACT, EXACT)
            self.providers.append(Provider(name, *self.connect(name), table, source))
        for recipe in self.recipes:
            make = recipe_source(recipe, 7)
            self.developers.append(
                Developer(recipe, *self.connect(f"dev-{recipe}"), self.schema, make)
            )
        for provider in self.providers:
            provider.publish()
        for developer in self.developers:
            developer.register()

    def gather_hospital(self, name, **terms):
        """A hospital that has sealed its set and opened a request."""
        table = self.patients or make_table(self.folder, self.schema, "h", 100, 3, seed=5)
        self.hospital = Hospital(name, *self.connect(name), table, self.limits)
        self.hospital.register()
        self.hospital.seal()
        self.request_id = self.hospital.open_request(
            {**TERMS, **terms},
            [provider.source_id for provider in self.providers],
            [developer.org_id for developer in self.developers],
        )

    def work(self, parties, seconds=300.0, until=None):
        """Let these parties answer until the request ends, or `until` says so."""
        stop = threading.Event()
        rests = [Rest(stop) if self.desk else stop for _ in parties]
        threads = [
            threading.Thread(
                target=run_tasks,
                args=([party], rest),
                kwargs={
                    "busy_s": 0.02,
                    "idle_s": 0.1,
                    "wait_s": 0 if self.desk else 1,
                    "emit": self.events.append,
                },
                daemon=True,
            )
            for party, rest in zip(parties, rests, strict=True)
        ]
        for thread in threads:
            thread.start()
        end, seen = time.monotonic() + seconds, -1
        try:
            while True:
                view = self.view()
                if view.state != "running" or (until is not None and until(view)):
                    return view
                if time.monotonic() > end:
                    raise AssertionError(f"stuck in {view.step}: {view.waiting_for}")
                seen = self._wait(parties, rests, seen, end if until is None else 0.0)
        finally:
            stop.set()
            for rest in rests:
                rest.set()
            for thread in threads:
                thread.join()

    def _wait(self, parties, rests, seen, end):
        """Until it is worth a look again; a server in this process says when there are tasks."""
        if self.desk is None:
            time.sleep(0.2 if end else 0.05)
            return seen
        while True:
            seen = self.desk.bell.wait(seen, 0.25)
            state, asked = self._at_a_glance()
            for party, rest in zip(parties, rests, strict=True):
                if not rest.is_called and party.org_id in asked:
                    rest.call()
            if state != "running" or time.monotonic() > end:
                return seen

    def _at_a_glance(self):
        """The request's state, and who has open tasks: read past the store, which is dearer.

        The bell rings after every commit, and to look is all that a test does meanwhile.
        """
        path = self.desk.settings.data / "clearinghouse.db"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as database:
            query = "SELECT state FROM request WHERE id = ?"
            ((state,),) = database.execute(query, (self.request_id,))
            asked = database.execute("SELECT DISTINCT org_id FROM task WHERE state = 'open'")
            return state, {name for (name,) in asked}

    def view(self):
        return self.hospital.transport.get(f"/requests/{self.request_id}", RequestView)

    @property
    def everybody(self):
        return [self.hospital, *self.providers, *self.developers]


@contextmanager
def opened(folder):
    """A market around a server in this process."""
    server = folder / "server"
    fresh_sqlite(server / "clearinghouse.db")
    clock = Ahead()
    app = create_app(Settings(server, in_process=True), clock)
    with at_work(app.state.runner), app_client(app) as client:
        yield World(folder, client, "http://testserver", make_schema(folder), app=app, clock=clock)


@pytest.fixture
def world(tmp_path):
    """A market around a server in this process."""
    with opened(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def play(tmp_path_factory):
    """Makes markets that several tests of a module read."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(opened(tmp_path_factory.mktemp("market")))


@pytest.fixture
def make_world(tmp_path):
    """For tests that bring their own server: a function of (client, url)."""
    return lambda client, url: World(tmp_path, client, url, make_schema(tmp_path))
