"""A small market of real parties around a server in this process."""

import threading
import time
from dataclasses import dataclass, field

import numpy as np
import pytest
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
from clearinghouse.clock import SystemClock
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

    def connect(self, name):
        keystore = Keystore.open(self.folder / name)
        key, clock = keystore.signing_key, SystemClock()
        return keystore, Transport(self.url, key, clock, self.client, attempts=self.attempts)

    def gather(self, **terms):
        """Register everybody, seal, publish, open the request."""
        for name, rows, shift, ask in (("a", 120, 0, 1_000_000), ("b", 70, 8, 1_500_000)):
            table = make_table(self.folder, self.schema, name, rows, shift, seed=len(name) + rows)
            source = SourceTerms(64, ask, 1_000_000, 1_000_000)
            self.providers.append(Provider(name, *self.connect(name), table, source))
        for recipe in self.recipes:
            make = recipe_source(recipe, 7)
            self.developers.append(
                Developer(recipe, *self.connect(f"dev-{recipe}"), self.schema, make)
            )
        table = self.patients or make_table(self.folder, self.schema, "h", 100, 3, seed=5)
        self.hospital = Hospital("h", *self.connect("h"), table, self.limits)
        for provider in self.providers:
            provider.publish()
        for developer in self.developers:
            developer.register()
        self.hospital.register()
        self.hospital.seal()
        self.request_id = self.hospital.open_request(
            {**TERMS, **terms},
            [provider.source_id for provider in self.providers],
            [developer.org_id for developer in self.developers],
        )

    def work(self, parties, seconds=300.0, until=None):
        """Let these parties answer until the request ends, or `until` says so.

        The more parties the rarer each one asks: otherwise asking is most of what is computed.
        """
        stop = threading.Event()
        idle_s = max(0.1, 0.025 * len(parties))
        threads = [
            threading.Thread(
                target=run_tasks,
                args=([party], stop),
                kwargs={"busy_s": 0.02, "idle_s": idle_s, "emit": self.events.append},
                daemon=True,
            )
            for party in parties
        ]
        for thread in threads:
            thread.start()
        end = time.monotonic() + seconds
        try:
            while True:
                view = self.view()
                if view.state != "running" or (until is not None and until(view)):
                    return view
                if time.monotonic() > end:
                    raise AssertionError(f"stuck in {view.step}: {view.waiting_for}")
                time.sleep(0.2 if until is None else 0.05)
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def view(self):
        return self.hospital.transport.get(f"/requests/{self.request_id}", RequestView)

    @property
    def everybody(self):
        return [self.hospital, *self.providers, *self.developers]


@pytest.fixture
def world(tmp_path, server_folder):
    """A market around a server in this process."""
    app = create_app(Settings(server_folder, in_process=True))
    with at_work(app.state.runner), app_client(app) as client:
        made = World(tmp_path, client, "http://testserver", make_schema(tmp_path))
        made.app, made.desk = app, app.state.desk
        yield made


@pytest.fixture
def make_world(tmp_path):
    """For tests that bring their own server: a function of (client, url)."""
    return lambda client, url: World(tmp_path, client, url, make_schema(tmp_path))
