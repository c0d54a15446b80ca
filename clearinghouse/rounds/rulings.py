"""Rulings: how a dispute is answered and decided, and where its frozen money goes.

See `rounds.disputes` for its states. The arbiter's words are signed and their digest is logged.
"""

from clearinghouse.canonical import canonical_bytes, digest
from clearinghouse.errors import ConflictError, InputError, RefusedError
from clearinghouse.messages.disputes import AnswerDispute, ResolveDispute
from clearinghouse.rounds import outcomes, prizes
from clearinghouse.rounds.desk import Desk
from clearinghouse.rounds.disputes import DEPOSIT, fund
from clearinghouse.signing import sign_statement
from clearinghouse.store.disputes import PENDING
from clearinghouse.store.records import Dispute, DisputeState, Org
from clearinghouse.store.store import Tx

RULING = "urn:clearinghouse:dispute-ruling:v1"


def answer(tx: Tx, desk: Desk, caller: Org, dispute: Dispute, message: AnswerDispute) -> Dispute:
    """Store the respondent's answer; the identical one again changes nothing.

    Raises:
        RefusedError: The caller is not the respondent, or it is too late.
        ConflictError: It was answered otherwise.
    """
    if caller.id != dispute.respondent_id:
        raise RefusedError(f"only {dispute.respondent_id} may answer dispute {dispute.id}")
    body = canonical_bytes(message.model_dump()).decode()
    if dispute.answer:
        if dispute.answer == body:
            return dispute
        raise ConflictError(f"dispute {dispute.id} has another answer")
    now = int(desk.clock.now())
    if dispute.state != "open" or now > dispute.deadline:
        raise RefusedError(f"dispute {dispute.id} can no longer be answered")
    deadline = now + tx.requests.get(dispute.request_id).terms.deadlines.ruling_s
    tx.disputes.answered(dispute.id, body, deadline)
    desk.record(
        tx,
        "dispute.answered",
        caller,
        objects={"dispute": dispute.id, "request": dispute.request_id},
        hashes={"answer": digest(body.encode())},
        amounts={"ruling_by": deadline},
    )
    return tx.disputes.get(dispute.id)


def resolve(tx: Tx, desk: Desk, caller: Org, dispute: Dispute, message: ResolveDispute) -> Dispute:
    """Decide a dispute: move the frozen money, sign and log the ruling, count the outcome.

    Raises:
        RefusedError: The caller is not the arbiter, the dispute was decided, or no such purse is
            frozen.
        InputError: Prizes and outcome do not fit.
    """
    if caller.id != desk.org.id:
        raise RefusedError("the operator is the arbiter of this request; only it may resolve")
    if dispute.state not in PENDING:
        raise RefusedError(f"dispute {dispute.id} was decided already")
    if message.outcome == "award":
        prizes.check(tx, dispute, message.prizes)
    elif message.prizes:
        raise InputError(f"prizes are named with the outcome award, not with {message.outcome}")
    return _decide(tx, desk, dispute, "resolved", message)


def expire(tx: Tx, desk: Desk) -> int:
    """Decide every dispute whose deadline has passed; returns how many."""
    late = tx.disputes.late(desk.clock.now())
    for dispute in late:
        if dispute.state == "open":
            words, outcome = "not answered in time: the claim stands", dispute.remedy
        else:
            # The one who claims has to convince; without a ruling nothing changes hands.
            outcome = "pay" if dispute.remedy != "pay" else "refund"
            words = "no ruling in time: the claim fails"
        ruling = ResolveDispute(outcome=outcome, words=words)  # type: ignore[arg-type]
        _decide(tx, desk, dispute, "expired", ruling)
    return len(late)


def is_upheld(dispute: Dispute, outcome: str) -> bool:
    """Whether an outcome grants the claim: payment to a seller, or anything but it to others."""
    return (outcome == "pay") == (dispute.remedy == "pay")


def _decide(
    tx: Tx, desk: Desk, dispute: Dispute, state: DisputeState, message: ResolveDispute
) -> Dispute:
    at_s = int(desk.clock.now())
    if message.outcome == "award":
        moved, upheld = prizes.divide(tx, dispute, message.prizes, at_s)
    else:
        moved = _move(tx, dispute, message.outcome, fund(desk.org.id), at_s)
        upheld = is_upheld(dispute, message.outcome)
    reinstated = dispute.reason == "test" and (message.reinstate or not upheld)
    if reinstated:
        tx.parties.reinstate(dispute.respondent_id)
    predicate = {
        "dispute": dispute.id,
        "request": dispute.request_id,
        "outcome": message.outcome,
        "upheld": upheld,
        "state": state,
        "words": message.words,
        "reinstated": reinstated,
        "prizes": dict(message.prizes),
        **moved,
    }
    subjects = {dispute.id: digest(dispute.claim.encode())}
    envelope = sign_statement(RULING, subjects, predicate, [desk.key])
    body = canonical_bytes({**predicate, "envelope": envelope})
    tx.disputes.decided(dispute.id, state, body.decode())
    outcomes.attest_ruling(tx, desk, dispute, digest(dict(envelope)), upheld=upheld)
    desk.record(
        tx,
        f"dispute.{state}",
        desk.org,
        objects={
            "dispute": dispute.id,
            "request": dispute.request_id,
            **prizes.winners(message.prizes),
        },
        hashes={"ruling": digest(dict(envelope))},
        amounts={
            **moved,
            **prizes.amounts(message.prizes),
            "upheld": int(upheld),
            "reinstated": int(reinstated),
        },
    )
    return tx.disputes.get(dispute.id)


def _move(tx: Tx, dispute: Dispute, outcome: str, lost: str, at_s: int) -> dict[str, int]:
    """Empty the dispute's frozen accounts; what was paid on, and what was taken.

    Payments that are taken go back to the customer, a deposit to the fund for lost ones: a customer
    must not gain by disputing more than it would have paid.
    """
    customer = f"external:{tx.requests.get(dispute.request_id).org_id}"
    paid = returned = 0
    for number, (account, amount) in enumerate(tx.ledger.balances(f"frozen:{dispute.id}:").items()):
        _, _, what, meant_for = account.split(":", 3)
        to_owner = outcome == "pay" or (outcome == "refund" and what == DEPOSIT)
        receiver = meant_for if to_owner else lost if what == DEPOSIT else customer
        name = f"{dispute.request_id}:ruling:{dispute.id}:{number}"
        changes = {account: -amount, receiver: amount}
        tx.ledger.transfer(name, dispute.request_id, changes, at_s=at_s)
        paid, returned = paid + amount * to_owner, returned + amount * (not to_owner)
    return {"paid_micro": paid, "returned_micro": returned}
