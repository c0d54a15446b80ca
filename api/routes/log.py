"""Step 7: the log, its proofs, and receipts."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import PlainTextResponse

from api.bodies import takes
from api.calls import BodyOf, CallOf, DeskOf, parse_message
from clearinghouse.messages.results import (
    CheckpointView,
    Cosigned,
    CosignedList,
    LogProofView,
    LogView,
)
from clearinghouse.rounds import witnessing

router = APIRouter(prefix="/v1", tags=["audit"])

Index = Annotated[int, Query(ge=0, lt=2**31)]


@router.get("/log/checkpoint")
def get_checkpoint(desk: DeskOf) -> CheckpointView:
    """The signed head of the log; anybody may ask."""
    return CheckpointView(checkpoint=desk.head(), vkey=desk.vkey)


@router.get("/log/entries")
def get_entries(call: CallOf, start: Index = 0, limit: Index = 1000) -> LogView:
    """Entries from an index on; at most 1000 at a time."""
    with call.desk.store.read() as tx:
        found = tx.log.entries(start, limit)
        size = tx.log.size()
    return LogView(start=start, entries=[body.decode() for body in found], size=size)


@router.get("/log/proof")
def get_proof(desk: DeskOf, index: Index, size: Index) -> LogProofView:
    """The audit path of an entry; anybody may ask."""
    with desk.store.read() as tx:
        path = tx.log.proof(index, size)
    return LogProofView(index=index, size=size, path=[item.hex() for item in path])


@router.get("/log/consistency")
def get_consistency(desk: DeskOf, old: Index, size: Index) -> LogProofView:
    """The proof that a later tree only appended to an earlier one; anybody may ask."""
    with desk.store.read() as tx:
        path = tx.log.consistency(old, size)
    return LogProofView(index=old, size=size, path=[item.hex() for item in path])


@router.get("/log/cosigned")
def get_cosigned(desk: DeskOf) -> CosignedList:
    """What witnesses cosigned, for comparison with what one was shown; anybody may ask."""
    with desk.store.read() as tx:
        return witnessing.show(tx)


@router.post("/log/cosignatures", openapi_extra=takes(Cosigned), status_code=204)
def add_cosignature(desk: DeskOf, body: BodyOf) -> None:
    """Keep the cosignature of a known witness; it is signed in itself, so the call need not be."""
    message = parse_message(body, Cosigned)
    with desk.store.write() as tx:
        witnessing.take(tx, desk, message)


@router.get("/receipts/{receipt_id}", response_class=PlainTextResponse)
def get_receipt(call: CallOf, receipt_id: str) -> PlainTextResponse:
    """A receipt as the text that `clearinghouse verify` checks offline."""
    with call.desk.store.read() as tx:
        return PlainTextResponse(tx.access.receipt(receipt_id, call.org.id).body)
