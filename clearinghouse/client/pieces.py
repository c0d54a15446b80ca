"""Large uploads: in pieces, resumed where they broke off.

What the server has counts from one call to the next and from one process to the next, so a lost
network, a server that was killed and a client that was killed all cost one piece at most. The
server finds an upload by hash; the client need remember nothing but the bytes themselves
(`clearinghouse.client.outbox`).
"""

from collections.abc import Callable
from typing import Protocol, TypeVar

from clearinghouse.errors import ConflictError, NotFoundError, ProtocolError, TryAgainError
from clearinghouse.messages.base import Message
from clearinghouse.messages.uploads import BeginUpload, UploadView

LARGE_BYTES = 4 * 2**20
"""More than this goes in pieces."""

MOST_STUCK = 20
"""So often in a row an upload may get no further."""

PAUSE_S = 0.25

Reply = TypeVar("Reply", bound=Message)


class Caller(Protocol):
    """What is needed of a `Transport`."""

    pause: Callable[[float], object]
    progress: Callable[[str, int, int], object]

    def post(self, path: str, message: Message, reply: type[Reply]) -> Reply:
        """POST a message."""
        ...

    def patch(self, path: str, body: bytes, reply: type[Reply], *, query: str) -> Reply:
        """PATCH bytes."""
        ...


def send_pieces(caller: Caller, name: str, data: bytes, kind: str) -> None:
    """Store bytes under their SHA-256 `name`.

    Raises:
        ClearinghouseError: As `Transport.get`.
        TryAgainError: The server is away, or gets no further; the same call goes on from there.
        ProtocolError: The server's answers do not fit together.
    """
    begin = BeginUpload(digest=name, size=len(data), kind=kind)
    stuck, told = 0, _begun(caller, begin)
    while not told.done:
        before = told.received
        try:
            told = _sent(caller, told, data)
        except (ConflictError, NotFoundError):  # an answer was lost, or it was forgotten meanwhile
            told = _begun(caller, begin)
        stuck = 0 if told.done or told.received > before else stuck + 1
        if stuck > MOST_STUCK:
            raise TryAgainError(f"the upload of {name[:16]}... gets no further; repeat it later")
        if stuck:
            caller.pause(PAUSE_S)
        caller.progress("sent", told.received, len(data))


def _begun(caller: Caller, message: BeginUpload) -> UploadView:
    return _checked(caller.post("/uploads", message, UploadView), message.digest, message.size)


def _sent(caller: Caller, told: UploadView, data: bytes) -> UploadView:
    piece = data[told.received : told.received + told.piece_bytes]
    query = f"offset={told.received}"
    answer = caller.patch(f"/uploads/{told.id}", piece, UploadView, query=query)
    return _checked(answer, told.digest, told.size)


def _checked(told: UploadView, digest: str, size: int) -> UploadView:
    fits = (told.digest, told.size) == (digest, size) and told.received <= size
    if not fits or told.piece_bytes < 1 or (told.id is None) != told.done:
        raise ProtocolError(f"the server told of another upload than {digest[:16]}...")
    return told
