"""A developer replays a run of its model, bit for bit, and signs what came of it.

The server's word counts for nothing here: what the run was bound to comes from the log, read whole
and checked by this party's witness; model and nonce are this party's own; columns follow from the
schema; every blob is named by its hash. The replay itself parses foreign ciphertexts, so it runs in
a process of its own with limits. Protocol section 8 (docs/protocol.md).
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from clearinghouse import model_columns
from clearinghouse.blobs import BlobStore
from clearinghouse.blobs.disk import DiskStore
from clearinghouse.blobs.place import BlobPlace
from clearinghouse.canonical import digest
from clearinghouse.client.agreed import check_tables
from clearinghouse.client.keystore import Keystore
from clearinghouse.client.transport import MAX_BLOB_BYTES, Transport
from clearinghouse.client.watched_log import read_log
from clearinghouse.errors import NotFoundError, ProtocolError, RefusedError, VerificationError
from clearinghouse.log.audit_claim import MAX_REASON, AuditClaim, sign_audit
from clearinghouse.log.entries import Entry
from clearinghouse.messages.audits import ANSWERS, AuditRun, AuditView, TranscriptView
from clearinghouse.messages.intake import RequestView
from clearinghouse.schema import Schema
from clearinghouse.worker import Processor, WorkerProcess
from secure_eval.class_models import ClassModels, Model, model_parts, read_model
from secure_eval.layout import Layout
from secure_eval.params import PROTOCOL
from secure_eval.replay import other_version

__all__ = ["Audited", "Auditor", "nonce_name"]

WALL_S = 3600
MEMORY_BYTES = 6 * 2**30
COMMITMENTS = ("seed", "nonce", "developer_nonce", "model")

Say = Callable[[str], None]


def nonce_name(request_id: str, commitment: str) -> str:
    """Where a developer keeps the nonce of a submitted model."""
    return f"private/nonces/{request_id}.{commitment}"


@dataclass(frozen=True, slots=True)
class Audited:
    """A signed verdict, and what the server made of it."""

    claim: AuditClaim
    envelope: Mapping[str, Any]
    view: AuditView


@dataclass(frozen=True, slots=True)
class _Found:
    """A verdict before it is signed; `secure_eval.replay.Verdict` in words of the wire."""

    reproduced: bool
    message: str
    fault: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Logged:
    """The log's entries about a run."""

    sealed: Entry
    opened: Entry
    begun: Entry
    released: Entry
    is_erased: bool


def _refuted(message: str, fault: str, reason: str) -> _Found:
    return _Found(False, message, fault, f"{message}: {reason}")


class Auditor:
    """Replays runs of this party's own models.

    Args:
        keystore: Of the developer: its key, its witness, the nonces of its models.
        transport: To the server.
        schema: That the developer agreed to.
        org_id: The developer's.
        say: Told what is done now, for people who wait.
        processor: Does the replay; by default a process with limits.
        protocol: Version of the messages that this program replays.
    """

    def __init__(
        self,
        keystore: Keystore,
        transport: Transport,
        schema: Schema,
        org_id: str,
        say: Say = lambda _words: None,
        processor: Callable[[DiskStore], Processor] | None = None,
        *,
        protocol: int = PROTOCOL,
    ) -> None:
        self._keystore, self._transport, self._protocol = keystore, transport, protocol
        self._schema, self._org_id, self._say = schema, org_id, say
        self._processor = processor or _in_a_process

    def audit(self, request_id: str, run_id: str) -> Audited:
        """Replay a run, sign the verdict and send it; again gives the same verdict.

        Raises:
            NotFoundError, RefusedError: It is no run of this developer's, has not ended, or was
                made under another version of the protocol.
            VerificationError: The log does not verify, or does not tell of the run exactly once.
            ForkError: The log showed two histories.
            ClearinghouseError: The server is away, or the replay was not possible.
        """
        path = f"/requests/{request_id}/runs/{run_id}"
        given = self._transport.get(f"{path}/transcript", TranscriptView)
        if (given.request_id, given.run_id) != (request_id, run_id):
            raise ProtocolError("the server sent the transcript of another run")
        logged = _about(read_log(self._transport, self._keystore, self._say), given)
        known = self._keystore.recall(
            nonce_name(request_id, logged.begun.hashes.get("developer_nonce", ""))
        )
        if known is None:
            raise RefusedError(f"run {run_id} is not of a model that this home submitted")
        version = logged.begun.amounts.get("protocol", 1)
        if version != self._protocol:
            raise RefusedError(f"run {run_id} was {other_version(int(version))}")
        found = _before(given, logged, str(known["model"])) or self._agreed(given, logged)
        if found is None:
            found = self._replayed(given, logged, str(known["nonce"]))
        claim = _claim(given, logged, self._org_id, found)
        envelope = sign_audit(claim, self._keystore.signing_key)
        view = self._transport.post(f"{path}/audit", AuditRun(envelope=envelope), AuditView)
        return Audited(claim, envelope, view)

    def _agreed(self, given: TranscriptView, logged: _Logged) -> _Found | None:
        """Whether the run's tables are those of the terms that the log has."""
        view = self._transport.get(f"/requests/{given.request_id}", RequestView)
        if digest(view.terms.model_dump(mode="json")) != logged.opened.hashes["terms"]:
            return _refuted("terms", "record", "the terms at hand are not those in the log")
        layout = Layout.from_json(json.dumps(given.sealed.layout))
        try:
            check_tables(given.tables, layout, view.terms.epsilon_score_micro, view.terms.noise_law)
        except ProtocolError as error:
            return _refuted("tables", "evaluator", str(error))
        return None

    def _replayed(self, given: TranscriptView, logged: _Logged, nonce: str) -> _Found:
        """Fetch all bytes and replay them in a process of their own; the bytes go away again."""
        folder = self._keystore.path(f"audits/{given.run_id}/blobs")
        blobs = DiskStore(folder, max_bytes=MAX_BLOB_BYTES)
        try:
            missing = self._fetch(given, blobs)
            if missing is not None and logged.is_erased:
                raise RefusedError(
                    f"the ciphertexts of {given.request_id} were erased after their time, as the "
                    "log says: its runs can be replayed no more"
                )
            if missing is not None:
                return missing
            model = read_model(blobs.get(given.model_digest))
            self._say("replaying every message")
            processor = self._processor(blobs)
            try:
                told = processor.run("score.replay", self._job(given, logged, nonce, model))
            finally:
                processor.close()
        finally:
            shutil.rmtree(folder.parent, ignore_errors=True)
        return _Found(
            told["verdict"] == "reproduced", told["message"], told["fault"], told["reason"]
        )

    def _fetch(self, given: TranscriptView, blobs: BlobStore) -> _Found | None:
        """Bring every blob that the replay reads; the first that cannot be had is the verdict."""
        sealed = given.sealed
        wanted = {"keys": sealed.keys_blob, "model": given.model_digest}
        wanted |= {f"upload {place + 1}": blob for place, blob in enumerate(sealed.upload_blobs)}
        wanted |= {item.name: item.digest for item in given.messages if item.name in ANSWERS}
        for number, (name, blob) in enumerate(wanted.items(), 1):
            self._say(f"fetching {name}, {number} of {len(wanted)}")
            try:
                blobs.put(self._transport.get_blob(blob))
            except (NotFoundError, ProtocolError):
                return _refuted(name.partition(" ")[0], "record", "its bytes cannot be had")
        return None

    def _job(
        self, given: TranscriptView, logged: _Logged, nonce: str, model: Model
    ) -> dict[str, Any]:
        """Arguments of the replay: commitments from the log, columns from the schema."""
        where = {column: i for i, column in enumerate(model_columns.columns(self._schema))}
        maps = [[where[column] for column in part.columns] for part in model_parts(model)]
        bound = {name: logged.begun.hashes[name] for name in COMMITMENTS}
        return {
            "run": given.run_id,
            "seed": given.seed,
            "nonces": [given.nonce, nonce],
            "keys": given.sealed.keys_blob,
            "upload": list(given.sealed.upload_blobs),
            "layout": given.sealed.layout,
            "model": given.model_digest,
            "columns": maps if isinstance(model, ClassModels) else maps[0],
            "coins": [table.coins for table in given.tables if table.coins],
            "messages": {**{item.name: item.digest for item in given.messages}, **bound},
            "counts": given.counts,
            "groups": given.groups,
        }


def _in_a_process(blobs: DiskStore) -> Processor:
    place = BlobPlace(blobs.folder, MAX_BLOB_BYTES)
    return WorkerProcess(place, wall_s=WALL_S, memory_bytes=MEMORY_BYTES)


def _about(entries: tuple[Entry, ...], given: TranscriptView) -> _Logged:
    """The one entry of each kind about the run.

    Raises:
        VerificationError: There is none, or more than one.
    """

    def only(kind: str, name: str, value: str) -> Entry:
        found = [e for e in entries if e.type == kind and e.objects.get(name) == value]
        if len(found) != 1:
            raise VerificationError(f"the log has {len(found)} entries {kind} of {value}, not one")
        return found[0]

    return _Logged(
        only("valset.sealed", "valset", given.valset_id),
        only("request.opened", "request", given.request_id),
        only("run.begun", "run", given.run_id),
        only("run.released", "run", given.run_id),
        any(
            entry.type == "request.erased" and entry.objects["request"] == given.request_id
            for entry in entries
        ),
    )


def _before(given: TranscriptView, logged: _Logged, model: str) -> _Found | None:
    """What the log alone refutes, before a message is made again."""
    begun, released = logged.begun, logged.released
    if begun.hashes.get("model") != model or given.model_digest != model:
        return _refuted("model", "evaluator", "the run was begun with another model than was sent")
    if begun.objects["valset"] != given.valset_id:
        return _refuted("upload", "evaluator", "the run was begun on another set")
    if digest(given.sealed.model_dump(mode="json")) != logged.sealed.hashes["manifest"]:
        return _refuted("upload", "record", "the sealed set at hand is not the one in the log")
    if len({item.name for item in given.messages}) != len(given.messages):
        return _refuted("transcript", "evaluator", "a message was sent twice")
    if _transcript(given) != released.hashes["transcript"]:
        return _refuted("transcript", "record", "the messages at hand are not those in the log")
    told: dict[str, Any] = {"failed": True}
    if given.state == "released":
        told = {"counts": given.counts, "groups": given.groups}
    if digest({"run": given.run_id, **told}) != released.hashes["release"]:
        return _refuted("release", "record", "the counts at hand are not those in the log")
    return None


def _transcript(given: TranscriptView) -> str:
    whole = hashlib.sha256()
    for item in given.messages:
        whole.update(bytes.fromhex(item.digest))
    return whole.hexdigest()


def _claim(given: TranscriptView, logged: _Logged, auditor: str, found: _Found) -> AuditClaim:
    bound = logged.begun.hashes
    return AuditClaim(
        request=given.request_id,
        run=given.run_id,
        model=given.model_id,
        auditor=auditor,
        reproduced=found.reproduced,
        message=found.message,
        fault=found.fault,
        reason=found.reason[:MAX_REASON],
        inputs=_inputs(given) | {name: bound[name] for name in COMMITMENTS},
        messages={item.name: item.digest for item in given.messages},
        transcript_sha256=_transcript(given),
    )


def _inputs(given: TranscriptView) -> dict[str, str]:
    """Hashes of a run's public inputs, as an audit names them."""
    return {
        "keys": given.sealed.keys_blob,
        "upload": digest(list(given.sealed.upload_blobs)),
        "layout": digest(given.sealed.layout),
        "coins": digest([table.coins for table in given.tables if table.coins]),
    }
