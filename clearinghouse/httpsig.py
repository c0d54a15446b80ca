"""Signed HTTP requests: the one wrapper around RFC 9421.

The http-message-signatures package does the signature base and the parsing. Left to its defaults it
accepts (measured) a changed body, a signature over `@method` alone, a replay, and a request from
five hours ago. So nothing else may call it, and this module fixes every choice: which components
are covered, which parameters are there, the digest of the body, the window, the nonce.

A request signature proves who called, for a minute, to the server only. What must be provable to
others is a signed statement (`clearinghouse.signing`).

Sources: RFC 9421 (signatures), RFC 9530 (Content-Digest).
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from http_message_signatures import (
    HTTPMessageSignaturesException,
    HTTPMessageSigner,
    HTTPMessageVerifier,
    HTTPSignatureKeyResolver,
    algorithms,
)

from clearinghouse.clock import Clock
from clearinghouse.errors import AuthenticationError, VerificationError
from clearinghouse.signing import SigningKey, VerifyKey, b64decode_strict, b64encode

WINDOW_S = 60
TAG = "clearinghouse"
SIGNATURE_HEADERS = ("content-digest", "signature-input", "signature")

_LABEL = "clearinghouse"
_COVERED = ("@method", "@target-uri", "content-digest")
_KEY_HEADER = "idempotency-key"
_PARAMETERS = {"created", "keyid", "nonce", "tag"}
_NONCE = re.compile(r"[A-Za-z0-9_-]{16,64}")
_KEY_ID = re.compile(r"[!-~]{1,100}")
_ONE_DIGEST = re.compile(r"sha-256=:([A-Za-z0-9+/]{43}=):")
_ONE_SIGNATURE = re.compile(r"[a-z*][a-z0-9_.*-]{0,40}=:([A-Za-z0-9+/]{86}==):")

Headers = Mapping[str, str] | Iterable[tuple[str, str]]
ResolveKey = Callable[[str], VerifyKey | None]
RememberNonce = Callable[[str, str, int], bool]
"""(key id, nonce, second after which it may be forgotten) -> whether it was new.

It must be one atomic step ("insert unless there"), or two replays at once both pass.
"""


def announced_sha256(headers: Headers) -> bytes:
    """The SHA-256 that Content-Digest announces, for a body that is checked when all of it came.

    Raises:
        AuthenticationError: There is none, or it is malformed.
    """
    found = _ONE_DIGEST.fullmatch(_checked_headers(headers)["content-digest"])
    try:
        return b64decode_strict(found[1] if found else "?")
    except VerificationError:
        raise AuthenticationError("Content-Digest must be sha-256=:base64:, once") from None


def body_sha256(body: bytes | None, body_digest: bytes | None) -> bytes:
    """Return the SHA-256 of the body, or the one computed while it streamed.

    Raises:
        ValueError: Both or neither is given, or the digest is not 32 bytes.
    """
    if (body is None) == (body_digest is None):
        raise ValueError("give the body (b'' if empty) or its SHA-256, one of the two")
    if body is not None:
        return hashlib.sha256(body).digest()
    if body_digest is None or len(body_digest) != 32:
        raise ValueError("body_digest must be the 32 bytes of a SHA-256")
    return body_digest


def sign_request(
    method: str,
    url: str,
    headers: Headers,
    body: bytes | None,
    key: SigningKey,
    key_id: str,
    clock: Clock,
    *,
    body_digest: bytes | None = None,
) -> dict[str, str]:
    """Sign a request that is about to be sent.

    Args:
        method: In capitals.
        url: Absolute, exactly as the server will see it (encoded, without fragment).
        headers: Those the request has; `Idempotency-Key` is covered when it is there.
        body: Bytes as sent, or None with `body_digest` for a stream.
        key: The caller's secret key.
        key_id: The id under which the server knows it.
        clock: For `created`.
        body_digest: SHA-256 of a streamed body.

    Returns:
        The three headers to add: Content-Digest, Signature-Input and Signature.

    Raises:
        ValueError: The method, url or headers cannot be signed.
    """
    names = _single(headers)
    for name in SIGNATURE_HEADERS:
        names.pop(name, None)
    names["content-digest"] = _digest_field(body_sha256(body, body_digest))
    message = _Message(method, url, names)
    signer = HTTPMessageSigner(signature_algorithm=algorithms.ED25519, key_resolver=_Signing(key))
    try:
        signer.sign(
            message,
            key_id=key_id,
            created=datetime.fromtimestamp(int(clock.now()), UTC),
            nonce=secrets.token_urlsafe(16),
            label=_LABEL,
            tag=TAG,
            include_alg=False,  # the key alone decides the algorithm
            covered_component_ids=_covered(names),
            use_existing_digest=True,
        )
    except HTTPMessageSignaturesException as error:
        raise ValueError(f"this request cannot be signed: {error}") from None
    found = {name.lower(): value for name, value in message.headers.items()}
    return {
        "Content-Digest": found["content-digest"],
        "Signature-Input": found["signature-input"],
        "Signature": found["signature"],
    }


def verify_request(
    method: str,
    url: str,
    headers: Headers,
    body: bytes | None,
    resolve_key: ResolveKey,
    clock: Clock,
    remember_nonce: RememberNonce,
    *,
    body_digest: bytes | None = None,
) -> str:
    """Return the key id that signed this request, once and less than a minute ago.

    Args:
        method: In capitals.
        url: Absolute, as the caller addressed it.
        headers: All of them, with repeated ones repeated.
        body: Bytes as received, or None with `body_digest` for a stream.
        resolve_key: The public key of a key id, or None if unknown or revoked.
        clock: The server's time.
        remember_nonce: Stores the nonce and says whether it was new.
        body_digest: SHA-256 of a streamed body.

    Raises:
        AuthenticationError: What does not hold, by name.
    """
    names = _checked_headers(headers)
    _check_digest(names, body_sha256(body, body_digest))
    resolver = _Verifying(resolve_key)
    verifier = _Verifier(signature_algorithm=algorithms.ED25519, key_resolver=resolver)
    verifier.now_s = clock.now()
    try:
        results = verifier.verify(
            _Message(method, url, names),
            expect_tag=TAG,
            require_components=_covered(names),
            max_age=None,  # _Verifier checks the window with the injected clock
        )
    except HTTPMessageSignaturesException as error:
        if resolver.failure is not None:
            raise resolver.failure from None
        raise AuthenticationError(
            f"the request's signature does not hold: {str(error) or 'wrong signature'}"
        ) from None
    key_id, nonce, created = _checked_result(results, names)
    # Only now: a forged request must not be able to use up an honest caller's nonce.
    if not remember_nonce(key_id, nonce, created + WINDOW_S + 1):
        raise AuthenticationError("this nonce was used before: a signed request counts once")
    return key_id


def _covered(names: Mapping[str, str]) -> tuple[str, ...]:
    return (*_COVERED, _KEY_HEADER) if _KEY_HEADER in names else _COVERED


def _digest_field(sha256: bytes) -> str:
    return f"sha-256=:{b64encode(sha256)}:"


def _single(headers: Headers) -> dict[str, str]:
    """Lower-case names; a header that matters must come once, or two readers see two values."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    result: dict[str, str] = {}
    for name, value in pairs:
        lower = name.lower()
        if lower in result and lower in (*SIGNATURE_HEADERS, _KEY_HEADER):
            raise ValueError(f"the header {lower} must come once")
        if lower in (*SIGNATURE_HEADERS, _KEY_HEADER):
            result[lower] = value
    return result


def _checked_headers(headers: Headers) -> dict[str, str]:
    try:
        names = _single(headers)
    except ValueError as error:
        raise AuthenticationError(str(error)) from None
    for name in SIGNATURE_HEADERS:
        if name not in names:
            raise AuthenticationError(f"the request is not signed: no {name} header")
        if len(names[name]) > 4096:
            raise AuthenticationError(f"the {name} header is too long")
    found = _ONE_SIGNATURE.fullmatch(names["signature"])
    try:
        b64decode_strict(found[1] if found else "?")
    except VerificationError:
        raise AuthenticationError(
            "the signature header must hold one signature: label=:base64 of 64 bytes:"
        ) from None
    return names


def _check_digest(names: Mapping[str, str], sha256: bytes) -> None:
    expected = _digest_field(sha256)
    if not hmac.compare_digest(names["content-digest"].encode(), expected.encode()):
        raise AuthenticationError("the body is not the one Content-Digest names")


def _checked_result(results: list[Any], names: Mapping[str, str]) -> tuple[str, str, int]:
    """Check that exactly one signature covers exactly what we ask, with exactly our parameters."""
    if len(results) != 1:
        raise AuthenticationError(f"one signature is expected, not {len(results)}")
    covered = set(results[0].covered_components)
    expected = {f'"{name}"' for name in (*_covered(names), "@signature-params")}
    if covered != expected:
        raise AuthenticationError(f"the signature must cover {', '.join(_covered(names))}, no more")
    parameters = results[0].parameters
    if set(parameters) != _PARAMETERS:
        raise AuthenticationError(f"the signature needs {', '.join(sorted(_PARAMETERS))}, no more")
    key_id, nonce, created = parameters["keyid"], parameters["nonce"], parameters["created"]
    if not _NONCE.fullmatch(nonce) or not _KEY_ID.fullmatch(key_id):
        raise AuthenticationError("the signature's nonce or keyid is malformed")
    return key_id, nonce, int(created)


@dataclass(slots=True)
class _Message:
    """The request-like object the library reads."""

    method: str
    url: str
    headers: dict[str, str]


class _Signing(HTTPSignatureKeyResolver):  # type: ignore[misc]  # the library is not followed
    def __init__(self, key: SigningKey) -> None:
        self._signing_key = key

    def resolve_private_key(self, key_id: str) -> Any:  # noqa: ARG002
        return self._signing_key.cryptography_key


class _Verifying(HTTPSignatureKeyResolver):  # type: ignore[misc]  # the library is not followed
    def __init__(self, resolve: ResolveKey) -> None:
        self._resolve = resolve
        self.failure: Exception | None = None

    def resolve_public_key(self, key_id: str) -> Any:
        try:
            found = self._resolve(key_id)
        except Exception as error:
            # The library would turn a lost database into "bad signature".
            self.failure = error
            raise
        return None if found is None else found.cryptography_key


class _Verifier(HTTPMessageVerifier):  # type: ignore[misc]  # the library is not followed
    """The library's verifier with our clock: its own reads the machine's."""

    now_s = 0.0

    def validate_created_and_expires(self, sig_input: Any, max_age: Any = None) -> None:  # noqa: ARG002
        created = sig_input.params.get("created")
        if type(created) is not int:
            raise AuthenticationError("the signature says not when it was created")
        age_s = self.now_s - created
        if abs(age_s) > WINDOW_S:
            raise AuthenticationError(
                f"the signature is {age_s:.0f} s old by our clock; at most {WINDOW_S} s either way"
            )
