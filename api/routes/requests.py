"""Requests and what they leave behind."""

from typing import Literal

from fastapi import APIRouter
from starlette.responses import Response

from api.bodies import takes
from api.calls import JSON, Call, CallOf
from clearinghouse.errors import NotFoundError
from clearinghouse.messages.audits import AuditRun, AuditView, TranscriptView
from clearinghouse.messages.base import Id
from clearinghouse.messages.consent import OpenRequestList
from clearinghouse.messages.intake import OpenRequest, RequestView
from clearinghouse.messages.jobs import CancelRun, JobList
from clearinghouse.messages.results import (
    ClearingView,
    PriceList,
    RunList,
    StatementView,
    TargetView,
)
from clearinghouse.rounds import (
    cancel,
    job_views,
    opening,
    pipeline,
    run_audits,
    views,
    wanted,
)

router = APIRouter(prefix="/v1", tags=["requests"])


@router.post("/requests", response_model=RequestView, openapi_extra=takes(OpenRequest))
def open_request(call: CallOf) -> Response:
    """Open a request; its whole budget goes into escrow."""
    message = call.message(OpenRequest)
    return call.write(
        lambda tx: pipeline.show(
            tx, opening.open_request(tx, call.desk, call.org, message), call.desk.clock.now()
        ),
        keyed=True,
    )


@router.get("/requests")
def list_requests(
    call: CallOf,
    state: Literal["open"] = "open",  # noqa: ARG001  the only state that strangers may ask for
    schema_id: Id | None = None,
) -> OpenRequestList:
    """Requests whose orders are not placed yet: purpose, price and released target."""
    with call.desk.store.read() as tx:
        return wanted.open_requests(tx, schema_id)


@router.get("/requests/{request_id}")
def get_request(call: CallOf, request_id: str) -> RequestView:
    """Where a request stands and what it waits for."""
    with call.desk.store.read() as tx:
        found = tx.access.request(request_id, call.org.id)
        return pipeline.show(tx, found, call.desk.clock.now())


@router.get("/requests/{request_id}/jobs")
def get_jobs(call: CallOf, request_id: str) -> JobList:
    """The server's long work for a request: done, at work and queued."""
    with call.desk.store.read() as tx:
        found = tx.jobs.of(tx.access.request(request_id, call.org.id).id)
        return JobList(jobs=job_views.views(tx, found, call.desk.clock.now()))


@router.post(
    "/requests/{request_id}/runs/{run_id}/cancel",
    openapi_extra=takes(CancelRun),
    response_class=Response,
)
def cancel_run(call: CallOf, request_id: str, run_id: str) -> Response:
    """End a scoring run early; what its noise cost stays spent, the other runs go on."""
    reason = call.message(CancelRun).reason
    return call.write(
        lambda tx: cancel.cancel_run(tx, call.desk, call.org, request_id, run_id, reason)
    )


@router.get("/requests/{request_id}/runs/{run_id}/transcript")
def get_transcript(call: CallOf, request_id: str, run_id: str) -> TranscriptView:
    """What a replay of an ended run needs, for the owner of its model: seed, inputs, messages.

    Its blobs may be read by the owner from then on.
    """
    with call.desk.store.write() as tx:
        return run_audits.transcript(tx, call.org, request_id, run_id)


@router.post(
    "/requests/{request_id}/runs/{run_id}/audit",
    response_model=AuditView,
    openapi_extra=takes(AuditRun),
)
def audit_run(call: CallOf, request_id: str, run_id: str) -> Response:
    """Send the signed verdict of a replay, once; a refuted run is disputed."""
    message = call.message(AuditRun)
    return call.write(
        lambda tx: run_audits.take(tx, call.desk, call.org, request_id, run_id, message)
    )


@router.get("/requests/{request_id}/target", response_model=TargetView)
def get_target(call: CallOf, request_id: str) -> Response:
    """The opened target and the frozen inputs of the clearing."""
    return _document(call, request_id, "target")


@router.get("/requests/{request_id}/clearing")
def get_clearing(call: CallOf, request_id: str) -> ClearingView:
    """Quotas and payments, and what was delivered and paid so far."""
    with call.desk.store.read() as tx:
        tx.access.request(request_id, call.org.id)
        view = views.clearing(tx, request_id)
    if view is None:
        raise NotFoundError(f"request {request_id} has no clearing yet")
    return view


@router.get("/requests/{request_id}/certificate")
def get_certificate(call: CallOf, request_id: str) -> Response:
    """Inputs, plan and dual prices of the clearing: checked in linear time by an auditor."""
    return _document(call, request_id, "certificate")


@router.get("/requests/{request_id}/prices", response_model=PriceList)
def get_prices(call: CallOf, request_id: str) -> Response:
    """Every source's price with its reasons: the same bytes each time."""
    return _document(call, request_id, "prices")


@router.get("/requests/{request_id}/runs")
def get_runs(call: CallOf, request_id: str) -> RunList:
    """The blind scorings of a request."""
    with call.desk.store.read() as tx:
        found = tx.access.request(request_id, call.org.id)
        return views.runs(tx, found, call.org.id, call.desk.clock.now())


@router.get("/requests/{request_id}/statement")
def get_statement(call: CallOf, request_id: str) -> StatementView:
    """Every posting of a request."""
    with call.desk.store.read() as tx:
        return views.statement(tx, tx.access.request(request_id, call.org.id))


def _document(call: Call, request_id: str, kind: str) -> Response:
    with call.desk.store.read() as tx:
        tx.access.request(request_id, call.org.id)
        body = tx.requests.document(request_id, kind)
    if body is None:
        raise NotFoundError(f"request {request_id} has no {kind} yet")
    return Response(body, media_type=JSON)
