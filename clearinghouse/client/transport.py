"""A party's calls to the server: signed, repeated until they are answered, checked on arrival.

Every try is signed anew (fresh nonce and time) under the same Idempotency-Key, so a call whose
answer got lost on the way is answered again and counted once.
"""

import hashlib
import ipaddress
import secrets
import ssl
import time
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlsplit

import httpx
from pydantic import ValidationError

from clearinghouse import errors
from clearinghouse.blobs import StorageFullError
from clearinghouse.canonical import parse_strict
from clearinghouse.client.pieces import LARGE_BYTES, send_pieces
from clearinghouse.clock import Clock
from clearinghouse.errors import ClearinghouseError, InputError, ProtocolError, TryAgainError
from clearinghouse.httpsig import sign_request
from clearinghouse.messages.base import Message
from clearinghouse.signing import SigningKey

ATTEMPTS = 8
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
MAX_MESSAGE_BYTES = 64 * 2**20
MAX_BLOB_BYTES = 2**30

_ERRORS: dict[str, type[ClearinghouseError]] = {
    kind.problem_type: kind
    for kind in (
        errors.InputError,
        errors.RefusedError,
        errors.BudgetExceededError,
        errors.NoGrantError,
        errors.QuotaError,
        errors.ScopeError,
        errors.ConflictError,
        errors.AuthenticationError,
        errors.NotFoundError,
        errors.TryAgainError,
        errors.RateError,
        errors.ProtocolError,
        errors.VerificationError,
        StorageFullError,
    )
}
_LATER = frozenset({429, 502, 503, 504})

Reply = TypeVar("Reply", bound=Message)


def make_client(base_url: str, *, timeout_s: float = 60.0) -> httpx.Client:
    """A client for real sockets; uses the environment's proxy except to this machine itself."""
    address = urlsplit(base_url)
    is_here = _is_loopback(address.hostname or "")
    # To call this machine without TLS nobody's certificate is needed, and the list of whom to
    # trust takes longer to read than most calls: this context trusts nobody.
    is_plain = is_here and address.scheme == "http"
    return httpx.Client(
        timeout=httpx.Timeout(timeout_s, connect=10.0),
        trust_env=not is_here,
        verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if is_plain else True,
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Transport:
    """Signed requests of one organisation.

    Args:
        base_url: Scheme, host and port as the server knows itself, such as
            "http://127.0.0.1:8123"; paths are under /v1.
        key: The organisation's key.
        clock: For the signature's time.
        client: Any httpx client, also one that calls an application in this process.
        attempts: Tries before giving up on a server that is away or busy.
        pause: Called with seconds between tries.
        progress: Called while a large blob goes ("sent") or comes ("received"), with the bytes
            that arrived and all of its bytes.
    """

    def __init__(
        self,
        base_url: str,
        key: SigningKey,
        clock: Clock,
        client: httpx.Client,
        *,
        attempts: int = ATTEMPTS,
        pause: Callable[[float], object] = time.sleep,
        progress: Callable[[str, int, int], object] = lambda _way, _arrived, _size: None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.key, self.clock, self.client = key, clock, client
        self.attempts, self.pause = attempts, pause
        self.progress = progress

    def get(self, path: str, reply: type[Reply], *, query: str = "") -> Reply:
        """GET /v1{path} and read the answer strictly.

        Raises:
            ClearinghouseError: As the server's problem says, or `TryAgainError` if it is away.
            ProtocolError: The answer is not such a message.
        """
        return _read(self._call("GET", path, query=query), reply)

    def post(
        self, path: str, message: Message, reply: type[Reply], *, idempotency_key: str | None = None
    ) -> Reply:
        """POST a message to /v1{path} and read the answer strictly; errors as `get`."""
        return _read(self.send(path, message, idempotency_key=idempotency_key), reply)

    def send(self, path: str, message: Message, *, idempotency_key: str | None = None) -> bytes:
        """POST a message and return the raw answer; errors as `get`.

        Args:
            path: Below /v1.
            message: The body.
            idempotency_key: Printable ASCII that names this act for ever; fresh if not given,
                which still makes the tries of this one call count once.
        """
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": idempotency_key or secrets.token_hex(16),
        }
        body = message.model_dump_json().encode()
        return self._call("POST", path, body=body, headers=headers)

    def patch(self, path: str, body: bytes, reply: type[Reply], *, query: str) -> Reply:
        """PATCH bytes to /v1{path} and read the answer strictly; errors as `get`."""
        headers = {"Content-Type": "application/octet-stream"}
        return _read(self._call("PATCH", path, query=query, body=body, headers=headers), reply)

    def delete(self, path: str, reply: type[Reply]) -> Reply:
        """DELETE /v1{path} and read the answer strictly; errors as `get`."""
        headers = {"Idempotency-Key": secrets.token_hex(16)}
        return _read(self._call("DELETE", path, headers=headers), reply)

    def put_blob(self, data: bytes, kind: str) -> str:
        """Store bytes under their SHA-256 and return it in hex; errors as `get`.

        Many bytes go in pieces, of which those that arrived are never sent again.
        """
        name = hashlib.sha256(data).hexdigest()
        if len(data) > LARGE_BYTES:
            send_pieces(self, name, data, kind)
            return name
        headers = {"Content-Type": "application/octet-stream"}
        self._call("PUT", f"/blobs/{name}", query=f"kind={kind}", body=data, headers=headers)
        return name

    def get_blob(self, name: str) -> bytes:
        """Fetch the bytes whose SHA-256 is `name`.

        Raises:
            ProtocolError: Other bytes came.
            ClearinghouseError: As `get`.
        """
        data = self._call("GET", f"/blobs/{name}", limit=MAX_BLOB_BYTES)
        if hashlib.sha256(data).hexdigest() != name:
            raise ProtocolError(f"the server sent other bytes than the blob {name[:16]}...")
        return data

    def get_text(self, path: str) -> str:
        """GET a text document, such as a receipt; errors as `get`."""
        return self._call("GET", path).decode("utf-8")

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: str = "",
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        limit: int = MAX_MESSAGE_BYTES,
    ) -> bytes:
        url = f"{self.base_url}/v1{path}" + (f"?{query}" if query else "")
        reason, asked_s = "it never answered", 0.0
        for attempt in range(self.attempts):
            if attempt:
                pause_s = max(asked_s, FIRST_PAUSE_S * 2 ** (attempt - 1))
                self.pause(min(LONGEST_PAUSE_S, pause_s))
            try:
                status, answer, asked_s = self._once(method, url, body, headers or {}, limit)
            except httpx.TransportError as error:
                reason = type(error).__name__
                continue
            if status in _LATER and not _is_final(answer):
                reason = f"status {status}"
                continue
            if status >= 300:
                raise _problem(status, answer)
            return answer
        raise TryAgainError(
            f"{method} {path}: the server is away or busy ({reason}, {self.attempts} tries). "
            "Repeat the same call later"
        )

    def _once(
        self, method: str, url: str, body: bytes, headers: dict[str, str], limit: int
    ) -> tuple[int, bytes, float]:
        request = self.client.build_request(
            method, url, content=body, headers={**headers, "Accept-Encoding": "identity"}
        )
        request.headers.update(
            sign_request(
                method, str(request.url), headers, body, self.key, self.key.key_id, self.clock
            )
        )
        response = self.client.send(request, stream=True)
        try:
            announced = response.headers.get("content-length", "")
            whole = int(announced) if announced.isdigit() else 0
            parts, size = [], 0
            for part in response.iter_bytes():
                size += len(part)
                if size > limit:
                    raise ProtocolError(f"the server's answer is larger than {limit} bytes")
                parts.append(part)
                if whole > LARGE_BYTES:
                    self.progress("received", size, whole)
        finally:
            response.close()
        asked = response.headers.get("retry-after", "")
        return response.status_code, b"".join(parts), float(asked) if asked.isdigit() else 0.0


def _read(data: bytes, reply: type[Reply]) -> Reply:
    try:
        return reply.model_validate_json(data)
    except ValidationError as error:
        place = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise ProtocolError(
            f"the server's answer is not a {reply.__name__}: {error.errors()[0]['msg']} at {place}"
        ) from None


def _is_final(answer: bytes) -> bool:
    """Whether a busy answer is about a quota, which another try in a second does not change."""
    return isinstance(_problem(429, answer), errors.QuotaError)


def _problem(status: int, answer: bytes) -> ClearinghouseError:
    """Our error of a problem+json answer (RFC 9457); an unknown type keeps the root class."""
    try:
        document = parse_strict(answer, allow_floats=True)
    except InputError:
        document = None
    if not isinstance(document, dict):
        return ClearinghouseError(f"the server answered status {status} without a problem document")
    kind = str(document.get("type", "")).rsplit("/", 1)[-1]
    detail = str(document.get("detail") or document.get("title") or f"status {status}")[:2000]
    return _ERRORS.get(kind, ClearinghouseError)(detail)
