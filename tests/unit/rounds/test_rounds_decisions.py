"""The pure decisions of the steps and their laws: frozen inputs, settlement, prices, runs."""

import itertools
from dataclasses import replace
from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from clearinghouse import cells
from clearinghouse.messages.intake import OpenRequest, Purse
from clearinghouse.rounds import awards, decision, pot, pricing, settle
from clearinghouse.rounds.frozen import freeze, spread, supply
from clearinghouse.rounds.terms import budget_micro, pot_micro, reserve_micro
from clearinghouse.rounds.turns import noise_tables
from clearinghouse.rows import SPOT_ROWS
from clearinghouse.schema import parse_schema
from clearinghouse.score_bins import published_bins
from clearinghouse.store.records import Order, Summary
from matching.codebook import cell_map

MICRO = 1_000_000
SCHEMA = parse_schema(
    {
        "name": "s",
        "label": {"name": "y", "levels": ["0", "1"]},
        "columns": {
            "sex": {"kind": "category", "levels": ["F", "M"]},
            "age": {"kind": "number", "low": 0, "high": 90, "cuts": [30, 60]},
        },
        "strata": [["sex"], ["sex", "age"]],
    },
    file="s",
)
NAMES = tuple(f"src_{letter * 20}" for letter in "abcd")


def terms(**changes):
    body = {
        "valset_id": "val_" + "0" * 20,
        "source_ids": list(NAMES[:2]),
        "developer_ids": ["org_" + "0" * 20],
        "records": 30,
        "currency": "EUR",
        "tariff_micro": 6 * MICRO,
        "distance_price_micro": MICRO,
        "share_cap_micro": 1_500_000,
        "fee_micro": 50_000,
        "epsilon_target_micro": 500_000,
        "epsilon_score_micro": MICRO,
        "purse": purse(),
        **changes,
    }
    return OpenRequest.model_validate(body)


def purse(**changes):
    return Purse(
        kind="acceptance",
        amount_micro=100,
        metric="auc",
        threshold_micro=700_000,
        confidence_micro=900_000,
    ).model_copy(update=changes)


# ---------------------------------------------------------------- frozen inputs


@given(
    st.lists(st.integers(0, 1000), min_size=4, max_size=4),
    st.lists(st.integers(0, 50), min_size=12, max_size=12),
)
def test_spreading_keeps_every_coarse_count(coarse, pooled):
    fine_book = cells.codebook(SCHEMA, ("sex", "age"))
    coarse_book = cells.codebook(SCHEMA, ("sex",))
    parents = cell_map(fine_book, coarse_book)
    counts, weights = np.array(coarse).reshape(2, 2), np.array(pooled).reshape(6, 2)
    result = spread(counts, parents, weights)
    assert (result >= 0).all()
    for cell, label in itertools.product(range(2), range(2)):
        inside = np.flatnonzero(parents == cell)
        total, part = counts[cell, label], result[inside, label]
        assert part.sum() == total
        shares = weights[inside, label] if weights[inside, label].any() else np.ones(3, int)
        for units, weight in zip(part, shares, strict=True):
            assert abs(units - Fraction(int(total) * int(weight), int(shares.sum()))) < 1


def summary(name, level, counts, epsilon=5 * MICRO):
    return Summary(name, level, tuple(counts), epsilon, "0" * 64)


def test_fine_sources_are_summed_and_coarse_ones_spread():
    fine = summary(NAMES[0], ("sex", "age"), range(10, 22))
    coarse = summary(NAMES[1], ("sex",), [40, 0, 0, 60])
    at_sex = supply(SCHEMA, ("sex",), [fine, coarse])
    assert at_sex[0].tolist() == [[10 + 12 + 14, 11 + 13 + 15], [16 + 18 + 20, 17 + 19 + 21]]
    assert at_sex[1].tolist() == [[40, 0], [0, 60]]
    at_age = supply(SCHEMA, ("sex", "age"), [fine, coarse])
    assert at_age[0].reshape(-1).tolist() == list(range(10, 22))
    assert at_age[1, :3, 0].sum() == 40
    assert at_age[1, 3:, 1].sum() == 60
    assert at_age[1].sum() == 100
    alone = supply(SCHEMA, ("sex", "age"), [coarse])
    assert alone[0, :, 0].tolist() == [14, 13, 13, 0, 0, 0]  # nobody knows better: evenly


def test_a_table_of_noise_sells_nothing():
    noise = summary(NAMES[0], ("sex",), [1, -1, 2, 0], epsilon=200_000)
    assert supply(SCHEMA, ("sex",), [noise]).sum() == 0


def frozen(**changes):
    wish = terms(**changes)
    summaries = {
        NAMES[0]: summary(NAMES[0], ("sex",), [50, 20, 30, 40]),
        NAMES[1]: summary(NAMES[1], ("sex",), [10, 60, 20, 5]),
    }
    return wish, freeze(
        "run_" + "0" * 20, wish, "1" * 64, SCHEMA, ("sex",), [25, 30, 20, 35], summaries
    )


def test_everything_that_shapes_the_clearing_is_in_its_digest():
    _, base = frozen()
    assert sum(base.wanted) == 30
    assert frozen()[1] == base
    for change in (
        {"records": 31},
        {"tariff_micro": 7 * MICRO},
        {"distance_price_micro": 2 * MICRO},
        {"fee_micro": 0},
        {"share_cap_micro": 2_000_000},
    ):
        assert frozen(**change)[1].frozen_digest != base.frozen_digest, change


def test_what_may_be_sold_is_never_more_than_what_is_there():
    _, target = frozen()
    for name in NAMES[:2]:
        assert all(
            0 <= c <= s for c, s in zip(target.capped[name], target.supplies[name], strict=True)
        )


# ---------------------------------------------------------------- delivery and settlement


@settings(max_examples=200)
@given(
    st.integers(1, 1000),
    st.integers(1, 10 * MICRO),
    st.integers(0, MICRO),
    st.integers(0, 100_000),
    st.integers(0, 1000),
)
def test_the_most_that_can_be_paid_is_in_escrow(records, tariff, fee, pot, prize):
    wish = terms(
        records=records,
        tariff_micro=tariff,
        fee_micro=fee,
        fairness_pot_micro=pot,
        purse=purse(amount_micro=prize),
    )
    most = records * reserve_micro(wish)  # no source is paid more than the reserve for a record
    held = budget_micro(wish)
    assert most + settle.fee_of(most, fee) + pot_micro(wish) + prize <= held


def score(run, point, bound, determined=True):
    return awards.Scored(run, f"org of {run}", point, bound, determined)


def test_the_purse_goes_to_the_best_model_that_is_accepted():
    rule = purse()
    good, better = score("good", 800_000, 700_000), score("better", 810_000, 750_000)
    lucky = score("lucky", 990_000, 699_999)
    vague = score("vague", 990_000, 990_000, determined=False)
    assert awards.decide(rule, [good, better, lucky, vague]).amounts == {"better": 100}
    assert awards.decide(rule, [good]).amounts == {"good": 100}
    assert awards.decide(rule, [lucky, vague]).amounts == {}
    assert awards.decide(rule, []).amounts == {}


def test_exact_ties_share_to_the_last_micro_unit():
    tied = [score(name, 800_000, 700_000) for name in "abc"]
    amounts = awards.decide(purse(), tied).amounts
    assert sorted(amounts) == ["a", "b", "c"]
    assert sorted(amounts.values()) == [33, 33, 34]


def closed(asks=(MICRO, 2 * MICRO), **changes):
    wish, target = frozen(**changes)
    view = decision.decide(
        decision.Market(target, reserve_micro(wish), NAMES[:2], tuple(asks), ("c",))
    )
    summaries = {
        NAMES[0]: summary(NAMES[0], ("sex",), [50, 20, 30, 40]),
        NAMES[1]: summary(NAMES[1], ("sex",), [10, 60, 20, 5]),
    }
    return pricing.Closed(
        "req_" + "0" * 20, wish, "1" * 64, SCHEMA, target, view, summaries, "2" * 64
    )


def test_prices_are_the_same_each_time_and_firm_where_sold():
    case = closed(asks=(MICRO, 6 * MICRO))
    prices = pricing.decide(case).prices
    assert pricing.decide(case).prices == prices
    sold, unsold = prices
    first = case.clearing.orders[0]
    assert (sold.status, unsold.status) == ("firm", "indicative")
    owed = decision.payment_micro(first)
    assert abs(sold.point_micro * first.units - owed) <= first.units // 2 + 1
    assert unsold.low_micro <= unsold.point_micro <= unsold.high_micro
    absurd = pricing.decide(closed(asks=(MICRO, 2**53 - 1))).prices
    assert absurd[1].point_micro == unsold.point_micro
    assert (unsold.calls, unsold.seed) == (pricing.DRAWS, pricing.seed_of(case))
    without = [None, 6 * MICRO]
    alone = decision.decide(
        decision.Market(case.target, reserve_micro(case.terms), NAMES[:2], tuple(without), ("c",))
    )
    assert sold.counterfactual["objective_without_micro"] == alone.objective_micro


def test_the_pot_is_shared_whole_and_hangs_on_no_ask():
    owners = dict(zip(NAMES[:2], "xy", strict=True))
    shares = pot.decide(closed(), 1000, owners)
    assert sum(shares.values()) == 1000
    assert pot.decide(closed(asks=(0, 5 * MICRO)), 1000, owners) == shares
    assert pot.decide(closed(), 0, owners) == {}
    silent = pot.decide(closed(asks=(MICRO, None)), 1000, owners)
    assert silent == {NAMES[0]: 1000}
    assert pot.decide(closed(), 1000, {NAMES[1]: "y"}) == {NAMES[1]: 1000}  # the other broke its
    assert pot.decide(closed(), 1000, {}) == {}  # promise; nobody kept it
    one_owner = pot.decide(closed(), 1000, dict.fromkeys(NAMES[:2], "x"))
    assert set(one_owner.values()) == {500}


def test_spot_checks_draw_a_few_rows_of_who_sold_nothing_and_hang_on_no_choice():
    case = closed(asks=(0, 9 * MICRO))
    drawn = pot.drawn(case.target, case.clearing)
    assert list(drawn) == [NAMES[1]]  # the other sold
    capped = case.target.capped[NAMES[1]]
    assert sum(drawn[NAMES[1]]) == min(SPOT_ROWS, sum(capped))
    assert all(n <= most for n, most in zip(drawn[NAMES[1]], capped, strict=True))
    assert pot.drawn(case.target, case.clearing) == drawn
    others = [
        pot.drawn(case.target, case.clearing.model_copy(update={"draw_seed": f"{seed:064x}"}))
        for seed in range(40)
    ]
    assert len({str(found) for found in others}) > 1  # the seed decides
    assert pot.drawn(case.target, closed(asks=(MICRO, None)).clearing) == {}  # silent: nothing
    assert [pot.has_passed(spot(), real, "") for real in range(6)] == [False] * 3 + [True] * 3
    assert not pot.has_passed(spot(), 5, "copied")
    kept, broken = spot(source_id="a", real=3), spot(source_id="b", real=3, ground="short")
    assert pot.looked_at([kept, broken, spot(source_id="c", real=0)]) == {"a"}


def spot(source_id="a", real=None, ground=""):
    places = ((0, 0, 5),)
    return Order("o", "r", source_id, (5,), 5, 0, "d", None, real, places, None, ground, offered=3)


def test_a_price_tells_of_the_pot_and_of_thin_competition():
    case = closed()
    with_pot = replace(case, pot={NAMES[0]: 999})
    plain, more = pricing.decide(case).prices[0], pricing.decide(with_pot).prices[0]
    units = case.clearing.orders[0].units
    assert (plain.components["dividend"], more.point_micro) == (0, plain.point_micro)
    assert more.components["dividend"] == (2 * 999 + units) // (2 * units)
    assert plain.monopoly_bound  # two sources are no market


# ---------------------------------------------------------------- scoring


@given(
    st.integers(1, 10**8),
    st.integers(2, 4),
    st.integers(1, 32),
    st.lists(st.integers(1, 9), max_size=6),
)
def test_the_tables_of_a_run_spend_exactly_its_epsilon(epsilon, labels, bins, levels):
    groups = [(f"g{index}", count) for index, count in enumerate(levels)]
    tables = noise_tables(epsilon, labels, bins, groups)
    assert sum(table.epsilon_micro for table in tables) == epsilon
    assert tables[0].cells == labels * bins
    assert [table.cells for table in tables[1:]] == [count * labels for count in levels]
    assert all(tables[0].epsilon_micro >= table.epsilon_micro for table in tables)
    if not groups:
        assert tables[0].epsilon_micro == epsilon


def test_bins_follow_the_size_class():
    assert [published_bins(2**k) for k in (0, 7, 8, 10, 11, 20)] == [8, 8, 16, 16, 32, 32]
