"""Who wins a purse: the scores it looks at, its rule, the document that says why.

The rules are `valuation.contests`; here they are fed from released scores. A model counts only if
its score is determined, its lower bound reaches the threshold, and it keeps the purse's fairness
floor in every stratum, with the same confidence that all their bounds hold at once: noise and few
patients count against a model.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from clearinghouse import cells
from clearinghouse.canonical import canonical_bytes, digest
from clearinghouse.messages.intake import Fairness, Purse
from clearinghouse.messages.results import TargetView
from clearinghouse.money import MICRO
from clearinghouse.rounds import bids
from clearinghouse.rounds.desk import Desk
from clearinghouse.rounds.submissions import schema_of
from clearinghouse.schema import Schema
from clearinghouse.score_cards import LOWER_IS_BETTER
from clearinghouse.store.records import Request, Run
from clearinghouse.store.store import Tx
from secure_eval.noise import noise_variance
from secure_eval.score_intervals import one_sided, part_interval
from valuation.contests import RULES, Award, Contest, Entry, Rule

__all__ = ["Award", "Scored", "decide", "floors", "record", "scores"]


@dataclass(frozen=True, slots=True)
class Scored:
    """A released score as the purse's rule sees it, in millionths.

    Attributes:
        ask_micro: Opened bid of a procurement.
        floors: By stratum: lower bound of the fairness metric; empty without a floor.
        fair: Whether all of them reach the floor.
    """

    run_id: str
    org_id: str
    point_micro: int
    bound_micro: int
    determined: bool
    ask_micro: int | None = None
    floors: tuple[tuple[str, int], ...] = ()
    fair: bool = True


def rule_of(purse: Purse) -> Rule:
    """The purse's rule."""
    threshold = _sign(purse) * purse.threshold_micro
    if purse.kind == "contest":
        return Contest(purse.amount_micro, threshold, tuple(purse.prizes))
    return RULES[purse.kind](purse.amount_micro, threshold)


def _sign(purse: Purse) -> int:
    """-1 for an error, of which less is better: rules compare points and bounds turned round."""
    return -1 if purse.metric in LOWER_IS_BETTER else 1


def decide(purse: Purse, found: Sequence[Scored]) -> Award:
    """Divide the purse; amounts and refund sum to it.

    The bound is one-sided at the purse's confidence. Exact ties go by a hash of the run's id.
    """
    sign = _sign(purse)
    entries = [
        Entry(
            score.run_id,
            score.org_id,
            sign * score.point_micro,
            min(sign * score.bound_micro, sign * score.point_micro),
            score.determined and score.fair,
            score.ask_micro,
            hashlib.sha256(score.run_id.encode()).digest(),
        )
        for score in found
    ]
    return rule_of(purse).decide(entries)


# ---------------------------------------------------------------- the fairness floor


@dataclass(frozen=True, slots=True)
class Totals:
    """Patients of each stratum and label as the target's release tells them.

    Attributes:
        counts: (strata, labels) sums of noised counts.
        variance: Of one sum.
    """

    counts: np.ndarray[Any, np.dtype[np.int64]]
    variance: float


def totals(schema: Schema, target: TargetView, epsilon_micro: int, attribute: str) -> Totals:
    """The target's counts summed into the strata of one attribute: post-processing, free.

    Raises:
        ValueError: The target's level has no such attribute.
    """
    noised = np.array(target.noised, np.int64).reshape(target.cells, target.labels)
    summed = cells.marginal(schema, target.level, noised, attribute)
    merged = target.cells / len(summed)
    return Totals(summed, merged * noise_variance(epsilon_micro))


def floors(
    fairness: Fairness,
    predicted: Sequence[Sequence[int]],
    epsilon_micro: int,
    of: Totals,
    confidence_micro: int,
    coins: int = 0,
) -> tuple[int, ...]:
    """Lower bound of the metric in each stratum, in millionths.

    Args:
        fairness: Which metric.
        predicted: (strata, labels) noised counts of rows that the model calls positive.
        epsilon_micro: Of that table.
        of: All rows of each stratum and label.
        confidence_micro: One-sided, for all strata together: with so much confidence every bound
            holds (Bonferroni: each stratum gets an equal part of what may go wrong).
        coins: Committed coins per cell of that table; 0 under the geometric law.
    """
    label = 1 if fairness.metric == "sensitivity" else 0
    strata = max(1, len(of.counts))
    quantile = one_sided(1 - (1 - confidence_micro / MICRO) / strata)
    variance = noise_variance(epsilon_micro, coins)
    bounds = []
    for row, whole in zip(predicted, of.counts, strict=True):
        low, high = part_interval(
            float(row[label]), float(whole[label]), variance, of.variance, quantile
        )
        bounds.append(low if label else 1.0 - high)
    return tuple(int(bound * MICRO) for bound in bounds)


# ---------------------------------------------------------------- what is there, and the record


def scores(tx: Tx, request: Request) -> tuple[Scored, ...]:
    """The released scores of a request as its purse sees them."""
    purse = request.terms.purse
    asks = bids.asks(tx, request)
    of = _totals(tx, request) if purse.fairness is not None else None
    result = []
    for run in tx.runs.of(request.id, "score"):
        if run.state != "released":
            continue
        card: Mapping[str, Any] = json.loads(json.dumps(run.result["scorecard"]))
        org_id = str(run.model["org_id"])
        kept = () if of is None else _kept(request, run, schema_of(tx, request), of)
        floor = 0 if purse.fairness is None else purse.fairness.floor_micro
        result.append(
            Scored(
                run.id,
                org_id,
                _micro(card[purse.metric]),
                _micro(card["award_bound"]),
                card["status"] == "ok",
                asks.get(org_id),
                kept,
                all(bound >= floor for _, bound in kept),
            )
        )
    return tuple(result)


def _totals(tx: Tx, request: Request) -> Totals | None:
    fairness, body = request.terms.purse.fairness, tx.requests.document(request.id, "target")
    if fairness is None or body is None:
        return None
    target = TargetView.model_validate_json(body)
    epsilon = request.terms.epsilon_target_micro
    return totals(schema_of(tx, request), target, epsilon, fairness.attribute)


def _kept(request: Request, run: Run, schema: Schema, of: Totals) -> tuple[tuple[str, int], ...]:
    purse = request.terms.purse
    if purse.fairness is None:
        return ()
    name = purse.fairness.attribute
    released: Any = run.result
    tables = {table["name"]: table for table in released["tables"]}
    table = tables[f"group:{name}"]
    bounds = floors(
        purse.fairness,
        released["groups"][name],
        int(table["epsilon_micro"]),
        of,
        purse.confidence_micro,
        int(table["coins"]),
    )
    return tuple(zip(schema.stratum_names(name), bounds, strict=True))


def _micro(text: str) -> int:
    """A decimal string with at most six decimals, in millionths."""
    return int(Fraction(text) * MICRO)


def record(tx: Tx, desk: Desk, request: Request, found: Sequence[Scored], award: Award) -> None:
    """Keep and log the award's document."""
    receipts = {run_id: receipt.id for run_id, receipt in tx.runs.receipts(request.id).items()}
    body = canonical_bytes(_document(request.terms.purse, found, award, receipts))
    tx.requests.keep(request.id, "award", body.decode())
    desk.record(
        tx,
        "award.decided",
        desk.org,
        objects={"request": request.id},
        hashes={"award": digest(body)},
        amounts={"purse_micro": sum(award.amounts.values())},
    )


def _by(purse: Purse, award: Award) -> str:
    return f", by {purse.metric}" if award.amounts and purse.kind != "procurement" else ""


def _document(
    purse: Purse, found: Sequence[Scored], award: Award, receipts: Mapping[str, str]
) -> dict[str, object]:
    return {
        "kind": purse.kind,
        "metric": purse.metric,
        "threshold_micro": purse.threshold_micro,
        "confidence_micro": purse.confidence_micro,
        "amount_micro": purse.amount_micro,
        "prizes": purse.prizes if purse.kind == "contest" else [],
        "fairness": None if purse.fairness is None else purse.fairness.model_dump(),
        "reason": award.reason + _by(purse, award),
        "refund_micro": award.refund,
        "bands": [list(band) for band in award.bands],
        "winners": [
            {"run_id": run_id, "amount_micro": amount} for run_id, amount in award.amounts.items()
        ],
        "considered": [
            {
                "run_id": score.run_id,
                "org_id": score.org_id,
                "point_micro": score.point_micro,
                "bound_micro": score.bound_micro,
                "determined": score.determined,
                "ask_micro": score.ask_micro,
                "floors": dict(score.floors),
                "fair": score.fair,
                "receipt": receipts.get(score.run_id),
            }
            for score in found
        ],
    }
