"""Attacks: they win where nothing protects, and stay under their bounds on what is published.

Coins and noise come from the operating system. An assertion on a bound uses intervals of
confidence 1 - 2e-6 (one-sided 1e-6), an assertion that an attack wins has a margin of at least
five standard deviations: each has a false-alarm probability of at most 1e-6.
"""

import json
import math
from fractions import Fraction

import numpy as np
import pytest

from dp.attack_report import Exhibit, attack_report, attack_table
from dp.attacks import (
    averaging,
    clopper_pearson,
    differencing,
    guess_bound,
    membership,
    rebuilt,
    reconstruct_from_distances,
    reconstruct_from_publications,
    trilaterate,
)
from dp.boosting import boosting, boosting_bound
from dp.ledger import Ledger
from dp.noise import geometric

SURE = 1 - 2e-6


def noised(epsilon):
    return lambda counts: geometric(counts, epsilon)


# ---------------------------------------------------------------- reconstruction


def test_trilateration_is_exact_from_enough_anchors_and_not_from_fewer() -> None:
    """Why the market's server holds no distance of any patient."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(50, 6))
    for m in (7, 8, 40):
        anchors = rng.normal(size=(m, 6))
        apart = np.sqrt(((rows[:, None] - anchors[None]) ** 2).sum(axis=2))
        np.testing.assert_allclose(trilaterate(apart, anchors), rows, atol=1e-6)
    anchors = rng.normal(size=(4, 6))
    apart = np.sqrt(((rows[:, None] - anchors[None]) ** 2).sum(axis=2))
    assert not rebuilt(trilaterate(apart, anchors), rows).any()
    with pytest.raises(ValueError, match="anchors"):
        trilaterate(apart[:, :2], anchors)


def test_small_errors_of_distances_barely_help() -> None:
    rng = np.random.default_rng(1)
    rows, anchors = rng.normal(size=(50, 6)), rng.normal(size=(64, 6))
    apart = np.sqrt(((rows[:, None] - anchors[None]) ** 2).sum(axis=2))
    found = trilaterate(apart + rng.normal(0, 1e-3, apart.shape), anchors)
    assert np.sqrt(((found - rows) ** 2).mean()) < 5e-3


def exhibit(n: int = 120) -> Exhibit:
    """Numbers beside the strata, as patients have: a codeword never is a patient."""
    rng = np.random.default_rng(2)
    places = rng.integers(0, 6, n)
    codewords = np.c_[np.repeat(np.eye(3) / math.sqrt(2), 2, axis=0), np.tile([0.0, 1.0], 3)]
    centres = np.c_[codewords, np.zeros((6, 3))]
    rows = centres[places] + np.c_[np.zeros((n, 4)), rng.normal(size=(n, 3))]
    return Exhibit(rows, places, centres, rng.normal(size=(9, 7)))


def test_reconstruction_wins_on_distances_and_fails_on_publications() -> None:
    shown = exhibit()
    raw = reconstruct_from_distances(shown.rows, shown.anchors)
    assert (raw.success, raw.bound, raw.trials) == (1.0, None, 120)
    published = reconstruct_from_publications(
        shown.rows, shown.places, shown.codewords, noised(1), 1.0
    )
    assert published.success == 0.0
    assert published.holds


def test_rows_that_are_their_strata_are_guessed_as_often_as_shares_allow() -> None:
    """No column beside the strata: a guess is right about as often as its cell is large."""
    shown = exhibit(200)
    found = reconstruct_from_publications(
        shown.codewords[shown.places], shown.places, shown.codewords, noised(1), 1.0, SURE
    )
    assert 0 < found.success < 0.5  # six even cells: 1/6, sd .027
    assert found.holds


# ---------------------------------------------------------------- membership


@pytest.mark.parametrize("epsilon", [0.5, 1.0])
def test_membership_stays_at_its_bound_and_half_the_noise_goes_above(epsilon) -> None:
    def attacked(noise_epsilon: float, trials: int):
        return membership(
            [3, 0, 7],
            1,
            noised(noise_epsilon),
            epsilon,
            trials,
            against="a table",
            confidence=SURE,
        )

    right = attacked(epsilon, 6000)
    assert right.bound == pytest.approx(math.exp(epsilon) / (1 + math.exp(epsilon)))
    assert right.holds
    assert right.success > 0.55  # the attack is no straw man: .62 and .73 expected, sd .006
    # expected .73 and .88 against bounds of .62 and .73; intervals reach .03 down
    assert not attacked(2 * epsilon, 6000).holds


def test_membership_without_noise_always_wins() -> None:
    found = membership([3, 0, 7], 1, lambda counts: counts, None, 300, against="exact counts")
    assert (found.success, found.bound, found.holds) == (1.0, None, True)


# ---------------------------------------------------------------- averaging


def test_fresh_noise_averages_away_and_stored_answers_do_not(in_memory) -> None:
    def fresh():
        return lambda value: int(geometric(value, 1))

    made = 0

    def stored():
        nonlocal made
        made += 1
        ledger = Ledger.open(in_memory / f"averaging {made}.sqlite", limit_micro=1_000_000)

        def answer(value: int) -> int:
            def draw() -> bytes:
                return str(int(geometric(value, 1))).encode()

            return int(ledger.release("key", "body", 1_000_000, draw, "count"))

        return answer

    # 100 answers: sd of the mean .136, so right with probability .9998; 60 trials: >= 50 surely
    away = averaging(9, fresh, None, 100, 60, against="fresh noise")
    assert away.success > 0.8
    # claimed 1 for all answers together, and drawn anew each time: above the bound
    claimed = averaging(9, fresh, 1.0, 100, 60, against="fresh noise", confidence=SURE)
    assert not claimed.holds
    kept = averaging(9, stored, 1.0, 8, 150, against="stored", confidence=SURE)
    assert kept.bound == pytest.approx(math.tanh(0.5))
    assert kept.holds
    assert kept.success < 0.75  # .46 expected, sd .041


# ---------------------------------------------------------------- differencing


def test_differencing_wins_on_exact_tables_and_not_on_released_ones(tmp_path) -> None:
    counts = [5, 6, 0]

    def exact():
        return lambda values: values

    def twice():
        return lambda values: geometric(values, 1)

    def half():
        return lambda values: geometric(values, 6)

    assert differencing(counts, (0, 1), exact, None, 100, against="exact").success == 1.0
    both = differencing(counts, (0, 1), twice, 1.0, 3000, against="two", confidence=SURE)
    assert both.bound == pytest.approx(guess_bound(2))
    assert both.holds
    assert both.success > 0.55  # .65 expected, sd .009
    assert not differencing(counts, (0, 1), half, 1.0, 3000, against="two", confidence=SURE).holds


def test_the_same_source_asked_twice_has_no_difference(in_memory) -> None:
    made = 0

    def stored():
        nonlocal made
        made += 1
        ledger = Ledger.open(in_memory / f"differencing {made}.sqlite", limit_micro=1_000_000)

        def publish(values):
            def draw() -> bytes:
                return geometric(values, 1).tobytes()

            return np.frombuffer(ledger.release("s", "body", 1_000_000, draw, "summary"), np.int64)

        return publish

    found = differencing([5, 6, 0], (0, 1), stored, 1.0, 100, against="one", confidence=1 - 1e-6)
    assert found.low <= 0.5 <= found.high


# ---------------------------------------------------------------- boosting


def test_boosting_learns_from_exact_boards_and_not_from_budgeted_ones() -> None:
    def exact():
        return lambda right: int(right.sum())

    def budgeted():
        left = 2

        def answer(right):
            nonlocal left
            left -= 1
            return int(geometric(int(right.sum()), Fraction(1, 10))) if left >= 0 else None

        return answer

    # exact, 200 submissions on 500 rows: measured .19, sd of one board .022
    open_board = boosting(500, 200, exact, 12, answers=200, epsilon=None, against="exact")
    assert open_board.success > 0.12
    assert open_board.holds
    closed = boosting(
        500, 200, budgeted, 12, answers=2, epsilon=0.2, against="budgeted", confidence=SURE
    )
    assert closed.holds
    assert closed.success < 0.06  # sd of the mean of 12 boards: .0065


def test_boosting_bound_is_the_smallest_of_three() -> None:
    assert boosting_bound(500, 10**6, None) == 0.5
    assert boosting_bound(500, 3, None) == pytest.approx(math.sqrt(3 * math.log(501) / 1000))
    assert boosting_bound(500, 10**6, 0.1) == pytest.approx(0.1)
    with pytest.raises(ValueError, match="rows"):
        boosting_bound(0, 1, None)


# ---------------------------------------------------------------- intervals and the report


def test_clopper_pearson_covers_as_often_as_it_says() -> None:
    """Exactly, by summing the binomial law: at least 90% for every probability tried."""
    for p in (0.02, 0.3, 0.5, 0.97):
        law = [math.comb(20, k) * p**k * (1 - p) ** (20 - k) for k in range(21)]
        covered = [low <= p <= high for low, high in (clopper_pearson(k, 20) for k in range(21))]
        assert 0.9 <= sum(x for x, yes in zip(law, covered, strict=True) if yes) < 1
    assert clopper_pearson(0, 10)[0] == 0
    assert clopper_pearson(10, 10)[1] == 1
    for bad in ((-1, 10, 0.9), (11, 10, 0.9), (0, 0, 0.9), (1, 10, 1.0)):
        with pytest.raises(ValueError, match="expected"):
            clopper_pearson(*bad)


def test_guess_bound_is_a_coin_without_privacy_loss() -> None:
    assert guess_bound(0) == 0.5
    assert guess_bound(math.log(3)) == pytest.approx(0.75)
    with pytest.raises(ValueError, match="at least 0"):
        guess_bound(-1)


def test_attack_report_is_plain_json_and_holds() -> None:
    report = attack_report(exhibit(60), trials=80, boards=4, runs=1, confidence=SURE)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["holds"]
    attacks = {(item["attack"], item["against"]) for item in report["attacks"]}
    assert len(attacks) == len(report["attacks"]) == 11
    assert {name for name, _ in attacks} == {
        "reconstruction",
        "membership",
        "averaging",
        "differencing",
        "boosting",
    }
    for item in report["attacks"]:
        assert item["least"] - 1e-9 <= item["low"] <= item["success"] <= item["high"]
    text = attack_table(report)
    assert len(text.splitlines()) == 12
    assert "ABOVE" not in text


def test_a_broken_release_shows_in_the_report() -> None:
    report = attack_report(
        exhibit(60), trials=80, boards=2, runs=1, release=lambda counts: counts, confidence=SURE
    )
    assert not report["holds"]
    assert "ABOVE ITS BOUND" in attack_table(report)
