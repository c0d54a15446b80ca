"""Reputation: outcomes that somebody else attests, written when a request or dispute ends.

| promise | attested by | good if |
|---|---|---|
| a source delivers what it sold | each developer that opened the delivery | accepted |
| the same, nothing came | the operator | never |
| a developer's model scores | the hospital, by signing its receipt | signed |
| a hospital sees its request through | the operator | it was not suspended |
| whoever answers a dispute was right | the arbiter | the claim failed: nothing is written |

Sources of one owner share its reputation: outcomes count for organisations, so a new name for the
same table changes nothing unless the owner itself is new.
"""

from collections.abc import Iterable

from clearinghouse.canonical import digest
from clearinghouse.messages.deliveries import ReceiveAnswer
from clearinghouse.messages.disputes import OutcomeView, ReputationView
from clearinghouse.money import MICRO
from clearinghouse.rounds.desk import Desk
from clearinghouse.rounds.twins import SAME_AS
from clearinghouse.store.records import Dispute, Request, StoredOutcome
from clearinghouse.store.store import Tx
from valuation.reputation import Outcome, Reputation, reputation


def attest(tx: Tx, desk: Desk, request: Request) -> None:
    """Write what a request's end shows about those who took part."""
    now = int(desk.clock.now())
    hospital = tx.parties.get(request.org_id)
    attest_deliveries(tx, desk, request)
    receipts = tx.runs.receipts(request.id)
    for run in tx.runs.of(request.id, "score"):
        if run.id in receipts and SAME_AS not in run.model:
            told = digest(receipts[run.id].body.encode())
            owner = str(run.model["org_id"])
            _add(tx, StoredOutcome(told, owner, hospital.id, request.id, "score", True, now))
    kept = not hospital.suspended
    told = digest({"request": request.id, "seen_through": kept})
    _add(tx, StoredOutcome(told, hospital.id, desk.org.id, request.id, "request", kept, now))


def attest_deliveries(tx: Tx, desk: Desk, request: Request) -> None:
    """Write what became of every order."""
    now = int(desk.clock.now())
    found = {
        task.org_id: {check.delivery_id: check.accepted for check in task.answer.checks}
        for task in tx.tasks.of(request.id, "receive")
        if isinstance(task.answer, ReceiveAnswer)
    }
    for order in tx.orders.of(request.id):
        seller = tx.cohorts.source(order.source_id).org_id
        if order.sealed_blob is None:
            if order.offered > 1:  # nobody has to take over what somebody else promised
                continue
            told = digest({"delivery": order.delivery_id, "came": False})
            _add(
                tx,
                StoredOutcome(told, seller, desk.org.id, request.id, "delivery", False, now),
            )
            continue
        for recipient in sorted(found):
            accepted = found[recipient].get(order.delivery_id)
            if accepted is None or recipient == seller:
                continue
            told = digest(
                {"delivery": order.delivery_id, "by": recipient, "accepted": int(accepted)}
            )
            _add(
                tx,
                StoredOutcome(
                    told,
                    seller,
                    recipient,
                    request.id,
                    "delivery",
                    accepted and not order.ground,
                    now,
                ),
            )


def attest_ruling(tx: Tx, desk: Desk, dispute: Dispute, ruling: str, *, upheld: bool) -> None:
    """A claim that was upheld against somebody is a promise broken; one that failed is nothing."""
    if upheld and dispute.respondent_id != desk.org.id:
        now = int(desk.clock.now())
        loser, request = dispute.respondent_id, dispute.request_id
        _add(tx, StoredOutcome(ruling, loser, desk.org.id, request, "dispute", False, now))


def _add(tx: Tx, outcome: StoredOutcome) -> None:
    tx.outcomes.add(outcome)


# ---------------------------------------------------------------- what it says


def standings(tx: Tx, desk: Desk, org_ids: Iterable[str]) -> dict[str, Reputation]:
    """Reputation of some organisations as of now."""
    now = int(desk.clock.now())
    return {
        org_id: reputation(
            org_id,
            [Outcome(item.digest, item.attester_id, item.good, item.at_s) for item in found],
            now,
        )
        for org_id, found in tx.outcomes.about(org_ids).items()
    }


def view(tx: Tx, desk: Desk, org_id: str) -> ReputationView:
    """An organisation's reputation with the outcomes behind it.

    Raises:
        NotFoundError: There is no such organisation.
    """
    tx.parties.get(org_id)
    found = standings(tx, desk, [org_id])[org_id]
    return ReputationView(
        org_id=org_id,
        status=found.status,
        standing_micro=found.standing_micro,
        low_micro=found.low_micro,
        good_micro=int(found.good * MICRO),
        bad_micro=int(found.bad * MICRO),
        outcomes=[
            OutcomeView(
                digest=item.digest,
                attester_id=item.attester_id,
                request_id=item.request_id,
                kind=item.kind,
                good=item.good,
                at_s=item.at_s,
            )
            for item in tx.outcomes.about([org_id])[org_id]
        ],
    )
