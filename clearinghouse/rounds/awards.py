"""Who wins a purse: the rule, the scores it looks at, the document that says why."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from clearinghouse.canonical import canonical_bytes, digest
from clearinghouse.messages.intake import Purse
from clearinghouse.money import MICRO, split
from clearinghouse.rounds.desk import Desk
from clearinghouse.store.records import Request
from clearinghouse.store.store import Tx


@dataclass(frozen=True, slots=True)
class Scored:
    """A released score as the purse's rule sees it, in millionths."""

    run_id: str
    org_id: str
    point_micro: int
    bound_micro: int
    determined: bool


@dataclass(frozen=True, slots=True)
class Award:
    """Who gets what of the purse.

    Attributes:
        amounts: Run id to micro-money; they sum to the purse, or are empty if nobody won.
        reason: The rule's outcome in words.
    """

    amounts: dict[str, int]
    reason: str


def decide(purse: Purse, scores: Sequence[Scored]) -> Award:
    """Acceptance: the best point among models whose lower bound reaches the threshold.

    The bound is one-sided at the purse's confidence, so noise and few patients count against
    acceptance, never for it. Exact ties share the purse, earlier ones getting the odd micro-unit.
    """
    accepted = [
        score for score in scores if score.determined and score.bound_micro >= purse.threshold_micro
    ]
    if not accepted:
        return Award({}, f"no model shows {purse.metric} at the threshold with that confidence")
    best = max(score.point_micro for score in accepted)
    winners = [score for score in accepted if score.point_micro == best]
    parts = split(purse.amount_micro, [Fraction(1, len(winners))] * len(winners))
    amounts = {winner.run_id: part for winner, part in zip(winners, parts, strict=True)}
    shared = "the best accepted model" if len(winners) == 1 else "the best accepted models, tied"
    return Award(amounts, f"{shared} by {purse.metric}")


# ---------------------------------------------------------------- what is there, and the record


def scores(tx: Tx, request: Request) -> tuple[Scored, ...]:
    """The released scores of a request as its purse sees them."""
    result = []
    for run in tx.runs.of(request.id, "score"):
        if run.state != "released":
            continue
        card = json.loads(json.dumps(run.result["scorecard"]))
        result.append(
            Scored(
                run.id,
                str(run.model["org_id"]),
                _micro(card[request.terms.purse.metric]),
                _micro(card["award_bound"]),
                card["status"] == "ok",
            )
        )
    return tuple(result)


def _micro(text: str) -> int:
    """A decimal string with at most six decimals, in millionths."""
    return int(Fraction(text) * MICRO)


def record(tx: Tx, desk: Desk, request: Request, found: Sequence[Scored], award: Award) -> None:
    """Keep and log the award's document."""
    body = canonical_bytes(_document(request, found, award))
    tx.requests.keep(request.id, "award", body.decode())
    desk.record(
        tx,
        "award.decided",
        desk.org,
        objects={"request": request.id},
        hashes={"award": digest(body)},
        amounts={"purse_micro": sum(award.amounts.values())},
    )


def _document(request: Request, found: Sequence[Scored], award: Award) -> dict[str, object]:
    purse = request.terms.purse
    return {
        "kind": purse.kind,
        "metric": purse.metric,
        "threshold_micro": purse.threshold_micro,
        "confidence_micro": purse.confidence_micro,
        "amount_micro": purse.amount_micro,
        "reason": award.reason,
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
            }
            for score in found
        ],
    }
