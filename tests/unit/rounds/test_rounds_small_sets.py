"""Small validation sets in a whole market: fewer tables, and words that say why; packed, and not.

The market of eight is packed: what holds of any set holds of it, but that models have no trees.
"""

import json
import time

import pytest

from clearinghouse import model_columns
from clearinghouse.client import developer
from clearinghouse.client.hospital import HospitalTerms
from clearinghouse.client.own_audits import audit_own
from clearinghouse.client.run_audit import Auditor
from clearinghouse.errors import InputError
from clearinghouse.log.entries import epsilon_by_owner, parse_entry
from clearinghouse.log.replay import verify_replay
from clearinghouse.messages.disputes import DisputeView, OpenDispute
from clearinghouse.messages.intake import Fairness, RequestView, ValsetView
from clearinghouse.messages.results import LogView, RunList
from clearinghouse.messages.tasks import TaskList
from clearinghouse.replay_jobs import score_replay
from clearinghouse.rounds import disputes, findings
from clearinghouse.worker import WorkerThread


def test_a_set_of_eight_is_scored_without_subgroup_tables_and_promises_none(world, monkeypatch):
    world.limits = HospitalTerms(8, 500_000, 5_000_000, packed=True)
    world.recipes = ("logistic", "trees")
    world.gather()
    layout = world.hospital.agent._secrets.layout
    assert layout.groups == ()
    assert list(layout.strips) == model_columns.strips(world.schema)
    assert layout.layers < layout.columns
    sealed = world.hospital.transport.get(f"/valsets/{world.view().terms.valset_id}", ValsetView)
    assert sealed.packed
    # a developer whose program does not look: the server's own sentence is what it gets
    monkeypatch.setattr(developer, "fits", lambda _model: True)
    floor = Fairness(attribute="sex", metric="sensitivity", floor_micro=500_000)
    terms = world.view().terms
    asked = terms.model_copy(update={"purse": terms.purse.model_copy(update={"fairness": floor})})
    with pytest.raises(InputError, match="no scores by sex: at about 8 patients"):
        world.hospital.transport.post("/requests", asked, RequestView)
    view = world.work(world.everybody)
    assert view.state == "done", world.events
    runs = world.hospital.transport.get(f"/requests/{world.request_id}/runs", RunList).runs
    run, refused = sorted(runs, key=lambda run: run.state != "done")
    assert (refused.state, refused.receipt) == ("failed", None)
    assert "packed: it scores linear and additive models only, and this model has trees" in (
        refused.reason
    )
    assert run.receipt
    assert run.groups == {}
    (table,) = run.tables  # the histogram has the whole of epsilon
    assert table["epsilon_micro"] == 1_000_000
    # who owns the model repeats its run bit for bit, and the hospital the tests and the target
    owner = world.developers[0]
    access = (owner.keystore, owner.transport, owner.schema, owner.org_id)
    auditor = Auditor(*access, processor=WorkerThread)
    audited = auditor.audit(world.request_id, run.id)
    assert audited.claim.reproduced, audited.claim
    assert {item.state for item in audit_own(world.hospital, processor=WorkerThread)} == {"cleared"}
    dispute_reveals_nothing(world, run)
    target_and_changed_counts(world, run)


def dispute_reveals_nothing(world, run):
    """A disputed run is replayed from what was stored: nobody is asked, opened or charged again."""
    hospital, developer = world.hospital, world.developers[0]
    before = what_was_paid_and_opened(world, run)
    message = OpenDispute(
        request_id=world.request_id,
        subject=run.id,
        reason="score",
        remedy="pay",
        words="my model is better than that",
        evidence={},
    )
    opened = developer.transport.post(
        "/disputes", message, DisputeView, idempotency_key=f"dispute-{run.id}"
    )
    found_of(world, opened.id)
    found = developer.transport.get(f"/disputes/{opened.id}", DisputeView)
    assert found.finding["verdict"] == "reproduced", found.finding
    told = json.dumps(found.finding)
    assert "noise" not in found.finding
    assert not any(json.dumps(table["exact"]) in told for table in private_tables(hospital, run))
    tasks = hospital.transport.get("/agent/tasks", TaskList).tasks
    assert {item.task.kind for item in tasks} <= {"receipt.sign"}
    assert what_was_paid_and_opened(world, run) == before


def target_and_changed_counts(world, run):
    """A disputed target is made again byte for byte; a changed count of a score is found."""
    with world.desk.store.write() as tx:
        request = tx.requests.get(world.request_id)
        (target,) = tx.runs.of(request.id, "target")
        opened = disputes.open_dispute(
            tx, world.desk, request, target.id, "test", {}, respondent_id=request.org_id
        )
    world.desk.bell.ring()
    assert found_of(world, opened.id)["verdict"] == "reproduced"
    with world.desk.store.read() as tx:
        stored = next(item for item in tx.runs.of(request.id, "score") if item.id == run.id)
        _, arguments = findings._replay(tx, request, stored)
    counts = [list(row) for row in run.counts]
    counts[0][0] += 1
    told = score_replay(world.desk.blobs, {**arguments, "counts": counts})
    assert (told["verdict"], told["fault"]) == ("not reproduced", "evaluator")


def found_of(world, dispute_id):
    """What a dispute's replay found, once it has ended."""
    end = time.monotonic() + 300
    while True:
        with world.desk.store.read() as tx:
            found = next(d for d in tx.disputes.of(world.request_id) if d.id == dispute_id)
        if found.finding:
            return json.loads(found.finding)
        assert time.monotonic() < end
        time.sleep(0.1)


def private_tables(hospital, run):
    return hospital.agent.record(run.id)["tables"]


def what_was_paid_and_opened(world, run):
    """The hospital's ledger and openings, the log's epsilon, and every message of the run."""
    hospital = world.hospital
    texts = hospital.transport.get("/log/entries", LogView).entries
    entries = [parse_entry(text.encode()) for text in texts]
    verify_replay(entries)
    with world.desk.store.read() as tx:
        messages = tx.requests.messages(world.request_id, run.id)
        asked = [task.task.kind for task in tx.tasks.of(world.request_id)]
    return (
        hospital.budget.spent,
        hospital.budget.left,
        hospital.agent.quota.used,
        epsilon_by_owner(entries),
        [(item.kind, item.digest) for item in messages],
        sorted(asked),
    )
