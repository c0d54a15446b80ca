"""Laws of the purse's rules, and the contest simulator against known chances."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from valuation.contests import (
    PRIZES,
    RULES,
    Acceptance,
    Contest,
    Entry,
    Procurement,
)
from valuation.simulation import payouts, simulate, simulate_tender

THRESHOLD = 700_000


@st.composite
def fields(draw: st.DrawFn) -> list[Entry]:
    """Up to eight models, some below the threshold, undetermined, tied or without an ask."""
    entries = []
    for i in range(draw(st.integers(0, 8))):
        point = draw(st.sampled_from([650_000, 700_000, 740_000, 745_000, 800_000, 910_000]))
        width = draw(st.sampled_from([0, 1_000, 30_000, 60_000]))
        ask = draw(st.none() | st.integers(0, 12))
        sure = draw(st.integers(0, 5)) > 0
        key = bytes([(i * 37) % 11, i])
        entries.append(Entry(f"run{i}", f"org{i}", point, point - width, sure, ask, key))
    return entries


amounts = st.integers(0, 10**9) | st.integers(0, 12)


@pytest.mark.parametrize("kind", sorted(RULES))
@given(entries=fields(), amount=amounts)
def test_every_micro_unit_goes_somewhere_and_nothing_to_models_below_the_threshold(
    kind: str, entries: list[Entry], amount: int
) -> None:
    award = RULES[kind](amount, THRESHOLD).decide(entries)
    assert sum(award.amounts.values()) + award.refund == amount
    assert all(paid > 0 for paid in award.amounts.values())
    good = {e.run_id for e in entries if e.determined and e.bound_micro >= THRESHOLD}
    assert set(award.amounts) <= good
    if kind != "procurement":
        assert award.refund == (0 if good else amount)
        assert {name for band in award.bands for name in band} <= good


@pytest.mark.parametrize("kind", sorted(RULES))
@given(entries=fields(), amount=amounts, order=st.randoms(use_true_random=False))
def test_the_order_and_the_names_of_entries_do_not_matter(
    kind: str, entries: list[Entry], amount: int, order: object
) -> None:
    rule = RULES[kind](amount, THRESHOLD)
    shuffled = list(entries)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    assert rule.decide(shuffled) == rule.decide(entries)
    renamed = [replace(e, run_id=f"x{e.run_id}", owner_id=f"y{e.owner_id}") for e in entries]
    found = rule.decide(renamed).amounts
    assert found == {f"x{name}": paid for name, paid in rule.decide(entries).amounts.items()}


@given(entries=fields(), amount=amounts)
def test_a_better_point_never_gets_less_but_for_an_odd_micro_unit(
    entries: list[Entry], amount: int
) -> None:
    for rule in (Acceptance(amount, THRESHOLD), Contest(amount, THRESHOLD)):
        paid = rule.decide(entries).amounts
        good = [e for e in entries if e.determined and e.bound_micro >= THRESHOLD]
        for better, worse in itertools.permutations(good, 2):
            if better.point_micro >= worse.point_micro:
                assert paid.get(better.run_id, 0) >= paid.get(worse.run_id, 0) - 1


def entry(name: str, point: int, width: int = 0, ask: int | None = None) -> Entry:
    return Entry(name, f"org-{name}", point, point - width, True, ask, name.encode())


def test_equal_points_share_whatever_their_bounds_are() -> None:
    """The wide one ties with the best, the narrow one does not: both share its band."""
    field = [entry("a", 750_000), entry("b", 740_000, 30_000), entry("c", 740_000)]
    award = Contest(6, THRESHOLD).decide(field)
    assert award.amounts == {"a": 2, "b": 2, "c": 2}
    assert len(award.bands) == 1


def test_a_contest_pays_50_30_20_and_pools_the_prizes_of_ties() -> None:
    rule = Contest(1000, THRESHOLD)
    clear_ranks = [
        entry("a", 900_000),
        entry("b", 850_000),
        entry("c", 800_000),
        entry("d", 790_000),
    ]
    award = rule.decide(clear_ranks)
    assert award.amounts == {"a": 500, "b": 300, "c": 200}
    assert award.bands == (("a",), ("b",), ("c",), ("d",))
    # b and c tie (a difference of 50,000 within the root of 2 x 40,000 squared): 250 each
    tied = [entry("a", 990_000), entry("b", 850_000, 40_000), entry("c", 800_000, 40_000)]
    assert rule.decide(tied).amounts == {"a": 500, "b": 250, "c": 250}
    assert rule.decide(tied).bands == (("a",), ("b", "c"))
    # a tie that reaches beyond the last prize shares what its ranks have
    four = [entry("a", 900_000), *(entry(name, 800_000) for name in "bcde")]
    assert rule.decide(four).amounts == {"a": 500, "b": 125, "c": 125, "d": 125, "e": 125}
    # prizes that nobody holds are spread in proportion: 50 : 30
    assert rule.decide(clear_ranks[:2]).amounts == {"a": 625, "b": 375}
    assert rule.decide(clear_ranks[:1]).amounts == {"a": 1000}


def test_acceptance_pays_the_best_and_shares_exact_ties_by_key() -> None:
    rule = Acceptance(101, THRESHOLD)
    award = rule.decide([entry("b", 800_000), entry("a", 800_000), entry("c", 799_999)])
    assert award.amounts == {"a": 51, "b": 50}
    assert "tied" in award.reason
    assert rule.decide([entry("c", 650_000)]).refund == 101


def test_procurement_pays_the_second_price_and_at_most_the_purse() -> None:
    rule = Procurement(100, THRESHOLD)
    bids = [entry("a", 900_000, ask=60), entry("b", 720_000, ask=40), entry("c", 690_000, ask=1)]
    award = rule.decide(bids)
    assert (award.amounts, award.refund) == ({"b": 60}, 40)
    assert rule.decide(bids[1:]).amounts == {"b": 100}
    assert rule.decide([entry("a", 900_000, ask=101), entry("b", 800_000)]).refund == 100


@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=6),
    st.integers(0, 12),
    st.integers(0, 11),
)
def test_in_procurement_no_ask_beats_ones_cost(costs: list[int], ask: int, purse: int) -> None:
    def gain(first: int) -> int:
        asks = [first, *costs[1:]]
        bids = [entry(f"m{i}", 800_000, ask=a) for i, a in enumerate(asks)]
        paid = Procurement(purse, THRESHOLD).decide(bids)
        won = "m0" in (paid.bands[0] if paid.bands else ())
        return paid.amounts.get("m0", 0) - costs[0] if won else 0

    assert gain(ask) <= gain(costs[0])
    assert gain(costs[0]) >= 0


def test_a_first_price_rule_would_fail_that_law() -> None:
    """Guard: paying the winner its own ask, shading the cost gains."""
    cost, rival = 3, 9
    assert max(ask - cost for ask in range(rival) if ask < rival) > 0


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([entry("a", 1), replace(entry("b", 1), owner_id="org-a")], "one entry per owner"),
        ([entry("a", 1), replace(entry("a", 1), owner_id="org-b")], "one entry per owner"),
        ([replace(entry("a", 1), bound_micro=2)], "bounds"),
        ([entry("a", 1, ask=-1)], "asks >= 0"),
    ],
)
@pytest.mark.parametrize("kind", sorted(RULES))
def test_malformed_fields_are_refused(kind: str, entries: list[Entry], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RULES[kind](10, 0).decide(entries)


def test_malformed_rules_are_refused() -> None:
    with pytest.raises(ValueError, match="amount"):
        Acceptance(-1, 0).decide([])
    for prizes in ((), (1, 2), (3, 0)):
        with pytest.raises(ValueError, match="prizes"):
            Contest(10, 0, prizes).decide([])


# ---------------------------------------------------------------- simulator


@pytest.mark.parametrize(
    ("patients", "wins", "banded", "size"),
    [
        (200, 0.53, 0.97, 4.0),
        (500, 0.67, 0.97, 3.0),
        (2000, 0.89, 0.97, 1.9),
        (10_000, 1.0, 0.97, 1.1),
    ],
)
def test_twenty_models_a_point_apart(
    patients: int, wins: float, banded: float, size: float
) -> None:
    """Fixed seed; standard errors are below 0.008."""
    found = simulate(patients)
    assert found.best_wins == pytest.approx(wins, abs=0.03)
    assert found.best_in_top_band > banded - 0.03
    assert found.top_band_size == pytest.approx(size, abs=0.35)
    assert found.error < 0.009


def test_payouts_sum_to_the_purse_and_more_patients_reward_the_best_more() -> None:
    few, many = simulate(200, contests=1500), simulate(5000, contests=1500)
    for found in (few, many):
        assert found.payouts.sum() == pytest.approx(1)
        assert (np.diff(found.payouts) < 0.01).all()
        assert (found.effort >= 0).all()
        assert found.payouts.shape == found.effort.shape == (20,)
    assert many.payouts[0] > few.payouts[0]
    assert many.effort[:3].mean() > many.effort[10:].mean()  # who has no chance has no reason


def test_equal_models_share_alike() -> None:
    found = simulate(500, developers=5, gap=0.0, contests=6000)
    np.testing.assert_allclose(found.payouts, 0.2, atol=0.02)
    assert found.best_wins == pytest.approx(0.2, abs=0.03)


def test_the_simulators_rule_is_the_rule() -> None:
    """Vectorised shares against `Contest`, with one width for all, over 300 random contests."""
    rng = np.random.default_rng(4)
    checked = 0
    for _ in range(300):
        models = int(rng.integers(1, 7))
        points = rng.choice(np.arange(700_000, 800_000, 5_000), models, replace=False)
        width = int(rng.choice([0, 3_000, 9_000, 20_000]))
        entries = [entry(f"m{i}", int(p), width) for i, p in enumerate(points)]
        purse = 600_000_000
        award = Contest(purse, 0).decide(entries)
        margin = np.sqrt(2 * width**2)
        shares, top = payouts(points[None].astype(float), float(margin), PRIZES)
        expected = [award.amounts.get(f"m{i}", 0) / purse for i in range(models)]
        np.testing.assert_allclose(shares[0], expected, atol=1e-6)
        assert {f"m{i}" for i in np.flatnonzero(top[0])} == set(award.bands[0])
        checked += len(award.bands[0]) > 1
    assert checked > 50


def test_a_tender_pays_the_second_lowest_ask_of_those_that_qualify() -> None:
    """Known chances: asks even on (0, 1), all qualify, n models: the second lowest is 2/(n + 1)."""
    for models in (2, 5, 20):
        found = simulate_tender(
            10**6, developers=models, gap=0.0, threshold=0.6, asks=(0.0, 1.0), contests=8000
        )
        assert found.awarded == 1.0
        assert found.payment == pytest.approx(2 / (models + 1), abs=0.02)
        assert found.best_wins == pytest.approx(1 / models, abs=4 * found.error)
        assert found.accuracy == pytest.approx(0.8)
    # Only the best reaches the threshold: it wins at the purse, whatever it asks.
    alone = simulate_tender(10**6, developers=4, best=0.8, gap=0.05, threshold=0.78)
    assert (alone.awarded, alone.best_wins, alone.payment) == (1.0, 1.0, 1.0)
    nobody = simulate_tender(10**6, threshold=0.9)
    assert (nobody.awarded, nobody.best_wins, nobody.payment) == (0.0, 0.0, 0.0)
    # An ask above the purse is none; with all of them above it nobody wins.
    assert simulate_tender(10**6, gap=0.0, asks=(1.1, 2.0)).awarded == 0.0
    # A threshold that few models reach buys better ones, for more.
    low, high = simulate_tender(2000, threshold=0.6), simulate_tender(2000, threshold=0.76)
    assert low.accuracy < high.accuracy
    assert low.payment < high.payment
    assert low.best_wins < high.best_wins


def test_the_tenders_rule_is_the_rule() -> None:
    """One simulated tender after another against `Procurement`, in whole micro-units."""
    purse, checked = 10**6, 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        asks = rng.integers(1, 2 * purse, 4)
        bounds = rng.integers(650_000, 800_000, 4)
        entries = [
            replace(entry(f"m{i}", int(bound), 0), ask_micro=int(ask))
            for i, (bound, ask) in enumerate(zip(bounds, asks, strict=True))
        ]
        award = Procurement(purse, THRESHOLD).decide(entries)
        standing = np.where((bounds >= THRESHOLD) & (asks <= purse), asks, purse)
        expected = int(np.sort(standing)[1]) if (standing < purse).any() else 0
        assert sum(award.amounts.values()) == expected
        checked += bool(award.amounts)
    assert checked > 30


@pytest.mark.parametrize(
    "change", [{"patients": 0}, {"best": 0.4}, {"threshold": 2.0}, {"asks": (0.9, 0.1)}]
)
def test_impossible_tenders_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        simulate_tender(**({"patients": 100} | change))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [{"patients": 0}, {"developers": 1}, {"best": 0.4}, {"correlation": 1.0}, {"cost_share": 0.0}],
)
def test_impossible_contests_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        simulate(**({"patients": 100} | change))  # type: ignore[arg-type]
