"""Laws of reputation: attested outcomes only, forgetting, no gain from new names or friends."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from valuation.reputation import HALF_LIFE_S, MICRO, NEWCOMER_MICRO, Outcome, reputation

NOW = 2_000_000_000


def outcome(i: int, good: bool, age_s: int = 0, attester: str | None = None) -> Outcome:
    return Outcome(f"receipt{i}", attester or f"org{i}", good, NOW - age_s)


@st.composite
def histories(draw: st.DrawFn) -> list[Outcome]:
    return [
        outcome(
            i,
            draw(st.booleans()),
            draw(st.integers(0, 3 * HALF_LIFE_S)),
            f"org{draw(st.integers(0, 3))}",
        )
        for i in range(draw(st.integers(0, 12)))
    ]


@pytest.mark.parametrize(("good", "bad"), [(1, 0), (0, 1), (3, 2), (20, 1), (200, 0)])
def test_it_is_the_low_quantile_of_the_beta_posterior(good: int, bad: int) -> None:
    history = [outcome(i, i < good) for i in range(good + bad)]
    found = reputation("me", history, NOW)
    assert (found.good, found.bad) == (good, bad)
    assert found.low_micro == pytest.approx(stats.beta.ppf(0.1, 1 + good, 1 + bad) * MICRO, abs=1)
    assert found.status == "known"


def test_a_new_name_has_the_floor_and_nobody_has_less() -> None:
    assert reputation("me", [], NOW).standing_micro == NEWCOMER_MICRO
    assert pytest.approx(stats.beta.ppf(0.1, 1, 1) * MICRO) == NEWCOMER_MICRO
    worst = reputation("me", [outcome(i, False) for i in range(50)], NOW)
    assert worst.low_micro < NEWCOMER_MICRO
    assert worst.standing_micro == NEWCOMER_MICRO  # a new name would bring no gain
    assert worst.status == "known"


@given(histories(), st.booleans(), st.integers(0, 3))
def test_one_more_good_outcome_never_harms_and_a_bad_one_never_helps(
    history: list[Outcome], good: bool, attester: int
) -> None:
    before = reputation("me", history, NOW)
    after = reputation("me", [*history, outcome(99, good, 0, f"org{attester}")], NOW)
    if history:
        assert (
            (after.low_micro >= before.low_micro - 1)
            if good
            else (after.low_micro <= before.low_micro + 1)
        )


@given(histories(), st.randoms(use_true_random=False))
def test_order_and_repeated_receipts_do_not_matter(history: list[Outcome], order: object) -> None:
    shuffled = [*history, *history[:3]]
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    assert reputation("me", shuffled, NOW) == reputation("me", history, NOW)


def test_an_outcome_counts_half_after_180_days_and_in_the_end_not_at_all() -> None:
    assert reputation("me", [outcome(1, True, HALF_LIFE_S)], NOW).good == pytest.approx(0.5)
    assert reputation("me", [outcome(1, True, 2 * HALF_LIFE_S)], NOW).good == pytest.approx(0.25)
    assert reputation("me", [outcome(1, True, -5)], NOW).good == 1.0
    lows = [
        reputation("me", [outcome(i, False, age) for i in range(5)], NOW).low_micro
        for age in range(0, 20 * HALF_LIFE_S, HALF_LIFE_S)
    ]
    assert lows == sorted(lows)
    assert lows[-1] == pytest.approx(NEWCOMER_MICRO, abs=10)


def test_praise_of_oneself_counts_nothing() -> None:
    own = [outcome(i, True, attester="me") for i in range(9)]
    owned = [replace(outcome(i, True), owners=frozenset({"me"})) for i in range(9)]
    for history in (own, owned):
        found = reputation("me", history, NOW)
        assert (found.good, found.status) == (0.0, "new")


def test_a_friend_can_attest_often_but_not_endlessly() -> None:
    friend = [outcome(i, True, attester="friend") for i in range(1000)]
    several = [outcome(i, True) for i in range(20)]
    assert reputation("me", friend, NOW).good == pytest.approx(5)
    assert reputation("me", friend, NOW).low_micro < reputation("me", several, NOW).low_micro
    mixed = [outcome(i, i % 4 > 0, attester="friend") for i in range(100)]
    found = reputation("me", mixed, NOW)
    assert found.good / (found.good + found.bad) == pytest.approx(0.75)


def test_reliable_parties_rise_above_unreliable_ones() -> None:
    rng = np.random.default_rng(1)
    standings = []
    for chance in (0.5, 0.8, 0.99):
        history = [outcome(i, bool(rng.random() < chance)) for i in range(60)]
        standings.append(reputation("me", history, NOW).standing_micro)
        assert standings[-1] < chance * MICRO  # careful: below the truth
    assert standings == sorted(standings)


def test_contradictions_and_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="one outcome per receipt"):
        reputation("me", [outcome(1, True), outcome(1, False)], NOW)
    with pytest.raises(ValueError, match="half-life"):
        reputation("me", [], NOW, half_life_s=0)
    with pytest.raises(ValueError, match="limit"):
        reputation("me", [], NOW, per_attester=0)
