"""Laws of noise and lanes: conversions against dp-accounting, choices against brute arithmetic."""

import math
from fractions import Fraction

import numpy as np
import pytest
from diffprivlib import BudgetAccountant
from dp_accounting.dp_event import GaussianDpEvent, LaplaceDpEvent, SelfComposedDpEvent
from dp_accounting.pld import privacy_loss_distribution
from dp_accounting.pld.pld_privacy_accountant import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from scipy.stats import binom

from dp.coins import coins_of
from dp.cost import MICRO, Cost, epsilon_of, lanes
from dp.laws import (
    DELTA,
    ORDER,
    choose,
    coins_epsilon,
    coins_law,
    coins_micro_rho,
    geometric_law,
    geometric_sd,
    parts,
    rho_lane,
    run_micro_rho,
    supported_runs,
)

COINS = 128

# ---------------------------------------------------------------- conversions


@pytest.mark.parametrize("rho", [0.001, 0.0156, 0.1, 0.5, 2.0])
@pytest.mark.parametrize("delta", [1e-6, 1e-3])
def test_zcdp_conversion_agrees_with_dp_accounting(rho, delta) -> None:
    """Its Renyi accountant has fewer orders, so ours is at most as large; its loss distribution
    is tight, so ours is at least as large."""
    event = GaussianDpEvent(math.sqrt(1 / (2 * rho)))
    ours = epsilon_of(rho, delta)
    renyi = RdpAccountant().compose(event).get_epsilon(delta)
    tight = PLDAccountant().compose(event).get_epsilon(delta)
    assert tight <= ours <= renyi * (1 + 1e-6)
    assert ours >= renyi * 0.95


def test_many_gaussian_releases_add_their_rho() -> None:
    event = SelfComposedDpEvent(GaussianDpEvent(8.0), 12)
    whole = epsilon_of(12 / 128, 1e-6)
    tight = PLDAccountant().compose(event).get_epsilon(1e-6)
    assert tight <= whole <= 1.12 * tight


def coin_losses(coins=COINS):
    """The exact pair of laws of one cell and its neighbour."""
    x = np.arange(coins + 1)
    log_p = binom(coins, 0.5).logpmf(x)
    lower = dict(zip(x.tolist(), log_p.tolist(), strict=True))
    upper = {value + 1: mass for value, mass in lower.items()}
    return privacy_loss_distribution.from_two_probability_mass_functions(
        lower, upper, value_discretization_interval=1e-4, log_mass_truncation_bound=-80
    )


def test_coins_cost_what_their_exact_loss_distribution_says_and_a_little_more() -> None:
    exact = coin_losses()
    one = exact.get_epsilon_for_delta(DELTA)
    assert one == pytest.approx(0.757, abs=1e-3)
    for tables in (1, 3, 9, 24):
        tight = exact.self_compose(tables).get_epsilon_for_delta(DELTA)
        assert tight <= coins_epsilon(tables, COINS) <= 1.25 * tight


def test_coins_rho_bounds_every_order() -> None:
    """At 4,000 orders that are no points of its grid, in exact fractions of whole numbers."""
    rho = coins_micro_rho(COINS) / MICRO
    x = np.arange(1, COINS + 1)
    p = [Fraction(math.comb(COINS, int(k)), 2**COINS) for k in x]
    ratio = [Fraction(COINS - int(k) + 1, int(k)) for k in x]
    for order in (2, 3, 7, 15, int(ORDER)):
        total = sum(mass * r ** (order - 1) for mass, r in zip(p, ratio, strict=True))
        assert math.log(total) / (order - 1) <= rho * order
    mass, logs = np.array([float(m) for m in p]), np.array([math.log(r) for r in ratio])
    for order in np.linspace(1.001, ORDER, 4000):
        assert math.log((mass * np.exp((order - 1) * logs)).sum()) / (order - 1) <= rho * order
    assert rho < 1.05 / (2 * COINS / 4)  # near the Gaussian of the same variance


def test_the_pure_lane_adds_as_diffprivlibs_accountant_does() -> None:
    """An oracle only: its own total drifts in floats and it is never an authority here."""
    costs = [Cost.pure(Fraction(k, 10)) for k in (1, 2, 3, 7)]
    oracle = BudgetAccountant(slack=0)
    for cost in costs:
        oracle.spend(cost.micro_epsilon / MICRO, 0)
    assert sum(costs, Cost()).micro_epsilon / MICRO == pytest.approx(oracle.total()[0])


def test_ten_laplace_releases_cost_at_most_their_sum() -> None:
    accountant = PLDAccountant().compose(SelfComposedDpEvent(LaplaceDpEvent(4.0), 10))
    ours = sum((Cost.pure("0.25") for _ in range(10)), Cost()).micro_epsilon / MICRO
    assert accountant.get_epsilon(1e-12) <= ours == 2.5


# ---------------------------------------------------------------- lanes


@pytest.mark.parametrize("pure", [0, 500_000, 2_999_999, 3_000_000])
def test_lanes_never_mean_more_than_the_total_and_waste_nothing(pure) -> None:
    found = lanes(3 * MICRO, DELTA, pure)
    assert found.micro_epsilon == pure
    room = (3 * MICRO - pure) / MICRO
    assert epsilon_of(found.micro_rho / MICRO, DELTA) <= room + 1e-12
    if room:
        assert epsilon_of((found.micro_rho + 1) / MICRO, DELTA) > room


def test_without_a_delta_there_is_one_lane() -> None:
    assert lanes(3 * MICRO, 0, 500_000) == Cost(500_000, 0)
    with pytest.raises(ValueError, match="pure millionths"):
        lanes(3, DELTA, 4)


def test_a_truncated_guarantee_converts_with_its_orders_only() -> None:
    """A small rho wants a large order; without it epsilon is larger, never smaller."""
    assert epsilon_of(0.0156, 1e-6, 16) > epsilon_of(0.0156, 1e-6)
    assert epsilon_of(0.2, 1e-6, 16) == pytest.approx(epsilon_of(0.2, 1e-6))
    with pytest.raises(ValueError, match="rho"):
        epsilon_of(0.1, 1e-6, 1.0)


# ---------------------------------------------------------------- the choice


def test_few_runs_take_geometric_noise_and_many_take_coins() -> None:
    few = choose(3, 2_500_000)
    many = choose(20, 2_500_000)
    assert (few.name, few.coins, few.delta) == ("geometric", 0, 0.0)
    assert few.sd == pytest.approx(geometric_sd(0.833333))
    assert (many.name, many.delta) == ("coins", DELTA)
    assert many.sd == math.sqrt(many.coins) / 2
    assert many.cost == Cost(0, coins_micro_rho(many.coins))
    assert many.each_micro % 5_000 == 0
    assert many.coins == coins_of(many.each_micro)


def test_the_choice_is_the_least_noise_among_what_fits() -> None:
    """Against both laws by hand; the crossing is where the docs say: 13 runs, 7 with a subgroup."""
    crossing = {}
    for groups in (0, 1):
        for runs in (1, 2, 6, 7, 12, 13, 20):
            found = choose(runs, 2_500_000, groups=groups)
            laws = [geometric_law(runs, 2_500_000, groups), coins_law(runs, 2_500_000, groups)]
            assert found.sd == min(law.sd for law in laws)
            assert found.epsilon <= 2.5
            if found.name == "coins":
                crossing.setdefault(groups, runs)
    assert crossing == {0: 13, 1: 7}


@pytest.mark.parametrize("groups", [0, 2])
def test_all_runs_together_fit_the_lane_that_was_split_off_for_them(groups) -> None:
    law = coins_law(20, 2_500_000, groups)
    lane = rho_lane(3 * MICRO, 500_000)
    assert lane.micro_epsilon == 500_000
    assert law.runs * law.cost.micro_rho <= lane.micro_rho
    # and no larger epsilon a run would: the search stops at the edge
    wider = run_micro_rho(law.each_micro + 5_000, groups)
    assert law.runs * wider > lane.micro_rho


def test_many_runs_of_coins_mean_no_more_than_their_exact_loss_distributions_say() -> None:
    """The whole of twenty runs with a subgroup table, composed exactly, is within the total."""
    law = coins_law(20, 2_500_000, 1)
    own, part = parts(law.each_micro, 1)
    tables = [coins_of(own[0]), coins_of(part)]
    exact = coin_losses(tables[0]).self_compose(20)
    exact = exact.compose(coin_losses(tables[1]).self_compose(20))
    assert exact.get_epsilon_for_delta(DELTA) <= law.epsilon <= 2.5


def test_without_a_delta_or_with_next_to_none_there_are_no_coins() -> None:
    assert choose(20, 2_500_000, delta=0).name == "geometric"
    with pytest.raises(ValueError, match="delta above"):
        rho_lane(3 * MICRO, 0, 1e-9)


def test_coins_carry_on_where_geometric_noise_does_not_fit() -> None:
    with pytest.raises(ValueError, match="leave each table less"):
        geometric_law(1000, 2_500_000, 3)
    with pytest.raises(ValueError, match="leave each table less"):
        choose(1000, 2_500_000, groups=3, delta=0)


def test_the_parts_of_a_run_sum_to_it_whatever_its_tables() -> None:
    for epsilon in (1_000_000, 465_000, 999_999):
        for groups in (0, 1, 3):
            for histograms in (1, 3):
                own, part = parts(epsilon, groups, histograms)
                assert len(own) == histograms
                assert sum(own) + part * groups * histograms == epsilon


def test_the_tables_of_a_run_share_its_epsilon() -> None:
    assert geometric_law(2, 2 * MICRO, 0).sd == pytest.approx(geometric_sd(1))
    assert geometric_law(2, 2 * MICRO, 2).sd == pytest.approx(geometric_sd(0.6))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="leave each table less"):
        geometric_law(10_000, MICRO, 3)
    with pytest.raises(ValueError, match="leave each table less"):
        choose(10_000, MICRO, delta=0)
    for bad in ({"runs": 0}, {"total_micro": 0}, {"histograms": 0}, {"groups": -1}):
        with pytest.raises(ValueError, match="at least 1"):
            choose(**{"runs": 1, "total_micro": MICRO, **bad})
    with pytest.raises(ValueError, match="not accounted in rho"):
        run_micro_rho(2_000_000, 0)
    with pytest.raises(ValueError, match="coins"):
        coins_micro_rho(8)
    with pytest.raises(ValueError, match="delta"):
        coins_epsilon(1, 32, 1e-12)


def test_supported_runs_are_whole() -> None:
    assert supported_runs(2_500_000, MICRO) == 2
    assert supported_runs(-1, MICRO) == 0
    with pytest.raises(ValueError, match="millionth"):
        supported_runs(1, 0)
