"""Step 6, settle: the purse by its rule, sources by what they delivered, the rest back."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from clearinghouse.canonical import canonical_bytes, digest
from clearinghouse.messages.intake import Purse
from clearinghouse.messages.results import ClearingView, PriceList, TargetView
from clearinghouse.money import MICRO, split
from clearinghouse.rounds import grants, pricing, views
from clearinghouse.rounds.desk import Desk
from clearinghouse.rounds.levels import read_schema
from clearinghouse.rounds.moves import Move, Step
from clearinghouse.rounds.pricing import Closed
from clearinghouse.rounds.terms import pot_micro
from clearinghouse.store.records import Order, Request
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


def paid_micro(order: Order) -> int:
    """What an order earns: its payment in proportion to the real records, rounded down."""
    return order.payment_micro * (order.real or 0) // order.units


def fee_of(paid: int, fee_micro: int) -> int:
    """The platform's part on top of what sources are paid, rounded down."""
    return paid * fee_micro // MICRO


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that settling decided."""

    award: Award
    prices: PriceList
    pot: dict[str, int]


def share_pot(closed: Closed, amount: int) -> dict[str, int]:
    """The pot by Shapley value over sources that took part, none of their asks read.

    Asks count as zero here: a value that moved with a source's own ask would tempt it to misreport.
    Where nobody adds anything the pot stays with the customer.
    """
    inputs = pricing.market(closed)
    without_asks = replace(inputs, prices=inputs.prices * 0)
    values = [max(0, int(value)) for value in pricing.shapley(without_asks)]
    total = sum(values)
    if not amount or not total:
        return {}
    parts = split(amount, [Fraction(value, total) for value in values])
    names = [order.source_id for order in closed.clearing.orders]
    return {name: part for name, part in zip(names, parts, strict=True) if part}


# ---------------------------------------------------------------- moves


@dataclass(frozen=True, slots=True)
class _Ended:
    closed: Closed
    scores: tuple[Scored, ...]


def _ready(tx: Tx, request: Request) -> _Ended:
    body = tx.requests.document(request.id, "clearing") or ""
    valset = tx.cohorts.valset(request.valset_id)
    closed = Closed(
        request.id,
        request.terms,
        request.terms_digest,
        read_schema(tx.cohorts.schema(valset.schema_id)),
        TargetView.model_validate_json(tx.requests.document(request.id, "target") or ""),
        ClearingView.model_validate_json(body),
        grants.summaries(tx, request),
        digest(body.encode()),
    )
    return _Ended(closed, _scores(tx, request))


def _scores(tx: Tx, request: Request) -> tuple[Scored, ...]:
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


def _work(_desk: Desk, request: Request, found: _Ended) -> Outcome:
    return Outcome(
        decide(request.terms.purse, found.scores),
        pricing.decide(found.closed),
        share_pot(found.closed, pot_micro(request.terms)),
    )


def _commit(tx: Tx, desk: Desk, request: Request, found: _Ended, outcome: Outcome) -> bool:
    prices = canonical_bytes(outcome.prices.model_dump()).decode()
    tx.requests.keep(request.id, "prices", prices)
    award = canonical_bytes(_award_document(request, found.scores, outcome.award))
    tx.requests.keep(request.id, "award", award.decode())
    desk.record(
        tx,
        "award.decided",
        desk.org,
        objects={"request": request.id},
        hashes={"award": digest(award)},
        amounts={"purse_micro": sum(outcome.award.amounts.values())},
    )
    _pay_sources(tx, desk, request)
    owners = {score.run_id: score.org_id for score in found.scores}
    for run_id, amount in outcome.award.amounts.items():
        _pay(tx, request, f"award:{run_id}", f"org:{owners[run_id]}", amount)
    for source_id, amount in outcome.pot.items():
        seller = tx.cohorts.source(source_id).org_id
        _pay(tx, request, f"pot:{source_id}", f"org:{seller}", amount)
    _refund(tx, request)
    _record_statement(tx, desk, request, hashes={"prices": digest(prices.encode())})
    return True


def _award_document(request: Request, scores: Sequence[Scored], award: Award) -> dict[str, object]:
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
            for score in scores
        ],
    }


def _pay(tx: Tx, request: Request, name: str, account: str, amount: int) -> None:
    if amount:
        escrow = f"escrow:{request.id}"
        tx.ledger.transfer(f"{request.id}:{name}", request.id, {escrow: -amount, account: amount})


def _pay_sources(tx: Tx, desk: Desk, request: Request) -> None:
    total = 0
    for order in tx.orders.of(request.id):
        amount = paid_micro(order)
        seller = tx.cohorts.source(order.source_id).org_id
        _pay(tx, request, f"order:{order.id}", f"org:{seller}", amount)
        total += amount
    fee = fee_of(total, request.terms.fee_micro)
    _pay(tx, request, "fee", f"platform:{desk.org.id}", fee)


def _refund(tx: Tx, request: Request) -> None:
    rest = tx.ledger.balance(f"escrow:{request.id}")
    _pay(tx, request, "refund", f"external:{request.org_id}", rest)


def _record_statement(
    tx: Tx, desk: Desk, request: Request, hashes: dict[str, str] | None = None
) -> None:
    statement = views.statement(tx, request).model_dump()
    desk.record(
        tx,
        "statement.settled",
        desk.org,
        objects={"request": request.id},
        hashes={"statement": digest(statement), **(hashes or {})},
    )


def wind_up(tx: Tx, desk: Desk, request: Request) -> None:
    """Settle a request that ends early: confirmed deliveries are paid, the rest goes back."""
    if request.step in ("score", "settle"):  # before, nothing is confirmed; after, all is paid
        _pay_sources(tx, desk, request)
    _refund(tx, request)
    _record_statement(tx, desk, request)


STEP = Step("settle", (Move("to settle", _ready, _work, _commit),))
