"""A hospital with one sealed set, and a server that the test plays with the real evaluator."""

import json
import secrets
import sqlite3
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from clearinghouse.canonical import digest
from clearinghouse.client.hospital import Hospital, HospitalTerms
from clearinghouse.client.keystore import Keystore
from clearinghouse.client.recipes import recipe_source
from clearinghouse.client.transport import Transport
from clearinghouse.clock import SystemClock
from clearinghouse.errors import ProtocolError
from clearinghouse.ids import new_id
from clearinghouse.log.claim import Metric, ScoreClaim, Signer
from clearinghouse.log.receipt import sign_claim
from clearinghouse.messages.tasks import (
    ReceiptSignTask,
    ScoreDigitsTask,
    TargetChecksTask,
    TargetCommitTask,
    TargetNoiseTask,
    TargetRepliesTask,
    TaskView,
)
from clearinghouse.rounds.turns import noise_tables
from clearinghouse.signing import SigningKey
from secure_eval.layout import Layout
from secure_eval.nonces import new_nonce, nonce_commitment
from secure_eval.scorecard import METRICS, Scorecard
from secure_eval.target import TargetOpening

TARGET, SCORE, LIMIT = 500_000, 400_000, 1_350_000
TERMS = HospitalTerms(32, TARGET, LIMIT)
NONCES = [secrets.token_hex(16) for _ in range(2)]
COMMITMENTS = [nonce_commitment(bytes.fromhex(nonce)).hex() for nonce in NONCES]
REQUEST = {
    "records": 20,
    "currency": "EUR",
    "tariff_micro": 6_000_000,
    "distance_price_micro": 1_000_000,
    "share_cap_micro": 1_500_000,
    "fee_micro": 50_000,
    "epsilon_target_micro": TARGET,
    "epsilon_score_micro": SCORE,
    "purse": {
        "kind": "acceptance",
        "amount_micro": 1,
        "metric": "auc",
        "threshold_micro": 700_000,
        "confidence_micro": 900_000,
    },
}


@dataclass
class Court:
    """A hospital with one sealed set, and a server played with the real evaluator."""

    bench: Any
    client: Any
    directory: Any
    table: Any
    schema: Any
    developers: list[str] = field(default_factory=lambda: [new_id("org") for _ in range(2)])

    def hospital(self, table=None, terms=TERMS) -> Hospital:
        keystore = Keystore.open(self.directory)
        transport = Transport("http://bench", keystore.signing_key, SystemClock(), self.client)
        return Hospital("va", keystore, transport, table or self.table, terms)

    def spent(self) -> int:
        """What the ledger file says, read past the hospital's own code."""
        with sqlite3.connect(self.directory / "ledger.sqlite") as ledger:
            found = ledger.execute("SELECT spent FROM account WHERE lane = 'epsilon'").fetchone()
        return int(found[0])

    def task(self, task, request=None):
        return TaskView(
            id=new_id("tsk"), request_id=request or self.request, deadline=2**33, task=task
        )

    def put(self, data: bytes) -> str:
        import hashlib

        name = hashlib.sha256(data).hexdigest()
        self.bench.blobs[name] = data
        return name

    def sealed(self):
        message = next(body for path, body in self.bench.posts if path == "valsets")
        layout = Layout.from_json(json.dumps(message["layout"]))
        uploads = [self.bench.blobs[name] for name in message["upload_blobs"]]
        return message, self.bench.blobs[message["keys_blob"]], layout, uploads

    def open_target(self):
        hospital = self.hospital()
        message, keys, layout, uploads = self.sealed()
        self.target_run = new_id("run")
        nonce = new_nonce()
        self.commit_task = TargetCommitTask(
            run_id=self.target_run,
            valset_id=hospital._valset()["valset_id"],
            cells=layout.cells,
            labels=layout.labels,
            epsilon_micro=TARGET,
            seed_commitment="0" * 64,
            nonce_commitment=nonce_commitment(nonce).hex(),
        )
        self.target_task = TargetNoiseTask(run_id=self.target_run, nonce=nonce.hex())
        self.committed = hospital.handle(self.task(self.commit_task)).noise_commitment
        wrong = self.target_task.model_copy(update={"nonce": "00" * 16})
        with pytest.raises(ProtocolError, match="does not open its commitment"):
            hospital.handle(self.task(wrong))
        assert hospital.budget.spent == 0
        server = TargetOpening(keys, layout, uploads, secrets.token_bytes(32), self.target_run)
        noise = hospital.handle(self.task(self.target_task)).noise_blob
        checks = self.put(server.checks(self.bench.blobs[noise]))
        task = TargetChecksTask(run_id=self.target_run, checks_blob=checks)
        tested = self.hospital().handle(self.task(task)).replies_blob
        server.accept(self.bench.blobs[tested])
        openings = self.put(server.openings(self.bench.blobs[noise]))
        task = TargetRepliesTask(run_id=self.target_run, openings_blob=openings)
        # A restart between the two messages must not matter.
        replies = self.hospital().handle(self.task(task)).replies_blob
        noised = server.release(self.bench.blobs[replies]).reshape(-1).tolist()
        self.publish_target(message, layout, noised)
        return noised

    def model_for_nobody(self):
        return recipe_source("gam", 7)(self.schema, self.table)

    def noised_cells(self):
        return self.bench.documents[f"{self.request}/target"]["noised"]

    def publish_target(self, message, layout, noised):
        self.bench.documents[f"{self.request}/target"] = {
            "run_id": self.target_run,
            "level": message["level"],
            "cells": layout.cells,
            "labels": layout.labels,
            "noised": noised,
            "wanted": [],
            "label_cost_applied": False,
            "distances_micro": [],
            "supplies": {},
            "capped": {},
            "frozen_digest": "0" * 64,
        }

    def digits_task(self, model, score=b"none", tables=None, **changes):
        groups = self.sealed()[2].groups
        bins = len(model.bin_edges) - 1
        task = ScoreDigitsTask(
            run_id=new_id("run"),
            model_id=new_id("mod"),
            model_digest=model.digest(),
            tables=tables or noise_tables(SCORE, 2, bins, groups),
            score_blob=self.put(score),
            seed_commitment="0" * 64,
            nonce_commitments=COMMITMENTS,
        )
        return task.model_copy(update=changes)


@dataclass
class Scored:
    task: ScoreDigitsTask
    opened: Any
    blobs: list[str]

    def statement(self, court, counts=None, groups=None, **changes):
        """The claim an honest server makes of these counts, changed at will; published first."""
        model, task = court.model, self.task
        counts = self.opened.counts.tolist() if counts is None else counts
        if groups is None:
            groups = {name: part.tolist() for name, part in self.opened.groups.items()}
        edge = model.bin_edges.index(model.threshold_bin)
        court.bench.documents[f"{court.request}/runs"] = {
            "runs": [
                {
                    "id": task.run_id,
                    "model_id": task.model_id,
                    "org_id": court.developers[0],
                    "model_name": "logistic",
                    "model_kind": model.kind,
                    "model_digest": task.model_digest,
                    "state": "released",
                    "reason": "",
                    "edges": model.edges.tolist(),
                    "threshold_edge": edge,
                    "counts": counts,
                    "groups": groups,
                    "tables": [],
                    "epsilon_micro": SCORE,
                    "scorecard": {},
                    "transcript_digest": None,
                    "receipt": None,
                }
            ]
        }
        card = Scorecard.from_counts(counts, task.tables[0].epsilon_micro / 1e6, model.edges, edge)
        metrics = {
            name: Metric(*(f"{x:.6f}" for x in (getattr(card, name), *card.intervals[name])))
            for name in METRICS
        }
        import hashlib

        transcript = hashlib.sha256(b"".join(map(bytes.fromhex, self.blobs))).hexdigest()
        hospital = court.hospital()
        claim = ScoreClaim(
            receipt=new_id("rcp"),
            request=court.request,
            run=task.run_id,
            release=new_id("rel"),
            model=task.model_id,
            valset=hospital._valset()["valset_id"],
            developer=court.developers[0],
            hospital=hospital.org_id,
            model_sha256=task.model_digest,
            valset_commitment=court.sealed()[0]["commitment"],
            release_sha256=digest({"run": task.run_id, "counts": counts, "groups": groups}),
            transcript_sha256=transcript,
            policy_sha256=digest(hospital._terms(court.request).model_dump(mode="json")),
            kind=model.kind,
            issued_at="2030-01-31T12:00:00Z",
            status="determined" if card.status == "ok" else "undetermined",
            confidence="0.9",
            epsilon_micro=SCORE,
            metrics=metrics,
            signers=(
                Signer("clearinghouse", new_id("org"), court.server_key.key_id),
                Signer("hospital", hospital.org_id, hospital.keystore.signing_key.key_id),
            ),
        )
        claim = replace(claim, **changes)
        payload = sign_claim(claim, [court.server_key])["payload"]
        return court.task(ReceiptSignTask(run_id=task.run_id, payload=payload))


Court.server_key = SigningKey.generate()
