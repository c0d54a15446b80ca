"""Consent in the log: a use without a grant that covers it then is named, whatever is wrong."""

from dataclasses import replace

import pytest
from planting import after, before, by, changed, instead, without
from told_market import ASKS, Author

from clearinghouse.canonical import digest
from clearinghouse.ids import new_id
from clearinghouse.log.replay import replay, verify_replay

COLUMNS, RESEARCH = digest(["age"]), digest("train models for research")


def named(market, place):
    """The problems of the one entry that breaks a rule."""
    found = replay(market.entries).violations
    assert {item.index for item in found} == {place}, found
    return "; ".join(item.problem for item in found)


WRONG_USES = {
    "a grant that was never given": ({"grant": new_id("grt")}, "a use without a grant"),
    "other columns": ({"attributes": COLUMNS}, "for other columns"),
    "a purpose that is not on the list": ({"purpose": digest("sell on")}, "for another purpose"),
}


@pytest.mark.parametrize("act", ["ordered", "sealed", "read", "trained"])
@pytest.mark.parametrize("wrong", sorted(WRONG_USES))
def test_a_use_that_its_grant_does_not_cover(market, act, wrong):
    changes, words = WRONG_USES[wrong]
    place = instead(f"use.{act}", lambda m: m.use(act, "a", **changes))(market)
    assert words in named(market, place)


def onward(market, **changes):
    """The log goes on: the developer passes records on under a grant for that; someone reads."""
    other = Author()
    given = market.grant("a", recipient=other)
    lets = changes.pop("sender", market.developer.org)
    objects = {**given.objects, "grant": new_id("grt"), "sender": lets}
    given = replace(given, objects=objects)
    grant = objects["grant"]
    passed = market.use("passed", "a", grant=grant, recipient=other.org)
    read = replace(
        market.use("read", "a", grant=changes.get("read_under", grant), recipient=other.org),
        actor=other.org,
        key=other.register().key,
    )
    return [given, passed, read]


def test_records_that_are_passed_on_under_a_grant_for_that_break_no_rule(market):
    market.entries.extend(onward(market))
    assert verify_replay(market.entries).violations == ()


def test_records_passed_on_or_read_without_such_a_grant_are_named(market):
    size = len(market.entries)
    owner = market.sellers["a"].org
    for changes, place, words in (
        ({"sender": owner}, size + 1, f"lets {owner} send, not {market.developer.org}"),
        ({"read_under": market.grants["a"]}, size + 2, "lets "),
    ):
        market.entries[size:] = onward(market, **changes)
        found = {item.index: item.problem for item in replay(market.entries).violations}
        assert words in found[place], found
    entries = onward(market)
    market.entries[size:] = [entries[0], entries[2]]  # read, and nobody passed it on
    problems = " ".join(item.problem for item in replay(market.entries).violations)
    assert "was not 'use.sealed' before" in problems
    thief = replace(entries[1], actor=market.hospital.org)
    market.entries[size:] = [entries[0], thief]
    problems = " ".join(item.problem for item in replay(market.entries).violations)
    assert "passes on records of" in problems


WRONG_GRANTS = {
    "of another recipient": (
        lambda m: m.grant("a", recipient=Author()),
        "not " + "org_",
    ),
    "of another sender": (
        lambda m: replace(m.grant("a"), objects={**m.grant("a").objects, "sender": new_id("org")}),
        "not the source's owner",
    ),
    "over fewer columns": (lambda m: m.grant("a", attributes=COLUMNS), "for other columns"),
    "for a narrower purpose": (lambda m: m.grant("a", purpose=RESEARCH), "another purpose"),
}


@pytest.mark.parametrize("wrong", sorted(WRONG_GRANTS))
def test_every_use_under_a_grant_that_covers_less_is_named(market, wrong):
    make, words = WRONG_GRANTS[wrong]
    instead("grant.given", make)(market)
    found = replay(market.entries).violations
    uses = [
        index
        for index, entry in enumerate(market.entries)
        if entry.type.startswith("use.") and entry.objects["source"] == market.sources["a"]
    ]
    assert [item.index for item in found] == uses
    assert len(uses) == 4
    assert all(words in item.problem for item in found)


def test_a_narrower_purpose_than_granted_is_covered(market):
    for act in ("ordered", "sealed", "read", "trained"):
        instead(f"use.{act}", lambda m, act=act: m.use(act, "a", purpose=RESEARCH))(market)
    verify_replay(market.entries)


def test_an_expired_grant_covers_nothing(market):
    for index in range(market.at("use.read"), len(market.entries)):
        market.entries[index] = replace(market.entries[index], time="2030-03-17T18:03:20Z")
    kinds = {item.type for item in replay(market.entries).violations}
    assert {kind for kind in kinds if kind.startswith("use.")} == {"use.read", "use.trained"}
    instead("grant.given", lambda m: m.grant("a", expires=5))(market)
    first = replay(market.entries).violations[0]
    assert "expired before it was given" in first.problem


@pytest.mark.parametrize("act", ["ordered", "sealed", "read", "trained"])
@pytest.mark.parametrize("how", ["ungrant", "leave"])
def test_nothing_is_used_after_a_withdrawal(market, act, how):
    """Wherever in a market's life it comes: every later use of that source is named."""
    place = before(f"use.{act}", lambda m: getattr(m, how)("a"))(market)
    found = [item for item in replay(market.entries).violations if item.type == f"use.{act}"]
    assert [item.index for item in found] == [place + 1]
    assert "withdrawn" in found[0].problem


PLANTED = {
    "delivery sealed for nobody": (without("use.sealed", blamed="delivery.sealed"), "nobody"),
    "read before it was sealed": (without("use.sealed", blamed="use.read"), "'use.sealed' before"),
    "grant of another's source": (
        instead("grant.given", lambda m: by(m.sellers["b"], m.grant("a"))),
        "not by the owner",
    ),
    "grant given twice": (after("grant.given", lambda m: m.grant("a")), "given before"),
    "grant withdrawn twice": (
        lambda m: (
            after("request.closed", lambda m: m.ungrant("a"))(m)
            and after("grant.withdrawn", lambda m: m.ungrant("a"))(m)
        ),
        "withdrawn before",
    ),
    "source withdrawn twice": (
        lambda m: (
            after("request.closed", lambda m: m.leave("a"))(m)
            and after("source.withdrawn", lambda m: m.leave("a"))(m)
        ),
        "was withdrawn at entry",
    ),
    "erased and never withdrawn": (
        after("request.closed", lambda m: m.erase("a")),
        "never withdrawn",
    ),
    "records confirmed that were never read": (
        without("use.read", "use.trained", blamed="delivery.received"),
        "never read under a grant",
    ),
    "a sealed use written by somebody else": (
        instead("use.sealed", lambda m: by(m.sellers["b"], m.use("sealed", "a"))),
        "not the one that does this",
    ),
    "an order placed by a seller": (
        instead("use.ordered", lambda m: by(m.sellers["a"], m.use("ordered", "a"))),
        "not the operator",
    ),
    "a grant for a purpose that is not on the list": (
        changed("grant.given", hashes={"purpose": digest("anything")}),
        "not on the list",
    ),
    "a use after the request was closed": (
        after("request.closed", lambda m: m.use("ordered", "a")),
        "was closed at entry",
    ),
}


@pytest.mark.parametrize("name", sorted(PLANTED))
def test_planted_breaches_of_consent_are_named(market, name):
    plant, words = PLANTED[name]
    place = plant(market)
    found = replay(market.entries).violations
    assert any(item.index == place and words in item.problem for item in found), found


def test_inputs_are_frozen_again_only_if_somebody_left(market):
    place = after("inputs.frozen", lambda m: m.frozen())(market)
    assert "nobody left since" in named(market, place)
    market.entries.insert(place, market.leave("b"))
    kept = [
        entry
        for entry in market.entries
        if entry.objects.get("source") != market.sources["b"]
        or entry.type in ("source.registered", "summary.released", "grant.given")
        or entry.type == "source.withdrawn"
    ]
    kept = [e for e in kept if e.objects.get("delivery") != market.deliveries["b"]]
    verify_replay(kept)


def test_a_withdrawal_after_the_end_with_all_that_follows_it(market):
    """Recipients delete, models are flagged, prices are computed again, the body is erased."""
    request = {"request": market.request}
    source = {**request, "source": market.sources["a"]}
    market.entries += [
        market.leave("a"),
        market.erase("a"),
        market.operator.write("model.flagged", objects={**source, "model": market.model}),
        market.developer.write("deletion.confirmed", objects=source, amounts={"records": 28}),
        market.operator.write("prices.revised", objects=request, hashes={"prices": digest(b"p")}),
        market.operator.write("request.erased", objects=request, amounts={"blobs": 3}),
    ]
    verify_replay(market.entries)
    assert len(ASKS) == 2
