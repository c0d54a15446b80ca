"""One of everything that has an id, in a market whose request seems to have gone on."""

import json
import re

from clearinghouse.ids import new_id
from clearinghouse.rounds import disputes
from clearinghouse.rounds.releases import record_release
from clearinghouse.store.records import Receipt, Run


def ended_run(tx, desk, request, owner):
    """A run of the developer's model that failed after the hospital had paid for it."""
    details = {"kind": "linear", "edges": [0, 1], "threshold_edge": 1, "columns": [0]}
    model = {"org_id": owner, "name": "m", "digest": "6" * 64, "nonce_commitment": "7" * 64}
    run = Run(
        new_id("run"),
        request.id,
        "score",
        0,
        "running",
        "",
        "00" * 32,
        "00" * 16,
        new_id("mod"),
        model | details,
        {},
    )
    tx.runs.add(run)
    record_release(tx, desk, request, run, {"failed": True})
    tx.runs.fail(run.id, "for this test")
    return run.id


TARGET = json.dumps(
    {
        "run_id": new_id("run"),
        "level": ["sex"],
        "cells": 2,
        "labels": 2,
        "noised": [5, 4, 0, 9],
        "label_cost_applied": True,
        "wanted": [3, 2, 0, 5],
        "distances_micro": [[0] * 4] * 4,
        "supplies": {},
        "capped": {},
        "frozen_digest": "0" * 64,
    }
)


def everything(market, desk):
    """Ids of everything, with results as if the request had gone on."""
    request_id, receipt_id = market.request_id, new_id("rcp")
    with desk.store.write() as tx:
        for kind in ("prices", "certificate"):
            tx.requests.keep(request_id, kind, "{}")
        tx.requests.keep(request_id, "target", TARGET)
        tx.requests.keep(
            request_id,
            "clearing",
            '{"draw_seed":null,"method":"m","objective_micro":0,"orders":[],"reserve_micro":0,'
            '"unserved":[]}',
        )
        tx.runs.add_receipt(Receipt(receipt_id, request_id, new_id("run"), "text"))
        request = tx.requests.get(request_id)
        run_id = ended_run(tx, desk, request, market.developer.org_id)
        dispute = disputes.open_dispute(
            tx,
            desk,
            request,
            new_id("ord"),
            "delivery",
            {},
            opener=tx.parties.get(market.hospital.org_id),
            respondent_id=market.provider.org_id,
        )
    return {
        "dispute_id": dispute.id,
        "org_id": market.hospital.org_id,
        "schema_id": market.schema_id,
        "source_id": market.source_id,
        "grant_id": market.grant_id,
        "valset_id": market.valset_id,
        "digest": market.blob,
        "upload_id": market.hospital.begin(b"in pieces")["id"],
        "request_id": request_id,
        "receipt_id": receipt_id,
        "task_id": new_id("tsk"),
        "run_id": run_id,
        "key_id": market.hospital.key.key_id,
        "apikey_id": market.hospital.api_key(["log:read"])[0],
        "email": "ada@example.org",
        "path": "000.p/1",
    }


def unknown_ids(path):
    """The same path with ids that nobody has."""
    path = re.sub(r"([a-z]{3})_[0-9a-z]{20}", lambda found: new_id(found[1]), path)
    return re.sub(r"[0-9a-f]{64}", "0" * 64, path)


def without_ids(text):
    """An answer's words without the ids in them."""
    return re.sub(r"[a-z]{3}_[0-9a-z]{20}|[0-9a-f]{64}", "ID", text)
