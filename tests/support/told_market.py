"""A complete market written entry by entry."""

from dataclasses import dataclass, field
from typing import Any

from clearinghouse.asks import ask_commitment
from clearinghouse.canonical import digest
from clearinghouse.ids import new_id
from clearinghouse.log.entries import Entry, make_entry
from clearinghouse.money import format_money
from clearinghouse.signing import SigningKey

NOW_S = 1_900_000_000
BID = 200_000_000
ASKS = {"a": 2_000_000, "b": 1_250_000}
TERMS = {"attributes": digest(["age", "ill"]), "purpose": digest("train models")}


@dataclass
class Author:
    """Writes entries of one organisation."""

    org: str = field(default_factory=lambda: new_id("org"))
    key: SigningKey = field(default_factory=SigningKey.generate)

    def write(self, kind: str, **fields: Any) -> Entry:
        return make_entry(kind, now_s=NOW_S, actor=self.org, key=self.key.key_id, **fields)

    def register(self) -> Entry:
        hashes = {"public_key": self.key.verify_key.digest}
        return self.write("org.registered", objects={"org": self.org}, hashes=hashes)


class Market:
    """A complete market; `at(type)` finds an entry, `entries` may be tampered with."""

    def __init__(self) -> None:
        self.operator, self.hospital, self.developer = Author(), Author(), Author()
        self.sellers = {name: Author() for name in ASKS}
        self.sources = {name: new_id("src") for name in ASKS}
        self.request, self.valset, self.model = new_id("req"), new_id("val"), new_id("mod")
        self.run, self.target_run = new_id("run"), new_id("run")
        self.dispute = new_id("dsp")
        self.deliveries = {name: new_id("dlv") for name in ASKS}
        self.grants = {name: new_id("grt") for name in ASKS}
        self.orders = {name: new_id("ord") for name in ASKS}
        self.salts = {name: digest(name.encode()) for name in ASKS}
        everybody = (self.operator, self.hospital, self.developer, *self.sellers.values())
        self.entries = [
            *(author.register() for author in everybody),
            *self._intake(),
            *self._clear(),
            *self._deliver(),
            *self._score(),
            *self._settle(),
        ]

    def at(self, kind: str, number: int = 0) -> int:
        return [i for i, entry in enumerate(self.entries) if entry.type == kind][number]

    def _intake(self) -> list[Entry]:
        entries = []
        for name, seller in self.sellers.items():
            objects = {"source": self.sources[name], "owner": seller.org}
            entries.append(seller.write("source.registered", objects=objects))
            entries.append(self.summary(name))
            entries.append(self.grant(name))
        owner = {"owner": self.hospital.org, "valset": self.valset}
        manifest = {"manifest": digest(b"manifest")}
        sealed = self.hospital.write(
            "valset.sealed", objects=owner, hashes=manifest, commit=digest(b"rows")
        )
        opened = self.hospital.write(
            "request.opened",
            objects={**owner, "request": self.request},
            hashes={"terms": digest(b"terms")},
            amounts={"escrow_micro": 900_000_000},
        )
        return [*entries, sealed, opened]

    def summary(self, name: str) -> Entry:
        seller = self.sellers[name]
        return seller.write(
            "summary.released",
            objects={"source": self.sources[name], "owner": seller.org},
            hashes={"release": digest(b"counts")},
            amounts={"epsilon_micro": 1_000_000},
        )

    def grant(self, name: str, recipient: Author | None = None, **changes: Any) -> Entry:
        """To all developers, or to one; `changes` are hashes or `expires`."""
        seller = self.sellers[name]
        objects = {"grant": self.grants[name], "source": self.sources[name], "owner": seller.org}
        objects["sender"] = seller.org
        if recipient is not None:
            objects["recipient"] = recipient.org
        expires = changes.pop("expires", NOW_S + 1000)
        return seller.write(
            "grant.given",
            objects=objects,
            hashes={**TERMS, **changes},
            amounts={"expires": expires},
        )

    def ungrant(self, name: str) -> Entry:
        seller = self.sellers[name]
        objects = {"grant": self.grants[name], "source": self.sources[name], "owner": seller.org}
        return seller.write("grant.withdrawn", objects=objects)

    def leave(self, name: str) -> Entry:
        seller = self.sellers[name]
        objects = {"source": self.sources[name], "owner": seller.org}
        return seller.write("source.withdrawn", objects=objects)

    def erase(self, name: str) -> Entry:
        objects = {"source": self.sources[name], "owner": self.sellers[name].org}
        return self.operator.write("source.erased", objects=objects)

    def use(self, act: str, name: str, **changes: str) -> Entry:
        """A use by the developer; `changes` are objects or hashes."""
        actor = {"ordered": self.operator, "sealed": self.sellers[name]}.get(act, self.developer)
        objects = {
            "grant": self.grants[name],
            "source": self.sources[name],
            "request": self.request,
            "order": self.orders[name],
            "recipient": self.developer.org,
        }
        hashes = {key: changes.pop(key, value) for key, value in TERMS.items()}
        return actor.write(f"use.{act}", objects={**objects, **changes}, hashes=hashes)

    def _clear(self) -> list[Entry]:
        entries = [self.tests(), self.begin_target(), self.target(), self.frozen()]
        entries += [self.commit(name) for name in ASKS]
        entries += [self.reveal(name) for name in ASKS]
        return [*entries, self.clearing()]

    def size(self) -> Entry:
        return self.hospital.write(
            "size.released",
            objects={"valset": self.valset, "owner": self.hospital.org},
            hashes={"release": digest(b"size")},
            amounts={"epsilon_micro": 100_000},
        )

    def tests(self, **objects: str) -> Entry:
        return self.operator.write(
            "checks.begun", objects=self.of_set() | objects, hashes={"seed": digest(b"test seed")}
        )

    def begin_target(self, **objects: str) -> Entry:
        return self.operator.write(
            "run.begun",
            objects=self.of_set() | {"run": self.target_run} | objects,
            hashes={"seed": digest(b"target seed"), "nonce": digest(b"target nonce")},
        )

    def begin(self, run: str | None = None, **objects: str) -> Entry:
        return self.operator.write(
            "run.begun",
            objects={**self.of_set(), "model": self.model, "run": run or self.run} | objects,
            hashes={
                "seed": digest(b"seed"),
                "nonce": digest(b"nonce"),
                "developer_nonce": digest(b"developer's nonce"),
                "model": digest(b"model"),
            },
        )

    def target(self) -> Entry:
        return self.operator.write(
            "target.released",
            objects={**self.of_set(), "run": self.target_run},
            hashes={"release": digest(b"target"), "transcript": digest(b"blobs")},
            amounts={"epsilon_micro": 500_000},
        )

    def of_set(self) -> dict[str, str]:
        return {"request": self.request, "owner": self.hospital.org, "valset": self.valset}

    def frozen(self) -> Entry:
        hashes = {"inputs": digest(b"inputs")}
        return self.operator.write(
            "inputs.frozen", objects={"request": self.request}, hashes=hashes
        )

    def commit(self, name: str) -> Entry:
        salt = bytes.fromhex(self.salts[name])
        return self.sellers[name].write(
            "ask.committed",
            objects={"request": self.request, "source": self.sources[name]},
            commit=ask_commitment(salt, self.request, self.sources[name], ASKS[name]),
        )

    def reveal(self, name: str, ask: int | None = None) -> Entry:
        return self.sellers[name].write(
            "ask.revealed",
            objects={"request": self.request, "source": self.sources[name]},
            hashes={"salt": self.salts[name]},
            amounts={"ask": format_money(ASKS[name] if ask is None else ask)},
        )

    def clearing(self, inputs: bytes = b"inputs") -> Entry:
        hashes = {"inputs": digest(inputs), "allocation": digest(b"allocation")}
        return self.operator.write(
            "clearing.decided", objects={"request": self.request}, hashes=hashes
        )

    def _deliver(self) -> list[Entry]:
        ordered = [self.use("ordered", name) for name in ASKS]
        sealed = [entry for name in ASKS for entry in (self.use("sealed", name), self.seal(name))]
        read = [self.use("read", name) for name in ASKS]
        return ordered + sealed + read + [self.receive(name) for name in ASKS]

    def seal(self, name: str, **amounts: int) -> Entry:
        objects = {"source": self.sources[name], "delivery": self.deliveries[name]}
        return self.sellers[name].write(
            "delivery.sealed",
            objects={**objects, "request": self.request},
            hashes={"blob": digest(name.encode())},
            amounts={"units": 30, "real": 28} | amounts,
        )

    def receive(self, name: str, blob: bytes | None = None, by: Author | None = None) -> Entry:
        return (by or self.developer).write(
            "delivery.received",
            objects={"request": self.request, "delivery": self.deliveries[name]},
            hashes={"blob": digest(blob or name.encode())},
            amounts={"real": 28, "accepted": 1},
        )

    def _score(self) -> list[Entry]:
        trained = [self.use("trained", name) for name in ASKS]
        return [
            *trained,
            self.submit(),
            self.commit_bid(),
            self.begin(),
            self.release(),
            self.receipt(),
            self.reveal_bid(),
        ]

    def of_bid(self) -> dict[str, str]:
        owner = {"owner": self.developer.org}
        return {"model": self.model, "request": self.request} | owner

    def commit_bid(self) -> Entry:
        salt = bytes.fromhex(digest(b"bid"))
        return self.developer.write(
            "bid.committed",
            objects=self.of_bid(),
            commit=ask_commitment(salt, self.request, self.developer.org, BID),
        )

    def reveal_bid(self, bid: int | None = None) -> Entry:
        return self.developer.write(
            "bid.revealed",
            objects=self.of_bid(),
            hashes={"salt": digest(b"bid")},
            amounts={"ask": format_money(BID if bid is None else bid)},
        )

    def submit(self) -> Entry:
        return self.developer.write(
            "model.submitted",
            objects={
                "model": self.model,
                "owner": self.developer.org,
                "request": self.request,
            },
            hashes={"model": digest(b"model")},
        )

    def release(self, run: str | None = None, result: str | None = None, **objects: str) -> Entry:
        run = run or self.run
        return self.operator.write(
            "run.released",
            objects={**self.of_set(), "model": self.model, "run": run} | objects,
            hashes={
                "release": result or digest({"run": run, "counts": [1, 2]}),
                "transcript": digest(b"blobs"),
                "model": digest(b"model"),
            },
            amounts={"epsilon_micro": 750_000},
        )

    def receipt(self, run: str | None = None, **objects: str) -> Entry:
        whole = {
            "receipt": new_id("rcp"),
            "request": self.request,
            "run": run or self.run,
            "model": self.model,
            "valset": self.valset,
        }
        return self.operator.write(
            "receipt.issued", objects=whole | objects, hashes={"envelope": digest(b"envelope")}
        )

    def audit(self, reproduced: int = 1, **objects: str | None) -> Entry:
        whole = {
            "request": self.request,
            "run": self.run,
            "model": self.model,
            "owner": self.developer.org,
        } | objects
        return self.developer.write(
            "run.audited",
            objects={name: value for name, value in whole.items() if value is not None},
            hashes={"verdict": digest(b"verdict")},
            amounts={"reproduced": reproduced},
        )

    def _settle(self) -> list[Entry]:
        end = [self.award(), self.statement(), self.close()]
        return [*end, self.claim(), self.reply(), self.ruling()]

    def of_dispute(self) -> dict[str, str]:
        return {"dispute": self.dispute, "request": self.request}

    def claim(self, **objects: str) -> Entry:
        seller = self.sellers["a"].org
        parties = {"opener": self.hospital.org, "respondent": seller, "subject": self.run}
        return self.hospital.write(
            "dispute.opened",
            objects=self.of_dispute() | parties | objects,
            hashes={"claim": digest(b"claim")},
            amounts={"answer_by": NOW_S},
        )

    def reply(self) -> Entry:
        return self.sellers["a"].write(
            "dispute.answered",
            objects=self.of_dispute(),
            hashes={"answer": digest(b"answer")},
            amounts={"ruling_by": NOW_S + 1},
        )

    def ruling(self, kind: str = "dispute.resolved") -> Entry:
        return self.operator.write(
            kind,
            objects=self.of_dispute(),
            hashes={"ruling": digest(b"ruling")},
            amounts={"paid_micro": 1, "returned_micro": 0, "upheld": 0},
        )

    def award(self, **amounts: int) -> Entry:
        return self.operator.write(
            "award.decided",
            objects={"request": self.request},
            hashes={"award": digest(b"award")},
            amounts={"purse_micro": 300_000_000} | amounts,
        )

    def statement(self) -> Entry:
        return self.operator.write(
            "statement.settled",
            objects={"request": self.request},
            hashes={"statement": digest(b"statement"), "prices": digest(b"prices")},
        )

    def close(self, failed: int = 0) -> Entry:
        return self.operator.write(
            "request.closed", objects={"request": self.request}, amounts={"failed": failed}
        )
