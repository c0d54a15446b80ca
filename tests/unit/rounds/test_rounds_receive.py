"""What an order earns by recipients' findings, what becomes of deposits, what is shown."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearinghouse.messages.deliveries import Copies, DeliveryCheck
from clearinghouse.messages.results import TargetView
from clearinghouse.rounds import decision, deposits, offers
from clearinghouse.rounds.deposits import GROUNDS, Conduct
from clearinghouse.rounds.receive import Kept, decide
from clearinghouse.store.records import Order
from valuation.ladders import bound, earned

MICRO = 1_000_000
LADDER = ((0, 5, 2), (0, 3, 4), (1, 9, 3))
ORDER = Order("o", "r", "s", (6, 3), 9, 49, "d", "blob", 9, LADDER)


def check(**fields):
    return DeliveryCheck(
        delivery_id="dlv_" + "0" * 20,
        **{"real": 9, "accepted": True, "problems": [], "earned_micro": 49, **fields},
    )


COPIED = {
    "forfeits": True,
    "copies": [Copies(source_id="src_" + "0" * 20, rows=9, evidence="0" * 64)],
    "earned_micro": 0,
}
REFUSED = {"real": 0, "accepted": False, "earned_micro": 0}
STRANGE = {"grounds": ["label_disagreement"]}


def decided(*checks, proven=9, claim=49, allowed=0):
    return decide(ORDER, proven, claim, {str(i): c for i, c in enumerate(checks)}, allowed)


def test_an_order_earns_what_is_claimed_confirmed_and_possible():
    assert decided(check()) == Kept(9, 49)
    assert decided() == Kept(9, 49)  # nobody looked: the claim stands within its bound
    assert decided(claim=10**9).earned_micro == 49
    assert decided(check(), claim=7).earned_micro == 7
    assert decided(check(earned_micro=12)).earned_micro == 12
    few = decided(check(real=3, earned_micro=10**9), claim=10**9, allowed=6)
    assert few == Kept(3, bound(LADDER, 3))
    assert decided(check(), proven=3, claim=10**9, allowed=6).earned_micro == 27


def test_one_recipient_that_lies_changes_nothing_that_another_confirms():
    honest = check()
    for lie in (check(**REFUSED), check(**COPIED), check(**STRANGE), check(earned_micro=0)):
        for pair in ((honest, lie), (lie, honest)):
            assert decided(*pair) == Kept(9, 49)


def test_what_all_find_counts():
    assert decided(check(**REFUSED), check(**REFUSED)) == Kept(0, 0, "refused")
    assert decided(check(**COPIED), check(**COPIED)) == Kept(9, 0, "copied")
    assert decided(check(**COPIED), check(**REFUSED)) == Kept(9, 0, "copied")
    frozen = decided(check(**STRANGE), check(grounds=["inside_repeats"]))
    assert (frozen.earned_micro, frozen.ground) == (49, "")
    assert frozen.disputed == "stands out by inside_repeats, label_disagreement"


def test_a_shortfall_beyond_noise_loses_the_deposit_and_not_the_pay():
    found = [decided(check(real=7, earned_micro=40), claim=40, allowed=a) for a in (1, 2)]
    assert found == [Kept(7, 40, "short"), Kept(7, 40)]


@given(st.integers(0, 6), st.integers(0, 3), st.integers(0, 100), st.integers(0, 100))
def test_nobody_gains_by_a_false_claim(first, second, claim, confirmed):
    """Never more than the true amount where a recipient tells it."""
    truth = earned(LADDER, {0: first, 1: second})
    found = decided(check(real=first + second, earned_micro=truth), claim=claim, allowed=9)
    assert found.earned_micro == min(claim, truth)
    most = bound(LADDER, first + second)
    told = decided(check(real=first + second, earned_micro=confirmed), claim=claim, allowed=9)
    assert told.earned_micro <= min(most, claim)


# ---------------------------------------------------------------- deposits


def test_a_deposit_is_lost_for_a_ground_and_otherwise_goes_back():
    assert deposits.decide(Conduct(True, False, (), False)) == ("return", "")
    assert deposits.decide(Conduct(False, False, (), False)) == ("lose", "unopened")
    assert deposits.decide(Conduct(False, True, ("",), False)) == ("return", "")
    assert deposits.decide(Conduct(False, True, (), False)) == ("return", "")
    assert deposits.decide(Conduct(False, True, ("", ""), True)) == ("keep", "")
    for ground in GROUNDS[1:]:
        for disputed in (False, True):
            conduct = Conduct(False, True, ("", ground), disputed)
            assert deposits.decide(conduct) == ("lose", ground)


# ---------------------------------------------------------------- tags


def market(seed, sources=6, places=5):
    rng = np.random.default_rng(seed)
    names = [f"src_{letter * 20}" for letter in "abcdef"[:sources]]
    supplies = rng.integers(0, 8, (sources, places))
    distances = rng.integers(0, 3 * MICRO, (places, places))
    np.fill_diagonal(distances, rng.integers(0, 1000, places))
    target = TargetView.model_construct(
        wanted=rng.integers(0, 10, places).tolist(),
        distances_micro=distances.tolist(),
        capped=dict(zip(names, supplies.tolist(), strict=True)),
        supplies=dict(zip(names, supplies.tolist(), strict=True)),
        barred=[],
        deposits_micro={},
        frozen_digest="f" * 64,
    )
    asks = [int(ask) if rng.random() < 0.9 else None for ask in rng.integers(0, 4 * MICRO, sources)]
    view = decision.decide(decision.Market(target, 4 * MICRO, tuple(names), tuple(asks), ("c",)))
    return target, view


@pytest.mark.parametrize("seed", range(20))
def test_tags_are_shown_of_rows_that_a_copy_could_have_sold_instead(seed):
    target, view = market(seed)
    shown = offers.shown_counts(target, view)
    opened = [order for order in view.orders if order.ask_micro is not None]
    most = np.max([order.quota for order in opened], axis=0)
    for order, place in itertools.product(opened, range(len(most))):
        supply = target.supplies[order.source_id][place]
        wanted = max(0, min(int(most[place]), supply) - order.quota[place])
        assert shown.get(order.source_id, [0] * len(most))[place] == wanted
    large = target.model_copy(
        update={"supplies": {name: [10**6] * len(most) for name in target.supplies}}
    )
    grown = view.model_copy(
        update={"orders": [o.model_copy(update={"quota": [i * 9000] * len(most)})
                           for i, o in enumerate(view.orders)]}
    )  # fmt: skip
    assert all(sum(c) <= offers.MOST_SHOWN for c in offers.shown_counts(large, grown).values())
