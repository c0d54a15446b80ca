"""Budget, ledger, pot, thin markets and ladders: exact in integers, robust to copies."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from valuation import semivalue
from valuation.budget import (
    MICRO,
    affordable_tariff,
    fee_on,
    largest_remainder,
    monopoly_bound,
    proportional_share,
    quotient_values,
    reserve_of,
    settle,
    share_pot,
)
from valuation.ladders import bound, earned, settled

money = st.integers(0, 10**12)


@given(money, st.integers(1, 10_000), st.integers(0, MICRO), st.integers(0, 100))
def test_the_highest_tariff_within_the_budget(
    budget: int, records: int, fee: int, pot_percent: int
) -> None:
    pot = budget // 10 * pot_percent // 200
    purse = budget // 7
    tariff = affordable_tariff(budget, records, fee_micro=fee, pot=pot, purse=purse)

    def most(tariff: int) -> int:
        return records * tariff + pot + fee_on(pot, fee) + purse

    assert most(tariff) <= budget < most(tariff + 1)
    # and what can be paid at that tariff, every record at its reserve, fee on top
    payments = records * reserve_of(tariff, fee)
    assert payments + fee_on(payments, fee) <= records * tariff


@given(
    st.dictionaries(st.sampled_from("abcdef"), money),
    st.dictionaries(st.sampled_from("defgh"), money),
    st.integers(0, MICRO),
)
def test_the_ledger_sums_to_zero(payments: dict[str, int], pot: dict[str, int], fee: int) -> None:
    ledger = settle(payments, pot, fee)
    assert sum(ledger.values()) == 0
    total = sum(payments.values()) + sum(pot.values())
    assert 0 <= ledger["platform"] <= total * fee / MICRO
    for name in set(payments) | set(pot):
        assert ledger[name] == payments.get(name, 0) + pot.get(name, 0)


@given(st.integers(0, 10**9), st.lists(st.integers(0, 10**6), min_size=1, max_size=9))
def test_largest_remainder_parts_sum_and_are_within_one(amount: int, weights: list[int]) -> None:
    parts = largest_remainder(amount, weights)
    total = sum(weights)
    if not total:
        assert parts == (0,) * len(weights)
        return
    assert sum(parts) == amount
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part * total - amount * weight) < total


@pytest.mark.parametrize(
    "call",
    [
        lambda: affordable_tariff(10, 0),
        lambda: affordable_tariff(-1, 1),
        lambda: affordable_tariff(100, 1, pot=11),
        lambda: affordable_tariff(100, 1, purse=101),
        lambda: settle({"a": -1}, {}, 0),
        lambda: settle({"platform": 1}, {}, 0),
        lambda: largest_remainder(-1, [1]),
        lambda: quotient_values([[1.0]], [1], [0, 1]),
        lambda: monopoly_bound(1, [1], [[1], [2]]),
        lambda: proportional_share(len, [0.0], 1.0),
    ],
)
def test_impossible_inputs_are_refused(call: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        call()  # type: ignore[operator]


# ---------------------------------------------------------------- quotient


def random_gains(seed: int, sources: int = 20, targets: int = 60) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.gamma(0.5, size=(targets, sources))


@pytest.mark.parametrize("copies", [2, 4, 8])
def test_copies_of_an_identity_earn_what_one_earns(copies: int) -> None:
    plain = []
    for seed in range(20):
        gains, weights = random_gains(seed), np.full(60, 1 / 60)
        cloned = np.concatenate([gains, np.repeat(gains[:, :1], copies - 1, axis=1)], axis=1)
        labels = [*range(20), *[0] * (copies - 1)]
        ids = [0, *range(20, 20 + copies - 1)]
        alone = semivalue(gains, weights)
        together = quotient_values(cloned, weights, labels)
        assert together[ids].sum() == pytest.approx(alone[0], abs=1e-12)
        np.testing.assert_allclose(together[1:20], alone[1:], atol=1e-12)
        plain.append(semivalue(cloned, weights)[ids].sum() / alone[0])
    assert np.median(plain) > 1.4  # without clusters the attack pays: the test can fail


def test_quotient_values_are_efficient_symmetric_null_and_additive() -> None:
    rng = np.random.default_rng(1)
    gains, weights = random_gains(3), rng.random(60)
    labels = rng.integers(0, 9, 20).tolist()
    gains[:, 5] = 0
    labels[5] = 99
    values = quotient_values(gains, weights, labels)
    assert values.sum() == pytest.approx(weights @ gains.max(axis=1), abs=1e-12)
    assert values[5] == 0
    for first, second in itertools.combinations(range(20), 2):
        if labels[first] == labels[second]:
            assert values[first] == values[second]
    more = rng.random(60)
    both = quotient_values(gains, weights + more, labels)
    np.testing.assert_allclose(both, values + quotient_values(gains, more, labels), atol=1e-12)


def test_the_pot_goes_to_admitted_sources_only_and_is_spent_whole() -> None:
    gains = random_gains(4, sources=6) * 1e6
    admitted = [True, True, False, True, True, False]
    shares = share_pot(1_000_003, gains, np.ones(60), range(6), admitted)
    assert sum(shares) == 1_000_003
    assert [part > 0 for part in shares] == admitted
    assert share_pot(1000, gains * 0, np.ones(60), range(6), admitted) == (0,) * 6
    assert share_pot(1000, gains, np.ones(60), range(6), [False] * 6) == (0,) * 6


# ---------------------------------------------------------------- thin markets


def test_monopoly_bound_flags_prices_that_no_rival_sets() -> None:
    # one seller of everything
    assert monopoly_bound(100, [100], [[5, 5]]) == (True,)
    # three sellers everywhere
    assert monopoly_bound(100, [10, 20, 0], np.ones((3, 2), int)) == (False, False, False)
    # cell 1 has one supplier only; who sells nothing is not flagged
    assert monopoly_bound(100, [10, 20, 5, 0], [[1, 1], [1, 0], [1, 0], [0, 0]]) == (
        True,
        False,
        False,
        False,
    )
    assert monopoly_bound(9, [9, 0, 0], np.ones((3, 1), int), least=1) == (True, False, False)


# ---------------------------------------------------------------- ladders

LADDER = ((0, 3, 5), (1, 4, 2), (0, 7, 1), (1, 10, 4))


@given(st.integers(0, 6), st.integers(0, 6))
def test_a_ladder_pays_the_dearest_rungs_of_every_cell(first: int, second: int) -> None:
    units = {cell: [p for c, p, n in LADDER if c == cell for _ in range(n)] for cell in (0, 1)}
    counts = {0: first, 1: second}
    expected = sum(sum(sorted(units[cell])[len(units[cell]) - counts[cell] :]) for cell in (0, 1))
    assert earned(LADDER, counts) == expected
    assert earned(LADDER[::-1], counts) == expected
    assert expected <= bound(LADDER, first + second)
    assert earned(LADDER, {0: 6, 1: 6}) == bound(LADDER, 12) == sum(p * n for _, p, n in LADDER)
    if first:  # each record more earns something more
        assert earned(LADDER, counts) > earned(LADDER, {0: first - 1, 1: second})


def test_what_is_paid_is_claimed_confirmed_and_possible() -> None:
    assert settled(LADDER, 5, 47, [47]) == 47
    assert settled(LADDER, 5, 47, [0, 40]) == 40  # one liar does not lower what another confirms
    assert settled(LADDER, 5, 40, [47, 47]) == 40
    assert settled(LADDER, 5, 10**9, []) == bound(LADDER, 5) == 47
    assert settled(LADDER, 0, 10**9, [10**9]) == 0
    assert settled(LADDER, 5, 47, [0]) == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda: earned(LADDER, {0: 7}),
        lambda: earned(LADDER, {2: 1}),
        lambda: earned(LADDER, {0: -1}),
        lambda: bound(LADDER, 13),
        lambda: bound(LADDER, -1),
        lambda: settled(LADDER, 1, -1, []),
        lambda: settled(LADDER, 1, 1, [-1]),
    ],
)
def test_counts_that_do_not_fit_the_order_are_refused(call: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        call()  # type: ignore[operator]


def test_the_comparison_rule_stays_within_half_of_the_budget_per_value() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        gains, costs = rng.random((40, 8)) ** 2, rng.uniform(0.02, 0.3, 8)

        def worth(members: frozenset[int], gains: np.ndarray = gains) -> float:
            return (
                float(gains[:, sorted(members)].max(axis=1, initial=0).mean()) if members else 0.0
            )

        bought = proportional_share(worth, costs.tolist(), 0.6)
        assert sum(costs[i] for i in bought) <= 0.6
        assert bought
