"""A hospital replays its set's tests and its targets itself, and clears their openings.

Nobody need be trusted for that: the set is its own, and what the server had to send follows from
public objects and the seed that the server committed to beforehand. A target holds no model, so its
seed may be known to the hospital once it has ended; a score's may not (`trusted_audits`). What is
compared are the hashes of the messages that this hospital answered. Protocol section 8
(docs/protocol.md).
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from clearinghouse.blobs import BlobStore
from clearinghouse.blobs.disk import DiskStore
from clearinghouse.blobs.place import BlobPlace
from clearinghouse.client.hospital import Hospital, tests_name
from clearinghouse.client.opening_quota import UPLOAD
from clearinghouse.client.transport import MAX_BLOB_BYTES
from clearinghouse.errors import ProtocolError
from clearinghouse.messages.audits import SeedList
from clearinghouse.worker import Processor, WorkerProcess

__all__ = ["OwnAudit", "audit_own", "refuted"]

WALL_S = 3600
MEMORY_BYTES = 6 * 2**30
_FETCHED = ("noise", "check_replies", "replies")
"""The hospital's own messages: a replay reads their bytes."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class OwnAudit:
    """What came of replaying one thing.

    Attributes:
        name: The validation set, for its tests; else the run of a target.
        what: "tests" or "target".
        openings: How many of the key's openings it used.
        state: "cleared", "refuted" or "open": not possible now.
        message: The server's first false message; empty if none is.
        reason: One sentence.
    """

    name: str
    what: str
    openings: int
    state: str
    message: str
    reason: str


def audit_own(
    hospital: Hospital,
    say: Say = lambda _words: None,
    processor: Callable[[DiskStore], Processor] | None = None,
) -> tuple[OwnAudit, ...]:
    """Replay all tests and targets of this key whose openings count, and clear the honest ones.

    Args:
        hospital: With its key agent.
        say: Told what is done now, for people who wait.
        processor: Does the replays; by default a process with limits.

    Raises:
        ClearinghouseError: As the calls to the server, or a replay was not possible.
    """
    counted = hospital.agent.quota.reserved()
    wanted = {
        name: count
        for name, count in sorted(counted.items(), key=lambda item: (item[0] != UPLOAD, item[0]))
        if name == UPLOAD or hospital.agent.record(name)["kind"] == "target"
    }
    if not wanted:
        return ()
    valset = str(hospital.keystore.recall("valset")["valset_id"])
    told = hospital.transport.get(f"/valsets/{valset}/seeds", SeedList).seeds
    seeds = {item.of: item.seed for item in told}
    folder = hospital.keystore.path("audits/own/blobs")
    blobs = DiskStore(folder, max_bytes=MAX_BLOB_BYTES)
    worker = (processor or _in_a_process)(blobs)
    try:
        return tuple(
            _audited(hospital, valset, name, count, seeds, blobs, worker, say)
            for name, count in wanted.items()
        )
    finally:
        worker.close()
        shutil.rmtree(folder.parent, ignore_errors=True)


def _audited(
    hospital: Hospital,
    valset: str,
    name: str,
    openings: int,
    seeds: Mapping[str, str],
    blobs: BlobStore,
    worker: Processor,
    say: Say,
) -> OwnAudit:
    is_tests = name == UPLOAD
    known = valset if is_tests else name
    what = "tests" if is_tests else "target"
    seen = _seen(hospital, known, is_tests)

    def found(state: str, message: str, reason: str) -> OwnAudit:
        return OwnAudit(known, what, openings, state, message, reason)

    if seen is None:
        return found("open", "", "this home has no record of the messages")
    if known not in seeds:
        return found("open", "", "it has not ended yet: the server keeps its seed until then")
    say(f"replaying the {what} of {known}")
    job = _job(hospital, known, seeds[known], seen)
    if not is_tests:
        job["counts"] = _published(hospital, known, seen)
    for blob in (job["keys"], *job["upload"], *(seen[m] for m in _FETCHED if m in seen)):
        blobs.put(hospital.transport.get_blob(blob))
    try:
        told = worker.run("valset.replay" if is_tests else "target.replay", job)
    except ProtocolError as error:  # such as: made under another version of the protocol
        return found("open", "", str(error))
    if told["verdict"] == "reproduced" and told["fault"] == "none":
        hospital.agent.quota.clear(name)
        return found("cleared", "", told["reason"])
    state = "refuted" if told["fault"] == "evaluator" else "open"
    return found(state, told["message"], told["reason"])


def _seen(hospital: Hospital, known: str, is_tests: bool) -> dict[str, str] | None:
    """Hashes of all messages, and the server's commitment to its seed, as this hospital has them.

    None for what was answered before such hashes were kept.
    """
    if is_tests:
        tests: dict[str, str] | None = hospital.keystore.recall(tests_name(known))
        return tests
    record = hospital.agent.record(known)
    blobs = dict(record.get("blobs", {}))
    return {**blobs, "seed": record["seed_commitment"]} if "noise" in blobs else None


def _job(hospital: Hospital, known: str, seed: str, seen: Mapping[str, str]) -> dict[str, Any]:
    sealed = hospital.keystore.recall("private/commitment")
    valset = hospital.keystore.recall("valset")
    return {
        "run": known,
        "seed": seed,
        "keys": sealed["keys"],
        "upload": list(sealed["uploads"]),
        "layout": json.loads(valset["layout"]),
        "schema": hospital.schema.to_dict(),
        "level": list(valset["level"]),
        "messages": dict(seen),
    }


def _published(hospital: Hospital, run: str, seen: Mapping[str, str]) -> list[int] | None:
    """The counts that the replies give: exact counts and noise, as this hospital knows both."""
    if "replies" not in seen:
        return None
    (table,) = hospital.agent.record(run)["tables"]
    return [noise + exact for noise, exact in zip(table["noise"], table["exact"], strict=True)]


def _in_a_process(blobs: DiskStore) -> Processor:
    place = BlobPlace(blobs.folder, MAX_BLOB_BYTES)
    return WorkerProcess(place, wall_s=WALL_S, memory_bytes=MEMORY_BYTES)


def refuted(audits: tuple[OwnAudit, ...]) -> str:
    """What to say of an audit in which the server deviated; empty if it did not in any."""
    bad = [item for item in audits if item.state == "refuted"]
    if not bad:
        return ""
    names = ", ".join(f"the {item.what} of {item.name} ({item.reason})" for item in bad)
    return (
        f"the server deviated in {names}: it may have read parts of the key. Stop the agent, seal "
        "the set under a new key (clearinghouse valset reseal) and open a dispute"
    )
