"""Who calls, and with what: signatures, bodies, idempotent writes. The one way into every route."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import Depends, Request
from starlette.responses import Response

from api.limits import Limits
from api.tokens import check_token
from clearinghouse.blobs import TooLargeError
from clearinghouse.canonical import digest, parse_strict
from clearinghouse.errors import AuthenticationError, InputError
from clearinghouse.failpoints import reach
from clearinghouse.httpsig import verify_request
from clearinghouse.messages.base import Message
from clearinghouse.messages.intake import RegisterOrg
from clearinghouse.rounds.desk import Desk
from clearinghouse.signing import VerifyKey
from clearinghouse.store.records import Org
from clearinghouse.store.store import Tx

JSON = "application/json"
_KEY = re.compile(r"[!-~]{1,200}")

Body = TypeVar("Body", bound=Message)


async def find_desk(request: Request) -> Desk:
    """The server's tools, for routes; not `def`: that would cost every call one more thread."""
    return get_desk(request)


def get_desk(request: Request) -> Desk:
    """The server's tools."""
    desk: Desk = request.app.state.desk
    return desk


def get_limits(request: Request) -> Limits:
    """The limits of this process."""
    limits: Limits = request.app.state.limits
    return limits


DeskOf = Annotated[Desk, Depends(find_desk)]


class MediaTypeError(InputError):
    """The body is of a kind that no route reads."""

    status = 415


def check_media_type(request: Request) -> None:
    """Only JSON as sent: no other kind, and nothing that would have to be unpacked first.

    Raises:
        MediaTypeError: It says that it is something else.
    """
    kind, _, parameters = request.headers.get("content-type", JSON).partition(";")
    charset = parameters.strip().lower()
    if kind.strip().lower() != JSON or charset not in ("", "charset=utf-8", 'charset="utf-8"'):
        raise MediaTypeError(f"a body must be {JSON} in UTF-8")
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise MediaTypeError("a body must be sent as it is, without a Content-Encoding")


async def read_body(request: Request) -> bytes:
    """The whole body, up to the route's limit.

    Raises:
        TooLargeError: There is more.
        MediaTypeError: It is no JSON.
    """
    if request.method in ("POST", "PUT", "PATCH"):
        check_media_type(request)
    settings = get_desk(request).settings
    is_summary = request.url.path.endswith("/summary")
    limit = settings.summary_bytes if is_summary else settings.body_bytes
    parts, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise TooLargeError(f"this body may have at most {limit} bytes")
        parts.append(chunk)
    return b"".join(parts)


BodyOf = Annotated[bytes, Depends(read_body)]


def target_uri(request: Request, public_url: str) -> str:
    """The URL as the caller addressed and signed it."""
    scope = request.scope
    path = str(scope["raw_path"], "latin-1")
    query = str(scope["query_string"], "latin-1")
    base = public_url.rstrip("/") or f"{scope['scheme']}://{request.headers.get('host', '')}"
    return f"{base}{path}?{query}" if query else f"{base}{path}"


def verify(
    request: Request,
    desk: Desk,
    resolve: Callable[[str], VerifyKey | None],
    *,
    body: bytes | None = None,
    body_digest: bytes | None = None,
) -> str:
    """Check a call's signature and return its key id.

    Calls that change something use up their nonce; reading twice does no harm.

    Raises:
        AuthenticationError: It does not hold.
    """

    def remember(key_id: str, nonce: str, expires: int) -> bool:
        if request.method in ("GET", "HEAD"):
            return True
        with desk.store.write_for(key_id) as tx:
            return tx.guards.remember_nonce(key_id, nonce, expires, desk.clock.now())

    return verify_request(
        request.method,
        target_uri(request, desk.settings.public_url),
        [(name, value) for name, value in request.headers.items()],
        body,
        resolve,
        desk.clock,
        remember,
        body_digest=body_digest,
    )


def find_caller(request: Request, desk: Desk, body: bytes | None, body_digest: bytes | None) -> Org:
    """The registered organisation that signed a call, with the key that did.

    Raises:
        AuthenticationError: Nobody registered did, or the key is revoked.
        RateError: The organisation calls too often.
    """
    found: list[Org] = []

    def resolve(key_id: str) -> VerifyKey | None:
        with desk.store.read() as tx:
            org = tx.parties.by_key(key_id)
        if org is None:
            return None
        found.append(org)
        return VerifyKey.from_base64(org.public_key)

    key_id = verify(request, desk, resolve, body=body, body_digest=body_digest)
    for org in found:
        if org.key_id == key_id:
            get_limits(request).count(org.id, request.method)
            reach("api.verified")
            return org
    raise AuthenticationError(f"the key {key_id} is not registered")


def find_reader(request: Request, desk: Desk) -> Org:
    """The organisation whose API key a call brings.

    Raises:
        AuthenticationError: There is no such key, or it has ended.
        ScopeError: It may not read this.
        RateError: It calls too often.
    """
    key = check_token(request, desk)
    get_limits(request).count_key(key.id, key.org_id)
    with desk.store.read() as tx:
        return tx.parties.get(key.org_id)


def check_key(tx: Tx, org: Org) -> None:
    """Check again, inside the writing transaction, that the caller's key still acts for it.

    Raises:
        AuthenticationError: It was revoked since the call's signature was checked.
    """
    tx.parties.check_key(org)


@dataclass(frozen=True, slots=True)
class Call:
    """A verified call."""

    desk: Desk
    org: Org
    body: bytes
    idempotency_key: str | None
    route: str

    def message(self, kind: type[Body]) -> Body:
        """The body as a message.

        Raises:
            InputError: It is not JSON with one meaning.
            ValidationError: It is not such a message.
        """
        return parse_message(self.body, kind)

    def write(
        self, act: Callable[[Tx], Message | None], *, keyed: bool = False, own: bool = False
    ) -> Response:
        """Do something in one transaction, once for each Idempotency-Key.

        Args:
            act: Writes and returns the answer (None for an empty object).
            keyed: Whether the key is required, as where money or epsilon is spent.
            own: Whether it touches only what is the caller's own (`Store.write_for`).

        Raises:
            InputError: The key is missing or malformed.
            ConflictError: The key was used for another call.
        """
        key = self.idempotency_key
        if key is None and keyed:
            raise InputError("this call spends money or privacy: give it an Idempotency-Key")
        if key is not None and not _KEY.fullmatch(key):
            raise InputError("an Idempotency-Key has 1 to 200 printable ASCII characters")
        told = digest({"route": self.route, "body": digest(self.body)})
        store = self.desk.store
        with store.write_for(self.org.id) if own else store.write() as tx:
            check_key(tx, self.org)
            kept = None if key is None else tx.guards.reply(self.org.id, key, told)
            if kept is not None:
                return Response(kept, media_type=JSON)
            answer = act(tx)
            text = "{}" if answer is None else answer.model_dump_json()
            if key is not None:
                tx.guards.keep_reply(self.org.id, key, told, text)
            reach("api.writing")
        reach("api.committed")
        self.desk.bell.ring()
        return Response(text, media_type=JSON)


def parse_message(body: bytes, kind: type[Body]) -> Body:
    """Read a message strictly: one meaning of the JSON, then exactly the message's fields.

    Raises:
        InputError: It is not JSON with one meaning.
        ValidationError: It is not such a message.
    """
    parse_strict(body, max_bytes=max(len(body), 1))
    return kind.model_validate_json(body)


def signed_call(request: Request, desk: DeskOf, body: BodyOf) -> Call:
    """The verified call of a registered organisation: signed, or with an API key that may."""
    if "authorization" in request.headers:
        org = find_reader(request, desk)
    else:
        org = find_caller(request, desk, body, None)
    route = f"{request.method} {request.url.path}"
    return Call(desk, org, body, request.headers.get("idempotency-key"), route)


CallOf = Annotated[Call, Depends(signed_call)]


def registering_call(request: Request, desk: DeskOf, body: BodyOf) -> RegisterOrg:
    """A registration, signed with the very key it registers.

    Raises:
        AuthenticationError: It is signed by another key.
    """
    message = parse_message(body, RegisterOrg)
    key = VerifyKey.from_base64(message.public_key)
    verify(request, desk, lambda key_id: key if key_id == key.key_id else None, body=body)
    return message
