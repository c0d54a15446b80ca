"""Nonces and seeds in a whole market: who is silent, who lies, and what the log says of it."""

import json

import pytest
from evil import Thief, rewritten

from clearinghouse.cli import results
from clearinghouse.cli.audit import audit_log
from clearinghouse.client import key_agent
from clearinghouse.client.hospital import HospitalTerms
from clearinghouse.client.runs import plan_lanes
from clearinghouse.errors import InputError, RefusedError
from clearinghouse.log.entries import epsilon_by_owner, parse_entry
from clearinghouse.log.replay import verify_replay
from clearinghouse.log.verify import export_log, verify_receipt
from clearinghouse.messages.budgets import BudgetView
from clearinghouse.messages.intake import RequestView
from clearinghouse.messages.results import CheckpointView, LogView, RunList
from clearinghouse.messages.tasks import NonceRevealAnswer
from clearinghouse.money import format_money
from clearinghouse.noise_laws import epsilon_of_rho
from clearinghouse.rounds.begun import committed_nonce, committed_seed
from dp.cost import Cost
from secure_eval.framing import Kind
from secure_eval.keyholder import KeyHolder
from secure_eval.nonces import nonce_commitment


def log(world):
    texts = world.hospital.transport.get("/log/entries", LogView).entries
    entries = [parse_entry(text.encode()) for text in texts]
    verify_replay(entries)
    return entries


def log_folder(world):
    """The log as anyone may export it."""
    head = world.hospital.transport.get("/log/checkpoint", CheckpointView)
    entries = world.hospital.transport.get("/log/entries", LogView).entries
    folder = world.folder / "log"
    export_log([entry.encode() for entry in entries], head.checkpoint, head.vkey, folder)
    return folder


def receipt_of(world, run):
    """The receipt as people read it, after all its checks."""
    text = world.hospital.transport.get_text(f"/receipts/{run.receipt}")
    verify_receipt(text.encode())
    return text


def of(entries, kind):
    return [entry for entry in entries if entry.type == kind]


def runs(world):
    return world.hospital.transport.get(f"/requests/{world.request_id}/runs", RunList).runs


@pytest.fixture(scope="module")
def market_of_coins(play):
    """A market under the law of coins, played to its end: tests read it and change nothing."""
    world = play()
    world.gather(noise_law="coins")
    view = world.work(world.everybody)
    assert view.state == "done", world.events
    return world


def test_every_seed_and_nonce_is_in_the_log_before_it_is_used(market_of_coins):
    world = market_of_coins
    entries = log(world)
    kinds = [entry.type for entry in entries]
    assert kinds.index("checks.begun") < kinds.index("run.begun") < kinds.index("target.released")
    target, score = of(entries, "run.begun")
    (released,) = of(entries, "run.released")
    (run,) = runs(world)
    with world.desk.store.read() as tx:
        stored = {
            item.id: item
            for kind in ("target", "score")
            for item in tx.runs.of(world.request_id, kind)
        }
        seed = tx.cohorts.valset(tx.requests.get(world.request_id).valset_id).seed
    assert of(entries, "checks.begun")[0].hashes["seed"] == committed_seed(seed)
    for entry in (target, score):
        found = stored[entry.objects["run"]]
        assert entry.hashes["seed"] == committed_seed(found.seed)
        assert entry.hashes["nonce"] == committed_nonce(found.nonce)
    # what was opened at the end is public, and opens what was committed at the beginning
    opened = [nonce_commitment(bytes.fromhex(nonce)).hex() for nonce in run.nonces]
    assert opened == [score.hashes["nonce"], score.hashes["developer_nonce"]]
    assert score.hashes["model"] == released.hashes["model"] == run.model_digest
    # the hospital's own note of the commitments is the log's
    record = world.hospital.agent.record(run.id)
    assert record["seed_commitment"] == score.hashes["seed"]
    assert record["nonce_commitments"] == opened
    (told,) = of(entries, "target.released")
    agent = world.hospital.agent._target(target.objects["run"])
    assert told.hashes["noise"] == agent._rounds.stored["commitment"][1].hex()


def test_developers_that_do_not_open_their_nonce_end_their_own_runs_only(world, monkeypatch):
    """One never reveals, one reveals what opens nothing; the third is scored."""
    world.recipes = ("trees", "gam", "logistic")
    world.gather()
    silent, false, other = world.developers

    def refuse(*_args):
        raise RefusedError("changed our mind")

    monkeypatch.setattr(silent, "_reveal", refuse)
    monkeypatch.setattr(false, "_reveal", lambda *_args: NonceRevealAnswer(nonce="00" * 16))
    view = world.work(world.everybody)
    assert view.state == "done", world.events
    failed, unopened, stands = runs(world)
    assert [run.state for run in (failed, unopened, stands)] == ["failed", "failed", "released"]
    assert f"({silent.org_id}) refused nonce.reveal" in failed.reason
    assert "the run's epsilon was spent for nothing" in failed.reason
    assert "does not open its commitment" in unopened.reason
    entries = log(world)
    fault = {e.objects["run"]: e.objects.get("fault") for e in of(entries, "run.released")}
    assert fault == {failed.id: silent.org_id, unopened.id: false.org_id, stands.id: None}
    # what it cost: the hospital's epsilon, in its ledger as in the log; nothing was opened of it
    assert epsilon_by_owner(entries)[world.hospital.org_id] == world.hospital.budget.spent
    assert world.hospital.budget.spent == 3_500_000
    with world.desk.store.read() as tx:
        for run in (failed, unopened):
            sent = [item.kind for item in tx.requests.messages(world.request_id, run.id)]
            assert "score.shares" not in sent
    assert not view.notes, "the hospital is not suspended"
    assert other.org_id == stands.org_id


def test_a_hospital_that_pays_and_then_cannot_answer_says_what_was_spent(world, monkeypatch):
    world.gather()

    def broken(*_args):
        raise ValueError("a bug after the ledger was charged")

    monkeypatch.setattr(key_agent.CheckedAgentRun, "digits", broken)
    view = world.work(world.everybody)
    assert view.state == "done", world.events
    (run,) = runs(world)
    assert (
        "not possible here (ValueError) (1 of epsilon was spent on this run before)" in run.reason
    )
    entries = log(world)
    assert [entry.epsilon_micro for entry in of(entries, "run.released")] == [1_000_000]
    assert epsilon_by_owner(entries)[world.hospital.org_id] == world.hospital.budget.spent


def test_loud_noise_of_a_target_is_refused_before_a_sum_is_opened(world):
    """Its noise ciphertext with 2^36 in one coefficient: caught by its own noise test."""
    connect = world.connect

    def connected(name):
        keystore, transport = connect(name)
        if name == "h":
            put = transport.put_blob

            def put_blob(data, kind):
                if kind == "noise":
                    thief = Thief(KeyHolder.load(keystore.path("he.key")))
                    data = rewritten(data, Kind.TARGET_NOISE, thief.loud_whole(0, 36))
                return put(data, kind)

            transport.put_blob = put_blob
        return keystore, transport

    world.connect = connected
    world.gather()
    hospital = world.hospital

    def answer(run_id, checks):  # whatever noise it carries: the honest agent would refuse it
        thief = Thief(KeyHolder.load(hospital.keystore.path("he.key")))
        return thief.replies(checks, Kind.TARGET_CHECKS, Kind.TARGET_CHECK_REPLIES)

    hospital.agent.target_checks = answer
    view = world.work([hospital])
    assert view.state == "failed"
    assert "failed a test: TARGET_CHECK_REPLIES: a test failed" in view.reason
    entries = log(world)
    (burnt,) = of(entries, "target.released")
    assert burnt.objects["fault"] == hospital.org_id
    assert epsilon_by_owner(entries)[hospital.org_id] == hospital.budget.spent == 500_000
    with world.desk.store.read() as tx:
        assert not tx.tasks.of(world.request_id, "target.replies")


def test_a_market_of_coins_opens_exact_counts_and_binomial_noise(market_of_coins):
    world = market_of_coins
    (run,) = runs(world)
    assert run.state == "released", run.reason
    coins = {table["name"]: table["coins"] for table in run.tables}
    assert coins == {"histogram": 194, "group:sex": 402}
    record = world.hospital.agent.record(run.id)
    for table in record["tables"]:
        noise = table["noise"]
        assert max(map(abs, noise)) <= coins[table["name"]] // 2
        assert len(set(noise)) > 1
    (histogram, _) = record["tables"]
    labels = world.hospital.table.labels
    exact = [histogram["exact"][: len(run.counts[0])], histogram["exact"][len(run.counts[0]) :]]
    assert [sum(part) for part in exact] == [int((labels == label).sum()) for label in (0, 1)]
    assert "delta            2e-6, 1e-6 for each of 2 tables" in receipt_of(world, run)
    spent = results._spent_words(run)  # as `run show` says it
    assert spent.startswith("epsilon 1.00 was spent on it, at delta 2e-6, 1e-6 for each of 2")
    # the scorecard's intervals know the law: wider than geometric noise of that epsilon gives
    verify_replay(log(world))
    assert json.dumps(run.scorecard["intervals"])


def test_a_set_sealed_for_many_runs_pays_them_in_rho_and_everybody_counts_it(world):
    """Twenty runs: coins are quieter than geometric noise, and the zCDP lane pays for each."""
    plan = plan_lanes(3_000_000, 500_000, 20, groups=1)
    assert plan.law.name == "coins"
    assert plan.law.sd < plan.other_sd
    lanes = plan.lanes
    world.limits = HospitalTerms(64, 500_000, lanes.micro_epsilon, rho_limit_micro=lanes.micro_rho)
    world.gather(**plan.terms)
    view = world.work(world.everybody)
    assert view.state == "done", world.events
    (run,) = runs(world)
    rho = plan.law.cost.micro_rho
    receipt = receipt_of(world, run)
    assert "delta            2e-6" in receipt
    assert f"zcdp lane        rho {format_money(rho)}" in receipt
    budget = world.hospital.budget
    assert budget.spent == 500_000
    assert budget.left == Cost(0, lanes.micro_rho - rho)
    entries = log(world)
    (released,) = of(entries, "run.released")
    assert released.amounts == {"epsilon_micro": 0, "rho_micro": rho}
    assert verify_replay(entries).rho_by_data == {view.terms.valset_id: rho}
    shown = world.hospital.transport.get("/budgets", BudgetView)
    (data,) = shown.data
    assert (data.rho_micro, data.releases[-1].rho_micro) == (rho, rho)
    assert data.epsilon_micro == 500_000 + epsilon_of_rho(rho)
    assert view.terms.most_epsilon_micro <= 3_000_000
    meant = format_money(data.epsilon_micro)
    found, words = audit_log(log_folder(world), None)
    assert found["rho_by_data"][view.terms.valset_id]["meant"] == meant
    assert f"rho released of {view.terms.valset_id}: {format_money(rho)}; with" in words
    assert f"epsilon {meant} at delta 1e-6 (delta, a chance of one in a million" in words


def test_coins_for_too_small_an_epsilon_are_refused_when_the_request_is_opened(market_of_coins):
    world = market_of_coins
    terms = world.view().terms.model_copy(
        update={"noise_law": "coins", "epsilon_score_micro": 150_000}
    )
    with pytest.raises(InputError, match="choose a larger epsilon or the geometric law"):
        world.hospital.transport.post("/requests", terms, RequestView)
    for law in ("coins", "geometric"):  # nor a rho that the coins do not cost, nor one without any
        wrong = world.view().terms.model_copy(update={"noise_law": law, "rho_score_micro": 7})
        with pytest.raises(InputError, match="rho"):
            world.hospital.transport.post("/requests", wrong, RequestView)
