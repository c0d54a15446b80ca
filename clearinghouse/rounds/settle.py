"""Step 6, settle: the purse by its rule, sources by what they delivered, the rest back.

Who wins the purse is decided in `awards`; here money moves.
"""

from dataclasses import dataclass, replace

from clearinghouse.canonical import canonical_bytes, digest
from clearinghouse.messages.results import ClearingView, PriceList, TargetView
from clearinghouse.money import MICRO
from clearinghouse.rounds import (
    awards,
    deposits,
    disputes,
    grants,
    outcomes,
    pot,
    pricing,
    prizes,
    views,
)
from clearinghouse.rounds.desk import Desk
from clearinghouse.rounds.levels import read_schema
from clearinghouse.rounds.moves import Move, Step
from clearinghouse.rounds.pricing import Closed
from clearinghouse.rounds.terms import pot_micro
from clearinghouse.store.records import PastPrice, Request
from clearinghouse.store.store import Tx


def fee_of(paid: int, fee_micro: int) -> int:
    """The platform's part on top of what sources are paid, rounded down."""
    return paid * fee_micro // MICRO


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that settling decided."""

    award: awards.Award
    prices: PriceList
    pot: dict[str, int]


# ---------------------------------------------------------------- moves


@dataclass(frozen=True, slots=True)
class _Ended:
    closed: Closed
    priced: Closed
    """By the clearing that prices are firm by: without who did not deliver, if anybody did not."""
    scores: tuple[awards.Scored, ...]
    owners: dict[str, str]


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
    priced = _priced(closed, tx.requests.document(request.id, "cleared_again"))
    return _Ended(closed, priced, awards.scores(tx, request), _owners(tx, request))


def _priced(closed: Closed, again: str | None) -> Closed:
    if again is None:
        return closed
    view = ClearingView.model_validate_json(again)
    return replace(closed, clearing=view, commit_hash=digest(again.encode()))


def _work(_desk: Desk, request: Request, found: _Ended) -> Outcome:
    shares = pot.decide(found.closed, pot_micro(request.terms), found.owners)
    return Outcome(
        awards.decide(request.terms.purse, found.scores),
        pricing.decide(replace(found.priced, pot=shares)),
        shares,
    )


def _owners(tx: Tx, request: Request) -> dict[str, str]:
    """By source its owner, of those that may share the pot: see `pot.looked_at`."""
    seen = pot.looked_at(tx.orders.of(request.id))
    return {
        name: tx.cohorts.source(name).org_id for name in request.terms.source_ids if name in seen
    }


def _commit(tx: Tx, desk: Desk, request: Request, found: _Ended, outcome: Outcome) -> bool:
    priced = canonical_bytes(outcome.prices.model_dump()).decode()
    tx.requests.keep(request.id, "prices", priced)
    awards.record(tx, desk, request, found.scores, outcome.award)
    _pay_sources(tx, desk, request)
    owners = {score.run_id: score.org_id for score in found.scores}
    for run_id, amount in outcome.award.amounts.items():
        _pay(tx, desk, request, f"award:{run_id}", f"org:{owners[run_id]}", amount)
    for source_id, amount in outcome.pot.items():
        seller = tx.cohorts.source(source_id).org_id
        _pay(tx, desk, request, f"pot:{source_id}", f"org:{seller}", amount)
    _refund(tx, desk, request)
    outcomes.attest(tx, desk, request)
    _keep_prices(tx, desk, request, outcome.prices)
    _record_statement(tx, desk, request, hashes={"prices": digest(priced.encode())})
    return True


def _pay(tx: Tx, desk: Desk, request: Request, name: str, account: str, amount: int) -> None:
    """Pay out of the escrow; what is disputed goes into a frozen account instead."""
    if amount:
        receiver = disputes.payee(tx, request, name, account)
        changes = {f"escrow:{request.id}": -amount, receiver: amount}
        at_s = int(desk.clock.now())
        tx.ledger.transfer(f"{request.id}:{name}", request.id, changes, at_s=at_s)


def _keep_prices(tx: Tx, desk: Desk, request: Request, prices: PriceList) -> None:
    """Every source's price into its history."""
    for price in prices.prices:
        body = canonical_bytes(price.model_dump()).decode()
        tx.prices.add(PastPrice(price.source_id, request.id, int(desk.clock.now()), body))


def _pay_sources(tx: Tx, desk: Desk, request: Request) -> None:
    """Pay every order what it earned; a disputed one's money waits in a frozen account."""
    total = 0
    for order in tx.orders.of(request.id):
        amount = order.earned_micro or 0
        seller = tx.cohorts.source(order.source_id).org_id
        _pay(tx, desk, request, f"order:{order.id}", f"org:{seller}", amount)
        total += amount
    fee = fee_of(total, request.terms.fee_micro)
    _pay(tx, desk, request, "fee", f"platform:{desk.org.id}", fee)


def _refund(tx: Tx, desk: Desk, request: Request) -> None:
    at_s = int(desk.clock.now())
    disputes.withhold(tx, request, at_s)
    for dispute in tx.disputes.pending(request.id):
        prizes.withhold(tx, request, dispute, at_s)
    rest = tx.ledger.balance(f"escrow:{request.id}")
    _pay(tx, desk, request, "refund", f"external:{request.org_id}", rest)


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
    deposits.settle(tx, desk, request)
    if request.step in ("score", "settle"):  # before, nothing is confirmed; after, all is paid
        _pay_sources(tx, desk, request)
        outcomes.attest_deliveries(tx, desk, request)
    _refund(tx, desk, request)
    _record_statement(tx, desk, request)


STEP = Step("settle", (Move("to settle", _ready, _work, _commit),))
