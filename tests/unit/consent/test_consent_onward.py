"""Onward transfer: refused by default, real under a grant for it, taken back with the rest."""

import dataclasses

import pytest

from clearinghouse.cli.onward import passed as list_passed
from clearinghouse.client import onward
from clearinghouse.client.consents import GrantTerms
from clearinghouse.client.developer import Developer
from clearinghouse.client.recipes import recipe_source
from clearinghouse.errors import InputError, NoGrantError, NotFoundError
from clearinghouse.messages.consent import GrantList, OnwardList, OnwardTransfer, OnwardView
from clearinghouse.messages.tasks import TaskList


@dataclasses.dataclass
class Home:
    """What the commands need of a session."""

    keystore: object
    transport: object
    name: str

    def org_id(self):
        return self.name


@pytest.fixture
def eve(market):
    """A developer outside the request."""
    made = Developer("eve", *market.connect("eve"), market_schema(), recipe_source("logistic", 7))
    made.register()
    market.to("read")
    return made


def market_schema():
    from consenting_tables import SCHEMA

    return SCHEMA


def send(market, sender, recipient, purpose="train models"):
    return onward.pass_on(
        sender.keystore,
        sender.transport,
        request_id=market.request_id,
        order_id=market.orders()["a"].id,
        recipient=recipient,
        purpose=purpose,
    )


def straight(market, sender, recipient):
    """What a client would send that does not check anything first."""
    blob = sender.transport.put_blob(b"records, sealed", "onward")
    message = OnwardTransfer(
        order_id=market.orders()["a"].id,
        recipient=recipient,
        purpose="train models",
        sealed_blob=blob,
    )
    sender.transport.post(f"/requests/{market.request_id}/onward", message, OnwardView)


def grant(market, sender, recipient, **terms):
    provider = market.providers["a"]
    made = GrantTerms(recipient, sender=sender, **terms)
    return provider.consents.give(market.sources["a"], made, f"onward-{len(market.kinds())}")


def test_nothing_is_passed_on_by_default_and_the_refusal_is_in_the_log(market, eve):
    ada = market.developers["ada"]
    with pytest.raises(NoGrantError, match="lets this home pass its records on"):
        send(market, ada, eve.org_id)
    assert "use.refused" not in market.kinds()  # the client asked nobody
    with pytest.raises(NoGrantError, match=f"send, not {ada.org_id}"):
        straight(market, ada, eve.org_id)
    assert market.kinds().count("use.refused") == 1
    notice = market.providers["a"].transport.get("/grants", GrantList)
    assert [(use.act, use.recipient) for use in notice.refused] == [("passed", eve.org_id)]
    assert eve.transport.get("/onward", OnwardList).received == []
    market.check_log()


def test_a_grant_for_it_lets_records_through_once_logged_and_read_by_nobody_else(
    market, eve, tmp_path
):
    ada, bob = market.developers["ada"], market.developers["bob"]
    given = grant(market, ada.org_id, eve.org_id)
    with pytest.raises(NoGrantError, match="lets this home pass"):
        send(market, bob, eve.org_id)  # bob has read them too, but may not send
    view = send(market, ada, eve.org_id)
    assert (view.grant_id, view.sender) == (given.id, ada.org_id)
    (came,) = eve.transport.get("/onward", OnwardList).received
    assert came == view
    assert ada.transport.get("/onward", OnwardList).sent == [view]
    with pytest.raises(NotFoundError):
        bob.transport.get_blob(view.sealed_blob)
    told, words = list_passed(Home(eve.keystore, eve.transport, eve.org_id), tmp_path / "got")
    real = market.orders()["a"].real
    assert told["files"][0]["records"] == real > 0
    lines = (tmp_path / "got" / f"{view.order_id}.csv").read_text().splitlines()
    assert len(lines) == real + 1
    assert view.source_id in words
    assert market.kinds()[-2:] == ["use.passed", "use.read"]
    notice = market.providers["a"].transport.get("/grants", GrantList)
    (seen,) = [item for item in notice.grants if item.id == given.id]
    assert {(use.act, use.recipient) for use in seen.uses} == {
        ("passed", eve.org_id),
        ("read", eve.org_id),
    }
    market.check_log()


def test_who_may_have_records_is_checked_in_every_field(market, eve):
    ada, bob = market.developers["ada"], market.developers["bob"]
    grant(market, ada.org_id, eve.org_id, purpose="train models for care")
    with pytest.raises(NoGrantError, match="is for 'train models for care'"):
        send(market, ada, eve.org_id)
    with pytest.raises(InputError, match="is a developer of"):
        straight(market, ada, bob.org_id)
    with pytest.raises(InputError, match="is no other developer"):
        straight(market, ada, market.hospital.id)
    with pytest.raises(InputError, match="is no other developer"):
        straight(market, ada, ada.org_id)
    with pytest.raises(NotFoundError):
        straight(market, eve, ada.org_id)  # no party of the request, and it has read nothing
    with pytest.raises(NotFoundError, match="was opened in this home"):
        send(market, eve, ada.org_id)
    market.check_log()


def test_withdrawal_reaches_records_that_were_passed_on(market, eve):
    ada = market.developers["ada"]
    grant(market, ada.org_id, eve.org_id)
    view = send(market, ada, eve.org_id)
    onward.open_passed(eve.keystore, eve.transport, view)
    market.providers["a"].withdraw()
    with pytest.raises((NoGrantError, NotFoundError)):
        eve.transport.get_blob(view.sealed_blob)
    kinds = [item.task.kind for item in eve.transport.get("/agent/tasks", TaskList).tasks]
    assert kinds == ["delete"]
    with pytest.raises(NoGrantError):
        straight(market, ada, eve.org_id)
    market.check_log()


def test_an_onward_grant_that_ends_takes_back_from_its_recipient_alone(market, eve):
    ada = market.developers["ada"]
    given = grant(market, ada.org_id, eve.org_id)
    view = send(market, ada, eve.org_id)
    market.providers["a"].consents.withdraw(given.id)
    with pytest.raises((NoGrantError, NotFoundError)):
        eve.transport.get_blob(view.sealed_blob)
    sealed = market.orders()["a"].sealed_blob
    assert ada.transport.get_blob(sealed)
    market.check_log()
