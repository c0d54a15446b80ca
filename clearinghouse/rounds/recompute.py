"""A closed market again from its log and what its participants may read: nothing is trusted.

Everything that shapes money is a function of the log's hashes and of published documents: frozen
inputs follow from terms, schema, summaries and the noised target; the clearing from those and the
opened asks; prices from the clearing; payments from the recipients' logged findings. Each is made
again and compared bit for bit. It needs the solver, which the server's packages bring.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clearinghouse.canonical import canonical_bytes, digest
from clearinghouse.errors import VerificationError
from clearinghouse.log.entries import Entry
from clearinghouse.log.replay import verify_replay
from clearinghouse.messages.intake import OpenRequest
from clearinghouse.messages.results import ClearingView, PriceList, StatementView, TargetView
from clearinghouse.money import MICRO, parse_money
from clearinghouse.rounds import decision, offers, pricing
from clearinghouse.rounds.frozen import freeze
from clearinghouse.rounds.terms import pot_micro, reserve_micro
from clearinghouse.schema import Schema
from clearinghouse.store.records import Summary
from matching.certificate import verify_json
from valuation.ladders import bound

WITHDRAWN = ("source.withdrawn", "grant.withdrawn")


@dataclass(frozen=True, slots=True)
class Published:
    """What a participant may read of a finished request.

    Attributes:
        prices: The text of the price list, as it was answered.
        summaries: By source its one release.
        entries: The whole log, its hashes and signature checked before.
    """

    request_id: str
    terms: OpenRequest
    schema: Schema
    target: TargetView
    clearing: ClearingView
    certificate: str
    prices: str
    statement: StatementView
    summaries: Mapping[str, Summary]
    entries: Sequence[Entry]


def recompute(found: Published) -> list[tuple[str, str]]:
    """Check everything; returns what was checked, as names and details.

    Raises:
        VerificationError: Something differs; the message says what.
    """
    verify_replay(found.entries)
    own = [e for e in found.entries if e.objects.get("request") == found.request_id]
    return [
        ("log", f"{len(found.entries)} entries follow the market's rules"),
        ("frozen inputs", _frozen(found, own)),
        ("clearing", _clearing(found, own)),
        ("certificate", _certificate(found, own)),
        ("offered again", _again(found, own)),
        ("prices", _prices(found, own)),
        ("payments", _payments(found, own)),
    ]


def _only(entries: Sequence[Entry], kind: str) -> Entry:
    for entry in entries:
        if entry.type == kind:
            return entry
    raise VerificationError(f"the log has no {kind} for this request")


def _need(holds: bool, problem: str) -> None:
    if not holds:
        raise VerificationError(problem)


def _frozen(found: Published, entries: Sequence[Entry]) -> str:
    terms = digest(found.terms.model_dump(mode="json"))
    _need(_only(entries, "request.opened").hashes["terms"] == terms, "terms: not those in the log")
    released = {
        entry.objects["source"]: entry.hashes["release"]
        for entry in found.entries
        if entry.type == "summary.released"
    }
    for name in found.terms.source_ids:
        same = released.get(name) == found.summaries[name].digest
        _need(same, f"summary of {name}: not the release in the log")
    target = found.target
    again = freeze(
        target.run_id,
        found.terms,
        terms,
        found.schema,
        tuple(target.level),
        target.noised,
        found.summaries,
    )
    _need(again == target, "frozen inputs: the releases give others")
    logged = _only(entries, "inputs.frozen").hashes["inputs"]
    _need(again.frozen_digest == logged, "frozen inputs: not those in the log")
    return f"{len(found.summaries)} summaries and the target give {logged[:16]}..."


def _market(found: Published, entries: Sequence[Entry]) -> decision.Market:
    asks = {
        entry.objects["source"]: parse_money(entry.amounts["ask"], name="ask")
        for entry in entries
        if entry.type == "ask.revealed"
    }
    commitments = {
        entry.objects["source"]: entry.commit or ""
        for entry in entries
        if entry.type == "ask.committed"
    }
    names = tuple(found.terms.source_ids)
    return decision.Market(
        found.target,
        reserve_micro(found.terms),
        names,
        tuple(int(asks[name]) if name in asks else None for name in names),
        tuple(commitments[name] for name in sorted(commitments)),
    )


def stored(view: ClearingView) -> ClearingView:
    """A clearing as it was decided, without what was delivered and paid since."""
    return ClearingView.model_validate(view.decided())


def _clearing(found: Published, entries: Sequence[Entry]) -> str:
    again = decision.decide_all(_market(found, entries))
    logged = _only(entries, "clearing.decided").hashes
    allocation = decision.allocation_digest(again.view.model_copy(update={"draw_seed": None}))
    _need(logged["allocation"] == allocation, "clearing: the asks give another allocation")
    told = stored(found.clearing)
    body = digest(canonical_bytes(told.decided()))
    _need(logged["clearing"] == body, "clearing: what is shown is not what was logged")
    bare = [order.model_copy(update={"order_id": None}) for order in told.orders]
    same = told.model_copy(update={"orders": bare}) == again.view
    _need(same, "clearing: the asks give other orders")
    _need(found.certificate == again.certificate, "certificate: the asks give another one")
    sold = sum(order.units for order in told.orders)
    return f"{sold} units, objective {again.view.objective_micro} micro-units, bit for bit"


def _certificate(found: Published, entries: Sequence[Entry]) -> str:
    logged = _only(entries, "clearing.decided").hashes.get("certificate")
    _need(digest(found.certificate.encode()) == logged, "certificate: not the one in the log")
    try:
        verify_json(found.certificate)
    except ValueError as error:
        raise VerificationError(f"certificate: {error}") from None
    return "its dual prices prove the optimum, without solving anything"


def _again(found: Published, entries: Sequence[Entry]) -> str:
    """What was offered again follows from the asks without those that sealed no delivery."""
    offered = [entry for entry in entries if entry.type == "order.offered"]
    if not offered:
        _need(found.clearing.cleared_again is None, "cleared again: the log has nothing of it")
        return "every order was delivered"
    told = found.clearing.cleared_again
    if told is None:
        raise VerificationError("cleared again: it is in the log and not shown")
    failed = _failed(found, told, entries[: list(entries).index(offered[0])])
    again = offers.decide(found.target, stored(found.clearing), failed)
    _need(told == again.cleared, "cleared again: the asks give another clearing")
    body = digest(canonical_bytes(again.cleared.decided()))
    _need(offered[0].hashes.get("clearing") == body, "cleared again: not the one in the log")
    plain = {"real": None, "paid_micro": None, "disputed": ""}
    more = [o.model_copy(update={**plain, "order_id": None}) for o in found.clearing.offered_again]
    _need(tuple(more) == again.more, "offered again: other orders are due")
    repriced = [o.model_copy(update=plain) for o in found.clearing.repriced]
    _need(tuple(repriced) == again.repriced, "repriced: other prices are due")
    return f"{len(failed)} sources failed; {len(more)} orders more, {len(repriced)} repriced"


def _failed(found: Published, told: ClearingView, before: Sequence[Entry]) -> list[str]:
    """Sellers that were left out: all that had sealed nothing, and none that could have stayed."""
    sealed = {e.objects["source"] for e in before if e.type == "delivery.sealed"}
    left = {e.objects["source"] for e in found.entries if e.type in WITHDRAWN}
    pairs = zip(found.clearing.orders, told.orders, strict=True)
    sold = [(first.source_id, again.ask_micro is None) for first, again in pairs if first.units]
    failed = [name for name, is_out in sold if is_out]
    kept = {name for name, is_out in sold if not is_out}
    _need(kept <= sealed, "cleared again: with a source that had not delivered")
    _need(not (set(failed) & sealed) - left, "cleared again: without a source that delivered")
    return failed


def _prices(found: Published, entries: Sequence[Entry]) -> str:
    view = found.clearing.cleared_again or stored(found.clearing)
    body = digest(canonical_bytes(view.decided()))
    closed = pricing.Closed(
        found.request_id,
        found.terms,
        digest(found.terms.model_dump(mode="json")),
        found.schema,
        found.target,
        view,
        found.summaries,
        body,
        _pot(found),
    )
    again = canonical_bytes(pricing.decide(closed).model_dump()).decode()
    _need(again == found.prices, "prices: the clearing gives others")
    logged = _only(entries, "statement.settled").hashes.get("prices")
    _need(digest(again.encode()) == logged, "prices: not those in the log")
    count = len(PriceList.model_validate_json(again).prices)
    return f"{count} prices, bit for bit"


def _pot(found: Published) -> dict[str, int]:
    """By source what it got of the pot."""
    head = f"{found.request_id}:pot:"
    return {
        posting.transfer.removeprefix(head): posting.amount_micro
        for posting in found.statement.postings
        if posting.transfer.startswith(head) and posting.amount_micro > 0
    }


def _payments(found: Published, entries: Sequence[Entry]) -> str:
    """Orders earn what the log says, within their ladders; the fee follows; all balances."""
    ladders = {
        order.order_id: order.ladder
        for order in (
            *found.clearing.orders,
            *found.clearing.offered_again,
            *found.clearing.repriced,
        )
    }
    owed: dict[str, int] = {}
    for entry in (entry for entry in entries if entry.type == "order.settled"):
        order, real = entry.objects["order"], int(entry.amounts["real"])
        earned = int(entry.amounts["earned_micro"])
        most = bound([(p, price, n) for p, price, n in ladders[order]], real)
        _need(entry.amounts["bound_micro"] == most, f"{order}: its ladder gives another bound")
        _need(earned <= most, f"{order}: earns more than so many records can")
        owed[order] = earned
    postings = found.statement.postings
    paid = {
        posting.transfer.removeprefix(f"{found.request_id}:order:"): posting.amount_micro
        for posting in postings
        if ":order:" in posting.transfer and posting.amount_micro > 0
    }
    _need(paid == {k: v for k, v in owed.items() if v}, "payments: not what the orders earned")
    fee = sum(
        posting.amount_micro
        for posting in postings
        if posting.transfer == f"{found.request_id}:fee" and posting.amount_micro > 0
    )
    _need(fee == sum(paid.values()) * found.terms.fee_micro // MICRO, "fee: another is due")
    shared = sum(_pot(found).values())
    _need(shared in (0, pot_micro(found.terms)), "pot: it is shared whole or not at all")
    transfers: dict[str, int] = {}
    for posting in postings:
        transfers[posting.transfer] = transfers.get(posting.transfer, 0) + posting.amount_micro
    _need(not any(transfers.values()), "statement: a transfer does not sum to zero")
    return f"{len(paid)} orders paid {sum(paid.values())} micro-units; every transfer sums to zero"
