"""Sealed bids of a procurement: committed with the model, opened when every score is known.

Nobody can bid on what others ask or score: a commitment comes with the model, before any score of
the request is shown to another developer, and no bid is opened before the last score.
"""

from dataclasses import dataclass

from clearinghouse.asks import opens_ask
from clearinghouse.messages.tasks import (
    BidRevealAnswer,
    BidRevealTask,
    ModelSubmitAnswer,
)
from clearinghouse.money import format_money
from clearinghouse.rounds.desk import Desk
from clearinghouse.store.records import Request, Run
from clearinghouse.store.store import Tx

PROCUREMENT = "procurement"


@dataclass(frozen=True, slots=True)
class Bidder:
    """A developer with a scored model and a committed bid."""

    org_id: str
    run: Run
    commitment: str


def is_wanted(request: Request) -> bool:
    """Whether a bid comes with a model."""
    return request.terms.purse.kind == PROCUREMENT


def record_commitment(tx: Tx, desk: Desk, request: Request, run: Run, commitment: str) -> None:
    """Log a commitment when its model is taken."""
    developer = tx.parties.get(str(run.model["org_id"]))
    desk.record(
        tx,
        "bid.committed",
        developer,
        objects={"request": request.id, "model": run.model_id, "owner": developer.id},
        commit=commitment,
    )


def bidders(tx: Tx, request: Request) -> tuple[Bidder, ...]:
    """Those whose bids are to be opened."""
    if not is_wanted(request):
        return ()
    commitments = {
        task.org_id: task.answer.bid_commitment
        for task in tx.tasks.of(request.id, "model.submit")
        if isinstance(task.answer, ModelSubmitAnswer)
    }
    found = []
    for run in tx.runs.of(request.id, "score"):
        org_id = str(run.model["org_id"])
        commitment = commitments.get(org_id)
        if run.state == "released" and commitment is not None:
            found.append(Bidder(org_id, run, commitment))
    return tuple(found)


def to_open(tx: Tx, request: Request) -> tuple[Bidder, ...] | None:
    """The bidders, once every model is scored and until they are asked."""
    if not is_wanted(request) or tx.tasks.of(request.id, "bid.reveal"):
        return None
    submissions = tx.tasks.of(request.id, "model.submit")
    if not submissions or any(task.state == "open" for task in submissions):
        return None
    runs = tx.runs.of(request.id, "score")
    taken = {str(run.model["org_id"]) for run in runs}
    answered = {task.org_id for task in submissions if task.answer is not None}
    if any(run.state == "running" for run in runs) or answered - taken:
        return None
    return bidders(tx, request) or None


def ask(tx: Tx, desk: Desk, request: Request, found: tuple[Bidder, ...], _result: None) -> bool:
    """Ask every bidder to open its bid."""
    deadline = int(desk.clock.now()) + request.terms.deadlines.bid_s
    for bidder in found:
        task = BidRevealTask(model_id=bidder.run.model_id)
        tx.tasks.create(request.id, bidder.org_id, task, subject=bidder.run.id, deadline=deadline)
    return False


def asks(tx: Tx, request: Request) -> dict[str, int]:
    """Opened bids by developer; one that was not opened, or not as committed, is none."""
    return {bidder.org_id: answer.ask_micro for bidder, answer in _opened(tx, request)}


def record_openings(tx: Tx, desk: Desk, request: Request) -> None:
    """Log the bids that were opened, at the end of scoring."""
    for bidder, answer in _opened(tx, request):
        desk.record(
            tx,
            "bid.revealed",
            tx.parties.get(bidder.org_id),
            objects={"request": request.id, "model": bidder.run.model_id, "owner": bidder.org_id},
            hashes={"salt": answer.salt},
            amounts={"ask": format_money(answer.ask_micro)},
        )


def _opened(tx: Tx, request: Request) -> list[tuple[Bidder, BidRevealAnswer]]:
    answers = {task.org_id: task.answer for task in tx.tasks.of(request.id, "bid.reveal")}
    found = []
    for bidder in bidders(tx, request):
        answer = answers.get(bidder.org_id)
        if isinstance(answer, BidRevealAnswer):
            salt = bytes.fromhex(answer.salt)
            name = bidder.org_id
            if opens_ask(bidder.commitment, salt, request.id, name, answer.ask_micro):
                found.append((bidder, answer))
    return found
