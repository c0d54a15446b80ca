"""Passing records on: only under a grant that names the sender, and deny by default.

Who read an order's records under a grant may hand them to somebody else only if the source's owner
gave a grant of its own for that: with this sender, this recipient, all columns, the purpose. The
sender must still hold its own grant, the recipient is a developer outside the request (inside it
has grants of the owner), and both the passing and each reading are checked when they happen.
"""

from dataclasses import replace

from clearinghouse import consent
from clearinghouse.consent import Grant, Use
from clearinghouse.errors import InputError, NoGrantError, NotFoundError
from clearinghouse.messages.consent import OnwardList, OnwardTransfer, OnwardView
from clearinghouse.rounds import grants
from clearinghouse.rounds.desk import Desk
from clearinghouse.store.grants import UseRecord
from clearinghouse.store.records import Order, Org, Request
from clearinghouse.store.store import Tx


def pass_on(
    tx: Tx, desk: Desk, caller: Org, request: Request, message: OnwardTransfer
) -> OnwardView:
    """Let a recipient read records that the caller read before and sealed to it; logged.

    What no grant covers is logged as refused, and the answer says why; nobody can read it then.

    Raises:
        NotFoundError: The caller read no such order, or the recipient or the blob is unknown.
        InputError: The recipient is no developer outside this request.
    """
    order = _read_order(tx, request, caller, message.order_id)
    recipient = tx.parties.get(message.recipient)
    if recipient.role != "developer" or recipient.id == caller.id:
        raise InputError(f"{recipient.words} is no other developer; records go to developers only")
    if recipient.id in request.terms.developer_ids:
        raise InputError(
            f"{recipient.words} is a developer of {request.id}: it gets records by the owner's "
            "own grants"
        )
    tx.access.blob(message.sealed_blob, caller.id)
    now = desk.clock.now()
    made = UseRecord(
        order.id, recipient.id, "passed", order.source_id, request.id, None, "", int(now), ""
    )
    try:
        grants.check(tx, request, order.source_id, caller.id, now)
        grant = _covering(tx, request, order, caller.id, recipient.id, message.purpose, now)
    except NoGrantError as error:
        grants.record(tx, desk, request, replace(made, reason=str(error)))
        return _view(made, caller.id, message.sealed_blob, str(error))
    used = replace(made, grant_id=grant.id, blob=message.sealed_blob)
    grants.record_passed(tx, desk, request, used, caller, grant.purpose)
    tx.blobs.allow(message.sealed_blob, recipient.id)
    return _view(used, caller.id, message.sealed_blob, "")


def _read_order(tx: Tx, request: Request, caller: Org, order_id: str) -> Order:
    read = any(
        use.act == "read" and use.allowed and use.org_id == caller.id
        for use in tx.grants.uses(order_id=order_id)
    )
    order = next((item for item in tx.orders.of(request.id) if item.id == order_id), None)
    if order is None or not read:
        raise NotFoundError(f"no order {order_id} whose records {caller.words} has read")
    return order


def _covering(
    tx: Tx, request: Request, order: Order, sender: str, recipient: str, purpose: str, now: float
) -> Grant:
    use = Use(order.source_id, sender, recipient, grants.attributes_of(tx, request), purpose, now)
    return consent.find(tx.grants.of([order.source_id])[order.source_id], use)


# ---------------------------------------------------------------- reading what was passed on


def passed_to(tx: Tx, order_id: str, org_id: str) -> UseRecord | None:
    """The passing by which an organisation has an order's records, if it has them so."""
    return next(
        (
            use
            for use in tx.grants.uses(order_id=order_id, org_id=org_id)
            if use.act == "passed" and use.allowed
        ),
        None,
    )


def still_covered(tx: Tx, desk: Desk, use: UseRecord) -> Grant:
    """The grant of a passing, if it still covers it now.

    Raises:
        NoGrantError: It has expired or was withdrawn, or the source was.
    """
    source = tx.cohorts.source(use.source_id)
    if source.withdrawn:
        raise NoGrantError(f"source {source.id} was withdrawn by its owner")
    grant = tx.grants.get(str(use.grant_id))
    request = tx.requests.get(use.request_id)
    again = Use(
        use.source_id,
        grant.sender,
        use.org_id,
        grants.attributes_of(tx, request),
        grant.purpose,
        desk.clock.now(),
    )
    return consent.find([grant], again)


def may_read(tx: Tx, desk: Desk, passed: UseRecord) -> str:
    """Log that a recipient reads what was passed on to it; why it may not, or "" if it may."""
    request, now = tx.requests.get(passed.request_id), int(desk.clock.now())
    made = replace(passed, act="read", grant_id=None, blob="", at=now)
    try:
        grant = still_covered(tx, desk, passed)
    except NoGrantError as error:
        grants.record(tx, desk, request, replace(made, reason=str(error)))
        return str(error)
    reader = tx.parties.get(passed.org_id)
    read = replace(made, grant_id=grant.id)
    grants.record_passed(tx, desk, request, read, reader, grant.purpose)
    return ""


# ---------------------------------------------------------------- lists


def listing(tx: Tx, org: Org) -> OnwardList:
    """What was passed on to an organisation, and what it passed on."""
    found = [use for use in tx.grants.uses(org_id=org.id) if use.act == "passed"]
    views = [_of(tx, use) for use in found if use.allowed]
    mine = [grant.id for grant in tx.grants.concerning(org.id) if grant.sender == org.id]
    sent = [use for use in tx.grants.under(mine) if use.act == "passed"]
    return OnwardList(received=views, sent=[_of(tx, use) for use in sent])


def _of(tx: Tx, use: UseRecord) -> OnwardView:
    return _view(use, tx.grants.get(str(use.grant_id)).sender, use.blob, "")


def _view(use: UseRecord, sender: str, blob: str, reason: str) -> OnwardView:
    return OnwardView(
        order_id=use.order_id,
        request_id=use.request_id,
        source_id=use.source_id,
        sender=sender,
        recipient=use.org_id,
        grant_id=use.grant_id,
        sealed_blob=blob,
        at=use.at,
        reason=reason,
    )
