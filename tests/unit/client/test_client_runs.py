"""How many runs a set's lifetime budget pays for, fixed before a request is opened."""

import pytest

from clearinghouse.client.budget import Budget
from clearinghouse.client.keystore import Keystore
from clearinghouse.client.runs import plan_lanes, plan_runs, supported
from clearinghouse.errors import BudgetExceededError, InputError
from clearinghouse.ids import new_id
from clearinghouse.noise_laws import epsilon_of_rho
from dp.cost import Cost

MICRO = 1_000_000


@pytest.fixture
def keystore(tmp_path):
    return Keystore.open(tmp_path / "hospital")


@pytest.fixture
def budget(keystore):
    return Budget(keystore.ledger_path, 3 * MICRO)


def terms(developers, **changes):
    return {
        "epsilon_target_micro": MICRO // 2,
        "epsilon_score_micro": MICRO,
        "developer_ids": [new_id("org") for _ in range(developers)],
        **changes,
    }


def test_the_default_budget_supports_two_runs_beside_a_target():
    assert supported(3 * MICRO, 0, MICRO // 2, MICRO) == 2
    assert supported(3 * MICRO, 2 * MICRO, MICRO // 2, MICRO) == 0
    assert supported(MICRO, MICRO, MICRO // 2, MICRO) == 0


def test_lanes_follow_the_law_that_the_runs_get():
    few = plan_lanes(3 * MICRO, MICRO // 2, 2, groups=0)
    assert few.lanes == Cost(3 * MICRO, 0)
    assert few.terms == {
        "noise_law": "geometric",
        "epsilon_score_micro": 1_250_000,
        "rho_score_micro": 0,
    }
    many = plan_lanes(3 * MICRO, MICRO // 2, 20, groups=2)
    assert many.lanes.micro_epsilon == MICRO // 2
    assert many.lanes.micro_rho >= 20 * many.law.cost.micro_rho
    assert MICRO // 2 + epsilon_of_rho(many.lanes.micro_rho) <= 3 * MICRO
    assert many.terms["rho_score_micro"] == many.law.cost.micro_rho
    with pytest.raises(InputError, match="Seal for fewer runs"):
        plan_lanes(MICRO, MICRO, 2, groups=0)


def test_runs_in_rho_fit_as_the_zcdp_lane_says(tmp_path):
    keystore = Keystore.open(tmp_path / "many")
    budget = Budget(keystore.ledger_path, MICRO // 2, 100_000)
    wanted = terms(9, rho_score_micro=30_000)
    assert plan_runs(keystore, budget, wanted) == 3
    with pytest.raises(BudgetExceededError, match=r"rho 0.10 is left .* pays 3 runs of rho 0.03"):
        plan_runs(keystore, budget, terms(9, rho_score_micro=30_000, runs=4))
    budget.release("t", {}, 1, lambda: b"x", "target")  # too little is left for another target
    with pytest.raises(BudgetExceededError, match="pays 0 runs"):
        plan_runs(keystore, budget, terms(9, rho_score_micro=30_000, runs=1))


def test_a_run_a_developer_as_far_as_the_budget_goes(keystore, budget):
    assert plan_runs(keystore, budget, terms(1)) == 1
    assert plan_runs(keystore, budget, terms(5)) == 2
    assert plan_runs(keystore, budget, terms(5, epsilon_score_micro=MICRO // 2)) == 5
    assert plan_runs(keystore, budget, terms(5, runs=1)) == 1


def test_what_does_not_fit_is_refused_and_free(keystore, budget):
    for wanted in (
        terms(5, runs=3),
        terms(5, epsilon_score_micro=2_500_001),
        terms(1, epsilon_target_micro=3 * MICRO),
    ):
        with pytest.raises(BudgetExceededError, match="is left for these patients"):
            plan_runs(keystore, budget, wanted)
    assert budget.spent == 0


def test_the_same_terms_keep_their_number_after_money_was_spent(keystore, budget):
    """Opening again must give the same request, though less fits by then."""
    wanted = terms(5)
    assert plan_runs(keystore, budget, wanted) == 2
    budget.release("target", {}, 2 * MICRO, lambda: b"x", "target")
    assert plan_runs(keystore, budget, wanted) == 2
    with pytest.raises(BudgetExceededError):
        plan_runs(keystore, budget, terms(5))


def test_a_new_campaign_on_the_same_patients_starts_where_the_old_one_ended(keystore, budget):
    budget.release("a target", {}, 2 * MICRO, lambda: b"x", "target")
    again = Budget(Keystore.open(keystore.directory).ledger_path, 3 * MICRO)
    assert again.spent == 2 * MICRO
    with pytest.raises(BudgetExceededError, match="pays 0 runs"):
        plan_runs(keystore, again, terms(2))
