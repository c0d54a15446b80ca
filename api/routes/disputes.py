"""Disputes, reputation, statements of organisations, and the history of prices."""

from fastapi import APIRouter
from starlette.responses import HTMLResponse, Response

from api.bodies import takes
from api.calls import Call, CallOf
from api.paging import PAGE, Limit
from clearinghouse.errors import NotFoundError
from clearinghouse.messages.base import Id
from clearinghouse.messages.disputes import (
    AnswerDispute,
    DisputeList,
    DisputeView,
    OpenDispute,
    OrgStatement,
    PriceHistory,
    ReputationView,
    ResolveDispute,
)
from clearinghouse.report.statement import statement_html
from clearinghouse.rounds import disputes, outcomes, rulings, statements
from clearinghouse.store.records import Dispute
from clearinghouse.store.store import Tx

router = APIRouter(prefix="/v1", tags=["settle"])


@router.post("/disputes", response_model=DisputeView, openapi_extra=takes(OpenDispute))
def open_dispute(call: CallOf) -> Response:
    """Open a dispute about an order or a score; the disputed money is frozen."""
    message = call.message(OpenDispute)

    def act(tx: Tx) -> DisputeView:
        request = tx.access.request(message.request_id, call.org.id)
        return disputes.view(tx, disputes.claim(tx, call.desk, call.org, request, message))

    return call.write(act, keyed=True)


@router.get("/disputes")
def list_disputes(call: CallOf) -> DisputeList:
    """The disputes that the caller opened or has to answer; all of them for the operator."""
    with call.desk.store.read() as tx:
        is_arbiter = call.org.id == call.desk.org.id
        found = tx.disputes.all() if is_arbiter else tx.disputes.concerning(call.org.id)
        return DisputeList(disputes=[disputes.view(tx, item) for item in found])


@router.get("/disputes/{dispute_id}")
def get_dispute(call: CallOf, dispute_id: str) -> DisputeView:
    """A dispute, for all who take part in its request."""
    with call.desk.store.read() as tx:
        return disputes.view(tx, _dispute(tx, call, dispute_id))


@router.post(
    "/disputes/{dispute_id}/answer",
    response_model=DisputeView,
    openapi_extra=takes(AnswerDispute),
)
def answer_dispute(call: CallOf, dispute_id: str) -> Response:
    """The respondent's answer, before the deadline."""
    message = call.message(AnswerDispute)

    def act(tx: Tx) -> DisputeView:
        found = _dispute(tx, call, dispute_id)
        return disputes.view(tx, rulings.answer(tx, call.desk, call.org, found, message))

    return call.write(act, keyed=True)


@router.post(
    "/disputes/{dispute_id}/resolve",
    response_model=DisputeView,
    openapi_extra=takes(ResolveDispute),
)
def resolve_dispute(call: CallOf, dispute_id: str) -> Response:
    """The arbiter's ruling: moves the frozen money, signed and logged."""
    message = call.message(ResolveDispute)

    def act(tx: Tx) -> DisputeView:
        found = _dispute(tx, call, dispute_id)
        return disputes.view(tx, rulings.resolve(tx, call.desk, call.org, found, message))

    return call.write(act, keyed=True)


def _dispute(tx: Tx, call: Call, dispute_id: str) -> Dispute:
    if call.org.id == call.desk.org.id:
        return tx.disputes.get(dispute_id)
    return tx.access.dispute(dispute_id, call.org.id)


@router.get("/reputation")
def get_reputation(call: CallOf, org_id: Id) -> ReputationView:
    """What attested outcomes say about an owner; public among participants."""
    with call.desk.store.read() as tx:
        return outcomes.view(tx, call.desk, org_id)


@router.get("/orgs/{org_id}/statement")
def get_org_statement(call: CallOf, org_id: str) -> OrgStatement:
    """Every posting of the caller's own accounts."""
    with call.desk.store.read() as tx:
        return statements.of_org(tx, _own(call, org_id))


@router.get("/orgs/{org_id}/statement.html", response_class=HTMLResponse)
def get_org_statement_page(call: CallOf, org_id: str) -> HTMLResponse:
    """The same statement as a page to print."""
    with call.desk.store.read() as tx:
        return HTMLResponse(statement_html(statements.of_org(tx, _own(call, org_id))))


def _own(call: Call, org_id: str) -> str:
    if org_id not in (call.org.id,):
        raise NotFoundError(f"no organisation {org_id}")
    return org_id


@router.get("/sources/{source_id}/prices")
def get_price_history(
    call: CallOf,
    source_id: str,
    cursor: str | None = None,
    limit: Limit = PAGE,
) -> PriceHistory:
    """A source's prices in the requests that the caller takes part in, oldest first."""
    with call.desk.store.read() as tx:
        tx.cohorts.source(source_id)
        return statements.price_history(tx, source_id, call.org.id, cursor, limit)
