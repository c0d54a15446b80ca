"""What the hospital and the developers of a consent test did, written into the database.

No ciphertext is made and no model trained: consent is about records, and these are real.
"""

from typing import Any

from consenting_tables import SCHEMA

from clearinghouse.canonical import canonical_bytes, digest
from clearinghouse.ids import new_id
from clearinghouse.rounds import grants, training
from clearinghouse.rounds.begun import record_begun
from clearinghouse.rounds.frozen import freeze
from clearinghouse.store.records import Org, Run, Valset


def write_hospital(market: Any) -> None:
    """A hospital with a sealed set that passed its tests."""
    keystore, _ = market.connect("hospital")
    market.hospital = Org(
        new_id("org"),
        "hospital",
        "hospital",
        keystore.signing_key.key_id,
        keystore.signing_key.verify_key.base64,
        None,
    )
    schema_id = market.providers["a"].schema_id
    market.blob = blob = market.desk.blobs.put(b"ciphertext")
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
    with market.desk.store.write() as tx:
        tx.parties.add(market.hospital)
        registered = market.desk.record(
            tx,
            "org.registered",
            market.hospital,
            objects={"org": market.hospital.id},
            hashes={"public_key": keystore.signing_key.verify_key.digest},
        )
        tx.parties.date_key(market.hospital.key_id, registered)
        tx.blobs.add(blob, len(b"ciphertext"), market.hospital.id)
        text = canonical_bytes(body).decode()
        tx.cohorts.add_valset(Valset(valset_id, market.hospital.id, schema_id, text, "", "passed"))
        market.desk.record(
            tx,
            "valset.sealed",
            market.hospital,
            objects={"valset": valset_id, "owner": market.hospital.id},
            hashes={"manifest": digest(text.encode())},
            commit="2" * 64,
        )
    market.valset_id = valset_id


def write_target(market: Any) -> None:
    """What the match step does, with counts as if they had been opened."""
    noised = (12, 9, 10, 11)
    with market.desk.store.write() as tx:
        request = tx.requests.get(market.request_id)
        run = Run(new_id("run"), request.id, "target", 0, "running", "", "0", "0", "", {}, {})
        tx.runs.add(run)
        summaries = grants.summaries(tx, request)
        target = freeze(
            run.id, request.terms, request.terms_digest, SCHEMA, ("sex",), noised, summaries
        )
        tx.requests.keep(request.id, "target", canonical_bytes(target.model_dump()).decode())
        tx.runs.release(run.id, {"noised": list(noised)})
        objects = {"request": request.id, "owner": market.hospital.id, "valset": market.valset_id}
        seed, nonce = {"seed": "5" * 64}, {"nonce": "6" * 64}
        if not any(entry == "checks.begun" for entry in market.begun):
            market.desk.record(tx, "checks.begun", market.desk.org, objects=objects, hashes=seed)
            market.begun.append("checks.begun")
        market.desk.record(
            tx,
            "run.begun",
            market.desk.org,
            objects={**objects, "run": run.id},
            hashes={**seed, **nonce},
        )
        market.desk.record(
            tx,
            "target.released",
            market.desk.org,
            objects={**objects, "run": run.id},
            hashes={"release": "3" * 64},
            amounts={"epsilon_micro": 500_000},
        )
        market.desk.record(
            tx,
            "inputs.frozen",
            market.desk.org,
            objects={"request": request.id},
            hashes={"inputs": target.frozen_digest},
        )
        tx.requests.enter(request.id, "clear", market.clock.now())


def write_model(market: Any, name: str) -> Run:
    """A developer's model, taken as the score step does."""
    developer = market.developers[name]
    model = {"org_id": developer.org_id, "name": name, "kind": "logistic", "digest": "4" * 64}
    model["nonce_commitment"] = "7" * 64
    with market.desk.store.write() as tx:
        request = tx.requests.get(market.request_id)
        place = len(tx.runs.of(request.id, "score"))
        run = Run(
            new_id("run"), request.id, "score", place, "running", "", "00" * 32, "00" * 16,
            new_id("mod"), model, {},
        )  # fmt: skip
        tx.runs.add(run)
        training.taken(tx, market.desk, request, developer.org_id)
        market.desk.record(
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
        record_begun(tx, market.desk, request, run)
    return run
