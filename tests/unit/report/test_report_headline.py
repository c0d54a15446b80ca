"""Every number of the headline is the report's, and no baseline that wins is left out."""

from decimal import Decimal
from html import unescape

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clearinghouse.report.headline import headline
from clearinghouse.report.html import render_html
from clearinghouse.report.winners import method_words, winners

SHAPES = [
    {},
    {"baseline_wins": True},
    {"n_developers": 1, "awarded": False},
    {"gap_reason": "the denominator is below its standard error"},
    {"undetermined": True, "covered": True},
    {"n_sources": 60, "n_developers": 9},
    {"hostile": True},
]


def resolve(report, pointer):
    """RFC 6901, written from the RFC and apart from the product."""
    value = report
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_fact_is_the_sum_of_the_report_values_it_points_to(sample, shape):
    report = sample(**shape)
    for card in headline(report).cards:
        for fact in (card.figure, *card.facts):
            assert fact.pointers
            found = sum(Decimal(str(resolve(report, p))) for p in fact.pointers)
            assert Decimal(fact.exact) == found


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shown_numbers_are_the_exact_ones_rounded(sample, shape):
    for card in headline(sample(**shape)).cards:
        for fact in (card.figure, *card.facts):
            if fact.shown == "not known":
                continue
            digits = fact.shown.removesuffix(" EUR").replace(",", "")
            scale = Decimal(100) if digits.endswith("%") else Decimal(1)
            shown = Decimal(digits.removesuffix("%"))
            half = Decimal(5).scaleb(shown.as_tuple().exponent - 1)
            assert abs(shown - Decimal(fact.exact) * scale) <= half


def test_the_three_figures_of_a_plain_report(sample):
    report = sample()
    closeness, score, cost = headline(report).cards
    assert closeness.figure.shown == "41%"
    best = max(report["scores"], key=lambda one: one["auc"])
    assert score.figure.shown == f"{best['auc']:.3f}"
    assert best["developer"] in score.sentence
    low, high = best["intervals"]["auc"]
    assert f"{low:.3f} to {high:.3f}" in score.sentence
    total = Decimal(report["clearing"]["customer_pays"]) + Decimal("300.00")
    assert cost.figure.shown == f"{total:.2f} EUR"


def test_without_an_award_the_purse_is_not_paid(sample):
    report = sample(awarded=False)
    cost = headline(report).cost
    assert Decimal(cost.figure.exact) == Decimal(report["clearing"]["customer_pays"])
    assert "no model earned the purse" in cost.sentence


def test_a_null_gap_shows_w2_and_its_reason(sample):
    closeness = headline(sample(gap_reason="the noise is larger than the gap")).closeness
    assert closeness.figure.shown == "1.412"
    assert "the noise is larger than the gap" in " ".join(closeness.cautions)


def test_an_undetermined_score_is_not_shown_as_a_half(sample):
    score = headline(sample(undetermined=True)).score
    assert score.figure.shown == "not known"
    assert "Undetermined" in " ".join(score.cautions)


def test_a_determined_model_beats_an_undetermined_one(sample):
    report = sample()
    report["scores"][2]["status"] = "undetermined"
    assert "gam" in headline(report).score.sentence


def test_the_purse_metric_decides_and_brier_is_better_low(sample):
    report = sample()
    report["purse"]["metric"] = "brier"
    for score, brier in zip(report["scores"], (0.21, 0.17, 0.25), strict=True):
        score["brier"] = brier
    assert headline(report).score.figure.shown == "0.170"


def test_wrong_counts_are_an_alarm(sample):
    report = sample()
    assert not headline(report).score.cautions
    for score in report["scores"]:
        score["exact_counts_match"] = False
    assert "Do not trust" in headline(report).score.cautions[0]


def test_payments_that_do_not_add_up_are_an_alarm(sample):
    report = sample()
    assert not headline(report).cost.cautions
    report["clearing"]["fee"] = "0.01"
    assert headline(report).cost.cautions


def test_a_match_within_the_spread_of_random_draws_is_not_called_better(sample):
    report = sample()
    report["match"]["methods"]["random"]["gap_sd"] = 0.3
    assert "not clearly better than chance" in " ".join(headline(report).closeness.cautions)


@pytest.mark.parametrize(("spread", "said"), [(0.05, False), (0.3, True)])
def test_a_lead_over_a_baseline_within_noise_is_called_so(sample, spread, said):
    """41% against 21% closed: more than 1.64 spreads of 5 points, less than of 30."""
    report = sample()
    report["match"]["methods"]["random"]["gap_sd"] = spread
    cautions = " ".join(headline(report).closeness.cautions)
    assert ("The lead over the baseline 'use every record'" in cautions) == said


@pytest.mark.parametrize(("spread", "said"), [(0.02, "A baseline wins"), (0.2, "within noise")])
def test_a_baseline_with_the_better_gap_is_named_within_noise_or_not(sample, spread, said):
    """48% against 41%."""
    report = sample(baseline_wins=True)
    report["match"]["methods"]["random"]["gap_sd"] = spread
    (found,) = [sentence for sentence in winners(report) if "gap closed" in sentence]
    assert said in found


NUMBERS = st.floats(-2, 2, allow_nan=False)


@given(ours=st.tuples(NUMBERS, NUMBERS, NUMBERS), theirs=st.tuples(NUMBERS, NUMBERS, NUMBERS))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_baseline_is_named_exactly_when_it_wins_something(sample, ours, theirs):
    report = sample()
    methods, downstream = report["match"]["methods"], report["downstream"]
    report["match"]["methods"] = {
        name: {**methods[name], "gap_closed": v[0], "w2": v[1]}
        for name, v in (("clearinghouse", ours), ("label_only", theirs))
    }
    report["downstream"] = {
        name: {**downstream[name], "auc": v[2]}
        for name, v in (("clearinghouse", ours), ("label_only", theirs))
    }
    wins = theirs[0] > ours[0] or theirs[1] < ours[1] or theirs[2] > ours[2]
    said = " ".join(winners(report))
    assert (method_words("label_only") in said) == wins
    told = " ".join(headline(report).closeness.cautions)
    for sentence in winners(report):
        if "within noise" not in sentence:
            assert sentence in told
        else:
            assert "Ahead of it within noise: match labels only (" in told


def test_the_page_has_every_winner_with_its_numbers(sample):
    report = sample(baseline_wins=True)
    report["downstream"]["random"] |= {"auc": 0.77}
    page = unescape(render_html(report))
    said = winners(report)
    assert len(said) >= 2
    for sentence in [*winners(report, models=False), *winners(report, distances=False)]:
        assert sentence in page
    assert all(method_words(name) in " ".join(said) for name in ("use_all", "random"))


def test_an_empty_report_gives_cards_that_claim_nothing():
    for card in headline({}).cards:
        assert card.figure.shown == "-"
        assert not [fact for fact in card.facts if fact.exact]
