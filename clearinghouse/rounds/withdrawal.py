"""Taking consent back: a source or a grant, in every state of every request that it is part of.

All of it happens in one transaction, so from its commit on nobody gets what was taken back.

| the request is | what happens to the source |
|---|---|
| before its inputs are frozen | they are frozen without it |
| before asks are closed | they are frozen again without it, and asks are asked anew |
| before it is cleared | it is silent |
| before its delivery is confirmed | its order is void; the customer gets its money back |
| after that | it keeps what it earned; recipients are asked to delete, models are flagged |
| settled | firm prices stay; indicative ones are computed again |
"""

from clearinghouse.errors import NoGrantError, NotFoundError
from clearinghouse.messages.consent import DeleteAnswer, DeleteTask, WithdrawalView
from clearinghouse.messages.deliveries import DeliverTask
from clearinghouse.rounds import grants, onward, training
from clearinghouse.rounds.desk import Desk
from clearinghouse.store.records import Order, Org, Request, Source
from clearinghouse.store.store import Tx

DELETE_S = 30 * 86400
"""Seconds that a recipient has to delete records and to say so."""

_BEFORE_CONFIRMED = ("intake", "match", "clear", "deliver")


def withdraw_source(tx: Tx, desk: Desk, caller: Org, source_id: str) -> WithdrawalView:
    """Take a source back for good: everything of it but salted commitments is erased.

    Raises:
        NotFoundError: The source is not the caller's.
    """
    source = tx.access.own_source(source_id, caller.id)
    now = int(desk.clock.now())
    if tx.grants.withdraw_source(source.id, now):
        objects = {"source": source.id, "owner": caller.id}
        desk.record(tx, "source.withdrawn", caller, objects=objects)
        for grant in tx.grants.of([source.id])[source.id]:
            _end(tx, desk, caller, source, grant.id, now)
        _retract_everywhere(tx, desk, source)
        tx.erasure.forget_source(source.id, caller.id)
        tx.partials.remove_of(
            caller.id
        )  # they may hold its records; what else they hold, begins anew
    return view(tx, source)


def withdraw_grant(tx: Tx, desk: Desk, caller: Org, grant_id: str) -> WithdrawalView:
    """End a grant; the source stays, and so does what its other grants cover.

    Raises:
        NotFoundError: There is none, or it is of another's source.
    """
    grant = tx.grants.get(grant_id)
    source = tx.cohorts.source(grant.source_id)
    if source.org_id != caller.id:
        raise NotFoundError(f"no grant {grant_id}")
    if _end(tx, desk, caller, source, grant.id, int(desk.clock.now())):
        _retract_everywhere(tx, desk, source)
    return view(tx, source)


def _end(tx: Tx, desk: Desk, caller: Org, source: Source, grant_id: str, now: int) -> bool:
    if not tx.grants.withdraw(grant_id, now):
        return False
    objects = {"grant": grant_id, "source": source.id, "owner": caller.id}
    desk.record(tx, "grant.withdrawn", caller, objects=objects)
    return True


def _retract_everywhere(tx: Tx, desk: Desk, source: Source) -> None:
    source = tx.cohorts.source(source.id)
    for request in tx.requests.of_party(source.org_id):
        if source.id not in request.terms.source_ids:
            continue
        for order in tx.orders.of(request.id):
            if order.source_id == source.id:
                _retract(tx, desk, request, source, order)
        if source.withdrawn:
            tx.erasure.doom(tx.erasure.shown_blobs(request.id, source.id))
            tx.tasks.void(request.id, [source.id])
            tx.erasure.forget_answers(request.id, [source.id])
        if request.state == "running":
            tx.requests.touch(request.id)
        elif source.withdrawn and tx.requests.document(request.id, "prices") is not None:
            tx.erasure.mark_stale(request.id)


def _retract(tx: Tx, desk: Desk, request: Request, source: Source, order: Order) -> None:
    """Take an order's records from every recipient that no grant covers any more."""
    uses = [use for use in tx.grants.uses(order_id=order.id) if use.allowed]
    holders = {use.org_id for use in uses}
    lost = {org_id for org_id in holders if not _covered(tx, desk, request, order, org_id)}
    for use in uses:
        if use.org_id not in lost:
            continue
        if use.act in ("sealed", "passed"):
            tx.erasure.close_blob(use.blob, use.org_id)
            if use.act == "passed":  # sealed to this recipient alone
                tx.erasure.doom([use.blob])
        elif use.act == "read":
            _ask_deletion(tx, desk, request, source, order, use.org_id)
        elif use.act == "trained":
            training.flag(tx, desk, request, order, use.org_id, "its source was withdrawn since")
    if not lost and not source.withdrawn:
        return
    direct = holders - {use.org_id for use in uses if use.act == "passed"}
    if direct <= lost or source.withdrawn:
        _void(tx, request, order)
    else:
        _readdress(tx, request, order, lost)


def _covered(tx: Tx, desk: Desk, request: Request, order: Order, org_id: str) -> bool:
    passed = onward.passed_to(tx, order.id, org_id)
    try:
        if passed is not None:
            onward.still_covered(tx, desk, passed)
        else:
            grants.check(tx, request, order.source_id, org_id, desk.clock.now())
    except NoGrantError:
        return False
    return True


def _void(tx: Tx, request: Request, order: Order) -> None:
    """Erase what was delivered; what nobody has confirmed yet is not paid either."""
    tx.erasure.doom(tx.erasure.delivered_blobs([order.id]))
    tx.tasks.void(request.id, [order.id])
    tx.erasure.forget_answers(request.id, [order.id])
    if request.state == "running" and request.step in _BEFORE_CONFIRMED:
        grants.undo(tx, order)


def _readdress(tx: Tx, request: Request, order: Order, lost: set[str]) -> None:
    """An order that is still to be sealed goes to the remaining recipients only."""
    for task in tx.tasks.of(request.id, "deliver", subject=order.id):
        if task.state == "open" and isinstance(task.task, DeliverTask):
            left = [item for item in task.task.recipients if item.org_id not in lost]
            again = task.task.model_copy(update={"recipients": left})
            tx.erasure.drop_tasks(request.id, "deliver", order.id)
            tx.tasks.create(
                request.id, task.org_id, again, subject=order.id, deadline=task.deadline
            )


def _ask_deletion(
    tx: Tx, desk: Desk, request: Request, source: Source, order: Order, org_id: str
) -> None:
    task = DeleteTask(source_id=source.id, delivery_ids=[order.delivery_id])
    deadline = int(desk.clock.now()) + DELETE_S
    tx.tasks.create(request.id, org_id, task, subject=order.id, deadline=deadline)


# ---------------------------------------------------------------- what came of it


def confirm_deletion(
    tx: Tx, desk: Desk, caller: Org, request_id: str, task: DeleteTask, answer: DeleteAnswer
) -> None:
    """Log a recipient's word that it deleted a source's records."""
    desk.record(
        tx,
        "deletion.confirmed",
        caller,
        objects={
            "request": request_id,
            "source": task.source_id,
            "delivery": task.delivery_ids[0],
        },
        amounts={"records": answer.records},
    )


def view(tx: Tx, source: Source) -> WithdrawalView:
    """What the withdrawal of a source or of one of its grants did so far."""
    uses = [use for use in tx.grants.uses(source_id=source.id) if use.allowed]
    ended = [grant for grant in tx.grants.of([source.id])[source.id] if grant.withdrawn is not None]
    whole = tx.grants.withdrawal(source.id)
    last = max((grant.withdrawn or 0 for grant in ended), default=0)
    running = [
        request
        for request in tx.requests.of_party(source.org_id)
        if request.state == "running" and source.id in request.terms.source_ids
    ]
    notices = {
        (task.org_id, request_id)
        for request_id in {use.request_id for use in uses}
        for task in tx.tasks.of(request_id, "delete")
        if isinstance(task.task, DeleteTask) and task.task.source_id == source.id
    }
    models = {
        run.model_id
        for use in uses
        if use.act == "trained"
        for run in tx.runs.of(use.request_id, "score")
        if run.model["org_id"] == use.org_id
    }
    return WithdrawalView(
        source_id=source.id,
        withdrawn=last if whole is None else whole.at,
        erased=None if whole is None else whole.erased,
        grants=[grant.id for grant in ended],
        requests=[request.id for request in running],
        notices=len(notices),
        models=sorted(models),
    )
