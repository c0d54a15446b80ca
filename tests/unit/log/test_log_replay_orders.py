"""Deposits and orders in the log: a market that keeps the rules, and breaches named by entry."""

from dataclasses import replace

import pytest
from told_market import Market

from clearinghouse.canonical import digest
from clearinghouse.ids import new_id
from clearinghouse.log.replay import replay

DEPOSIT = 500


class Told(Market):
    """The told market with deposits, findings and settled orders."""

    def __init__(self):
        self.orders = {"a": new_id("ord"), "b": new_id("ord")}
        super().__init__()

    def commit(self, name):
        return replace(super().commit(name), amounts={"deposit_micro": DEPOSIT})

    def seal(self, name, **amounts):
        return super().seal(name, **{"claim_micro": 70, **amounts})

    def receive(self, name, blob=None, by=None, **amounts):
        entry = super().receive(name, blob, by)
        told = {"earned_micro": 65, "copied": 0, "forfeits": 0, "grounds": 0, **amounts}
        return replace(entry, amounts={**entry.amounts, **told})

    def _deliver(self):
        return [
            *super()._deliver(),
            *(self.settled(name) for name in self.orders),
            *(self.deposit(name) for name in self.orders),
        ]

    def objects(self, name):
        return {"request": self.request, "source": self.sources[name]}

    def order(self, name):
        return {
            **self.objects(name),
            "order": self.orders[name],
            "delivery": self.deliveries[name],
        }

    def settled(self, name, **amounts):
        told = {"units": 30, "real": 28, "claim_micro": 70, "bound_micro": 90, "earned_micro": 65}
        return self.operator.write(
            "order.settled", objects=self.order(name), amounts={**told, **amounts}
        )

    def offer(self):
        return self.operator.write(
            "order.offered",
            objects={"request": self.request},
            hashes={"orders": digest(b"o"), "clearing": digest(b"c")},
            amounts={"units": 3, "orders": 1},
        )

    def reprice(self, name, raised, **objects):
        return self.operator.write(
            "order.repriced",
            objects={**self.order(name), **objects},
            amounts={"payment_micro": 95, "raised_micro": raised},
        )

    def freeze(self, name):
        return self.operator.write(
            "order.frozen", objects=self.order(name), hashes={"findings": digest(b"f")}
        )

    def deposit(self, name, returned=DEPOSIT, lost=0, **grounds):
        amounts = {"returned_micro": returned, "forfeited_micro": lost, **grounds}
        return self.operator.write("deposit.settled", objects=self.objects(name), amounts=amounts)

    def put(self, kind, entry, number=0):
        place = self.at(kind, number)
        self.entries[place] = entry
        return place


def problems(market):
    return [(item.index, item.problem) for item in replay(market.entries).violations]


def test_a_market_with_deposits_is_by_the_rules():
    market = Told()
    assert problems(market) == []
    for size in range(len(market.entries)):
        assert replay(market.entries[:size]).violations == ()


@pytest.mark.parametrize(
    ("amounts", "words"),
    [
        ({"earned_micro": 66}, "earns 66 micro-units where 65 are shown"),
        ({"bound_micro": 60}, "earns 65 micro-units where 60 are shown"),
        ({"claim_micro": 60}, "settles another order"),
        ({"real": 29}, "pays for 29 records and 28 were proven"),
        ({"refused": 1}, "counts as refused a delivery that somebody accepts"),
        ({"copied": 1}, "counts as copied"),
    ],
)
def test_orders_earn_what_the_log_shows(amounts, words):
    market = Told()
    place = market.put("order.settled", market.settled("a", **amounts))
    assert any(index == place and words in problem for index, problem in problems(market))


def test_a_refused_delivery_earns_nothing_and_loses_its_deposit():
    market = Told()
    market.put("delivery.received", market.receive("a", accepted=0, earned_micro=0))
    place = market.at("order.settled")
    assert (place, "pays for a delivery that everybody who looked refused") in problems(market)
    market.put("order.settled", market.settled("a", real=0, earned_micro=0, refused=1))
    (found,) = problems(market)
    assert "its order is refused" in found[1]
    market.put("deposit.settled", market.deposit("a", 0, DEPOSIT, refused=1))
    assert problems(market) == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ((0, DEPOSIT), "exactly for a ground"),
        ((DEPOSIT - 1, 0), "ends a deposit of 500 as 499 returned and 0 lost"),
        ((DEPOSIT, 0, "short"), "exactly for a ground"),
        ((0, DEPOSIT, "short"), "which the log does not show"),
        ((0, DEPOSIT, "unopened"), "which the log does not show"),
        ((0, DEPOSIT, "undelivered"), "which the log does not show"),
    ],
)
def test_deposits_end_once_whole_and_for_a_reason(fields, words):
    market = Told()
    returned, lost, *ground = fields
    entry = market.deposit("a", returned, lost, **dict.fromkeys(ground, 1))
    place = market.put("deposit.settled", entry)
    assert any(index == place and words in problem for index, problem in problems(market))


def test_no_deposit_is_forgotten_doubled_or_made_up():
    market = Told()
    market.entries.pop(market.at("deposit.settled"))
    (found,) = problems(market)
    assert found[0] == market.at("request.closed")
    assert "deposits still held" in found[1]
    market = Told()
    market.entries.insert(market.at("award.decided"), market.deposit("a"))
    assert any("no deposit that is still held" in text for _, text in problems(market))


def test_a_frozen_order_keeps_its_deposit_and_needs_a_ground():
    market = Told()
    market.entries.pop(market.at("deposit.settled"))
    place = market.at("order.settled") + 1
    market.entries.insert(place, market.freeze("a"))
    (found,) = problems(market)
    assert found == (place, f"freezes {market.orders['a']} though a recipient found nothing "
                     "against it")  # fmt: skip
    market.put("delivery.received", market.receive("a", grounds=1))
    assert problems(market) == []


def test_undelivered_units_are_offered_once_and_before_anything_is_received():
    market = Told()
    offer = market.offer()
    place = market.at("delivery.sealed")
    market.entries.insert(place, offer)
    assert problems(market) == []
    market.entries.insert(place + 1, offer)
    assert problems(market) == [(place + 1, f"offered again before, at entry {place}")]
    market = Told()
    market.entries.insert(market.at("order.settled"), market.offer())
    assert any("after deliveries were received" in text for _, text in problems(market))


def test_kept_orders_are_repriced_once_and_their_claims_rise_with_them():
    market = Told()
    place = market.at("delivery.received")
    market.entries[place:place] = [market.offer(), market.reprice("a", 5)]
    assert [text for _, text in problems(market)] == ["settles another order than was sealed"]
    market.put("order.settled", market.settled("a", claim_micro=75))
    assert problems(market) == []
    market.entries.insert(place + 2, market.reprice("a", 5))
    assert (place + 2, f"{market.orders['a']} was repriced before") in problems(market)


def test_no_order_is_repriced_without_a_failure_or_after_it_was_received():
    market = Told()
    place = market.at("delivery.received")
    market.entries.insert(place, market.reprice("a", 0))
    assert problems(market) == [(place, "repriced though nothing was offered again")]
    market = Told()
    place = market.at("delivery.received")
    market.entries.insert(place, market.offer())
    late = market.at("order.settled")
    market.entries.insert(late, market.reprice("a", 0))
    assert problems(market) == [(late, "repriced after deliveries were received")]
    market = Told()
    market.entries[place:place] = [market.offer(), market.reprice("a", 0, delivery=new_id("dlv"))]
    assert any("was never sealed" in text for _, text in problems(market))
