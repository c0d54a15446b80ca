"""Audits in a whole market: one honest run, two in which the server deviated, all drawn.

The developers' own clients replay them, in processes of their own; the server that deviates is the
real one with one function changed.
"""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

from clearinghouse import jobs
from clearinghouse.canonical import digest
from clearinghouse.client.own_audits import audit_own, refuted
from clearinghouse.client.party import do_task
from clearinghouse.client.recipes import recipe_source
from clearinghouse.client.run_audit import Auditor
from clearinghouse.client.trusted_audits import clear_audited
from clearinghouse.errors import (
    ConflictError,
    NotFoundError,
    RefusedError,
    VerificationError,
)
from clearinghouse.log import audit_draw
from clearinghouse.log.audit_claim import read_audit, sign_audit
from clearinghouse.log.entries import parse_entry
from clearinghouse.log.receipt import parse_receipt, read_claim
from clearinghouse.log.replay import verify_replay
from clearinghouse.messages.audits import AuditRun, AuditView, SeedList, TranscriptView
from clearinghouse.messages.disputes import DisputeList
from clearinghouse.messages.results import LogView, RunList
from clearinghouse.messages.tasks import TaskList
from clearinghouse.worker import WorkerThread
from secure_eval.evaluator import ScoringRun
from secure_eval.params import PROTOCOL


def changed(model, by):
    """The same model with its largest weight nearer to zero: it stays in its range."""
    weights, largest = model.weights.copy(), np.abs(model.weights).argmax()
    weights[largest] -= by * np.sign(weights[largest])
    return model._changed(weights=weights)


def recipes(name, seed):
    """A third model beside logistic and gam: logistic with another weight."""
    if name != "shifted":
        return recipe_source(name, seed)
    make = recipe_source("logistic", seed)
    return lambda schema, table: changed(make(schema, table), 3)


def deviate(patch, shifted, stripped):
    """The server scores one model with a changed weight, and opens another without its noise."""
    add_noise = ScoringRun._add_noise
    read_model = jobs.read_model

    def noise(self, *rest):
        if self.model.digest() != stripped():
            add_noise(self, *rest)

    def swapped(text):
        model = read_model(text)
        is_asked = hashlib.sha256(text).hexdigest() != shifted()
        return model if is_asked else changed(model, 1)

    scoring = jobs._scoring

    def deviating(state, arguments):
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(jobs, "read_model", swapped)
            return scoring(state, arguments)

    patch.setattr(ScoringRun, "_add_noise", noise)
    patch.setattr(jobs, "_scoring", deviating)


def submitted(world, name):
    """Digest of the model that a developer submitted."""
    developer = next(item for item in world.developers if item.name == name)
    for path in developer.keystore.path("private/nonces/x").parent.glob("*.json"):
        return json.loads(path.read_text())["model"]
    return ""


def runs(world):
    found = world.hospital.transport.get(f"/requests/{world.request_id}/runs", RunList).runs
    return {run.model_name: run for run in found}


def auditor(developer, transport=None, protocol=PROTOCOL):
    return Auditor(
        developer.keystore,
        transport or developer.transport,
        developer.schema,
        developer.org_id,
        processor=WorkerThread,
        protocol=protocol,
    )


class Lying:
    """A connection to a server that shows this auditor something else, and takes no verdict."""

    def __init__(self, transport, change=lambda view: view, hide=""):
        self._transport, self._change, self._hide = transport, change, hide
        self.sent = None

    def __getattr__(self, name):
        return getattr(self._transport, name)

    def get(self, path, reply, **more):
        found = self._transport.get(path, reply, **more)
        if reply is LogView and self._hide:
            kept = [text for text in found.entries if self._hide not in text]
            return found.model_copy(
                update={"entries": kept + found.entries[: len(found.entries) - len(kept)]}
            )
        return self._change(found) if reply is TranscriptView else found

    def get_blob(self, name):
        if name == self._hide:
            raise NotFoundError("no such blob")
        return self._transport.get_blob(name)

    def post(self, path, message, reply, **_more):
        assert path.endswith("/audit")
        assert reply is AuditView
        self.sent = message
        return AuditView()


def changing(**fields):
    return lambda view: view.model_copy(update=fields)


def check_liars(world, developer, run):
    """What a server may show instead, each with the message and the fault that it must give."""
    path = f"/requests/{world.request_id}/runs/{run.id}/transcript"
    given = developer.transport.get(path, TranscriptView)
    openings, *others = given.messages[::-1]
    swapped = [*others[::-1], openings.model_copy(update={"digest": "0" * 64})]
    counts = [list(row) for row in given.counts]
    counts[0][0] += 1
    sealed = given.sealed.model_copy(update={"keys_blob": "0" * 64})
    replies = next(item.digest for item in given.messages if item.name == "replies")
    shows = [
        (changing(seed="00" * 32), "", "seed", "evaluator"),
        (changing(nonce="00" * 16), "", "nonce", "evaluator"),
        (changing(model_digest="0" * 64), "", "model", "evaluator"),
        (changing(sealed=sealed), "", "upload", "record"),
        (changing(messages=swapped), "", "transcript", "record"),
        (changing(counts=counts), "", "release", "record"),
        (changing(tables=given.tables[:1]), "", "tables", "evaluator"),
        (changing(), replies, "replies", "record"),
    ]
    for change, hide, message, fault in shows:
        liar = Lying(developer.transport, change, hide)
        claim = auditor(developer, liar).audit(world.request_id, run.id).claim
        assert (claim.reproduced, claim.message, claim.fault) == (False, message, fault)
        assert read_audit(liar.sent.envelope, [developer.keystore.signing_key.verify_key]) == claim
    # an entry that is hidden, or another in its place, is not under the signed checkpoint
    liar = Lying(developer.transport, hide='"run.begun"')
    with pytest.raises(VerificationError, match="log"):
        auditor(developer, liar).audit(world.request_id, run.id)
    assert liar.sent is None
    # what was erased after its time, as the log says, refutes nobody
    with world.desk.store.write() as tx:
        objects = {"request": world.request_id}
        world.desk.record(
            tx, "request.erased", world.desk.org, objects=objects, amounts={"blobs": 1}
        )
    liar = Lying(developer.transport, hide=replies)
    with pytest.raises(RefusedError, match="were erased after their time"):
        auditor(developer, liar).audit(world.request_id, run.id)
    assert liar.sent is None


def check_access(world, developer, run):
    """The seed is for the model's owner only; one verdict for each run."""
    path = f"/requests/{world.request_id}/runs/{run.id}"
    other = next(item for item in world.developers if item is not developer)
    for stranger in (world.hospital, other, *world.providers):
        with pytest.raises(NotFoundError, match="no run"):
            stranger.transport.get(f"{path}/transcript", TranscriptView)
        message = AuditRun(envelope=run.audit.envelope)
        with pytest.raises(NotFoundError, match="no run"):
            stranger.transport.post(f"{path}/audit", message, AuditView)
    key = developer.keystore.signing_key
    post = developer.transport.post
    again = post(f"{path}/audit", AuditRun(envelope=run.audit.envelope), AuditView)
    assert again == run.audit
    claim = read_audit(run.audit.envelope, [key.verify_key])

    def send(signer=key, **fields):
        envelope = sign_audit(replace(claim, **fields), signer)
        post(f"{path}/audit", AuditRun(envelope=envelope), AuditView)

    with pytest.raises(ConflictError, match="another verdict"):
        send(reason="otherwise")
    with pytest.raises(RefusedError, match="other messages"):
        send(transcript_sha256="0" * 64)
    with pytest.raises(VerificationError, match="not a known key"):
        send(signer=other.keystore.signing_key)


def check_quota(world, developer, run):
    """Openings are cleared by a named key's audit of the very bytes, and by nothing else."""
    hospital, quota = world.hospital, world.hospital.agent.quota
    key_id = developer.keystore.signing_key.key_id
    everybody = {item.keystore.signing_key.key_id for item in world.developers}
    before = quota.reserved()
    assert run.id in before
    assert clear_audited(hospital, set()) == {}
    assert clear_audited(hospital, {hospital.keystore.signing_key.key_id}) == {}
    refuted = clear_audited(hospital, everybody - {key_id})
    assert len(refuted) == 2
    assert all("does not clear it" in words for words in refuted.values())
    record = hospital.agent.record(run.id)
    for name, other in (
        ("blobs", {**record["blobs"], "openings": "0" * 64}),
        ("seed_commitment", "0" * 64),
    ):
        hospital.agent.write_record(run.id, {**record, name: other})
        assert "another seed" in clear_audited(hospital, {key_id})[run.id] or name == "blobs"
        assert quota.reserved() == before
    hospital.agent.write_record(run.id, record)
    assert clear_audited(hospital, {key_id}) == {run.id: "cleared"}
    assert quota.used == sum(before.values()) - before[run.id]
    assert clear_audited(hospital, {key_id}) == {}, "it counts no more"


class Hiding:
    """A connection to a server that shows this hospital another seed, or none."""

    def __init__(self, transport, change):
        self._transport, self._change = transport, change

    def __getattr__(self, name):
        return getattr(self._transport, name)

    def get(self, path, reply, **more):
        found = self._transport.get(path, reply, **more)
        return SeedList(seeds=self._change(found.seeds)) if reply is SeedList else found


def check_own_audits(world):
    """A hospital clears its set's tests and targets itself: by what it saw, and nothing else."""
    hospital, quota = world.hospital, world.hospital.agent.quota
    valset = world.view().terms.valset_id
    path = f"/valsets/{valset}/seeds"
    for stranger in (*world.developers, *world.providers):
        with pytest.raises(NotFoundError, match="no validation set"):
            stranger.transport.get(path, SeedList)
    before = quota.reserved()
    own = {name for name in before if not name.startswith("run_")}
    own |= {name for name in before if name != "upload" and is_target(hospital, name)}
    assert len(own) == 2
    honest = hospital.transport
    given = honest.get(path, SeedList).seeds
    runs_of = {run.id for run in runs(world).values()}
    assert {item.of for item in given}.isdisjoint(runs_of), "the seed of a score stays secret"

    def states():
        found = audit_own(hospital, processor=WorkerThread)
        return {item.what: (item.state, item.message) for item in found}

    def others(seeds):
        return [item.model_copy(update={"seed": "00" * 32}) for item in seeds]

    refuted_ = {"tests": ("refuted", "seed"), "target": ("refuted", "seed")}
    for change, wanted in (
        (others, refuted_),
        (lambda _seeds: [], {"tests": ("open", ""), "target": ("open", "")}),
    ):
        hospital.transport = Hiding(honest, change)
        assert states() == wanted
        assert quota.reserved() == before
    hospital.transport = honest
    # the server sent other openings than it had to: what this hospital saw says so
    (target,) = own - {"upload"}
    record = hospital.agent.record(target)
    changed_ = {**record, "blobs": {**record["blobs"], "openings": "0" * 64}}
    hospital.agent.write_record(target, changed_)
    found = audit_own(hospital, processor=WorkerThread)
    assert [item.state for item in found] == ["cleared", "refuted"]
    assert "does not follow" in refuted(found)
    assert "valset reseal" in refuted(found)
    hospital.agent.write_record(target, record)
    assert states() == {"target": ("cleared", "")}
    assert quota.used == sum(before.values()) - sum(before[name] for name in own)
    assert audit_own(hospital, processor=WorkerThread) == ()
    assert not hospital.keystore.path("audits/own").exists(), "no ciphertext is kept"


def is_target(hospital, name):
    return hospital.agent.record(name)["kind"] == "target"


def check_log(world, found):
    texts = world.hospital.transport.get("/log/entries", LogView).entries
    entries = [parse_entry(text.encode()) for text in texts]
    verify_replay(entries)
    audits = {entry.objects["run"]: entry for entry in entries if entry.type == "run.audited"}
    assert len(audits) == 3
    for run in found.values():
        entry = audits[run.id]
        assert entry.hashes["verdict"] == run.audit.digest == digest(run.audit.envelope)
        assert entry.actor == run.org_id
        fault = None if run.model_name == "logistic" else world.desk.org.id
        assert entry.objects.get("fault") == fault


def check_disputes(world, found):
    """A refuted run is disputed; the operator has answered, so silence decides nothing."""
    for developer in world.developers:
        mine = developer.transport.get("/disputes", DisputeList).disputes
        if developer.name == "logistic":
            assert mine == []
            continue
        (dispute,) = mine
        assert dispute.subject == found[developer.name].id
        assert (dispute.reason, dispute.remedy, dispute.state) == ("score", "refund", "answered")
        assert dispute.respondent_id == world.desk.org.id
        assert dispute.claim["evidence"]["audit"] == found[developer.name].audit.digest


def check_draw(world, run, is_drawn):
    """Whoever has the receipt computes the draw again."""
    text = world.hospital.transport.get_text(f"/receipts/{run.receipt}")
    receipt = parse_receipt(text.encode())
    claim = read_claim(receipt.envelope, receipt.signer_keys)
    assert audit_draw.is_drawn(claim, receipt.envelope) == is_drawn == run.audit.drawn


def check_versions(world, honest, run):
    """The log names the version of a run; a program of another one says so, and judges nothing."""
    texts = world.hospital.transport.get("/log/entries", LogView).entries
    entries = [parse_entry(text.encode()) for text in texts]
    begun = [entry for entry in entries if entry.type in ("checks.begun", "run.begun")]
    assert {entry.amounts["protocol"] for entry in begun} == {PROTOCOL}
    with pytest.raises(RefusedError, match=f"was made under version {PROTOCOL} of the protocol"):
        auditor(honest, protocol=PROTOCOL + 1).audit(world.request_id, run.id)


def test_drawn_runs_are_replayed_and_what_deviated_is_refuted(world, monkeypatch):
    world.recipes = ("logistic", "shifted", "gam")
    monkeypatch.setitem(type(world).gather.__globals__, "recipe_source", recipes)
    monkeypatch.setattr(audit_draw, "drawn", lambda _signature: True)
    world.gather()
    with pytest.MonkeyPatch.context() as patch:
        deviate(patch, lambda: submitted(world, "shifted"), lambda: submitted(world, "gam"))
        view = world.work(world.everybody)
        assert view.state == "done", (view.reason, world.events)
        assert {run.state for run in runs(world).values()} == {"released"}, world.events
    honest, shifted, gam = world.developers
    # nothing waited for the audits; what is left is answered after the end
    for developer in world.developers:
        for task in developer.transport.get("/agent/tasks", TaskList).tasks:
            assert task.task.kind == "run.audit"
            assert do_task(developer, task, world.events.append), world.events
    refused = [
        event
        for event in world.events
        if event["event"] == "refused" and "was withdrawn" not in event["reason"]
    ]
    told = [f"{event['kind']} {event['org']} {event['reason']}" for event in refused]
    assert {event["kind"] for event in refused} == {"receipt.sign"}, "\n".join(told)
    found = runs(world)
    # the hospital saw that the published counts lack its noise: it did not sign, so no draw
    assert found["gam"].receipt is None
    assert (found["gam"].audit.state, found["gam"].audit.drawn) == ("none", False)
    auditor(gam).audit(world.request_id, found["gam"].id)
    found = runs(world)
    told = {
        name: (run.audit.state, run.audit.message, run.audit.fault) for name, run in found.items()
    }
    assert told == {
        "logistic": ("reproduced", "", "none"),
        "shifted": ("refuted", "score", "evaluator"),
        "gam": ("refuted", "openings", "evaluator"),
    }
    assert found["shifted"].receipt, "the hospital saw nothing of the changed weight"
    check_log(world, found)
    check_disputes(world, found)
    check_draw(world, found["logistic"], True)
    monkeypatch.undo()
    check_draw(world, runs(world)["logistic"], runs(world)["logistic"].audit.drawn)
    check_access(
        world, honest, found["logistic"].model_copy(update={"audit": runs(world)["logistic"].audit})
    )
    check_quota(world, honest, found["logistic"])
    check_own_audits(world)
    check_liars(world, honest, found["logistic"])
    check_versions(world, honest, found["logistic"])
    assert shifted.keystore.path("audits/x").parent.is_dir()
    assert not list(shifted.keystore.path("audits/x").parent.iterdir()), "no ciphertext is kept"
