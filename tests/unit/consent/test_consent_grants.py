"""Deny by default: every field of a grant, at every point of use, refused with a reason."""

import json

import pytest

from clearinghouse.client.consents import GrantTerms
from clearinghouse.consent import PURPOSES, Grant, Use, find, is_within, mismatches
from clearinghouse.errors import InputError, NoGrantError, NotFoundError, RefusedError
from clearinghouse.ids import new_id
from clearinghouse.messages.consent import GiveGrant, GrantList, GrantView, Training, TrainingView
from clearinghouse.messages.tasks import DeliverTask, TaskList
from clearinghouse.rounds import grants

WRONG = {
    "sender": (lambda _m: {"sender": "org"}, "lets org_"),
    "recipient": (lambda _m: {"recipient": new_id("org")}, "it names org_"),
    "subject": (lambda m: {"source_id": m.sources["b"]}, "no grant of src_"),
    "attributes": (lambda _m: {"attributes": json.dumps(["sex", "sick"])}, "leaves out weight"),
    "purpose": (lambda _m: {"purpose": PURPOSES[1]}, "is for 'train models for care', not"),
    "expiry": (lambda m: {"expires": int(m.clock.now())}, "has expired"),
    "withdrawn": (lambda m: {"withdrawn": int(m.clock.now())}, "was withdrawn"),
    "none at all": (lambda _m: None, "no grant of src_"),
}


def moved_away(market):
    return {"source_id": market.sources["b"]}


def spoiled(tx, market, change):
    """Change the grant of source a in the database, as no call can."""
    (grant,) = market.providers["a"].consents.granted()
    row = tx.grants._row(grant.id)
    for name, value in (moved_away(market) if change is None else change).items():
        stored = market.developers["ada"].org_id if value == "org" else value
        setattr(row, name, stored)
    tx.grants._session.flush()
    return row


class UndoError(Exception):
    """Ends a transaction without a trace."""


def refusal(market, change, act):
    """What a use says, in a transaction that is undone."""
    found = []
    try:
        with market.desk.store.write() as tx:
            request = tx.requests.get(market.request_id)
            order = next(o for o in tx.orders.of(request.id) if o.source_id == market.sources["a"])
            spoiled(tx, market, change)
            before = tx.log.size()
            if act == "ordered":
                assert grants.recipients(tx, market.desk, request, order) == []
            else:
                assert grants.seal(tx, market.desk, request, order, market.blob) == []
            found += [u.reason for u in tx.grants.uses(order_id=order.id) if not u.allowed]
            entries = tx.log.entries(before, 100)
            assert len(entries) == len(found) == 2  # both developers, both logged
            assert all(b'"use.refused"' in entry for entry in entries)
            raise UndoError
    except UndoError:
        return found


@pytest.mark.parametrize(("point", "act"), [("ordered", "ordered"), ("ordered", "sealed")])
def test_what_a_grant_does_not_cover_is_neither_ordered_nor_sealed(market, point, act):
    market.to(point)
    for name, (change, words) in WRONG.items():
        reasons = refusal(market, change(market), act)
        assert all(words in reason for reason in reasons), (name, reasons)
    with pytest.raises(AssertionError):  # the matrix can fail: the grant as it is covers it
        refusal(market, {"purpose": "train models"}, act)


def test_what_a_grant_does_not_cover_is_neither_read_nor_trained_on(market):
    market.to("delivered")
    ada = market.developers["ada"]
    blob = market.orders()["a"].sealed_blob
    path = f"/requests/{market.request_id}/training"

    def restored(change, attempt):
        with market.desk.store.write() as tx:
            row = spoiled(tx, market, {})
            whole = {k: getattr(row, k) for k in type(row).model_fields}
        with market.desk.store.write() as tx:
            spoiled(tx, market, change)
        try:
            return attempt()
        finally:
            with market.desk.store.write() as tx:
                spoiled(tx, market, {**whole, "source_id": market.sources["a"]})

    for name, (change, words) in WRONG.items():
        with pytest.raises(NoGrantError, match="no grant of src_") as error:
            restored(change(market), lambda: ada.transport.get_blob(blob))
        assert words in str(error.value), name
    market.answer(ada, kinds=("receive",))
    for name, (change, words) in WRONG.items():
        view = restored(change(market), lambda: ada.transport.post(path, Training(), TrainingView))
        assert view.allowed == [market.sources["b"]], name
        assert words in view.refused[market.sources["a"]], name
    assert set(ada.transport.post(path, Training(), TrainingView).allowed) == set(
        market.sources.values()
    )
    market.check_log()
    notice = market.providers["a"].transport.get("/grants", GrantList)
    assert {use.act for use in notice.refused} == {"read", "trained"}


BASE = Grant("grt_1", "src_1", "org_s", "developers", ("a", "b"), "train models", 100)
USE = Use("src_1", "org_s", "org_r", ("a",), "train models", 50)


def test_pure_rules():
    assert mismatches(BASE, USE) == ()
    assert find([BASE], USE) is BASE
    with pytest.raises(NoGrantError, match="no grant of src_1 exists"):
        find([], USE)
    assert is_within("train models for care", "train models")
    assert not is_within("train models", "train models for care")
    assert not is_within("train models for fun", "train models")
    assert not is_within("sell", "sell")


def test_onward_transfer_needs_a_grant_of_its_own():
    """Who may have records may not pass them on; a grant that lets it send does."""
    onward = Use("src_1", "org_r", "org_other", ("a",), "train models", 50)
    with pytest.raises(NoGrantError, match="lets org_s send, not org_r"):
        find([BASE], onward)
    own = Grant("grt_2", "src_1", "org_r", "org_other", ("a",), "train models", 100)
    assert find([BASE, own], onward) is own
    with pytest.raises(NoGrantError):
        find([own], USE)


def test_a_sealed_body_is_not_read_by_who_it_was_not_sealed_to(build):
    """Ada is granted, Bob is not: he gets no task, no bytes and no leave; she cannot pass it on."""
    market = build(grants=())
    ada, bob = market.developers["ada"], market.developers["bob"]
    for name, provider in market.providers.items():
        provider.consents.give(market.sources[name], GrantTerms(ada.org_id), f"for-{name}")
    market.to("delivered")
    assert [v.task.kind for v in ada.transport.get("/agent/tasks", TaskList).tasks] == ["receive"]
    assert bob.transport.get("/agent/tasks", TaskList).tasks == []
    blob = market.orders()["a"].sealed_blob
    with pytest.raises(NotFoundError):
        bob.transport.get_blob(blob)
    sealed = ada.transport.get_blob(blob)
    assert bob.transport.put_blob(sealed, "stolen") == blob  # bytes that somebody handed him
    view = bob.transport.post(f"/requests/{market.request_id}/training", Training(), TrainingView)
    assert (view.allowed, view.refused) == ([], {})
    refused = market.providers["a"].transport.get("/grants", GrantList).refused
    assert {(use.act, use.recipient) for use in refused} == {("ordered", bob.org_id)}
    assert all(f"it names {ada.org_id}" in use.reason for use in refused)
    named = ada.transport.get("/grants", GrantList).grants
    assert {grant.recipient for grant in named} == {ada.org_id}
    market.check_log()


def test_without_a_grant_a_source_takes_part_in_nothing(build):
    market = build(grants=())
    market.to("matched")
    market.run()
    assert market.state()[0] == "failed"
    assert "grants its records for this purpose" in market.state()[1]


def test_a_narrower_grant_serves_narrower_requests_only(build):
    market = build(grants=(GrantTerms(purpose="train models for care"),))
    market.open(purpose="train models for care")
    market.match()
    market.finish()
    assert all(order.real > 0 for order in market.orders().values())
    tasks = [use for use in market.kinds() if use == "use.read"]
    assert len(tasks) == 4
    market.check_log()
    market.open(purpose="train models for research")
    market.match()
    market.run()
    assert market.state()[0] == "failed"


def test_one_of_two_recipients_is_lost_before_the_order_is_sealed(build):
    """The order goes to the other one."""
    market = build(grants=())
    ada, bob = market.developers["ada"], market.developers["bob"]
    for name, provider in market.providers.items():
        for developer in (ada, bob):
            key = f"{name}-{developer.name}"
            provider.consents.give(market.sources[name], GrantTerms(developer.org_id), key)
    market.to("ordered")
    provider = market.providers["a"]
    lost = next(g for g in provider.consents.granted() if g.recipient == bob.org_id)
    provider.consents.withdraw(lost.id)
    (view,) = provider.transport.get("/agent/tasks", TaskList).tasks
    assert isinstance(view.task, DeliverTask)
    assert [item.org_id for item in view.task.recipients] == [ada.org_id]
    market.finish()
    assert market.orders()["a"].real > 0
    market.check_log()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"attributes": ["sex", "age"]}, InputError, "columns of the schema"),
        ({"attributes": ["sex", "sex"]}, InputError, "each once"),
        ({"expires": 1}, InputError, "in the future"),
        ({"expires": 2**39}, InputError, "ten years"),
        ({"recipient": "org_" + "0" * 20}, NotFoundError, "no organisation"),
        ({"sender": "org_" + "0" * 20}, NotFoundError, "no organisation"),
        ({"source_id": "src_" + "0" * 20}, NotFoundError, "no source"),
        ({"recipient": "the hospital"}, InputError, "no developer"),
        ({"recipient": "everybody"}, InputError, "recipient"),
        ({"purpose": "sell on"}, InputError, "purpose"),
    ],
)
def test_grants_that_make_no_sense_are_refused(market, change, error, words):
    provider = market.providers["a"]
    message = {
        "source_id": market.sources["a"],
        "recipient": "developers",
        "attributes": ["sex"],
        "purpose": "train models",
        "expires": int(market.clock.now()) + 10,
        **{k: market.hospital.id if v == "the hospital" else v for k, v in change.items()},
    }
    before = market.kinds()
    with pytest.raises(error, match=words):
        provider.transport.post("/grants", GiveGrant.model_construct(**message), GrantView)
    assert market.kinds() == before


def test_a_withdrawn_source_is_granted_no_more(market):
    provider = market.providers["a"]
    provider.withdraw()
    with pytest.raises(RefusedError, match="withdrawn"):
        provider.consents.give(market.sources["a"], GrantTerms(), "late")
