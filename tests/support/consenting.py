"""A market for tests of consent: real provider and developers, no ciphertexts.

The hospital's part is written into the database; requests are moved by hand, one move at a time,
so that a withdrawal can come between any two.
"""

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from databases import fresh_sqlite

from api.app import create_app
from clearinghouse.canonical import canonical_bytes, digest
from clearinghouse.client.developer import Developer
from clearinghouse.client.keystore import Keystore
from clearinghouse.client.party import Party, do_task
from clearinghouse.client.provider import Provider, SourceTerms
from clearinghouse.client.recipes import recipe_source
from clearinghouse.client.transport import Transport
from clearinghouse.clock import FixedClock
from clearinghouse.ids import new_id
from clearinghouse.log.entries import parse_entry
from clearinghouse.log.replay import replay
from clearinghouse.messages.intake import OpenRequest
from clearinghouse.messages.tasks import TaskList
from clearinghouse.rounds import grants, opening, pipeline, training
from clearinghouse.rounds.begun import record_begun
from clearinghouse.rounds.frozen import freeze
from clearinghouse.schema import parse_schema
from clearinghouse.settings import Settings
from clearinghouse.store.records import Org, Run, Valset
from clearinghouse.tables import from_records
from clearinghouse.world.check import check_world

SCHEMA = parse_schema(
    {
        "name": "tiny",
        "label": {"name": "sick", "levels": ["no", "yes"]},
        "columns": {
            "sex": {"kind": "category", "levels": ["F", "M"]},
            "weight": {"kind": "number", "low": "30", "high": "200"},
        },
        "strata": [["sex"]],
        "subgroups": ["sex"],
    },
    file="tiny",
)
PURSE = {
    "kind": "acceptance",
    "amount_micro": 10_000_000,
    "metric": "auc",
    "threshold_micro": 700_000,
    "confidence_micro": 900_000,
}
NAMES = ("a", "b")


def records(seed: int, n: int = 70) -> list[dict[str, str | None]]:
    """Rows whose numbers are long enough to be searched for in files."""
    draw = np.random.default_rng(seed)
    return [
        {
            "sex": "FM"[int(draw.integers(2))],
            "weight": f"{draw.uniform(40, 150):.9f}",
            "sick": ("no", "yes")[int(draw.integers(2))],
        }
        for _ in range(n)
    ]


@dataclass
class Market:
    """Two sources, two developers, one request that a test moves."""

    folder: Path
    client: Any
    app: Any
    clock: FixedClock
    terms: dict[str, Any] = field(default_factory=dict)
    grants: dict[str, Any] = field(default_factory=dict)
    request_id: str = ""
    begun: list[str] = field(default_factory=list)

    @property
    def desk(self) -> Any:
        return self.app.state.desk

    def connect(self, name: str) -> tuple[Keystore, Transport]:
        keystore = Keystore.open(self.folder / name)
        return keystore, Transport(
            "http://testserver", keystore.signing_key, self.clock, self.client, attempts=1
        )

    def gather(self) -> None:
        """Register and publish; the hospital is a row."""
        self.providers = {}
        for place, name in enumerate(NAMES):
            table = from_records(SCHEMA, records(place), file=name)
            terms = SourceTerms(64, 1_000_000 + place, 1_000_000, 1_000_000, **self.grants)
            self.providers[name] = Provider(name, *self.connect(name), table, terms)
            self.providers[name].publish()
        make = recipe_source("logistic", 7)
        self.developers = {
            name: Developer(name, *self.connect(name), SCHEMA, make) for name in ("ada", "bob")
        }
        for developer in self.developers.values():
            developer.register()
        self.sources = {name: item.source_id for name, item in self.providers.items()}
        keystore, _ = self.connect("hospital")
        self.hospital = Org(
            new_id("org"),
            "hospital",
            "hospital",
            keystore.signing_key.key_id,
            keystore.signing_key.verify_key.base64,
            None,
        )
        schema_id = self.providers["a"].schema_id
        self.blob = blob = self.desk.blobs.put(b"ciphertext")
        valset_id = new_id("val")
        body = {
            "schema_id": schema_id,
            "size_class": 64,
            "level": ["sex"],
            "layout": {},
            "keys_blob": blob,
            "upload_blobs": [blob],
            "commitment": "2" * 64,
        }
        with self.desk.store.write() as tx:
            tx.parties.add(self.hospital, tx.log.size())
            self.desk.record(
                tx,
                "org.registered",
                self.hospital,
                objects={"org": self.hospital.id},
                hashes={"public_key": keystore.signing_key.verify_key.digest},
            )
            tx.blobs.add(blob, len(b"ciphertext"), self.hospital.id)
            text = canonical_bytes(body).decode()
            tx.cohorts.add_valset(
                Valset(valset_id, self.hospital.id, schema_id, text, "", "passed")
            )
            self.desk.record(
                tx,
                "valset.sealed",
                self.hospital,
                objects={"valset": valset_id, "owner": self.hospital.id},
                hashes={"manifest": digest(text.encode())},
                commit="2" * 64,
            )
        self.valset_id = valset_id

    def open(self, **changes: Any) -> str:
        """Open a request that waits for its target."""
        terms = {
            "valset_id": self.valset_id,
            "source_ids": list(self.sources.values()),
            "developer_ids": [item.org_id for item in self.developers.values()],
            "records": 40,
            "currency": "EUR",
            "tariff_micro": 6_000_000,
            "distance_price_micro": 1_000_000,
            "share_cap_micro": 1_500_000,
            "fee_micro": 50_000,
            "epsilon_target_micro": 500_000,
            "epsilon_score_micro": 1_000_000,
            "purse": PURSE,
            **changes,
        }
        with self.desk.store.write() as tx:
            message = OpenRequest.model_validate(terms)
            request = opening.open_request(tx, self.desk, self.hospital, message)
        self.request_id = request.id
        return request.id

    def match(self) -> None:
        """What the match step does, with counts as if they had been opened."""
        noised = (12, 9, 10, 11)
        with self.desk.store.write() as tx:
            request = tx.requests.get(self.request_id)
            run = Run(new_id("run"), request.id, "target", 0, "running", "", "0", "0", "", {}, {})
            tx.runs.add(run)
            summaries = grants.summaries(tx, request)
            target = freeze(
                run.id, request.terms, request.terms_digest, SCHEMA, ("sex",), noised, summaries
            )
            tx.requests.keep(request.id, "target", canonical_bytes(target.model_dump()).decode())
            tx.runs.release(run.id, {"noised": list(noised)})
            objects = {"request": request.id, "owner": self.hospital.id, "valset": self.valset_id}
            seed, nonce = {"seed": "5" * 64}, {"nonce": "6" * 64}
            if not any(entry == "checks.begun" for entry in self.begun):
                self.desk.record(tx, "checks.begun", self.desk.org, objects=objects, hashes=seed)
                self.begun.append("checks.begun")
            self.desk.record(
                tx,
                "run.begun",
                self.desk.org,
                objects={**objects, "run": run.id},
                hashes={**seed, **nonce},
            )
            self.desk.record(
                tx,
                "target.released",
                self.desk.org,
                objects={**objects, "run": run.id},
                hashes={"release": "3" * 64},
                amounts={"epsilon_micro": 500_000},
            )
            self.desk.record(
                tx,
                "inputs.frozen",
                self.desk.org,
                objects={"request": request.id},
                hashes={"inputs": target.frozen_digest},
            )
            tx.requests.enter(request.id, "clear", self.clock.now())

    # ------------------------------------------------------------ moving

    def run(self, most: int = 3000) -> None:
        """Make the server's moves until there is none, waiting for jobs that workers do."""
        for _ in range(most):
            if self.step() in ("score", "settle", "audit"):
                return
            with self.desk.store.read() as tx:  # before the look: a job may end in between
                waits = bool(tx.jobs.busy(self.request_id))
            if pipeline.advance(self.desk, self.request_id):
                continue
            if not waits:
                return
            time.sleep(0.01)
        raise AssertionError("the request moves without an end")

    def step(self) -> str:
        with self.desk.store.read() as tx:
            return str(tx.requests.get(self.request_id).step)

    def state(self) -> tuple[str, str]:
        with self.desk.store.read() as tx:
            request = tx.requests.get(self.request_id)
            return request.state, request.reason

    def answer(self, *parties: Party, kinds: tuple[str, ...] = ()) -> list[dict[str, Any]]:
        """Let parties answer their open tasks of these kinds (all if none), once."""
        events: list[dict[str, Any]] = []
        for party in parties:
            for view in party.transport.get("/agent/tasks", TaskList).tasks:
                if not kinds or view.task.kind in kinds:
                    do_task(party, view, events.append)
        return events

    def to(self, point: str) -> None:
        """Go on until a point of the request's life, in the order of `POINTS`."""
        for name in POINTS[: POINTS.index(point) + 1]:
            getattr(self, f"_to_{name}")()

    def _to_opened(self) -> None:
        self.open()

    def _to_matched(self) -> None:
        self.match()

    def _to_asked(self) -> None:
        self.run()

    def _to_answered(self) -> None:
        self.answer(*self.providers.values(), kinds=("ask.commit",))

    def _to_closed(self) -> None:
        self.run()

    def _to_revealed(self) -> None:
        self.answer(*self.providers.values(), kinds=("ask.reveal",))

    def _to_ordered(self) -> None:
        self.run()

    def _to_sealed(self) -> None:
        self.answer(*self.providers.values(), kinds=("deliver", "show"))

    def _to_delivered(self) -> None:
        self.run()

    def _to_read(self) -> None:
        self.answer(*self.developers.values(), kinds=("receive",))

    def _to_confirmed(self) -> None:
        self.run()

    def finish(self) -> None:
        """Everybody answers whatever comes until the request waits for models or has ended."""
        for _ in range(10):
            if self.step() == "score" or self.state()[0] != "running":
                return
            if self.step() == "match":
                self.match()
            self.answer(*self.providers.values(), *self.developers.values())
            self.run()
        raise AssertionError(f"stuck in {self.step()}")

    def settle(self) -> None:
        """End the request as if no developer had submitted a model."""
        with self.desk.store.write() as tx:
            tx.requests.enter(self.request_id, "settle", self.clock.now())
        for _ in range(10):
            while pipeline.advance(self.desk, self.request_id):
                pass
            if self.state()[0] != "running":
                break
            self.answer(*self.providers.values(), *self.developers.values(), kinds=("log.cosign",))
        assert self.state() == ("done", ""), self.step()

    def submit(self, name: str) -> Run:
        """Take a model as the score step does, without its bytes."""
        developer = self.developers[name]
        model = {"org_id": developer.org_id, "name": name, "kind": "logistic", "digest": "4" * 64}
        model["nonce_commitment"] = "7" * 64
        with self.desk.store.write() as tx:
            request = tx.requests.get(self.request_id)
            place = len(tx.runs.of(request.id, "score"))
            run = Run(
                new_id("run"), request.id, "score", place, "running", "", "00" * 32, "00" * 16,
                new_id("mod"), model, {},
            )  # fmt: skip
            tx.runs.add(run)
            training.taken(tx, self.desk, request, developer.org_id)
            self.desk.record(
                tx,
                "model.submitted",
                tx.parties.get(developer.org_id),
                objects={
                    "model": run.model_id,
                    "owner": developer.org_id,
                    "request": request.id,
                },
                hashes={"model": "4" * 64},
            )
            record_begun(tx, self.desk, request, run)
        return run

    # ------------------------------------------------------------ looking

    def orders(self) -> dict[str, Any]:
        """Orders by the name of their source."""
        names = {source: name for name, source in self.sources.items()}
        with self.desk.store.read() as tx:
            return {names[order.source_id]: order for order in tx.orders.of(self.request_id)}

    def entries(self) -> list[Any]:
        with self.desk.store.read() as tx:
            return [parse_entry(body) for body in tx.log.entries(0, 1000)]

    def kinds(self) -> list[str]:
        return [entry.type for entry in self.entries()]

    def check_world(self) -> None:
        """Log, ledger, budgets, blobs, receipts and jobs, recomputed from outside."""
        owners = {
            item.org_id: [item.keystore.ledger_place]
            for item in self.providers.values()
            if item.keystore.ledger_place.exists()  # unless it withdrew and forgot
        }
        settings = self.desk.settings
        found = check_world(settings, self.clock.now(), ledgers=owners, grace_s=math.inf)
        assert found.is_well, "\n".join(map(str, found.troubles))

    def check_log(self) -> None:
        """Nothing that the log records breaks a rule."""
        assert replay(self.entries()).violations == ()


POINTS = (
    "opened",
    "matched",
    "asked",
    "answered",
    "closed",
    "revealed",
    "ordered",
    "sealed",
    "delivered",
    "read",
    "confirmed",
)


def make_market(folder: Path, client: Any, app: Any, clock: FixedClock, **grants: Any) -> Market:
    """A gathered market."""
    market = Market(folder, client, app, clock, grants=grants)
    market.gather()
    return market


def make_app(folder: Path, url: str, clock: FixedClock) -> Any:
    """A server without its thread; tests move requests themselves."""
    if not url:
        fresh_sqlite(folder / "server" / "clearinghouse.db")
    return create_app(Settings(folder / "server", database_url=url, in_process=True), clock)
