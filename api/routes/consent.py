"""Grants, deliveries, and taking consent back."""

from fastapi import APIRouter
from starlette.responses import Response

from api.bodies import takes
from api.calls import CallOf
from clearinghouse.errors import NoGrantError
from clearinghouse.messages.base import Id
from clearinghouse.messages.consent import (
    DeliveryList,
    GiveGrant,
    GrantList,
    GrantView,
    OnwardList,
    OnwardTransfer,
    OnwardView,
    Training,
    TrainingView,
    Withdraw,
    WithdrawalView,
)
from clearinghouse.rounds import erasure, grants, onward, training, withdrawal

router = APIRouter(prefix="/v1", tags=["consent"])


@router.post("/grants", response_model=GrantView, openapi_extra=takes(GiveGrant))
def give_grant(call: CallOf) -> Response:
    """Allow a recipient to get records of one's own source; nothing is allowed without."""
    message = call.message(GiveGrant)
    return call.write(lambda tx: grants.give(tx, call.desk, call.org, message))


@router.get("/grants")
def list_grants(call: CallOf, source_id: Id | None = None) -> GrantList:
    """Grants that the caller gave or that name it, each with all that was done under it."""
    with call.desk.store.read() as tx:
        return grants.listing(tx, call.org.id, source_id)


@router.get("/grants/{grant_id}")
def get_grant(call: CallOf, grant_id: str) -> GrantView:
    """One grant, for who gave it and for whom it names."""
    with call.desk.store.read() as tx:
        return grants.one(tx, grant_id, call.org.id)


@router.post(
    "/grants/{grant_id}/withdraw", response_model=WithdrawalView, openapi_extra=takes(Withdraw)
)
def withdraw_grant(call: CallOf, grant_id: str) -> Response:
    """End a grant: from the answer on nobody gets anything by it."""
    call.message(Withdraw)
    answer = call.write(lambda tx: withdrawal.withdraw_grant(tx, call.desk, call.org, grant_id))
    erasure.soon(call.desk)
    return answer


@router.post(
    "/sources/{source_id}/withdraw", response_model=WithdrawalView, openapi_extra=takes(Withdraw)
)
def withdraw_source(call: CallOf, source_id: str) -> Response:
    """Take a source back: from the answer on nobody gets anything of it, and it is erased."""
    call.message(Withdraw)
    answer = call.write(lambda tx: withdrawal.withdraw_source(tx, call.desk, call.org, source_id))
    erasure.soon(call.desk)
    return answer


@router.get("/sources/{source_id}/withdrawal")
def get_withdrawal(call: CallOf, source_id: str) -> WithdrawalView:
    """What taking a source, or grants of it, back did so far; for its owner."""
    with call.desk.store.read() as tx:
        return withdrawal.view(tx, tx.access.own_source(source_id, call.org.id))


@router.post(
    "/requests/{request_id}/onward",
    openapi_extra=takes(OnwardTransfer),
)
def pass_on(call: CallOf, request_id: str) -> OnwardView:
    """Pass received records on; refused unless a grant lets the caller send to that recipient."""
    message = call.message(OnwardTransfer)
    with call.desk.store.write() as tx:
        request = tx.access.request(request_id, call.org.id)
        view = onward.pass_on(tx, call.desk, call.org, request, message)
    if view.reason:  # after the refusal is in the log
        raise NoGrantError(view.reason)
    return view


@router.get("/onward")
def list_onward(call: CallOf) -> OnwardList:
    """What was passed on to the caller, and what it passed on."""
    with call.desk.store.read() as tx:
        return onward.listing(tx, call.org)


@router.get("/deliveries")
def list_deliveries(call: CallOf, request_id: Id | None = None) -> DeliveryList:
    """Deliveries that the caller sends or may receive, and whether a grant covers each now."""
    with call.desk.store.read() as tx:
        found = training.deliveries(tx, call.desk, call.org, request_id)
    return DeliveryList(deliveries=found)


@router.post(
    "/requests/{request_id}/training", response_model=TrainingView, openapi_extra=takes(Training)
)
def ask_training(call: CallOf, request_id: str) -> Response:
    """Ask for leave to train on what was received; each source is checked, and logged if used."""
    call.message(Training)
    return call.write(
        lambda tx: training.ask(tx, call.desk, call.org, tx.access.request(request_id, call.org.id))
    )
