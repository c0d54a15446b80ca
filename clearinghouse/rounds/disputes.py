"""Disputes: a claim freezes the money it is about until it is answered, examined and decided.

| state | until | then |
|---|---|---|
| open | the respondent answers | answered |
| open | its deadline passes | expired: silence admits the claim, the remedy is granted |
| answered | the arbiter rules | resolved |
| answered | its deadline passes | expired: the claim fails, the money goes where it was meant |

The arbiter is the operator, as the request's terms say, and can move frozen money to the customer
or to whom it was meant for, nowhere else. Money is frozen in accounts `frozen:<dispute>:<what>:
<account it was meant for>`, so a ruling needs no memory but the ledger.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clearinghouse.canonical import canonical_bytes, digest
from clearinghouse.errors import ConflictError, InputError, NotFoundError, RefusedError
from clearinghouse.ids import new_id
from clearinghouse.messages.disputes import DisputeView, OpenDispute
from clearinghouse.rounds.desk import Desk
from clearinghouse.store.records import Dispute, Order, Org, Request, Run
from clearinghouse.store.store import Tx

OWN = "org:"
DEPOSIT = "deposit"
"""What a respondent itself put aside: it loses that by forfeit only."""


def fund(operator_id: str) -> str:
    """Where lost deposits go: who judges deliveries, accuses or charges fees gets nothing of it."""
    return f"forfeits:{operator_id}"


_FREEZES_ORDER = ("delivery", "duplicate", "payment")


# ---------------------------------------------------------------- who may claim what


@dataclass(frozen=True, slots=True)
class Subject:
    """What a dispute is about, and who stands where.

    Attributes:
        owner_id: The seller of an order, the developer of a run.
    """

    id: str
    owner_id: str
    order: Order | None
    run: Run | None


def find_subject(tx: Tx, request: Request, subject: str) -> Subject:
    """The order or run of that id.

    Raises:
        NotFoundError: The request has none.
    """
    for order in tx.orders.of(request.id):
        if subject in (order.id, order.delivery_id):
            return Subject(order.id, tx.cohorts.source(order.source_id).org_id, order, None)
    for run in tx.runs.of(request.id, "score"):
        if run.id == subject:
            return Subject(run.id, str(run.model["org_id"]), None, run)
    raise NotFoundError(f"request {request.id} has no order or run {subject}")


def claim(tx: Tx, desk: Desk, caller: Org, request: Request, message: OpenDispute) -> Dispute:
    """Open a dispute for a party.

    Raises:
        NotFoundError: The request has no such order, run, receipt or delivery.
        InputError: The reason does not fit the subject.
        RefusedError: The caller has no part in it, asks what it cannot ask, or comes too late.
        ConflictError: The subject is disputed already.
    """
    about = find_subject(tx, request, message.subject)
    if (message.reason == "score") != (about.run is not None):
        raise InputError("a score is disputed by its run; delivery and payment by their order")
    _check_receipts(tx, request, message.receipts)
    _check_time(tx, desk, request)
    is_owner = caller.id == about.owner_id
    if is_owner != (message.remedy == "pay"):
        raise RefusedError(
            "a seller or a model's developer can ask for payment, everybody else for a refund or a "
            "forfeit"
        )
    respondent = request.org_id if is_owner else about.owner_id
    return open_dispute(
        tx,
        desk,
        request,
        about.id,
        message.reason,
        message.evidence,
        opener=caller,
        respondent_id=respondent,
        remedy=message.remedy,
        words=message.words,
        receipts=message.receipts,
    )


def _check_receipts(tx: Tx, request: Request, receipts: Sequence[str]) -> None:
    known = {receipt.id for receipt in tx.runs.receipts(request.id).values()}
    known |= {order.delivery_id for order in tx.orders.of(request.id)}
    for name in receipts:
        if name not in known:
            raise NotFoundError(f"request {request.id} has no receipt or delivery {name}")


def is_in_time(tx: Tx, desk: Desk, request: Request) -> bool:
    """Whether a dispute about the request may still be opened."""
    if request.state == "running":
        return True
    ended = max((time.finished or 0.0 for time in tx.requests.step_times(request.id)), default=0.0)
    return desk.clock.now() <= ended + request.terms.deadlines.dispute_s


def _check_time(tx: Tx, desk: Desk, request: Request) -> None:
    if not is_in_time(tx, desk, request):
        days = request.terms.deadlines.dispute_s // 86400
        raise RefusedError(f"disputes about this request could be opened for {days} days only")


# ---------------------------------------------------------------- opening and freezing


def open_dispute(
    tx: Tx,
    desk: Desk,
    request: Request,
    subject: str,
    reason: str,
    evidence: Mapping[str, str],
    *,
    opener: Org | None = None,
    respondent_id: str | None = None,
    remedy: str = "refund",
    words: str = "",
    receipts: Sequence[str] = (),
) -> Dispute:
    """Open a dispute and freeze its money; steps call this when they find a fault themselves.

    Args:
        tx: The transaction in which the fault is recorded.
        desk: The server.
        request: The request.
        subject: Id of the order or run it is about.
        reason: delivery, duplicate, payment, score or test.
        evidence: Name to SHA-256 of what shows it.
        opener: Who claims it; the operator if nobody else does.
        respondent_id: Who has to answer; the subject's owner if left out.
        remedy: refund, pay or forfeit.
        words: The claim for people.
        receipts: Ids of receipts and deliveries it rests on.

    Raises:
        ConflictError: A dispute about this subject is pending.
    """
    if any(known.subject == subject for known in tx.disputes.pending(request.id)):
        raise ConflictError(f"{subject} is disputed already; wait for that decision")
    now = int(desk.clock.now())
    who = opener or desk.org
    body = {
        "words": words,
        "receipts": list(receipts),
        "evidence": dict(evidence),
        "reason": reason,
        "remedy": remedy,
        "subject": subject,
    }
    dispute = Dispute(
        new_id("dsp"),
        request.id,
        who.id,
        respondent_id or find_subject(tx, request, subject).owner_id,
        subject,
        reason,
        remedy,
        "open",
        now,
        now + request.terms.deadlines.claim_s,
        canonical_bytes(body).decode(),
    )
    tx.disputes.add(dispute)
    desk.record(
        tx,
        "dispute.opened",
        who,
        objects={
            "dispute": dispute.id,
            "request": request.id,
            "opener": who.id,
            "respondent": dispute.respondent_id,
            "subject": subject,
        },
        hashes={"claim": digest(dispute.claim.encode())},
        amounts={"answer_by": dispute.deadline},
    )
    _freeze_paid(tx, dispute, now)
    return dispute


def payee(tx: Tx, request: Request, name: str, account: str) -> str:
    """Where a payment goes: to its account, or into a frozen one while it is disputed.

    Args:
        tx: The transaction.
        request: The request that pays.
        name: What is paid and for what: `order:<id>`, `award:<run>`, `deposit:<order>`.
        account: Whom it is meant for.
    """
    what, _, subject = name.partition(":")
    if not account.startswith(OWN):
        return account
    for dispute in tx.disputes.pending(request.id):
        if _freezes(dispute, what, subject):
            return f"frozen:{dispute.id}:{what}:{account}"
    return account


def _freezes(dispute: Dispute, what: str, subject: str) -> bool:
    """A disputed order holds its own money; a disputed score the purse, which hangs on all."""
    if dispute.reason == "score":
        return what == "award"
    return dispute.reason in _FREEZES_ORDER and dispute.subject == subject


def withhold(tx: Tx, request: Request, at_s: int) -> None:
    """Before a refund: what sellers claim beyond their payment stays, as far as there is money."""
    escrow = f"escrow:{request.id}"
    orders = {order.id: order for order in tx.orders.of(request.id)}
    for dispute in tx.disputes.pending(request.id):
        order = orders.get(dispute.subject)
        if dispute.remedy != "pay" or order is None:
            continue
        paid = sum(
            posting.amount_micro
            for posting in tx.ledger.postings(request.id)
            if posting.transfer == f"{request.id}:order:{order.id}" and posting.amount_micro > 0
        )
        rest = min(tx.ledger.balance(escrow), max(0, order.payment_micro - paid))
        if rest:
            seller = tx.cohorts.source(order.source_id).org_id
            kept = f"frozen:{dispute.id}:claim:{OWN}{seller}"
            name = f"{request.id}:withhold:{dispute.id}"
            tx.ledger.transfer(name, request.id, {escrow: -rest, kept: rest}, at_s=at_s)


def _freeze_paid(tx: Tx, dispute: Dispute, at_s: int) -> None:
    """Freeze what was paid already, as far as its receiver still has it here."""
    for posting in tx.ledger.postings(dispute.request_id):
        _, what, subject = (*posting.transfer.split(":", 2), "", "")[:3]
        is_payment = posting.amount_micro > 0 and posting.account.startswith(OWN)
        if not is_payment or not _freezes(dispute, what, subject):
            continue
        amount = min(posting.amount_micro, tx.ledger.balance(posting.account))
        if amount:
            kept = f"frozen:{dispute.id}:{what}:{posting.account}"
            name = f"{dispute.request_id}:freeze:{dispute.id}:{what}:{subject}"
            changes = {posting.account: -amount, kept: amount}
            tx.ledger.transfer(name, dispute.request_id, changes, at_s=at_s)


# ---------------------------------------------------------------- what is shown


def view(tx: Tx, dispute: Dispute) -> DisputeView:
    """A dispute as its parties read it."""
    frozen = tx.ledger.balances(f"frozen:{dispute.id}:")
    return DisputeView(
        id=dispute.id,
        request_id=dispute.request_id,
        opener_id=dispute.opener_id,
        respondent_id=dispute.respondent_id,
        subject=dispute.subject,
        reason=dispute.reason,  # type: ignore[arg-type]
        remedy=dispute.remedy,  # type: ignore[arg-type]
        state=dispute.state,
        opened_s=dispute.opened_s,
        deadline=dispute.deadline,
        frozen_micro=sum(frozen.values()),
        claim=_document(dispute.claim),
        answer=_document(dispute.answer),
        finding=_document(dispute.finding),
        ruling=_document(dispute.ruling),
    )


def _document(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text) if text else {}
    return found
