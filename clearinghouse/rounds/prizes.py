"""A ruling that names who wins a purse: the frozen prizes are divided anew.

A disputed score freezes all prizes, as each hangs on all scores, and what the rule gave to nobody
if the developer of the disputed model claims it. The arbiter names runs that were scored in the
request and what each of their developers gets; what it names for nobody goes to the customer. It
cannot pay out more than is frozen, nor to anybody else.
"""

from collections.abc import Mapping

from clearinghouse.errors import InputError, RefusedError
from clearinghouse.rounds import bids
from clearinghouse.rounds.disputes import OWN
from clearinghouse.store.records import Dispute, Request
from clearinghouse.store.store import Tx

PURSE = ("award", "claim")
"""What a frozen account of a disputed score holds: prizes, and what its developer claims beyond."""


def check(tx: Tx, dispute: Dispute, prizes: Mapping[str, int]) -> None:
    """Whether a ruling may divide the purse so.

    Raises:
        InputError: It names no winner, or one that was not scored in the request.
        RefusedError: The dispute is not about a score, nothing is frozen, or less than is named.
    """
    if dispute.reason != "score":
        raise RefusedError("only a dispute about a score can name who wins the purse")
    if not prizes or min(prizes.values()) < 1:
        raise InputError("name each winner's run with a prize above zero")
    developers = _developers(tx, dispute.request_id)
    for run_id in sorted(prizes):
        if run_id not in developers:
            raise InputError(f"{run_id} is no scored run of request {dispute.request_id}")
    frozen = sum(_frozen(tx, dispute).values())
    if not frozen:
        raise RefusedError("no part of the purse is frozen; it is once the request is settled")
    if sum(prizes.values()) > frozen:
        raise RefusedError(f"{frozen} micro-units of the purse are frozen, and more are named")


def divide(
    tx: Tx, dispute: Dispute, prizes: Mapping[str, int], at_s: int
) -> tuple[dict[str, int], bool]:
    """Move the frozen purse; what was paid and returned, and whether that grants the claim.

    A developer that claims a prize is right if it gets more than was meant for it; who disputes a
    score is right if its developer gets less.
    """
    held, developers = _frozen(tx, dispute), _developers(tx, dispute.request_id)
    changes = {account: -amount for account, amount in held.items()}
    for run_id, amount in prizes.items():
        receiver = OWN + developers[run_id]
        changes[receiver] = changes.get(receiver, 0) + amount
    paid, whole = sum(prizes.values()), sum(held.values())
    if whole > paid:
        changes[f"external:{tx.requests.get(dispute.request_id).org_id}"] = whole - paid
    name = f"{dispute.request_id}:ruling:{dispute.id}:0"
    tx.ledger.transfer(name, dispute.request_id, changes, at_s=at_s)
    own = OWN + developers[dispute.subject]
    meant = held.get(f"frozen:{dispute.id}:award:{own}", 0)
    gets = changes.get(own, 0)
    upheld = gets > meant if dispute.remedy == "pay" else gets < meant
    return {"paid_micro": paid, "returned_micro": whole - paid}, upheld


def withhold(tx: Tx, request: Request, dispute: Dispute, at_s: int) -> None:
    """Before a refund: what the rule gave to nobody stays while a developer claims it.

    In a procurement it claims its own bid at most.
    """
    if dispute.remedy != "pay" or dispute.reason != "score":
        return
    escrow, ways = f"escrow:{request.id}", (f"{request.id}:award:", f"{request.id}:purse:")
    gone = sum(
        posting.amount_micro
        for posting in tx.ledger.postings(request.id)
        if posting.amount_micro > 0 and posting.transfer.startswith(ways)
    )
    owner, purse = _developers(tx, request.id).get(dispute.subject, ""), request.terms.purse
    rest = min(tx.ledger.balance(escrow), max(0, purse.amount_micro - gone))
    if purse.kind == "procurement":
        rest = min(rest, bids.asks(tx, request).get(owner) or 0)
    if rest and owner:
        kept = f"frozen:{dispute.id}:claim:{OWN}{owner}"
        name = f"{request.id}:purse:{dispute.id}"
        tx.ledger.transfer(name, request.id, {escrow: -rest, kept: rest}, at_s=at_s)


def winners(prizes: Mapping[str, int]) -> dict[str, str]:
    """The winners as the log names them: winner_1 gets prize_1_micro, and so on."""
    return {f"winner_{place}": run_id for place, run_id in enumerate(sorted(prizes), start=1)}


def amounts(prizes: Mapping[str, int]) -> dict[str, int]:
    """Their prizes, in the same order."""
    return {
        f"prize_{place}_micro": prizes[run_id]
        for place, run_id in enumerate(sorted(prizes), start=1)
    }


def _frozen(tx: Tx, dispute: Dispute) -> dict[str, int]:
    held = tx.ledger.balances(f"frozen:{dispute.id}:")
    return {account: held[account] for account in held if account.split(":", 3)[2] in PURSE}


def _developers(tx: Tx, request_id: str) -> dict[str, str]:
    """By released run whose model it is."""
    return {
        run.id: str(run.model["org_id"])
        for run in tx.runs.of(request_id, "score")
        if run.state == "released"
    }
