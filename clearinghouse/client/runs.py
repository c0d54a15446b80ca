"""How many runs a validation set's lifetime budget pays for, and under which law of noise.

A set that is sealed for many runs gets a ledger of two lanes: the pure lane holds what a target
(and a noised size) costs, the zCDP lane pays for the runs, whose coins need only grow with the root
of their number. A set that is sealed without saying how many has the pure lane only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clearinghouse.canonical import digest
from clearinghouse.client.budget import Budget
from clearinghouse.client.keystore import Keystore
from clearinghouse.errors import BudgetExceededError, InputError
from clearinghouse.money import format_money
from dp.cost import Cost
from dp.laws import Law, choose, geometric_law, rho_lane, supported_runs

DEFAULT_LIMIT_MICRO = 3_000_000
"""Lifetime budget of a validation set, where its owner does not say."""

DEFAULT_TARGET_MICRO = 500_000


def supported(limit_micro: int, spent_micro: int, target_micro: int, score_micro: int) -> int:
    """Runs that fit beside one more target into what is left."""
    return supported_runs(limit_micro - spent_micro - target_micro, score_micro)


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a set that is sealed for so many runs gets.

    Attributes:
        law: The law with the smaller noise.
        other_sd: Standard deviation of geometric noise for as many runs; None if it cannot be.
        lanes: Of the ledger that is made for the set.
    """

    law: Law
    other_sd: float | None
    lanes: Cost

    @property
    def terms(self) -> dict[str, int | str]:
        """The fields of `OpenRequest` that a request on the set has."""
        return {
            "noise_law": self.law.name,
            "epsilon_score_micro": self.law.each_micro,
            "rho_score_micro": self.law.cost.micro_rho,
        }


def plan_lanes(
    limit_micro: int, pure_micro: int, runs: int, *, groups: int, histograms: int = 1
) -> RunPlan:
    """Choose the law of so many runs, and the lanes of a new ledger for them.

    Geometric noise is all pure. Where coins are the law with less noise, the pure lane keeps what
    pure releases cost and the rest becomes rho; the two mean (limit, 1e-6) together.

    Args:
        limit_micro: Lifetime budget of the patients.
        pure_micro: What a target and a noised size cost.
        runs: Fixed for the set.
        groups: Subgroup tables of each run.
        histograms: Of each run: one, or one a class.

    Raises:
        InputError: The runs do not fit under any law.
    """
    room = limit_micro - pure_micro
    try:
        law = choose(runs, room, groups=groups, histograms=histograms)
    except ValueError as error:
        raise InputError(
            f"epsilon {format_money(max(0, room))} is left for {runs} runs beside the target: "
            f"{error}. Seal for fewer runs or with a larger --limit"
        ) from None
    if law.name == "geometric":
        return RunPlan(law, law.sd, Cost(limit_micro, 0))
    try:
        other = geometric_law(runs, room, groups, histograms).sd
    except ValueError:
        other = None
    return RunPlan(law, other, rho_lane(limit_micro, pure_micro, law.delta))


def plan_runs(keystore: Keystore, budget: Budget, terms: Mapping[str, Any]) -> int:
    """N for a request: what was asked for, or one for each developer as far as the budget goes.

    It is remembered before the request is opened, so that the same terms give the same request
    after some of the budget was spent.

    Args:
        keystore: Of the hospital.
        budget: Of its patients.
        terms: The fields of `OpenRequest`; `runs` may be left out.

    Raises:
        BudgetExceededError: The budget does not hold the target and that many runs. Nothing is
            spent.
    """
    name = f"plans/{digest(dict(terms))[:32]}"
    known = keystore.recall(name)
    if known is not None:
        return int(known["runs"])
    fits, left = _fitting(budget, terms)
    wanted = terms.get("runs")
    runs = min(fits, len(terms["developer_ids"])) if wanted is None else int(wanted)
    if not 1 <= runs <= fits:
        raise BudgetExceededError(
            f"{left}, not {max(1, runs)}. Ask for fewer runs or a smaller epsilon a run"
        )
    keystore.remember(name, {"runs": runs})
    return runs


def _fitting(budget: Budget, terms: Mapping[str, Any]) -> tuple[int, str]:
    """Runs that what is left pays for beside a target, and that in words."""
    target, left = int(terms["epsilon_target_micro"]), budget.left
    score, rho = int(terms["epsilon_score_micro"]), int(terms.get("rho_score_micro", 0))
    held = f"epsilon {format_money(left.micro_epsilon)} of {format_money(budget.limit)}"
    beside = f"beside a target of {format_money(target)} that pays"
    if not rho:
        fits = supported(left.micro_epsilon, 0, target, score)
        each = format_money(score)
        return fits, f"{held} is left for these patients: {beside} {fits} runs of {each}"
    fits = supported_runs(left.micro_rho, rho) if target <= left.micro_epsilon else 0
    held += f" and rho {format_money(left.micro_rho)}"
    each = f"rho {format_money(rho)}"
    return fits, f"{held} is left for these patients: {beside} {fits} runs of {each}"
