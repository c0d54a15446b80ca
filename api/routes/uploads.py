"""Uploads that come in pieces, for bytes too many to send twice when a connection breaks."""

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from api.bodies import takes
from api.calls import CallOf, DeskOf, find_caller, get_limits
from api.routes.blobs import receive
from clearinghouse.blobs import TooLargeError
from clearinghouse.blobs.partial import Piece
from clearinghouse.httpsig import announced_sha256
from clearinghouse.messages.uploads import BeginUpload, UploadView
from clearinghouse.rounds import uploads
from clearinghouse.rounds.desk import Desk
from clearinghouse.store.partials import Partial
from clearinghouse.store.records import Org

router = APIRouter(prefix="/v1/uploads", tags=["blobs"])

_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_PIECE = {"requestBody": {"required": True, "content": _BYTES}}


@router.post("", response_model=UploadView, openapi_extra=takes(BeginUpload))
def begin_upload(call: CallOf) -> Response:
    """Announce a blob by hash and size; again finds the upload that was begun, or says it is done.

    Room in the organisation's quota is taken at once.
    """
    message = call.message(BeginUpload)
    return call.write(lambda tx: uploads.begin(tx, call.desk, call.org, message))


@router.get("/{upload_id}")
def show_upload(call: CallOf, upload_id: str) -> UploadView:
    """How far one of the caller's unfinished uploads is."""
    with call.desk.store.read() as tx:
        return uploads.view(tx.partials.get(upload_id, call.org.id))


@router.patch("/{upload_id}", openapi_extra=_PIECE)
async def add_piece(request: Request, desk: DeskOf, upload_id: str, offset: int) -> UploadView:
    """Send the next piece; it counts when all of it came and has the hash that the call signs.

    After the last one the blob is there, if it has the hash that was announced; an empty piece at
    its end repeats that.
    """
    headers = [(name, value) for name, value in request.headers.items()]
    announced = announced_sha256(headers)
    caller = await run_in_threadpool(find_caller, request, desk, None, announced)
    declared = request.headers.get("content-length", "")
    expected = int(declared) if declared.isdigit() else uploads.PIECE_BYTES
    if expected > uploads.PIECE_BYTES:
        raise TooLargeError(f"a piece may have at most {uploads.PIECE_BYTES} bytes")
    with get_limits(request).uploading(caller.id, expected):
        partial, piece = await run_in_threadpool(
            uploads.open_piece, desk, caller, upload_id, offset
        )
        return await _take(request, desk, caller, partial, piece, announced)


async def _take(
    request: Request, desk: Desk, caller: Org, partial: Partial, piece: Piece, announced: bytes
) -> UploadView:
    goes_on = True
    try:
        await receive(request, piece, uploads.PIECE_BYTES)
        told = await run_in_threadpool(uploads.keep, desk, caller, partial, piece, announced)
        goes_on = not told.done
        return told
    finally:
        piece.close(keep=goes_on)


@router.delete("/{upload_id}", response_model=None)
def end_upload(call: CallOf, upload_id: str) -> Response:
    """Forget one of the caller's unfinished uploads, and give its room back."""
    return call.write(lambda tx: uploads.end(tx, call.org, upload_id))
