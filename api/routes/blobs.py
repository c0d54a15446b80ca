"""Blobs: ciphertexts, keys, sealed records and models, streamed and named by their SHA-256."""

import re
from typing import Protocol

from fastapi import APIRouter, Request, status
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from api.calls import CallOf, DeskOf, check_key, find_caller, get_limits
from clearinghouse.blobs import CHUNK, TooLargeError, Upload
from clearinghouse.errors import InputError, NoGrantError
from clearinghouse.failpoints import reach
from clearinghouse.rounds import training
from clearinghouse.rounds.desk import Desk
from clearinghouse.store.records import Org

router = APIRouter(prefix="/v1", tags=["blobs"])

_DIGEST = re.compile(r"[0-9a-f]{64}")
_KIND = re.compile(r"[a-z][a-z0-9._-]{0,39}")


@router.put("/blobs/{digest}", status_code=status.HTTP_201_CREATED, response_class=Response)
async def put_blob(request: Request, desk: DeskOf, digest: str, kind: str) -> Response:
    """Upload bytes under their SHA-256; 201 if they are new to the caller, else 200.

    The signature covers Content-Digest, which must be the one in the URL, so it is checked before
    the first byte is stored; that the bytes have this digest is checked when they are all there.
    """
    if not _DIGEST.fullmatch(digest) or not _KIND.fullmatch(kind):
        raise InputError("PUT /blobs/{SHA-256 in lower-case hex}?kind={a short word}")
    caller = await run_in_threadpool(find_caller, request, desk, None, bytes.fromhex(digest))
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > desk.settings.blob_bytes:
        raise TooLargeError(f"a blob may have at most {desk.settings.blob_bytes} bytes")
    size = int(declared) if declared.isdigit() else None
    await run_in_threadpool(_check_room, desk, caller.id, digest, size or 0)
    expected = desk.settings.blob_bytes if size is None else size
    with get_limits(request).uploading(caller.id, expected), desk.blobs.upload(size or 0) as upload:
        await receive(request, upload, desk.settings.blob_bytes)
        is_new = await run_in_threadpool(_keep, desk, upload, digest, caller)
    return Response(status_code=status.HTTP_201_CREATED if is_new else status.HTTP_200_OK)


class Sink(Protocol):
    """Takes bytes."""

    def write(self, chunk: bytes) -> None:
        """Take the next ones."""
        ...


async def receive(request: Request, sink: Sink, most: int) -> None:
    """Write the body piece by piece, off the event loop.

    Raises:
        TooLargeError: It has more than `most` bytes.
    """
    pending, size = bytearray(), 0
    async for chunk in request.stream():
        pending += chunk
        size += len(chunk)
        if size > most:
            raise TooLargeError(f"this body may have at most {most} bytes")
        if len(pending) >= CHUNK:
            await run_in_threadpool(sink.write, bytes(pending))
            pending.clear()
    await run_in_threadpool(sink.write, bytes(pending))


def _check_room(desk: Desk, org_id: str, digest: str, size: int) -> None:
    """Refuse before the first byte what could not be kept after the last."""
    with desk.store.read() as tx:
        tx.quotas.check_stored(org_id, digest, size, desk.settings.stored_bytes)


def _keep(desk: Desk, upload: Upload, digest: str, caller: Org) -> bool:
    _check_room(desk, caller.id, digest, upload.size)
    size = upload.finish(digest)
    reach("api.stored")
    with desk.store.write() as tx:
        check_key(tx, caller)
        is_new = tx.blobs.add(digest, size, caller.id)
        desk.blobs.size(digest)  # the same bytes may just have been erased: then it is not stored
        # Exact at last: of two uploads that race for the same room, the later one is undone here.
        tx.quotas.store(caller.id, digest, size, desk.settings.stored_bytes)
    return is_new


@router.get("/blobs/{digest}", response_class=Response)
def get_blob(call: CallOf, digest: str) -> StreamingResponse:
    """A blob's bytes, for who uploaded it and whom it was sent to.

    Sealed records need a grant at the moment they are read, and each reader is logged once.
    """
    with call.desk.store.read() as tx:
        tx.access.blob(digest, call.org.id)
        is_delivery = tx.grants.sealed_to(digest, call.org.id) is not None
    if is_delivery:
        with call.desk.store.write() as tx:
            reason = training.may_read(tx, call.desk, call.org, digest)
        if reason:
            raise NoGrantError(reason)
    size = call.desk.blobs.size(digest)
    return StreamingResponse(
        call.desk.blobs.chunks(digest),
        media_type="application/octet-stream",
        headers={"Content-Length": str(size)},
    )
