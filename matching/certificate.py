"""A certificate of a plan's optimality that anyone checks without solving anything again.

`cell_prices` and `certify` work on plans in memory. `to_json` writes a plan with its cell prices
and payments as canonical JSON that an auditor reads back and checks with `verify_json` in time
linear in its inputs; `recompute` repeats the clearing from the same inputs, bit for bit, for those
who are entitled to the payments' derivation as well (marginal values have no linear-time proof:
each is the optimum of another market).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from matching import flow as kernel
from matching.clearing import Plan, clear, marginal_values, rebuild, settled_state, total_gain
from matching.inputs import Inputs, Integers, Keys, checked, checked_keys
from matching.ladder import Rung, price_ladders

FORMAT = "clearinghouse certificate v1"
_INPUTS = ("distances", "target", "supplies", "prices", "reserve")
_FIELDS = {"format", *_INPUTS, "tie_keys", "quota", "flow", "objective", "cell_prices", "payments"}


def cell_prices(plan: Plan) -> Integers:
    """Dual price of each cell: what serving one more unit from it would cost, micro-money.

    Args:
        plan: A plan from `matching.clear`.

    Returns:
        (K,) int64. A cell without supply gets the price at which no target would want it.

    Raises:
        ValueError: If the plan is infeasible or moving its units between cells would gain.
    """
    curves, standing, _, left = rebuild(plan)
    weight, _, _ = settled_state(curves, standing)
    following = kernel.skip_full(
        curves.first[:-1].copy(), curves.first[1:].copy(), left, curves.price
    )
    value = kernel.cell_values(weight, following)
    prices = np.full(len(plan.target), plan.reserve.max(initial=0), np.int64)
    prices[curves.cells] = value[:-1] + curves.shift
    return prices


def certify(plan: Plan, prices: Integers) -> None:
    """Check that a plan is optimal, in time linear in its inputs.

    Strong duality of the transport problem: the plan is feasible, and its objective equals
    sum_j target[j] x (best gain of j at the cell prices) + sum supplies x (cell price - ask)+.

    Args:
        plan: The plan to check, from whatever source.
        prices: (K,) cell prices, from `cell_prices` or from the log.

    Raises:
        ValueError: If the plan is infeasible, its objective is not the sum of its gains, or the
            prices do not prove it optimal.
    """
    rebuild(plan)
    gain = total_gain(plan.quota, plan.flow, plan)
    if gain != plan.objective:
        raise ValueError(f"expected the objective {gain} of the plan's units, got {plan.objective}")
    if prices.shape != plan.target.shape:
        raise ValueError(f"prices: expected shape {plan.target.shape}, got {prices.shape}")
    bound = _dual_bound(plan, prices)
    if bound != gain:
        raise ValueError(f"expected an optimum: these cell prices allow {bound}, got {gain}")


def _dual_bound(plan: Plan, prices: Integers) -> int:
    """Upper bound on every plan's gain at these cell prices, in integers of any size."""
    worth = plan.reserve[:, None] - plan.distances - prices[None, :]
    supplied = plan.supplies.any(axis=0)
    best = np.maximum(worth[:, supplied].max(axis=1, initial=0), 0)
    bound = sum(int(unit) * int(count) for unit, count in zip(best, plan.target, strict=True))
    rent = np.maximum(prices[None, :] - plan.prices[:, None], 0)
    s, c = np.nonzero((rent > 0) & (plan.supplies > 0))
    pairs = zip(rent[s, c], plan.supplies[s, c], strict=True)
    return bound + sum(int(unit) * int(count) for unit, count in pairs)


# ---------------------------------------------------------------- recomputing


@dataclass(frozen=True, slots=True)
class Cleared:
    """Everything a clearing decides.

    Attributes:
        plan: Quotas, flow and objective with their inputs.
        cell_prices: (K,) dual prices, micro-money.
        marginals: (S,) marginal values, micro-money.
        payments: (S,) ask x units + marginal value if every unit is real, micro-money.
        ladders: For each source the price of every unit; they sum to the payment.
    """

    plan: Plan
    cell_prices: Integers
    marginals: Integers
    payments: Integers
    ladders: tuple[tuple[Rung, ...], ...]


def recompute(inputs: Mapping[str, Any]) -> Cleared:
    """Clear the market again from its recorded inputs; the same inputs give the same bits.

    Args:
        inputs: distances, target, supplies, prices, reserve and optionally tie_keys, as taken by
            `matching.clear` or as found in a certificate (keys there are hexadecimal).

    Raises:
        ValueError: If a field is missing or malformed.
    """
    _expect_fields(inputs, set(_INPUTS))
    keys = _keys(inputs.get("tie_keys"))
    *market, reserve = _arrays(inputs)
    plan = clear(*market, reserve=reserve, tie_keys=keys)
    marginals = marginal_values(plan)
    return Cleared(
        plan,
        cell_prices(plan),
        marginals,
        plan.prices * plan.units + marginals,
        price_ladders(plan),
    )


# ---------------------------------------------------------------- JSON form


def to_json(cleared: Cleared) -> str:
    """A cleared market as canonical JSON: integers, sorted keys, no spaces."""
    plan = cleared.plan
    document: dict[str, Any] = {
        "format": FORMAT,
        **{name: getattr(plan, name).tolist() for name in _INPUTS},
        "tie_keys": _written(plan.tie_keys),
        "quota": plan.quota.tolist(),
        "flow": plan.flow.tolist(),
        "objective": plan.objective,
        "cell_prices": cleared.cell_prices.tolist(),
        "payments": cleared.payments.tolist(),
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def verify_json(text: str) -> Plan:
    """Check a certificate in linear time: the plan is feasible and optimal.

    Also every payment is checked to lie between the source's asks for its units and the worth of
    those units to the customer; `recheck_json` checks it to the last micro-unit by clearing again.

    Returns:
        The proven plan.

    Raises:
        ValueError: If the text is not a certificate or proves nothing.
    """
    document = _read(text)
    market = checked(*_arrays(document))
    plan = _plan_of(document, market)
    certify(plan, _array(document, "cell_prices"))
    payments = _array(document, "payments")
    if payments.shape != plan.prices.shape:
        raise ValueError(f"payments: expected {len(plan.prices)}, got {payments.shape}")
    dearest = int(plan.reserve.max(initial=0))
    for units, ask, paid in zip(plan.units, plan.prices, payments, strict=True):
        if not int(ask) * int(units) <= int(paid) <= dearest * int(units):
            raise ValueError("expected every payment between ask and reserve for the units sold")
    return plan


def recheck_json(text: str) -> Cleared:
    """Check a certificate bit for bit by clearing again: quotas, payments and prices.

    Raises:
        ValueError: If anything differs, naming the first field that does.
    """
    document = _read(text)
    again = recompute(document)
    expected = _read(to_json(again))
    for name in sorted(_FIELDS):
        if expected[name] != document[name]:
            raise ValueError(f"{name}: clearing again gives another result than this certificate")
    return again


def _read(text: str) -> dict[str, Any]:
    try:
        document = json.loads(
            text, parse_float=_no_float, parse_constant=_no_float, object_pairs_hook=_unique
        )
    except RecursionError:
        raise ValueError("expected a certificate, got deeply nested JSON") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"expected {FORMAT!r}")
    _expect_fields(document, _FIELDS, exactly=True)
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("expected JSON with one meaning, got a field twice")
    return found


def _no_float(_text: str) -> float:
    raise ValueError("expected integers only, got a fraction")


def _expect_fields(found: Mapping[str, Any], wanted: set[str], *, exactly: bool = False) -> None:
    missing, unknown = wanted - set(found), set(found) - wanted
    if missing or (exactly and unknown):
        raise ValueError(f"expected the fields {sorted(wanted)}, got {sorted(found)}")


def _arrays(inputs: Mapping[str, Any]) -> list[Any]:
    """The inputs in order; JSON has no shape for a table without rows, so it is given here."""
    arrays = [inputs[name] for name in _INPUTS]
    if not len(inputs["prices"]) and not len(inputs["supplies"]):
        arrays[2] = np.zeros((0, len(inputs["target"])), np.int64)
    return arrays


def _plan_of(document: Mapping[str, Any], market: Inputs) -> Plan:
    objective = document["objective"]
    if type(objective) is not int:
        raise ValueError(f"objective: expected an integer, got {type(objective).__name__}")
    quota, flow = _array(document, "quota"), _array(document, "flow")
    if quota.shape != market.supplies.shape or flow.shape != market.distances.shape:
        raise ValueError(f"expected quota and flow to fit the market, got {quota.shape}")
    keys = checked_keys(_keys(document["tie_keys"]), len(market.prices))
    return Plan(
        quota=quota,
        flow=flow,
        objective=objective,
        **{name: getattr(market, name) for name in _INPUTS},
        tie_keys=keys,
    )


def _array(document: Mapping[str, Any], name: str) -> Integers:
    array = np.asarray(document[name])
    if array.size and array.dtype.kind not in "iu":
        raise ValueError(f"{name}: expected integers, got {array.dtype}")
    if name == "quota" and array.size == 0:
        array = array.reshape(len(document["prices"]), len(document["target"]))
    return array.astype(np.int64)


def _written(keys: Keys) -> list[str] | list[int] | None:
    if keys is None:
        return None
    return [key.hex() if isinstance(key, bytes) else key for key in keys]  # type: ignore[return-value]


def _keys(keys: Sequence[Any] | None) -> Sequence[Any] | None:
    if keys is None:
        return None
    return [bytes.fromhex(key) if isinstance(key, str) else key for key in keys]
