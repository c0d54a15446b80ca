"""Uploads that come in pieces: begun, received, finished, forgotten.

The row says which bytes count, the file has them. Each step writes the file first and the row
after it, so a crash in between costs the piece at hand and nothing else:

| step | on the disk | in the row |
|---|---|---|
| begin | nothing | announced size, 0 received |
| piece | written, flushed | received |
| last piece | its whole has the announced hash | received = size |
| end | moved to the blob's place | upload gone; blob, reader and quota there |

Until the end nobody can read any of it. Between the last two lines the same call again finishes
what was begun.
"""

from clearinghouse.blobs import StorageFullError, TooLargeError
from clearinghouse.blobs.partial import LostError, Piece
from clearinghouse.errors import AuthenticationError, ConflictError, InputError, QuotaError
from clearinghouse.failpoints import reach
from clearinghouse.ids import new_id
from clearinghouse.messages.uploads import BeginUpload, UploadView
from clearinghouse.rounds.desk import Desk
from clearinghouse.store.partials import Partial
from clearinghouse.store.records import Org
from clearinghouse.store.store import Tx

PIECE_BYTES = 8 * 2**20
"""The largest piece: what a broken connection costs at most."""

MOST_OPEN = 64
"""Unfinished uploads of one organisation."""

HOUR_S = 3600


def begin(tx: Tx, desk: Desk, org: Org, message: BeginUpload) -> UploadView:
    """Announce a blob, or find the upload of it that was begun before.

    Raises:
        TooLargeError: A blob may not be so large.
        QuotaError: The organisation has no room for it.
        StorageFullError: The server has not.
        ConflictError: It was begun with another size.
    """
    settings, now = desk.settings, desk.clock.now()
    if tx.quotas.has(org.id, message.digest) and tx.blobs.readable(message.digest, org.id):
        tx.blobs.touch(message.digest, now)
        return _done(message.digest, message.size)
    known = tx.partials.of(org.id, message.digest)
    if known is not None:
        if known.size != message.size:
            raise ConflictError(f"this blob was announced with {known.size} bytes before")
        return view(known)
    if message.size > settings.blob_bytes:
        raise TooLargeError(f"a blob may have at most {settings.blob_bytes} bytes")
    _check_room(tx, desk, org, message)
    made = Partial(new_id("upl"), org.id, message.digest, message.size, 0, _expiry(desk))
    tx.partials.add(made)
    return view(made)


def _check_room(tx: Tx, desk: Desk, org: Org, message: BeginUpload) -> None:
    settings = desk.settings
    tx.quotas.check_stored(org.id, message.digest, message.size, settings.stored_bytes)
    count, announced = tx.partials.open_bytes(org.id)
    if count >= MOST_OPEN or announced + message.size > settings.inflight_bytes:
        raise QuotaError(
            f"{org.id} has {count} unfinished uploads of {announced} bytes; finish or end one of "
            f"them first (at most {MOST_OPEN}, of {settings.inflight_bytes} bytes together)"
        )
    if tx.partials.total()[1] + message.size > settings.partial_bytes:
        raise StorageFullError("the server has no room for another unfinished upload; wait")
    desk.blobs.staging.check_room(message.size)


def open_piece(desk: Desk, org: Org, upload_id: str, offset: int) -> tuple[Partial, Piece]:
    """The upload and its file, which is the caller's until it is closed.

    Raises:
        NotFoundError: The organisation has no such upload.
        ConflictError: Another call has it, or other bytes are wanted next.
    """
    with desk.store.read() as tx:
        tx.partials.get(upload_id, org.id)  # before there is a file
    staging = desk.blobs.staging
    piece = Piece(staging, staging.hashes, upload_id)
    try:
        with desk.store.read() as tx:  # again: now nobody else can change it
            partial = tx.partials.get(upload_id, org.id)
        if offset != partial.received:
            raise ConflictError(f"{partial.received} bytes are here: go on at that offset")
        return partial, _begun(desk, partial, piece)
    except BaseException:
        piece.close()
        raise


def _begun(desk: Desk, partial: Partial, piece: Piece) -> Piece:
    try:
        piece.begin(partial.received, partial.size)
    except LostError:
        if partial.received == partial.size and desk.blobs.find(partial.digest) is not None:
            piece.moved(partial.size)  # a crash between the move and the row
            return piece
        with desk.store.write() as tx:
            tx.partials.receive(partial.id, partial.received, 0, partial.expires)
        raise
    return piece


def keep(desk: Desk, org: Org, partial: Partial, piece: Piece, announced: bytes) -> UploadView:
    """Have a whole piece count; after the last one the blob is there.

    Args:
        desk: The server's tools.
        org: The caller.
        partial: As `open_piece` gave it.
        piece: All written.
        announced: SHA-256 that the call was signed with.

    Raises:
        AuthenticationError: Other bytes came, or the caller's key was revoked.
        InputError: The whole has another hash than was announced; the upload is forgotten.
        NotFoundError: It was ended meanwhile.
    """
    if piece.sha256 != announced:
        raise AuthenticationError("the body is not the one Content-Digest names")
    if piece.is_last and piece.digest != partial.digest and not piece.is_moved:
        forget(desk, partial)
        raise InputError(
            "the bytes that came have another SHA-256 than was announced; begin the upload again"
        )
    piece.flush()
    reach("upload.kept")
    if piece.received > partial.received:
        with desk.store.write() as tx:
            tx.parties.check_key(org)
            tx.partials.receive(partial.id, partial.received, piece.received, _expiry(desk))
        piece.count()
    if not piece.is_last:
        with desk.store.read() as tx:
            return view(tx.partials.get(partial.id, org.id))
    _finish(desk, org, partial, piece)
    return _done(partial.digest, partial.size)


def _finish(desk: Desk, org: Org, partial: Partial, piece: Piece) -> None:
    if not piece.is_moved:
        desk.blobs.adopt(piece.path, partial.digest)
    reach("upload.stored")
    with desk.store.write() as tx:
        tx.parties.check_key(org)
        tx.partials.get(partial.id, org.id)
        tx.partials.remove(partial.id)
        tx.blobs.add(partial.digest, partial.size, org.id)
        tx.blobs.touch(partial.digest, desk.clock.now())
        desk.blobs.size(partial.digest)  # the same bytes may just have been erased
        tx.quotas.store(org.id, partial.digest, partial.size, desk.settings.stored_bytes)


def end(tx: Tx, org: Org, upload_id: str) -> None:
    """Forget an upload at its owner's wish; its file is swept up.

    Raises:
        NotFoundError: There is none.
    """
    partial = tx.partials.get(upload_id, org.id)
    tx.partials.remove(partial.id)


def forget(desk: Desk, partial: Partial) -> None:
    """Forget an upload that cannot become what it was announced to be."""
    with desk.store.write() as tx:
        tx.partials.remove(partial.id)


def sweep(desk: Desk) -> int:
    """Forget uploads whose time is over, and remove files that belong to none; how many files.

    A row is there before its file, so a file that was listed before its row is looked for and not
    found belongs to nobody.
    """
    with desk.store.read() as tx:
        is_late = tx.partials.late(desk.clock.now())
    if is_late:
        with desk.store.write() as tx:
            tx.partials.expire(desk.clock.now())
    files = {path.name: path for path in desk.blobs.staging.partial.iterdir()}
    if not files:
        return 0
    with desk.store.read() as tx:
        known = tx.partials.known(sorted(files))
    for name in files.keys() - known:
        files[name].unlink(missing_ok=True)
    return len(files.keys() - known)


def view(partial: Partial) -> UploadView:
    """An unfinished upload as its organisation sees it."""
    return UploadView(
        id=partial.id,
        digest=partial.digest,
        size=partial.size,
        received=partial.received,
        piece_bytes=PIECE_BYTES,
        expires=partial.expires,
        done=False,
    )


def _done(digest: str, size: int) -> UploadView:
    return UploadView(
        id=None,
        digest=digest,
        size=size,
        received=size,
        piece_bytes=PIECE_BYTES,
        expires=0,
        done=True,
    )


def _expiry(desk: Desk) -> int:
    return int(desk.clock.now()) + desk.settings.partial_hours * HOUR_S
