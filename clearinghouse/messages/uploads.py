"""Uploads that come in pieces: begun with hash and size, sent from an offset on, resumed.

The shape is that of tus 1.0 with one change: what tus says in headers is in the URL or the body
here, because the signature of a call covers method, URL and body and no other header.
"""

from typing import Annotated

from pydantic import Field

from clearinghouse.messages.base import Id, Message, Sha256

Size = Annotated[int, Field(ge=0, le=2**50)]


class BeginUpload(Message):
    """POST /v1/uploads: bytes of this hash and size will come, of this kind."""

    digest: Sha256
    size: Annotated[int, Field(ge=1, le=2**50)]
    kind: Annotated[str, Field(pattern=r"^[a-z][a-z0-9._-]{0,39}$")]


class UploadView(Message):
    """An upload as its organisation sees it.

    `received` bytes are on the server's disk and need not be sent again; pieces may have up to
    `piece_bytes`. When all have come it is `done`: the blob may be named, and there is no upload
    any more (`id` is null). Unless a piece comes before `expires`, seconds since 1970, it is
    forgotten.
    """

    id: Id | None
    digest: Sha256
    size: Size
    received: Size
    piece_bytes: Size
    expires: Annotated[int, Field(ge=0, le=2**40)]
    done: bool
