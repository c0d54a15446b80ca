"""How many runs a validation set's lifetime budget pays for, fixed before its request is opened."""

from collections.abc import Mapping, Sequence
from typing import Any

from clearinghouse.canonical import digest
from clearinghouse.client.budget import Budget
from clearinghouse.client.keystore import Keystore
from clearinghouse.errors import BudgetExceededError
from clearinghouse.money import format_money
from dp.cost import Cost, lanes
from dp.laws import ORDER, choose, supported_runs

DEFAULT_LIMIT_MICRO = 3_000_000
"""Lifetime budget of a validation set, where its owner does not say."""

DEFAULT_TARGET_MICRO = 500_000

MARKET_COINS: tuple[int, ...] = ()
"""Numbers of coins a cell that requests may name as their law of noise; none: geometric only."""


def supported(limit_micro: int, spent_micro: int, target_micro: int, score_micro: int) -> int:
    """Runs that fit beside one more target into what is left."""
    return supported_runs(limit_micro - spent_micro - target_micro, score_micro)


def budget_lanes(
    limit_micro: int,
    target_micro: int,
    runs: int,
    *,
    labels: int,
    bins: int,
    groups: int,
    coins: Sequence[int] = MARKET_COINS,
) -> Cost:
    """The lanes of a new ledger for so many runs: both laws within one total.

    Geometric noise is all pure. Where coins are the law with less noise, the pure lane keeps what a
    target costs and the rest becomes rho; the two mean (limit, 1e-6) together (`dp.cost.lanes`).

    Raises:
        ValueError: The runs do not fit in any law.
    """
    law = choose(
        runs, limit_micro - target_micro, labels=labels, bins=bins, groups=groups, coins=coins
    )
    if law.name == "geometric":
        return Cost(limit_micro, 0)
    return lanes(limit_micro, law.delta, target_micro, ORDER)


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
    target, score = int(terms["epsilon_target_micro"]), int(terms["epsilon_score_micro"])
    fits = supported(budget.limit, budget.spent, target, score)
    wanted = terms.get("runs")
    runs = min(fits, len(terms["developer_ids"])) if wanted is None else int(wanted)
    if not 1 <= runs <= fits:
        left = format_money(budget.limit - budget.spent)
        raise BudgetExceededError(
            f"epsilon {left} of {format_money(budget.limit)} is left for these patients: beside a "
            f"target of {format_money(target)} that pays {fits} runs of {format_money(score)}, not "
            f"{max(1, runs)}. Ask for fewer runs or a smaller epsilon a run"
        )
    keystore.remember(name, {"runs": runs})
    return runs
