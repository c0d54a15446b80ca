"""A small real log with a score receipt in it, cosigned by one witness."""

import secrets
from dataclasses import dataclass
from typing import Any

from clearinghouse.canonical import commitment, digest
from clearinghouse.clock import timestamp
from clearinghouse.ids import new_id
from clearinghouse.log import merkle
from clearinghouse.log.checkpoint import (
    Checkpoint,
    NoteKey,
    cosign_checkpoint,
    log_key,
    parse_note,
    sign_checkpoint,
    witness_key,
)
from clearinghouse.log.claim import Metric, ScoreClaim, Signer
from clearinghouse.log.entries import Entry, make_entry
from clearinghouse.log.proof import LogProof
from clearinghouse.log.receipt import build_receipt, sign_claim
from clearinghouse.signing import SigningKey, VerifyKey, countersign

NOW_S = 1_900_000_000
ORIGIN = "clearinghouse.example/log"


@dataclass(frozen=True)
class Party:
    org: str
    key: SigningKey

    def entry(self, kind: str, **fields: Any) -> Entry:
        return make_entry(kind, now_s=NOW_S, actor=self.org, key=self.key.key_id, **fields)

    def registration(self) -> Entry:
        return self.entry(
            "org.registered",
            objects={"org": self.org},
            hashes={"public_key": self.key.verify_key.digest},
        )


@dataclass
class World:
    operator: Party
    hospital: Party
    log_secret: SigningKey
    witness_secret: SigningKey
    claim: ScoreClaim
    envelope: dict[str, Any]
    entries: list[Entry]
    nodes: merkle.MemoryNodes

    @property
    def log_key(self) -> NoteKey:
        return log_key(ORIGIN, self.log_secret)

    @property
    def witness_key(self) -> NoteKey:
        return witness_key("witness.example/w1", self.witness_secret)

    @property
    def signer_keys(self) -> dict[str, VerifyKey]:
        return {party.key.key_id: party.key.verify_key for party in (self.operator, self.hospital)}

    def checkpoint(self, size: int | None = None, *, cosigned: bool = True) -> str:
        size = self.nodes.size() if size is None else size
        head = Checkpoint(ORIGIN, size, merkle.root(self.nodes, size))
        note = sign_checkpoint(head, self.log_secret)
        if cosigned:
            note = cosign_checkpoint(note, "witness.example/w1", self.witness_secret, NOW_S + 5)
        return note

    def proof(self, index: int, *, cosigned: bool = True) -> LogProof:
        path = merkle.inclusion_proof(self.nodes, index, self.nodes.size())
        return LogProof(index, tuple(path), parse_note(self.checkpoint(cosigned=cosigned).encode()))

    @property
    def receipt_index(self) -> int:
        return next(i for i, entry in enumerate(self.entries) if entry.type == "receipt.issued")

    def receipt(self, **changes: Any) -> bytes:
        parts: dict[str, Any] = {
            "envelope": self.envelope,
            "entry": self.entries[self.receipt_index].data,
            "proof": self.proof(self.receipt_index),
            "log_key": self.log_key,
            "signer_keys": self.signer_keys,
            "witness_keys": (self.witness_key,),
        }
        return build_receipt(**(parts | changes)).encode()


def _claim(operator: Party, hospital: Party) -> ScoreClaim:
    return ScoreClaim(
        receipt=new_id("rcp"),
        request=new_id("req"),
        run=new_id("run"),
        release=new_id("rel"),
        model=new_id("mod"),
        valset=new_id("val"),
        developer=new_id("org"),
        hospital=hospital.org,
        model_sha256=digest(b"model"),
        valset_commitment=commitment({"rows": 100}).digest,
        release_sha256=digest(b"release"),
        transcript_sha256=digest(b"transcript"),
        policy_sha256=digest(b"policy"),
        kind="logistic",
        issued_at=timestamp(NOW_S),
        status="determined",
        confidence="0.9",
        epsilon_micro=500_000,
        metrics={
            "auc": Metric("0.8134", "0.741", "0.872"),
            "accuracy": Metric("0.75", "0.68", "0.81"),
        },
        facts={"model name": "Größe Ω v1"},
        signers=(
            Signer("clearinghouse", operator.org, operator.key.key_id),
            Signer("hospital", hospital.org, hospital.key.key_id),
        ),
    )


def make_world() -> World:
    """Fresh keys, a sealed set, a released run and its receipt, and entries after it."""
    operator = Party(new_id("org"), SigningKey.generate())
    hospital = Party(new_id("org"), SigningKey.generate())
    claim = _claim(operator, hospital)
    half = sign_claim(claim, [operator.key])
    envelope = countersign(half, {operator.key.key_id: operator.key.verify_key}, hospital.key)
    objects = {"run": claim.run, "model": claim.model, "valset": claim.valset}
    entries = [
        operator.registration(),
        hospital.registration(),
        hospital.entry(
            "valset.sealed",
            objects={"valset": claim.valset, "owner": hospital.org},
            hashes={"manifest": digest(b"manifest")},
            commit=claim.valset_commitment,
        ),
        hospital.entry(
            "run.released",
            objects={**objects, "owner": hospital.org, "release": claim.release},
            hashes={"release": claim.release_sha256, "transcript": claim.transcript_sha256},
            amounts={"epsilon_micro": claim.epsilon_micro},
        ),
        operator.entry(
            "receipt.issued",
            objects={"receipt": claim.receipt, "run": claim.run, "model": claim.model},
            hashes={"envelope": digest(envelope)},
        ),
    ]
    entries += [
        operator.entry("request.closed", objects={"request": new_id("req")}) for _ in range(6)
    ]
    nodes = merkle.MemoryNodes()
    for entry in entries:
        merkle.append(nodes, entry.data)
    return World(
        operator,
        hospital,
        SigningKey.from_raw(secrets.token_bytes(32)),
        SigningKey.generate(),
        claim,
        envelope,
        entries,
        nodes,
    )
