"""Taking a source or a grant back, in every state of a request."""

from dataclasses import replace

import pytest
from consenting import POINTS

from clearinghouse.client.waiting import waiting_deliveries
from clearinghouse.errors import NoGrantError, RefusedError
from clearinghouse.messages.consent import DeliveryList, GrantList, Training, TrainingView
from clearinghouse.messages.results import ClearingView, OrderList, PriceList, RunList, TargetView
from clearinghouse.messages.tasks import TaskList
from clearinghouse.rounds import erasure, offers, views

FROZEN_AGAIN = ("matched", "asked", "answered")
UNPAID = ("ordered", "sealed", "delivered", "read")


def blobs_of(market, name):
    order = market.orders()[name]
    with market.desk.store.read() as tx:
        return tx.erasure.delivered_blobs([order.id])


@pytest.mark.parametrize("point", POINTS)
def test_a_source_leaves_at(market, point):
    """Whenever it leaves, the request ends well without it and the log breaks no rule."""
    market.to(point)
    blobs = blobs_of(market, "a") if "a" in market.orders() else ()
    market.providers["a"].withdraw()
    market.finish()
    market.check_log()
    assert (market.state(), market.step()) == (("running", ""), "score")
    orders, kinds = market.orders(), market.kinds()
    assert kinds.count("inputs.frozen") == 1 + (point in FROZEN_AGAIN)
    assert orders["b"].real == orders["b"].units > 0
    if point in UNPAID:
        assert (orders["a"].real, orders["a"].sealed_blob) == (0, None)
        if point in ("ordered", "sealed"):  # later everybody had delivered
            check_offered_again(market)
    elif point == "confirmed":
        assert orders["a"].real == orders["a"].units > 0  # a firm sale stays firm
    else:
        assert "a" not in orders
    for digest in blobs:
        assert not market.desk.blobs.path(digest).exists()
    assert bool(blobs) == (point in ("sealed", "delivered", "read", "confirmed"))
    readers = 2 if point in ("read", "confirmed") else 0
    assert kinds.count("deletion.confirmed") == (readers if point == "read" else 0)
    assert kinds.count("source.erased") == 1
    refused_from_now_on(market)


def check_offered_again(market):
    """What it did not deliver went to the other one, as far as that one has room within prices."""
    with market.desk.store.read() as tx:
        target, clearing, again = (
            kind.model_validate_json(tx.requests.document(market.request_id, name))
            for name, kind in (
                ("target", TargetView),
                ("clearing", ClearingView),
                ("offered_again", OrderList),
            )
        )
    due = offers.decide(target, clearing, [market.sources["a"]]).more
    told = [(order.source_id, order.quota, order.ladder) for order in again.orders]
    assert told == [(order.source_id, order.quota, order.ladder) for order in due]
    assert {source for source, *_ in told} <= {market.sources["b"]}


def refused_from_now_on(market):
    """Nothing more can be done with the source, by its owner or by anybody."""
    source, provider = market.sources["a"], market.providers["a"]
    with pytest.raises(RefusedError, match="withdrawn"):
        market.open()
    with pytest.raises(RefusedError, match="withdrawn"):
        provider.commitments  # noqa: B018
    with pytest.raises(RefusedError):
        provider.publish()
    with market.desk.store.read() as tx:
        assert views.source(tx.cohorts.source(source)).withdrawn
        assert source not in tx.cohorts.summaries([source])


def test_a_second_withdrawal_changes_nothing(market):
    market.to("delivered")
    first = market.providers["a"].withdraw()
    before = market.kinds()
    again = market.providers["a"].withdraw()
    assert again == first
    assert market.kinds() == before
    assert first.erased is None  # the answer is stored before the disk is clean
    with market.desk.store.read() as tx:
        assert tx.grants.withdrawal(first.source_id).erased is not None


def test_every_source_leaves(market):
    """A request without sources ends; its hospital gets everything back."""
    market.to("answered")
    for provider in market.providers.values():
        provider.withdraw()
    market.run()
    assert market.state() == (
        "failed",
        "no source is left that grants its records for this purpose",
    )
    with market.desk.store.read() as tx:
        assert tx.ledger.balance(f"escrow:{market.request_id}") == 0
        assert tx.ledger.balance(f"external:{market.hospital.id}") == 0
    market.check_log()


@pytest.mark.parametrize("point", ["opened", "answered", "revealed", "sealed", "read", "confirmed"])
def test_a_grant_is_withdrawn_at(market, point):
    """The source stays, and without a grant it delivers nothing more in this request."""
    market.to(point)
    (grant,) = market.providers["a"].consents.granted()
    market.providers["a"].consents.withdraw(grant.id)
    market.finish()
    market.check_log()
    orders = market.orders()
    if point in UNPAID:
        assert (orders["a"].real, orders["a"].sealed_blob) == (0, None)
    elif point == "confirmed":
        assert orders["a"].real > 0
    elif point in ("closed", "revealed"):  # its ask stands; its order goes to nobody
        assert orders["a"].real == 0
        assert "use.refused" in market.kinds()
    else:
        assert "a" not in orders
    with market.desk.store.read() as tx:
        assert market.sources["a"] in tx.cohorts.summaries([market.sources["a"]])
    assert market.providers["a"].commitments.root  # the rows can be granted anew
    again = market.providers["a"].consents.give(
        market.sources["a"], market.providers["a"].terms.grants[0], "again"
    )
    assert again.uses == []


def test_recipients_delete_and_say_so(market):
    """Also after the request has ended; the owner gets a receipt from the log."""
    market.to("confirmed")
    market.settle()
    market.providers["a"].withdraw()
    taken = market.orders()["a"].real
    for developer in market.developers.values():
        path = developer.training_path(market.request_id)
        (view,) = developer.transport.get("/agent/tasks", TaskList).tasks
        assert view.task.source_id == market.sources["a"]
        before = path.read_bytes()
        (event,) = market.answer(developer)
        assert event["event"] == "task", event
        assert len(before) > len(path.read_bytes())
        for file in developer.keystore.directory.rglob("*.parquet"):
            assert market.sources["a"].encode() not in file.read_bytes()
        assert developer.transport.get("/agent/tasks", TaskList).tasks == []
    said = [entry for entry in market.entries() if entry.type == "deletion.confirmed"]
    assert [entry.amounts["records"] for entry in said] == [taken, taken]
    assert {entry.actor for entry in said} == {d.org_id for d in market.developers.values()}
    market.check_log()


def test_models_that_were_trained_on_it_are_flagged(market):
    """Ada trained before it left; Bob asked after it left and trained without it."""
    market.to("confirmed")
    ada, bob = market.developers["ada"], market.developers["bob"]
    leave = ada.transport.post(f"/requests/{market.request_id}/training", Training(), TrainingView)
    assert set(leave.allowed) == set(market.sources.values())
    model = market.submit("ada")
    view = market.providers["a"].withdraw()
    assert (view.models, view.notices) == ([model.model_id], 2)
    path = bob.training_path(market.request_id)
    table = bob._allowed(market.request_id, path)
    assert table.n == market.orders()["b"].real
    assert market.sources["a"].encode() not in path.read_bytes()
    market.submit("bob")
    with market.desk.store.read() as tx:
        request = tx.requests.get(market.request_id)
        runs = views.runs(tx, request, ada.org_id, market.clock.now()).runs
    flagged = {run.model_name: run.flags for run in RunList(runs=runs).runs}
    assert flagged["bob"] == []
    assert len(flagged["ada"]) == 1
    assert market.sources["a"] in flagged["ada"][0]
    assert market.kinds().count("model.flagged") == 1
    market.check_log()


def test_who_did_not_ask_before_training_is_taken_to_have_used_it_all(market):
    market.to("confirmed")
    market.providers["a"].withdraw()
    model = market.submit("ada")
    flagged = [entry for entry in market.entries() if entry.type == "model.flagged"]
    assert [entry.objects["model"] for entry in flagged] == [model.model_id]
    used = [e.objects["source"] for e in market.entries() if e.type == "use.trained"]
    assert used == [market.sources["b"]]
    market.check_log()


def test_firm_prices_stay_and_indicative_ones_are_computed_again(market):
    market.to("confirmed")
    market.settle()
    transport = market.providers["b"].transport
    where = f"/requests/{market.request_id}/prices"
    before = transport.get_text(where)
    market.providers["a"].withdraw()
    erasure.sweep(market.desk)
    after = transport.get_text(where)
    old, new = (PriceList.model_validate_json(text).prices for text in (before, after))
    for was, now in zip(old, new, strict=True):
        assert was.status == "firm"
        assert was.model_copy(update={"flag": now.flag}) == now
    assert [price.flag for price in new] == ["its source was withdrawn since", ""]
    assert market.kinds().count("prices.revised") == 1
    erasure.sweep(market.desk)
    assert market.kinds().count("prices.revised") == 1
    market.check_log()


def test_an_indicative_price_rises_when_a_rival_has_left(build):
    """B asks too much and sells nothing; with A gone its indicative price says so again."""
    market = build()
    provider = market.providers["b"]
    provider.terms = replace(provider.terms, ask_micro=7_000_000)
    market.to("confirmed")
    market.settle()
    market.providers["a"].withdraw()
    transport = market.providers["b"].transport
    where = f"/requests/{market.request_id}/prices"
    before = PriceList.model_validate_json(transport.get_text(where)).prices
    erasure.sweep(market.desk)
    after = PriceList.model_validate_json(transport.get_text(where)).prices
    assert [price.status for price in before] == ["firm", "indicative"]
    assert after[0].model_copy(update={"flag": ""}) == before[0]
    assert after[1].flag.startswith("computed again")
    market.check_log()


def test_the_owners_notice_lists_every_use(market):
    market.to("confirmed")
    provider, ada = market.providers["a"], market.developers["ada"]
    ada.transport.post(f"/requests/{market.request_id}/training", Training(), TrainingView)
    (notice,) = provider.transport.get("/grants", GrantList).grants
    acts = sorted((use.act, use.recipient == ada.org_id) for use in notice.uses)
    both = [(act, who) for act in ("ordered", "read", "sealed") for who in (False, True)]
    assert acts == sorted([*both, ("trained", True)])
    assert {use.request_id for use in notice.uses} == {market.request_id}
    assert ada.transport.get("/grants", GrantList).grants == []  # it names a class, not her
    sent = provider.transport.get("/deliveries", DeliveryList).deliveries
    got = ada.transport.get("/deliveries", DeliveryList).deliveries
    assert [item.source_id for item in sent] == [market.sources["a"]]
    assert {item.source_id for item in got} == set(market.sources.values())
    assert all(item.read and item.trained and item.grant_id for item in got)
    provider.withdraw()
    got = ada.transport.get("/deliveries", DeliveryList).deliveries
    (gone,) = [item for item in got if item.source_id == market.sources["a"]]
    assert (gone.state, gone.grant_id) == ("withdrawn", None)
    assert "withdrawn by its owner" in gone.reason


def test_a_provider_seals_nothing_once_it_has_left_whatever_the_server_asks(market, monkeypatch):
    """The note on its own machine comes first: it holds even where the server never heard."""
    market.to("ordered")
    provider = market.providers["a"]

    def away(*_args, **_more):
        raise OSError("no line")

    tasks = provider.transport.get("/agent/tasks", TaskList).tasks
    with monkeypatch.context() as broken:
        broken.setattr(provider.transport, "post", away)
        with pytest.raises(OSError, match="no line"):
            provider.withdraw()
    with pytest.raises(NoGrantError, match="withdrawn by its owner"):
        provider.handle(tasks[0])
    assert provider.keystore.read("rows.seed") is not None  # wiped once the server knows
    provider.withdraw()
    assert provider.keystore.read("rows.seed") is None


def test_what_was_taken_back_before_it_was_opened_is_not_listed_as_waiting(market):
    market.to("delivered")
    transport = market.developers["ada"].transport
    (before,) = waiting_deliveries(transport)
    assert {ref.source_id for ref in before.there} == set(market.sources.values())
    assert before.withdrawn == ()
    market.providers["a"].withdraw()
    (after,) = waiting_deliveries(transport)
    assert [ref.source_id for ref in after.there] == [market.sources["b"]]
    assert [ref.source_id for ref in after.withdrawn] == [market.sources["a"]]
