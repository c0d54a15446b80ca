"""Step 1: organisations, schemas, sources, validation sets."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.responses import Response

from api.bodies import takes
from api.calls import JSON, Call, CallOf, DeskOf, registering_call
from api.paging import PAGE, Limit
from clearinghouse.messages.audits import SeedList
from clearinghouse.messages.base import Id
from clearinghouse.messages.intake import (
    OrgView,
    PublishSummary,
    RegisterOrg,
    RegisterSchema,
    RegisterSource,
    SchemaView,
    SealValset,
    SourceList,
    SourceView,
    SummaryView,
    ValsetView,
)
from clearinghouse.rounds import intake, outcomes, run_audits, views
from clearinghouse.store.records import Source
from clearinghouse.store.store import Tx

router = APIRouter(prefix="/v1", tags=["intake"])


@router.post("/orgs", response_model=OrgView, openapi_extra=takes(RegisterOrg))
def register_org(
    desk: DeskOf, message: Annotated[RegisterOrg, Depends(registering_call)]
) -> Response:
    """Register an organisation; the call is signed with the key it registers."""
    with desk.store.write_for(message.public_key) as tx:
        view = intake.register_org(tx, desk, message)
    return Response(view.model_dump_json(), media_type=JSON)


@router.get("/orgs/{org_id}")
def get_org(call: CallOf, org_id: str) -> OrgView:
    """An organisation and its key."""
    with call.desk.store.read() as tx:
        found = views.org(tx.parties.get(org_id))
        standing = outcomes.standings(tx, call.desk, [org_id])[org_id].standing_micro
        return found.model_copy(update={"standing_micro": standing})


@router.post("/schemas", response_model=SchemaView, openapi_extra=takes(RegisterSchema))
def register_schema(call: CallOf) -> Response:
    """Register a schema; the same schema gets the same id."""
    message = call.message(RegisterSchema)
    return call.write(lambda tx: intake.register_schema(tx, message))


@router.get("/schemas/{schema_id}")
def get_schema(call: CallOf, schema_id: str) -> SchemaView:
    """A schema; schemas are public."""
    with call.desk.store.read() as tx:
        return views.schema(tx.cohorts.schema(schema_id))


@router.post("/sources", response_model=SourceView, openapi_extra=takes(RegisterSource))
def register_source(call: CallOf) -> Response:
    """Register a cohort by its row commitments."""
    message = call.message(RegisterSource)
    return call.write(lambda tx: intake.register_source(tx, call.desk, call.org, message), own=True)


@router.get("/sources")
def list_sources(
    call: CallOf, schema_id: Id | None = None, cursor: Id | None = None, limit: Limit = PAGE
) -> SourceList:
    """All sources, or those of one schema, page by page."""
    with call.desk.store.read() as tx:
        found = tx.cohorts.sources(schema_id, after=cursor or "", limit=limit + 1)
        shown = found[:limit]
        return SourceList(
            sources=_with_standing(tx, call, shown),
            next_cursor=shown[-1].id if len(found) > limit else None,
        )


@router.get("/sources/{source_id}")
def get_source(call: CallOf, source_id: str) -> SourceView:
    """One source; what is shown of a source is public among participants."""
    with call.desk.store.read() as tx:
        (view,) = _with_standing(tx, call, [tx.cohorts.source(source_id)])
        return view


def _with_standing(tx: Tx, call: Call, found: Sequence[Source]) -> list[SourceView]:
    """Sources with their owners' reputation."""
    standing = outcomes.standings(tx, call.desk, [source.org_id for source in found])
    return [
        views.source(source).model_copy(
            update={"standing_micro": standing[source.org_id].standing_micro}
        )
        for source in found
    ]


@router.post(
    "/sources/{source_id}/summary", response_model=SourceView, openapi_extra=takes(PublishSummary)
)
def publish_summary(call: CallOf, source_id: str) -> Response:
    """Publish a source's one DP summary."""
    message = call.message(PublishSummary)
    return call.write(
        lambda tx: intake.publish_summary(tx, call.desk, call.org, source_id, message),
        keyed=True,
        own=True,
    )


@router.get("/sources/{source_id}/summary")
def get_summary(call: CallOf, source_id: str) -> SummaryView:
    """A source's one DP release and its salt; without it nobody could repeat a clearing."""
    with call.desk.store.read() as tx:
        tx.cohorts.source(source_id)
        found = tx.cohorts.summaries([source_id])
        return views.summary(found, tx.erasure.salt(source_id), source_id)


@router.post("/valsets", response_model=ValsetView, openapi_extra=takes(SealValset))
def seal_valset(call: CallOf) -> Response:
    """Register an encrypted validation set whose blobs are uploaded."""
    message = call.message(SealValset)
    return call.write(lambda tx: intake.seal_valset(tx, call.desk, call.org, message))


@router.get("/valsets/{valset_id}/seeds")
def get_seeds(call: CallOf, valset_id: str) -> SeedList:
    """What the server drew for a set's tests and targets that have ended, for the set's owner.

    With it the owner makes every message of the server in them again.
    """
    with call.desk.store.read() as tx:
        return run_audits.seeds(tx, call.org, valset_id)


@router.get("/valsets/{valset_id}")
def get_valset(call: CallOf, valset_id: str) -> ValsetView:
    """A validation set, for its owner and for those who take part in a request on it."""
    with call.desk.store.read() as tx:
        return views.valset(tx.access.valset(valset_id, call.org.id))
