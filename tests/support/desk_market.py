"""A market at the server's desk, moved by the store and the real steps: no ciphertexts, no HTTP."""

import hashlib

from databases import fresh_sqlite

from clearinghouse.canonical import canonical_bytes
from clearinghouse.clock import FixedClock
from clearinghouse.ids import new_id
from clearinghouse.messages.deliveries import DeliveryCheck, ReceiveAnswer, ReceiveTask
from clearinghouse.messages.intake import OpenRequest, SealValset
from clearinghouse.rounds import decision, opening, pipeline
from clearinghouse.rounds.desk import open_desk
from clearinghouse.rounds.frozen import freeze
from clearinghouse.rounds.pool import Pool
from clearinghouse.rounds.terms import reserve_micro
from clearinghouse.schema import parse_schema
from clearinghouse.settings import Settings
from clearinghouse.signing import SigningKey
from clearinghouse.store.records import (
    Order,
    Org,
    Run,
    SchemaRecord,
    Source,
    Summary,
    Valset,
)
from valuation.ladders import bound

MICRO = 1_000_000
SCHEMA = parse_schema(
    {
        "name": "s",
        "label": {"name": "y", "levels": ["0", "1"]},
        "columns": {"sex": {"kind": "category", "levels": ["F", "M"]}},
        "strata": [["sex"]],
        "subgroups": ["sex"],
    },
    file="s",
)
LEVEL = ("sex",)
BLOB = hashlib.sha256(b"ciphertext").hexdigest()
PURSE = {
    "kind": "acceptance",
    "amount_micro": 300 * MICRO,
    "metric": "auc",
    "threshold_micro": 700_000,
    "confidence_micro": 900_000,
}


class DeskMarket:
    """Two sellers, two developers, one hospital, and a request that is cleared."""

    def __init__(self, folder, **terms):
        self.clock = FixedClock()
        settings = Settings(folder, in_process=True)
        fresh_sqlite(folder / "clearinghouse.db")
        self.desk = open_desk(settings, self.clock)
        self.pool = Pool(self.desk.store, settings, self.clock, self.desk.job_bell)
        self.pool.start()
        self.hospital = self._org("hospital")
        self.sellers = [self._org("provider") for _ in range(2)]
        self.developers = [self._org("developer") for _ in range(2)]
        self.sources = [new_id("src") for _ in self.sellers]
        valset_id = new_id("val")
        self._seal(valset_id)
        self.terms = OpenRequest.model_validate(self._terms(valset_id) | terms)
        self.orders = []
        with self.write() as tx:
            request = opening.open_request(tx, self.desk, self.hospital, self.terms)
            self.request_id = request.id
            self._clear(tx, request)

    def write(self):
        return self.desk.store.write()

    def read(self):
        return self.desk.store.read()

    def close(self):
        self.pool.close()
        self.desk.store.close()

    def _org(self, role):
        key = SigningKey.generate()
        age = "age1" + "q" * 58 if role == "developer" else None
        made = Org(new_id("org"), f"a {role}", role, key.key_id, key.verify_key.base64, age)
        with self.write() as tx:
            tx.parties.add(made)
            hashes = {"public_key": key.verify_key.digest}
            self.desk.record(tx, "org.registered", made, objects={"org": made.id}, hashes=hashes)
        return made

    def _seal(self, valset_id):
        counts = [(40, 20, 30, 10), (15, 30, 25, 30)]
        sealed = SealValset(
            schema_id=new_id("sch"),
            size_class=64,
            level=list(LEVEL),
            layout={},
            keys_blob=BLOB,
            upload_blobs=[BLOB],
            commitment="2" * 64,
        )
        self.summaries = {}
        with self.write() as tx:
            body = canonical_bytes(SCHEMA.to_dict()).decode()
            tx.cohorts.add_schema(SchemaRecord(sealed.schema_id, SCHEMA.digest(), body))
            sold = zip(self.sources, self.sellers, counts, strict=True)
            for place, (source, seller, numbers) in enumerate(sold):
                tx.cohorts.add_source(
                    Source(source, seller.id, "s", sealed.schema_id, 64, "1" * 64, 128, False)
                )
                tx.cohorts.date_source(source, place)
                summary = Summary(source, LEVEL, numbers, 5 * MICRO, "4" * 64)
                tx.cohorts.add_summary(summary)
                self.summaries[source] = summary
            tx.blobs.add(BLOB, 10, self.hospital.id)
            tx.cohorts.add_valset(
                Valset(valset_id, self.hospital.id, sealed.schema_id, sealed.model_dump_json())
            )

    def _terms(self, valset_id):
        return {
            "valset_id": valset_id,
            "source_ids": self.sources,
            "developer_ids": [org.id for org in self.developers],
            "records": 60,
            "currency": "EUR",
            "tariff_micro": 6 * MICRO,
            "distance_price_micro": MICRO,
            "share_cap_micro": 1_500_000,
            "fee_micro": 50_000,
            "epsilon_target_micro": 500_000,
            "epsilon_score_micro": MICRO,
            "purse": PURSE,
            "witness_quorum": 0,  # nobody here answers tasks
        }

    def _clear(self, tx, request):
        noised = [25, 20, 30, 25]
        target = freeze(
            new_id("run"), self.terms, request.terms_digest, SCHEMA, LEVEL, noised, self.summaries
        )
        asks = (1 * MICRO, 2 * MICRO)
        reserve = reserve_micro(self.terms)
        market = decision.Market(target, reserve, tuple(self.sources), asks, ("c",))
        view = decision.decide(market)
        placed = []
        for order in view.orders:
            made = Order(
                new_id("ord"),
                request.id,
                order.source_id,
                tuple(order.quota),
                order.units,
                decision.payment_micro(order),
                new_id("dlv"),
                None,
                None,
                tuple(tuple(rung) for rung in order.ladder),
            )
            if order.units:
                tx.orders.add(made)
                self.orders.append(made)
                order = order.model_copy(update={"order_id": made.id})
            placed.append(order)
        view = view.model_copy(update={"orders": placed})
        tx.requests.keep(request.id, "target", target.model_dump_json())
        tx.requests.keep(request.id, "clearing", canonical_bytes(view.model_dump()).decode())
        for step in ("clear", "deliver"):
            tx.requests.enter(request.id, step, self.clock.now())

    # ------------------------------------------------------------ what parties do

    def deliver(self, number, real, accepted=True):
        """A seller delivers `real` records (0: nothing), and both developers look at them."""
        order = self.orders[number]
        with self.write() as tx:
            tx.orders.delivered(order.id, "5" * 64 if real else None, real if accepted else 0)
            earned = bound(order.ladder, real) if accepted else 0
            tx.orders.earned(order.id, earned, "" if real else "undelivered")
        self.delivered = getattr(self, "delivered", {}) | {number: (real, accepted)}

    def confirm(self):
        """The developers' findings, and the step to scoring."""
        checks = [
            DeliveryCheck(
                delivery_id=self.orders[number].delivery_id,
                real=real,
                accepted=accepted,
                problems=[],
            )
            for number, (real, accepted) in sorted(self.delivered.items())
            if real
        ]
        with self.write() as tx:
            for developer in self.developers:
                task = ReceiveTask(schema_id="sch_" + "0" * 20, deliveries=[])
                name = tx.tasks.create(
                    self.request_id, developer.id, task, subject=self.request_id, deadline=2**40
                )
                tx.tasks.answer(name, developer.id, ReceiveAnswer(checks=checks), 0.0)
            tx.requests.enter(self.request_id, "score", self.clock.now())

    def score(self, number, point="0.900000", bound="0.850000"):
        """A developer's model is scored."""
        developer = self.developers[number]
        model = {
            "org_id": developer.id,
            "name": "m",
            "kind": "linear",
            "digest": "6" * 64,
            "nonce": "00" * 16,
            "edges": [0, 1, 2],
            "threshold_edge": 1,
            "columns": [0],
        }
        run = Run(
            new_id("run"),
            self.request_id,
            "score",
            number,
            "running",
            "",
            "00" * 32,
            "00" * 16,
            new_id("mod"),
            model,
            {},
        )
        card = {"auc": point, "award_bound": bound, "status": "ok"}
        with self.write() as tx:
            tx.runs.add(run)
            tx.runs.release(run.id, {"scorecard": card, "counts": [[1, 2], [3, 4]], "groups": {}})
            self.desk.record(
                tx,
                "run.released",
                self.desk.org,
                objects={
                    "request": self.request_id,
                    "run": run.id,
                    "model": run.model_id,
                    "valset": self.terms.valset_id,
                    "owner": self.hospital.id,
                },
                hashes={"release": "7" * 64, "transcript": "8" * 64},
                amounts={"epsilon_micro": self.terms.epsilon_score_micro},
            )
        return run

    def settle(self):
        """The end of scoring, settling and the audit, by the pipeline itself."""
        with self.write() as tx:
            tx.requests.enter(self.request_id, "settle", self.clock.now())
        while pipeline.advance(self.desk, self.request_id):
            pass

    def balance(self, account):
        with self.read() as tx:
            return tx.ledger.balance(account)

    def request(self, tx):
        return tx.requests.get(self.request_id)
