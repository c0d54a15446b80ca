"""A market for tests of consent: real provider and developers, no ciphertexts.

The hospital's part is written into the database; requests are moved by hand, one move at a time,
so that a withdrawal can come between any two.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from consenting_tables import NAMES, PURSE, SCHEMA, records
from consenting_writes import write_hospital, write_model, write_target
from databases import fresh_sqlite

from api.app import create_app
from clearinghouse.client.developer import Developer
from clearinghouse.client.keystore import Keystore
from clearinghouse.client.party import Party, do_task
from clearinghouse.client.provider import Provider, SourceTerms
from clearinghouse.client.recipes import recipe_source
from clearinghouse.client.transport import Transport
from clearinghouse.clock import FixedClock
from clearinghouse.log.entries import parse_entry
from clearinghouse.log.replay import replay
from clearinghouse.messages.intake import OpenRequest
from clearinghouse.messages.tasks import TaskList
from clearinghouse.rounds import opening, pipeline
from clearinghouse.settings import Settings
from clearinghouse.store.records import Run
from clearinghouse.tables import from_records
from clearinghouse.world.check import check_world

EXACT = 20_000_000
"""An epsilon whose noise is zero but for once in some 10^8 draws: who sells what is certain."""


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
            terms = SourceTerms(64, 1_000_000 + place, EXACT, EXACT, **self.grants)
            self.providers[name] = Provider(name, *self.connect(name), table, terms)
            self.providers[name].publish()
        make = recipe_source("logistic", 7)
        self.developers = {
            name: Developer(name, *self.connect(name), SCHEMA, make) for name in ("ada", "bob")
        }
        for developer in self.developers.values():
            developer.register()
        self.sources = {name: item.source_id for name, item in self.providers.items()}
        write_hospital(self)

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
        write_target(self)

    # ------------------------------------------------------------ moving

    def run(self, most: int = 3000) -> None:
        """Make the server's moves until there is none, waiting for jobs that workers do."""
        for _ in range(most):
            seen = self.desk.bell.count
            if self.step() in ("score", "settle", "audit"):
                return
            with self.desk.store.read() as tx:  # before the look: a job may end in between
                waits = bool(tx.jobs.busy(self.request_id))
            if pipeline.advance(self.desk, self.request_id):
                continue
            if not waits:
                return
            self.desk.bell.wait(seen, 1.0)
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
        return write_model(self, name)

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
