"""Duplicates: facts settled exactly, with stated odds of a false charge and stated power."""

from collections import Counter

import numpy as np
import pytest
from scipy import stats

from valuation.duplicates import (
    ALARM,
    Delivery,
    chance_of_repeats,
    clusters,
    inside_pairs,
    settle_duplicates,
)


def rows(*numbers: int) -> tuple[bytes, ...]:
    return tuple(int(number).to_bytes(8, "big") for number in numbers)


# ---------------------------------------------------------------- settling


def test_the_earliest_commitment_is_paid_whatever_the_order_of_delivery() -> None:
    victim, thief = Delivery(5, rows(*range(40))), Delivery(9, rows(*range(40)))
    for names in (("a", "b"), ("z", "b")):
        given = {names[1]: thief, names[0]: victim}
        found = settle_duplicates(given)
        assert all(found[names[0]].paid)
        assert found[names[0]].copied == 0
        assert not any(found[names[1]].paid)
        assert found[names[1]].forfeits
        assert dict(found[names[1]].originals) == {names[0]: 40}
        assert clusters(found) == dict.fromkeys(given, min(names))


def test_a_copy_in_part_is_unpaid_in_part_and_keeps_its_deposit_below_the_limit() -> None:
    others = {f"o{i}": Delivery(i, rows(*range(1000 * i, 1000 * i + 100))) for i in range(5, 15)}
    for copied, forfeits in ((15, False), (30, False), (45, False), (46, True)):
        own = range(500, 600 - copied)
        thief = Delivery(99, rows(*own, *range(7000, 7000 + copied)))
        found = settle_duplicates({**others, "t": thief})
        assert all(all(found[name].paid) for name in others)
        assert found["t"].copied == copied
        assert found["t"].paid == tuple([not forfeits] * (100 - copied) + [False] * copied)
        assert found["t"].forfeits is forfeits


def test_a_victim_that_sold_nothing_shows_its_hashes() -> None:
    thief, victim = rows(*range(40)), rows(*range(60))
    others = {f"o{i}": Delivery(i, rows(*range(1000 * i, 1000 * i + 60))) for i in range(2, 9)}
    silent = settle_duplicates({**others, "v": Delivery(1, ()), "t": Delivery(99, thief)})
    assert all(silent["t"].paid)
    shown = settle_duplicates({**others, "v": Delivery(1, (), victim), "t": Delivery(99, thief)})
    assert not any(shown["t"].paid)
    assert shown["t"].forfeits
    assert shown["v"].paid == ()  # showing earns nothing
    # showing after the fact charges nobody: the earlier commitment owns
    late = settle_duplicates({**others, "v": Delivery(1, thief), "t": Delivery(99, (), thief)})
    assert all(late["v"].paid)


def test_eight_identities_with_the_same_rows_are_paid_once() -> None:
    clones = {f"c{i}": Delivery(i, rows(*range(50))) for i in range(8)}
    found = settle_duplicates({**clones, "honest": Delivery(99, rows(*range(100, 150)))})
    assert sum(sum(item.paid) for name, item in found.items() if name != "honest") == 50
    assert all(found["honest"].paid)
    labels = clusters(found)
    assert {labels[f"c{i}"] for i in range(8)} == {"c0"}
    assert labels["honest"] == "honest"


def test_rows_that_look_alike_by_chance_are_paid() -> None:
    """Coarse columns: 300 kinds of rows, drawn independently. No charge at all in 400 pairs.

    The odds of any false charge are below 400 x 1e-6; the seed is fixed.
    """
    rng = np.random.default_rng(1)
    chances = 0
    for _ in range(400):
        first, second = (rows(*rng.integers(0, 300, int(rng.integers(5, 200)))) for _ in range(2))
        found = settle_duplicates({"a": Delivery(1, first), "b": Delivery(2, second)})
        assert all(found["a"].paid)
        assert all(found["b"].paid)
        chances += found["b"].chance
    assert chances > 1000


def test_copies_are_found_among_chance_repeats() -> None:
    rng = np.random.default_rng(2)
    caught = 0
    for _ in range(50):
        first = rng.integers(0, 3000, 150)
        second = np.concatenate([first[:60], rng.integers(0, 3000, 60)])
        found = settle_duplicates({"a": Delivery(1, rows(*first)), "b": Delivery(2, rows(*second))})
        caught += found["b"].copied >= 60 and found["b"].forfeits
    assert caught == 50


def test_hospitals_that_share_some_patients_keep_their_deposits() -> None:
    """30% of the rows are truly in both: the later one is not paid for them, nothing worse."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        both = rng.choice(10**9, 30, replace=False)
        tables = [np.concatenate([both, rng.choice(10**9, 70)]) for _ in range(2)]
        found = settle_duplicates(
            {
                name: Delivery(i, rows(*t))
                for i, (name, t) in enumerate(zip("ab", tables, strict=True))
            }
        )
        assert not found["b"].forfeits
        assert sum(found["b"].paid) == 70
        assert all(found["a"].paid)


def test_the_overlap_is_read_in_relation_to_what_was_delivered() -> None:
    """Each delivers 60 of 150 rows drawn by its own key: a thief overlaps by 40%, not by 100%."""
    for kind, most, least in (("thief", 20, 20), ("shares 30%", 0, 0)):
        forfeits = 0
        for seed in range(20):
            rng = np.random.default_rng([seed, 5])
            first = np.arange(150) if kind == "thief" else np.r_[:45, 1000:1105]
            tables = {
                0: np.arange(150),
                1: first,
                **{i: np.arange(150) + 2000 * i for i in range(2, 9)},
            }
            given = {
                f"s{i}": Delivery(i, rows(*rng.choice(table, 60, replace=False)), coverage=0.4)
                for i, table in tables.items()
            }
            found = settle_duplicates(given)
            forfeits += found["s1"].forfeits
            assert all(all(found[name].paid) for name in given if name != "s1")
            assert found["s1"].forfeits == (not any(found["s1"].paid))
        assert least <= forfeits <= most


def test_the_odds_of_repeats_are_the_binomial_tail_at_the_upper_limit() -> None:
    original = Counter(rows(1, 1, 2, 3, 4, 5, 6, 7, 8, 9))
    assert inside_pairs(original) == (45, 1)
    left_out = stats.beta.ppf(0.999, 2 + 1, 10 - 2)  # two of ten rows repeat another one
    many = 10 * stats.chi2.ppf(0.999, 2 * (3 + 1)) / 2 / 2000  # 3 of 2000 pairs are equal
    assert many < left_out
    for repeats in (1, 3, 20):
        for pairs, q in (((45, 1), left_out), ((2000, 3), many), ((0, 0), left_out)):
            expected = stats.binom.sf(repeats - 1, 20, q)
            found = chance_of_repeats(original, 20, repeats, pairs)
            assert found == pytest.approx(expected, rel=1e-9)
    assert chance_of_repeats(original, 20, 0, (45, 1)) == 1.0
    everything = Counter(rows(1, 1, 2, 2))
    assert chance_of_repeats(everything, 5, 5, inside_pairs(everything)) == 1.0


def test_how_many_copies_it_takes() -> None:
    """The power that is stated: of 60 rows, 8 among 20 sources and 21 between two."""
    for sources, least in ((20, 8), (2, 21)):
        others = {
            f"o{i}": Delivery(i, rows(*range(1000 * i, 1000 * i + 60))) for i in range(sources - 1)
        }
        for copied in (least - 1, least):
            thief = Delivery(999, rows(*range(500, 560 - copied), *range(copied)))
            found = settle_duplicates({**others, "t": thief})
            assert found["t"].copied == (copied if copied >= least else 0)


def test_repeating_ones_own_rows_excuses_nothing() -> None:
    others = {f"o{i}": Delivery(i, rows(*range(1000 * i, 1000 * i + 60))) for i in range(9)}
    thief = Delivery(99, rows(*[500] * 48, *range(12)))
    assert settle_duplicates({**others, "t": thief})["t"].copied == 12


def test_false_charges_stay_below_the_alarm_rate() -> None:
    """At alarm 0.01, 4000 honest pairs: at most 1% charged; twice that would be seen at 1e-9."""
    rng = np.random.default_rng(3)
    charged = 0
    for _ in range(4000):
        first, second = (rows(*rng.integers(0, 400, 60)) for _ in range(2))
        pair = {"a": Delivery(1, first), "b": Delivery(2, second)}
        charged += settle_duplicates(pair, alarm=0.01)["b"].copied > 0
    assert charged <= 40


def test_malformed_deliveries_are_refused() -> None:
    same = {"a": Delivery(1, rows(1)), "b": Delivery(1, rows(2))}
    with pytest.raises(ValueError, match="log indexes"):
        settle_duplicates(same)
    for change in ({"alarm": 0.0}, {"alarm": 1.0}, {"forfeit_above": 1.5}):
        with pytest.raises(ValueError, match="alarm"):
            settle_duplicates({}, **change)
    with pytest.raises(ValueError, match="coverage"):
        settle_duplicates({"a": Delivery(1, (), coverage=0.0)})
    assert settle_duplicates({}) == {}
    assert settle_duplicates({"a": Delivery(1, ())})["a"].paid == ()


def test_the_alarm_is_one_in_a_million() -> None:
    assert ALARM == 1e-6
