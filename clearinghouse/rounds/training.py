"""What recipients do with deliveries: read them and train on them, each with leave."""

from clearinghouse.errors import NoGrantError, RefusedError
from clearinghouse.messages.consent import DeliveryView, TrainingView
from clearinghouse.rounds import grants, onward
from clearinghouse.rounds.desk import Desk
from clearinghouse.store.grants import UseRecord
from clearinghouse.store.records import Order, Org, Request
from clearinghouse.store.store import Tx

_FLAG = "a model stands that was trained on it: "
"""How the refusal begins that flags a model."""


def may_read(tx: Tx, desk: Desk, caller: Org, blob: str) -> str:
    """Log that a recipient reads a sealed body; why it may not, or "" if it may."""
    sealed = tx.grants.sealed_to(blob, caller.id)
    if sealed is None:
        return ""
    if sealed.act == "passed":
        return onward.may_read(tx, desk, sealed)
    request = tx.requests.get(sealed.request_id)
    order = grants.order_of(tx, sealed)
    if grants.allow(tx, desk, request, order, caller.id, "read") is not None:
        return ""
    return _reason(tx, desk, request, order, caller.id)


def _reason(tx: Tx, desk: Desk, request: Request, order: Order, org_id: str) -> str:
    try:
        grants.check(tx, request, order.source_id, org_id, desk.clock.now())
    except NoGrantError as error:
        return str(error)
    return ""


def ask(tx: Tx, desk: Desk, caller: Org, request: Request) -> TrainingView:
    """Which of the sources whose records a developer has read it may train on, now.

    Raises:
        RefusedError: The caller is no developer of the request.
    """
    if caller.id not in request.terms.developer_ids:
        raise RefusedError(f"{caller.words} is no developer of request {request.id}")
    allowed, refused = [], {}
    for order in _read_by(tx, request.id, caller.id):
        if grants.allow(tx, desk, request, order, caller.id, "trained") is not None:
            allowed.append(order.source_id)
        else:
            refused[order.source_id] = _reason(tx, desk, request, order, caller.id)
    return TrainingView(allowed=sorted(set(allowed)), refused=refused)


def taken(tx: Tx, desk: Desk, request: Request, org_id: str) -> None:
    """A model came: whatever its developer has read, it may have been trained on.

    A developer that asked before it trained has left out what was refused then. One that did not
    ask is taken to have used all that it read.
    """
    asked = {
        use.order_id
        for use in tx.grants.uses(request_id=request.id)
        if use.org_id == org_id and use.act == "trained"
    }
    for order in _read_by(tx, request.id, org_id):
        if order.id in asked:
            continue
        if not _reason(tx, desk, request, order, org_id):
            grants.allow(tx, desk, request, order, org_id, "trained")
        else:
            flag(tx, desk, request, order, org_id, "its developer asked for no leave to train")
    for use in tx.grants.uses(request_id=request.id):  # flagged before the model was there
        if use.org_id == org_id and use.order_id in asked and use.reason.startswith(_FLAG):
            _log(tx, desk, request, use.source_id, org_id)


def _read_by(tx: Tx, request_id: str, org_id: str) -> list[Order]:
    read = {
        use.order_id
        for use in tx.grants.uses(request_id=request_id)
        if use.org_id == org_id and use.act == "read" and use.allowed
    }
    return [order for order in tx.orders.of(request_id) if order.id in read]


# ---------------------------------------------------------------- flags


def flag(tx: Tx, desk: Desk, request: Request, order: Order, org_id: str, why: str) -> None:
    """Flag the models of a developer in this request for good, and log it, once."""
    use = UseRecord(
        order.id,
        org_id,
        "trained",
        order.source_id,
        request.id,
        None,
        "",
        int(desk.clock.now()),
        _FLAG + why,
    )
    if grants.record(tx, desk, request, use):
        _log(tx, desk, request, order.source_id, org_id)


def _log(tx: Tx, desk: Desk, request: Request, source_id: str, org_id: str) -> None:
    for run in tx.runs.of(request.id, "score"):
        if run.model["org_id"] == org_id:
            objects = {
                "request": request.id,
                "source": source_id,
                "run": run.id,
                "model": run.model_id,
            }
            desk.record(tx, "model.flagged", desk.org, objects=objects)


def flags(tx: Tx, request_id: str) -> dict[str, list[str]]:
    """By developer, what users of its models in this request must know."""
    found: dict[str, list[str]] = {}
    for use in tx.grants.uses(request_id=request_id):
        if use.reason.startswith(_FLAG):
            why = use.reason.removeprefix(_FLAG)
            words = f"trained on records of {use.source_id}, which its owner took back: {why}"
            found.setdefault(use.org_id, []).append(words)
    return found


# ---------------------------------------------------------------- deliveries


def deliveries(tx: Tx, desk: Desk, caller: Org, request_id: str | None) -> list[DeliveryView]:
    """Deliveries that the caller sends or may receive, and whether it still may."""
    requests = [
        request for request in tx.requests.of_party(caller.id) if request_id in (None, request.id)
    ]
    found = []
    for request in requests:
        for order in tx.orders.of(request.id):
            sends = tx.cohorts.source(order.source_id).org_id == caller.id
            if sends or caller.id in request.terms.developer_ids:
                found.append(_delivery(tx, desk, request, order, caller.id, sends=sends))
    return found


def _delivery(
    tx: Tx, desk: Desk, request: Request, order: Order, org_id: str, *, sends: bool
) -> DeliveryView:
    source = tx.cohorts.source(order.source_id)
    uses = [use for use in tx.grants.uses(order_id=order.id) if use.allowed]
    acts = {use.act for use in uses if sends or use.org_id == org_id}
    grant, reason = None, ""
    for recipient in request.terms.developer_ids if sends else [org_id]:
        try:
            grant = grants.check(tx, request, order.source_id, recipient, desk.clock.now()).id
        except NoGrantError as error:
            reason = reason or str(error)
    sealed = order.sealed_blob is not None
    state = "sealed" if sealed else "waiting" if order.real is None else "ended"
    return DeliveryView(
        delivery_id=order.delivery_id,
        order_id=order.id,
        request_id=request.id,
        source_id=source.id,
        state="withdrawn" if source.withdrawn else state,  # type: ignore[arg-type]
        units=order.units,
        real=order.real,
        grant_id=grant,
        reason="" if grant is not None else reason,
        read="read" in acts,
        trained="trained" in acts,
    )
