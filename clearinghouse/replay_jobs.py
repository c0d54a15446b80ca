"""Jobs that repeat a disputed computation from stored bytes; they spend and open nothing."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from clearinghouse.blobs import BlobStore
from clearinghouse.rows import verify_proofs
from clearinghouse.schema import Schema
from clearinghouse.upload_claims import claims
from secure_eval.class_models import read_model
from secure_eval.evaluator import Opened
from secure_eval.layout import Layout
from secure_eval.replay import TargetTranscript, Transcript, UploadTranscript, Verdict, replay
from secure_eval.replay_target import replay_target
from secure_eval.replay_upload import replay_upload

HOSPITALS = frozenset(
    {
        "digits",
        "early_replies",
        "characters",
        "final_replies",
        "noise",
        "check_replies",
        "replies",
    }
)
"""Messages of the key holder: their bytes are needed, the evaluator's are made again."""

Arguments = Mapping[str, Any]


def score_replay(blobs: BlobStore, arguments: Arguments) -> dict[str, Any]:
    """Replay a scoring run."""
    counts, groups = arguments["counts"], arguments["groups"]
    released = None
    if counts is not None:
        tables = {name: np.array(part, np.int64) for name, part in groups.items()}
        released = Opened(np.array(counts, np.int64), tables)
    first, second = (bytes.fromhex(nonce) for nonce in arguments["nonces"])
    transcript = Transcript(
        **_common(blobs, arguments),
        model=read_model(blobs.get(arguments["model"])),
        column_map=arguments["columns"],
        nonces=(first, second),
        coins=arguments["coins"],
        released=released,
    )
    return _told(replay(transcript))


def target_replay(blobs: BlobStore, arguments: Arguments) -> dict[str, Any]:
    """Replay the opening of a target."""
    layout = _layout(arguments)
    counts = arguments["counts"]
    released = None
    if counts is not None:
        released = np.array(counts, np.int64).reshape(layout.cells, layout.labels)
    return _told(replay_target(TargetTranscript(**_common(blobs, arguments), released=released)))


def upload_replay(blobs: BlobStore, arguments: Arguments) -> dict[str, Any]:
    """Replay the tests of a sealed set."""
    common = _common(blobs, arguments)
    schema = Schema.from_dict(arguments["schema"])
    found = claims(schema, arguments["level"], common["layout"])
    transcript = UploadTranscript(
        **{name: value for name, value in common.items() if name != "run_id"},
        check_id=arguments["run"],
        partitions=found.partitions,
        relations=found.relations,
    )
    return _told(replay_upload(transcript))


def delivery_replay(blobs: BlobStore, arguments: Arguments) -> dict[str, Any]:
    """Check a delivery's proofs against its source's commitment again."""
    real = verify_proofs(
        blobs.get(arguments["proofs"]),
        root=bytes.fromhex(arguments["root"]),
        size=arguments["leaves"],
        most=arguments["most"],
    )
    holds = real == arguments["claimed"]
    return {
        "verdict": "the proofs hold" if holds else "the proofs do not hold",
        "fault": "none" if holds else "seller",
        "ordered": arguments["most"],
        "claimed": arguments["claimed"],
        "proven": real,
        "confirmed": arguments["confirmed"],
        "sealed_sha256": arguments["sealed"],
    }


def _common(blobs: BlobStore, arguments: Arguments) -> dict[str, Any]:
    log = dict(arguments["messages"])
    return {
        "keys": blobs.get(arguments["keys"]),
        "layout": _layout(arguments),
        "upload": [blobs.get(blob) for blob in arguments["upload"]],
        "seed": bytes.fromhex(arguments["seed"]),
        "run_id": arguments["run"],
        "messages": {name: blobs.get(blob) for name, blob in log.items() if name in HOSPITALS},
        "log": log,
    }


def _layout(arguments: Arguments) -> Layout:
    return Layout.from_json(json.dumps(arguments["layout"]))


def _told(verdict: Verdict) -> dict[str, Any]:
    return {
        "verdict": "reproduced" if verdict.reproduced else "not reproduced",
        "message": verdict.message or "",
        "fault": verdict.fault or "none",
        "reason": verdict.reason,
    }
