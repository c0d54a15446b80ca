"""A whole market with real parties and ciphertexts, and markets in which somebody will not play."""

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest

from clearinghouse.cli.prices import recheck
from clearinghouse.cli.recompute import recomputed
from clearinghouse.client.hospital import HospitalTerms
from clearinghouse.client.rotation import rotate
from clearinghouse.errors import RefusedError, VerificationError
from clearinghouse.log.entries import KeyHistory, parse_entry
from clearinghouse.log.replay import verify_replay
from clearinghouse.log.verify import export_log, verify_log_directory, verify_receipt
from clearinghouse.messages.results import (
    CheckpointView,
    ClearingView,
    LogView,
    PriceList,
    RunList,
    StatementView,
    TargetView,
)
from clearinghouse.rounds import decision
from valuation.ladders import bound

SURE = 3_000_000
"""An epsilon of a score at which every model of the tiny market reaches the purse's threshold."""


def read(world, what, kind):
    path = f"/requests/{world.request_id}/{what}"
    return world.hospital.transport.get(path, kind)


def check_books(world, state="done"):
    """Every transfer and the whole sum to zero, nothing is left in escrow, the log verifies."""
    statement = read(world, "statement", StatementView)
    assert statement.balanced
    assert sum(statement.balances.values()) == 0
    assert statement.balances[f"escrow:{world.request_id}"] == 0
    head = world.hospital.transport.get("/log/checkpoint", CheckpointView)
    entries = world.hospital.transport.get("/log/entries", LogView).entries
    export_log([e.encode() for e in entries], head.checkpoint, head.vkey, world.folder / "log")
    report = verify_log_directory(world.folder / "log", trusted_log_key=head.vkey)
    # a run that was drawn for an audit may be audited after the end
    last = [entry for entry in report.entries if entry.type != "run.audited"][-1]
    assert last.type == "request.closed"
    assert last.amounts["failed"] == (state == "failed")
    spent = {world.hospital.org_id: world.hospital.budget.spent}
    spent |= {p.org_id: p.budget.spent for p in world.providers if hasattr(p, "budget")}
    for org_id, amount in spent.items():
        assert report.epsilon_by_owner.get(org_id, 0) == amount
    return statement, report


@pytest.fixture(scope="module")
def whole(play):
    """A whole market; its hospital rotates its key in the middle. Tests read it only."""
    world = play()
    world.recipes = ("logistic", "trees")
    world.limits = HospitalTerms(64, 500_000, 6_500_000)
    world.gather(fairness_pot_micro=20_000, epsilon_score_micro=SURE)
    hospital = world.hospital
    # Without developers nothing is received: the step cannot pass unseen.
    world.work([hospital, *world.providers], until=lambda view: view.step == "deliver")
    before = hospital.keystore.signing_key
    rotate(hospital.keystore, hospital.transport, hospital.org_id)
    hospital.keystore = hospital.keystore.reopened()
    return SimpleNamespace(world=world, before=before, view=world.work(world.everybody))


def test_a_whole_market(whole):
    world, view = whole.world, whole.view
    assert (view.state, view.reason) == ("done", ""), world.events
    statement, report = check_books(world)
    assert list(view.step_seconds) == [
        "intake",
        "match",
        "clear",
        "deliver",
        "score",
        "settle",
        "audit",
    ]
    assert view.message_bytes["deliver.sealed"] > 0
    check_clearing(world, statement)
    check_scores(world, statement)
    check_no_row_is_stored(world)
    check_recomputed(world)
    kinds = [entry.type for entry in report.entries]
    assert kinds.count("ask.committed") == kinds.count("ask.revealed") == 2
    assert kinds.index("inputs.frozen") < kinds.index("ask.committed")
    assert max(i for i, kind in enumerate(kinds) if kind == "ask.committed") < kinds.index(
        "ask.revealed"
    )
    assert kinds.count("run.released") == kinds.count("receipt.issued") == 2


def check_clearing(world, statement):
    target = read(world, "target", TargetView)
    assert sum(target.wanted) == 60
    clearing = read(world, "clearing", ClearingView)
    sold = [order for order in clearing.orders if order.units]
    assert sold
    for order in sold:
        assert order.real is not None
        assert order.paid_micro is not None
        owed = order.ask_micro * order.units + order.marginal_micro
        assert owed == sum(price * units for _, price, units in order.ladder)
        assert order.paid_micro <= owed
        assert order.paid_micro >= order.ask_micro * order.real
        assert order.paid_micro <= bound(order.ladder, order.real)
        assert order.deposit_micro == target.deposits_micro[order.source_id]
        assert statement.balances[f"deposit:{world.request_id}:{order.source_id}"] == 0
        assert all(q <= c for q, c in zip(order.quota, target.capped[order.source_id], strict=True))
    paid = sum(order.paid_micro for order in sold)
    fees = [amount for name, amount in statement.balances.items() if name.startswith("platform")]
    assert fees == [paid * 50_000 // 1_000_000]
    given = sum(
        p.amount_micro
        for p in statement.postings
        if ":pot:" in p.transfer and p.account.startswith("org:")
    )
    assert given == 60 * 6_000_000 * 20_000 // 1_000_000
    first = world.hospital.transport.get_text(f"/requests/{world.request_id}/prices")
    again = world.providers[0].transport.get_text(f"/requests/{world.request_id}/prices")
    assert first == again
    prices = PriceList.model_validate_json(first).prices
    for price, order in zip(prices, clearing.orders, strict=True):
        assert price.status == ("firm" if order.units else "indicative")
        assert price.low_micro <= price.point_micro <= price.high_micro
        if order.units:
            assert price.components["reserve"] + price.components["marginal"] == price.point_micro


def check_recomputed(world):
    """Any participant computes everything again; any changed figure is found."""
    transport = world.providers[1].transport
    checks = recomputed(transport, world.request_id)
    assert [name for name, _ in checks] == [
        "log", "frozen inputs", "clearing", "certificate", "offered again", "prices", "payments"
    ]  # fmt: skip
    get, get_text = transport.get, transport.get_text

    def lying(what, change):
        def changed(path, kind=None, **rest):
            found = get_text(path) if kind is None else get(path, kind, **rest)
            return change(found) if path.endswith(what) else found

        transport.get = changed
        transport.get_text = changed
        return transport

    def dearer(view):
        first = view.orders[0]
        ladder = [[place, price + 1, units] for place, price, units in first.ladder]
        return view.model_copy(
            update={"orders": [first.model_copy(update={"ladder": ladder}), *view.orders[1:]]}
        )

    def fuller(view):
        name = next(iter(view.capped))
        capped = {**view.capped, name: [count + 1 for count in view.capped[name]]}
        return view.model_copy(update={"capped": capped})

    for what, change, words in (
        ("/clearing", dearer, "not what was logged"),
        ("/target", fuller, "the releases give others"),
        ("/summary", lambda s: s.model_copy(update={"counts": s.counts[::-1]}), "not the release"),
        ("/prices", lambda text: text.replace('"calls":0', '"calls":1', 1), "gives others"),
        ("/certificate", lambda text: text.replace("1", "2", 1), "another one"),
        ("/statement", _skimmed, "not what the orders earned"),
    ):
        with pytest.raises(VerificationError, match=words):
            recomputed(lying(what, change), world.request_id)
    transport.get, transport.get_text = get, get_text


def _skimmed(view):
    postings = [
        posting.model_copy(update={"amount_micro": posting.amount_micro - 1})
        if ":order:" in posting.transfer and posting.amount_micro > 0
        else posting
        for posting in view.postings
    ]
    return view.model_copy(update={"postings": postings})


def check_scores(world, statement):
    head = world.hospital.transport.get("/log/checkpoint", CheckpointView)
    runs = read(world, "runs", RunList).runs
    assert [run.state for run in runs] == ["released", "released"]
    for run in runs:
        text = world.hospital.transport.get_text(f"/receipts/{run.receipt}").encode()
        verified = verify_receipt(text, trusted_log_key=head.vkey)
        assert verified.claim.model_sha256 == run.model_digest
        assert sum(table["epsilon_micro"] for table in run.tables) == run.epsilon_micro
        record = world.hospital.agent.record(run.id)
        exact = record["tables"][0]["exact"]
        noise = record["tables"][0]["noise"]
        opened = [value for row in run.counts for value in row]
        assert opened == [a + b for a, b in zip(exact, noise, strict=True)]
        assert sum(exact) == 100
    highest = max(run.scorecard["auc"] for run in runs)
    best = [run for run in runs if run.scorecard["auc"] == highest]  # a tie shares the purse
    share = 300_000_000 // len(best)
    won = {winner["run_id"]: winner["amount_micro"] for winner in statement.award["winners"]}
    assert won == {run.id: share for run in best}
    assert all(statement.balances[f"org:{run.org_id}"] == share for run in best)


def check_no_row_is_stored(world):
    """What the server keeps of a delivery is ciphertext: no record in its canonical form."""
    rows = {f'"age":"{record["age"]}"'.encode() for record in world.providers[0].table.records()}
    assert len(rows) > 50
    pattern = re.compile(rb'"age":"[^"]*"')
    assert set(pattern.findall(b" ".join(rows))) == rows
    for path in (world.folder / "server").rglob("*"):
        if path.is_file():
            assert rows.isdisjoint(pattern.findall(path.read_bytes())), path


def waits_for_nobody_but(party, view):
    return len(view.waiting_for) == 1 and party.org_id in view.waiting_for[0]


def test_a_silent_provider_blocks_nobody(world):
    world.gather(deadlines={"ask_s": 60, "agent_s": 600, "deliver_s": 600, "model_s": 600})
    silent, speaking = world.providers
    present = [world.hospital, speaking]
    world.work(present, until=lambda view: waits_for_nobody_but(silent, view))
    world.clock.by += 61
    world.work(present, until=lambda view: view.step == "deliver")
    orders = {order.source_id: order for order in read(world, "clearing", ClearingView).orders}
    assert orders[silent.source_id].status == "silent"
    assert orders[silent.source_id].units == 0
    assert orders[silent.source_id].ask_micro is None
    assert orders[speaking.source_id].status == "sold"


def test_nobody_delivers(world, monkeypatch):
    world.gather()
    for provider in world.providers:
        monkeypatch.setattr(provider, "_deliver", None)
    view = world.work(world.everybody)
    assert view.state == "failed"
    assert "delivered" in view.reason
    statement, _ = check_books(world, "failed")
    assert statement.balances[f"external:{world.hospital.org_id}"] == 0


def test_who_delivers_is_paid_and_who_does_not_is_not(world, monkeypatch):
    """A provider keeps its records; the hospital refuses the score and still pays the other."""
    epsilon = 20_000_000  # without noise the dearer one sells five records, never none
    world.limits = HospitalTerms(64, epsilon, epsilon + 5_000_000)
    world.gather(epsilon_target_micro=epsilon)
    shy, reliable = world.providers

    def keep(*_args):
        raise RefusedError("our ethics board said no")

    def refuse(*_args):
        raise RefusedError("this model is not welcome")

    monkeypatch.setattr(shy, "_deliver", keep)
    monkeypatch.setattr(world.hospital, "_score_digits", refuse)
    view = world.work(world.everybody)
    assert view.state == "done", world.events
    (run,) = read(world, "runs", RunList).runs
    assert run.state == "failed"
    assert "not welcome" in run.reason
    assert run.receipt is None
    statement, report = check_books(world)
    assert statement.award["winners"] == []
    assert not [entry for entry in report.entries if entry.type == "run.released"]
    orders = {order.source_id: order for order in read(world, "clearing", ClearingView).orders}
    assert orders[shy.source_id].units > 0
    assert (orders[shy.source_id].real, orders[shy.source_id].paid_micro) == (0, 0)
    assert orders[reliable.source_id].paid_micro > 0
    clearing = read(world, "clearing", ClearingView)
    again = clearing.offered_again
    assert [order.source_id for order in again] == [reliable.source_id]
    assert again[0].paid_micro >= again[0].ask_micro * again[0].real > 0
    # It is paid what it would have been paid had the other never been there, and anybody sees so.
    alone = decision.payment_micro(
        next(o for o in clearing.cleared_again.orders if o.source_id == reliable.source_id)
    )
    assert 0 < orders[reliable.source_id].paid_micro + again[0].paid_micro <= alone
    told = dict(recomputed(world.hospital.transport, world.request_id))
    assert told["offered again"].startswith("1 sources failed; 1 orders more")
    prices = read(world, "prices", PriceList)
    session = SimpleNamespace(transport=world.hospital.transport)
    assert "1 firm prices are the same" in recheck(session, world.request_id, prices)
    paid = statement.balances[f"org:{reliable.org_id}"]
    assert paid == orders[reliable.source_id].paid_micro + again[0].paid_micro
    lost = orders[shy.source_id].deposit_micro
    assert lost > 0
    assert statement.balances[f"forfeits:{world.desk.org.id}"] == lost
    assert statement.balances[f"external:{shy.org_id}"] == -lost
    assert statement.balances[f"external:{reliable.org_id}"] == 0


def test_of_three_models_one_is_broken_one_is_scored_unsigned_and_one_is_too_many(
    world, monkeypatch
):
    """One run is allowed: the first good model that came has it, and its score stands unsigned."""
    world.recipes = ("logistic", "gam", "trees")
    world.limits = HospitalTerms(64, 500_000, 6_500_000)
    world.gather(runs=1, epsilon_score_micro=SURE)
    broken = world.developers[0]
    put = broken.transport.put_blob
    monkeypatch.setattr(broken.transport, "put_blob", lambda data, kind: put(b'{"kind":"x"}', kind))

    def refuse(*_args):
        raise RefusedError("we do not sign")

    monkeypatch.setattr(world.hospital, "_sign", refuse)
    view = world.work(world.everybody)
    assert view.state == "done", world.events
    failed, *others = read(world, "runs", RunList).runs
    assert (failed.model_name, failed.state, failed.receipt) == ("logistic", "failed", None)
    stands, refused = sorted(others, key=lambda run: run.state, reverse=True)
    assert {stands.model_name, refused.model_name} == {"gam", "trees"}
    assert (stands.state, stands.receipt) == ("released", None)
    assert "we do not sign" in stands.reason
    assert refused.reason == "all 1 runs of this request are taken"
    assert world.hospital.budget.spent == 500_000 + SURE
    statement, _ = check_books(world)
    assert [winner["run_id"] for winner in statement.award["winners"]] == [stands.id]


def test_asks_are_unknown_to_the_server_before_they_are_revealed(world):
    """Neither the database nor its journal holds the ask while asks are open."""
    world.gather()
    ask = 1_234_567_890_123  # so many digits are in a file by chance once in some 10^9 files
    world.providers[0].terms = replace(world.providers[0].terms, ask_micro=ask)
    reveals = [provider._reveal_ask for provider in world.providers]
    for provider in world.providers:
        provider._reveal_ask = _later
    parties = [world.hospital, *world.providers]
    world.work(parties, until=lambda view: any("reveal" in item for item in view.waiting_for))

    def stored():
        folder = world.folder / "server"
        return b"".join(path.read_bytes() for path in folder.glob("clearinghouse.db*"))

    # as decimal digits, and as SQLite keeps a whole number of this size
    assert not any(known in stored() for known in (str(ask).encode(), ask.to_bytes(6)))
    with world.desk.store.read() as tx:
        asks = tx.asks.of(world.request_id)
        assert {ask.ask_micro for ask in asks.values()} == {None}
        assert {ask.salt for ask in asks.values()} == {None}
    for provider, reveal in zip(world.providers, reveals, strict=True):
        provider._reveal_ask = reveal
    world.work(parties, until=lambda view: view.step == "deliver")
    clearing = read(world, "clearing", ClearingView)
    assert clearing.orders[0].ask_micro == ask
    assert str(ask).encode() in stored()
    assert ask.to_bytes(6) in stored()


def _later(_request_id):
    raise OSError("not yet")


def test_a_hospital_that_rotates_its_key_in_the_middle_still_signs_receipts(whole):
    """The old key signs the statement that names it, the new key the rest; all of it verifies."""
    world, before = whole.world, whole.before
    hospital = world.hospital
    after = hospital.keystore.signing_key
    assert after.key_id != before.key_id
    assert whole.view.state == "done"
    with world.desk.store.read() as tx:
        receipts = tx.runs.receipts(world.request_id).values()
        entries = [parse_entry(body) for body in tx.log.entries(0, 1000)]
    assert len(receipts) == 2
    for receipt in receipts:
        assert f"signer {after.key_id}" in receipt.body
        assert before.key_id not in receipt.body
        verify_receipt(receipt.body.encode())
    verify_replay(entries)
    history = KeyHistory()
    for entry in entries:
        history.apply(entry)
    mine = [entry.key for entry in entries if entry.actor == hospital.org_id]
    assert {before.key_id, after.key_id} == set(mine)
