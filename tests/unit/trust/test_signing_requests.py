"""Signed requests: what is covered, and every way around it."""

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from http_message_signatures import (
    HTTPMessageSigner,
    HTTPMessageVerifier,
    MappingKeyResolver,
    algorithms,
)

from clearinghouse.clock import FixedClock
from clearinghouse.errors import AuthenticationError
from clearinghouse.httpsig import Headers, sign_request, verify_request
from clearinghouse.signing import SigningKey, VerifyKey, b64decode_strict, b64encode

URL = "https://ch.example/v1/requests?dry=1"
BODY = b'{"tariff":"6.00"}'
KEY = SigningKey.from_raw(bytes(range(32)))
KEY_ID = KEY.key_id
BASE = {"Content-Type": "application/json", "Idempotency-Key": "k-1"}


class Server:
    """A verifier with its own clock, known keys and nonce memory."""

    def __init__(self) -> None:
        self.clock = FixedClock()
        self.keys: dict[str, VerifyKey] = {KEY_ID: KEY.verify_key}
        self.nonces: dict[tuple[str, str], int] = {}

    def remember(self, key_id: str, nonce: str, forget_after_s: int) -> bool:
        return self.nonces.setdefault((key_id, nonce), forget_after_s) is forget_after_s

    def accept(
        self,
        headers: Headers,
        body: bytes | None = BODY,
        method: str = "POST",
        url: str = URL,
        body_digest: bytes | None = None,
    ) -> str:
        return verify_request(
            method,
            url,
            headers,
            body,
            self.keys.get,
            self.clock,
            self.remember,
            body_digest=body_digest,
        )


@pytest.fixture
def server() -> Server:
    return Server()


def signed(
    server: Server, body: bytes = BODY, base: Mapping[str, str] = BASE, **options: Any
) -> dict[str, str]:
    arguments = {
        "method": "POST",
        "url": URL,
        "headers": base,
        "body": body,
        "key": KEY,
        "key_id": KEY_ID,
        "clock": server.clock,
    }
    return {**base, **sign_request(**(arguments | options))}


def test_signing_requests_verify_once(server: Server) -> None:
    headers = signed(server)
    assert server.accept(headers) == KEY_ID
    with pytest.raises(AuthenticationError, match="nonce was used before"):
        server.accept(headers)
    assert server.accept(signed(server)) == KEY_ID
    # Remembered longer than the request is acceptable.
    now = int(server.clock.now())
    assert all(after > now + 60 for after in server.nonces.values())


def test_signing_requests_signature_base_is_that_of_the_standard(server: Server) -> None:
    """The bytes signed, built by hand from RFC 9421 section 2.5."""
    headers = signed(server)
    label, parameters = headers["Signature-Input"].split("=", 1)
    assert label == "clearinghouse"
    now = int(server.clock.now())
    pattern = (
        r'\("@method" "@target-uri" "content-digest" "idempotency-key"\)'
        rf';created={now};keyid="{KEY_ID}";nonce="[A-Za-z0-9_-]{{22}}";tag="clearinghouse"'
    )
    ordered = parameters.split(";")[0] + ";" + ";".join(sorted(parameters.split(";")[1:]))
    assert re.fullmatch(pattern, ordered)
    digest = b64encode(hashlib.sha256(BODY).digest())
    base = (
        '"@method": POST\n'
        f'"@target-uri": {URL}\n'
        f'"content-digest": sha-256=:{digest}:\n'
        '"idempotency-key": k-1\n'
        f'"@signature-params": {parameters}'
    )
    signature = headers["Signature"].removeprefix("clearinghouse=:").removesuffix(":")
    KEY.verify_key.verify(b64decode_strict(signature), base.encode())


@pytest.mark.parametrize("body", [b"", b"x", bytes(100_000)])
def test_signing_requests_every_body_is_digested(server: Server, body: bytes) -> None:
    headers = signed(server, body)
    assert server.accept(headers, body) == KEY_ID
    again = signed(server, body)
    with pytest.raises(AuthenticationError, match="body is not the one"):
        server.accept(again, body + b" ")
    no_digest = {name: value for name, value in again.items() if name != "Content-Digest"}
    with pytest.raises(AuthenticationError, match="no content-digest"):
        server.accept(no_digest, body)


def test_signing_requests_streams_are_verified_by_their_digest(server: Server) -> None:
    sha256 = hashlib.sha256(BODY).digest()
    headers = signed(server, body=None, body_digest=sha256)  # type: ignore[arg-type]
    assert server.accept(headers, None, body_digest=sha256) == KEY_ID
    again = signed(server)
    with pytest.raises(AuthenticationError, match="body is not the one"):
        server.accept(again, None, body_digest=hashlib.sha256(b"other").digest())
    for arguments in ((None, None), (BODY, sha256), (None, b"short")):
        with pytest.raises(ValueError, match="body"):
            server.accept(again, arguments[0], body_digest=arguments[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "PUT"}, "does not hold"),
        ({"url": "https://ch.example/v1/requests"}, "does not hold"),
        ({"url": "https://ch.example/v1/requests?dry=0"}, "does not hold"),
        ({"url": "https://evil.example/v1/requests?dry=1"}, "does not hold"),
        ({"url": "http://ch.example/v1/requests?dry=1"}, "does not hold"),
        ({"url": "not a url"}, "does not hold"),
        ({"method": "post"}, "does not hold"),
        ({"body": b'{"tariff":"9.00"}'}, "body is not the one"),
        ({"body": b""}, "body is not the one"),
    ],
)
def test_signing_requests_changed_in_transit_are_refused(
    server: Server, change: dict[str, Any], message: str
) -> None:
    headers = signed(server)
    with pytest.raises(AuthenticationError, match=message):
        server.accept(headers, **change)
    assert not server.nonces  # what does not verify uses up no nonce
    assert server.accept(headers) == KEY_ID


def test_signing_requests_changed_body_with_its_own_digest_is_refused(server: Server) -> None:
    changed = b'{"tariff":"9.00"}'
    headers = signed(server)
    digest = b64encode(hashlib.sha256(changed).digest())
    headers["Content-Digest"] = f"sha-256=:{digest}:"
    with pytest.raises(AuthenticationError, match="does not hold"):
        server.accept(headers, changed)


def test_signing_requests_idempotency_key_is_covered(server: Server) -> None:
    headers = signed(server)
    other = {**headers, "Idempotency-Key": "k-2"}
    with pytest.raises(AuthenticationError, match="does not hold"):
        server.accept(other)
    dropped = {name: value for name, value in headers.items() if name != "Idempotency-Key"}
    with pytest.raises(AuthenticationError):
        server.accept(dropped)
    without = signed(server, base={"Content-Type": "application/json"})
    assert "idempotency-key" not in without["Signature-Input"]
    with pytest.raises(AuthenticationError):
        server.accept({**without, "idempotency-key": "added"})
    assert server.accept(without) == KEY_ID


@pytest.mark.parametrize("age_s", [-60, -59, 0, 59, 60])
def test_signing_requests_within_the_window_are_accepted(server: Server, age_s: int) -> None:
    headers = signed(server)
    server.clock.advance(age_s)
    assert server.accept(headers) == KEY_ID


@pytest.mark.parametrize("age_s", [-86_400, -61, 61, 3_600, 5 * 3_600, 86_400])
def test_signing_requests_outside_the_window_are_refused(server: Server, age_s: int) -> None:
    headers = signed(server)
    server.clock.advance(age_s)
    with pytest.raises(AuthenticationError, match="s old by our clock"):
        server.accept(headers)


def test_signing_requests_of_unknown_or_other_keys_are_refused(server: Server) -> None:
    other = SigningKey.generate()
    for key, key_id in ((other, KEY_ID), (KEY, other.key_id), (other, other.key_id)):
        with pytest.raises(AuthenticationError, match="does not hold"):
            server.accept(signed(server, key=key, key_id=key_id))
    server.keys.clear()  # revoked
    with pytest.raises(AuthenticationError, match="does not hold"):
        server.accept(signed(server))


def test_signing_requests_lost_key_database_is_not_a_bad_signature(server: Server) -> None:
    def broken(key_id: str) -> VerifyKey | None:
        raise ConnectionError("database away")

    with pytest.raises(ConnectionError):
        verify_request("POST", URL, signed(server), BODY, broken, server.clock, server.remember)


class Message:
    def __init__(self, headers: dict[str, str]) -> None:
        self.method, self.url, self.headers = "POST", URL, dict(headers)


COVERED = ("@method", "@target-uri", "content-digest", "idempotency-key")


def signed_otherwise(server: Server, **options: Any) -> dict[str, str]:
    """A valid RFC 9421 signature by the right key, made with other choices than ours."""
    digest = b64encode(hashlib.sha256(BODY).digest())
    message = Message({**BASE, "Content-Digest": f"sha-256=:{digest}:"})
    resolver = MappingKeyResolver(public_keys={}, private_keys={KEY_ID: KEY.cryptography_key})
    signer = HTTPMessageSigner(signature_algorithm=algorithms.ED25519, key_resolver=resolver)
    now = datetime.fromtimestamp(server.clock.now(), UTC)
    arguments: dict[str, Any] = {
        "key_id": KEY_ID,
        "created": now,
        "nonce": "n" * 22,
        "tag": "clearinghouse",
        "include_alg": False,
        "covered_component_ids": COVERED,
        "use_existing_digest": True,
    }
    signer.sign(message, **(arguments | options))
    return message.headers


def test_signing_requests_of_another_client_are_accepted_if_they_cover_the_same(
    server: Server,
) -> None:
    assert server.accept(signed_otherwise(server)) == KEY_ID
    shuffled = signed_otherwise(
        server, covered_component_ids=COVERED[::-1], nonce="m" * 22, label="sig1"
    )
    assert server.accept(shuffled) == KEY_ID


@pytest.mark.parametrize(
    "options",
    [
        {"covered_component_ids": ("@method",)},
        {"covered_component_ids": ("@method", "@target-uri")},
        {"covered_component_ids": ("@method", "@target-uri", "content-digest")},
        {"covered_component_ids": ("@target-uri", "content-digest", "idempotency-key")},
        {"covered_component_ids": ("@method", "@path", "content-digest", "idempotency-key")},
        {"covered_component_ids": (*COVERED, "content-type")},
        {"covered_component_ids": (*COVERED, "@authority")},
        {"nonce": None},
        {"nonce": "short"},
        {"nonce": "n" * 65},
        {"nonce": "n" * 20 + " ;"},
        {"tag": None},
        {"tag": "other"},
        {"include_alg": True},
        {"expires": datetime.fromtimestamp(2_000_000_000, UTC)},
        {"key_id": KEY_ID, "created": datetime.fromtimestamp(1, UTC)},
    ],
    ids=str,
)
def test_signing_requests_with_less_or_other_than_ours_are_refused(
    server: Server, options: dict[str, Any]
) -> None:
    with pytest.raises(AuthenticationError):
        server.accept(signed_otherwise(server, **options))
    assert not server.nonces


@pytest.mark.parametrize(
    "change",
    [
        {"Signature": ""},
        {"Signature": "clearinghouse=:AAAA:"},
        {"Signature": "clearinghouse=1"},
        {"Signature": "other=:AAAA:"},
        {"Signature": "\u20ac"},
        {"Signature-Input": ""},
        {"Signature-Input": "clearinghouse=()"},
        {"Signature-Input": 'clearinghouse=("@method");created=x'},
        {"Signature-Input": "clearinghouse=:AAAA:"},
        {"Signature-Input": 'clearinghouse=("@method" "@method");created=1;tag="clearinghouse"'},
        {"Signature-Input": "x" * 5_000},
        {"Content-Digest": "sha-256=:AAAA:"},
        {"Content-Digest": "md5=:AAAA:"},
        {"Content-Digest": "\u20ac"},
        {"Content-Digest": ""},
    ],
    ids=str,
)
def test_signing_requests_with_malformed_headers_are_refused(
    server: Server, change: dict[str, str]
) -> None:
    with pytest.raises(AuthenticationError):
        server.accept(signed(server) | change)


def test_signing_requests_with_two_signatures_are_refused(server: Server) -> None:
    first, second = signed(server), signed_otherwise(server, label="second")
    both = first | {
        name: f"{first[name]}, {second[name]}" for name in ("Signature", "Signature-Input")
    }
    with pytest.raises(AuthenticationError, match="one signature"):
        server.accept(both)


@pytest.mark.parametrize(
    "name", ["Signature", "signature-input", "Content-Digest", "IDEMPOTENCY-KEY"]
)
def test_signing_requests_with_a_repeated_header_are_refused(server: Server, name: str) -> None:
    headers = signed(server)
    value = next(found for key, found in headers.items() if key.lower() == name.lower())
    with pytest.raises(AuthenticationError, match="must come once"):
        server.accept([*headers.items(), (name, value)])
    with pytest.raises(ValueError, match="must come once"):
        sign_request(
            "POST", URL, [(name, "a"), (name.lower(), "a")], BODY, KEY, KEY_ID, server.clock
        )


def test_signing_requests_unsigned_are_refused(server: Server) -> None:
    with pytest.raises(AuthenticationError, match="not signed"):
        server.accept(BASE)


def test_signing_requests_any_changed_character_of_a_signature_is_refused(
    server: Server,
) -> None:
    headers = signed(server)
    for name in ("Signature", "Signature-Input", "Content-Digest"):
        text = headers[name]
        for place in range(len(text)):
            for changed in (
                text[:place] + chr(ord(text[place]) ^ 1) + text[place + 1 :],
                text[:place] + text[place + 1 :],
            ):
                with pytest.raises(AuthenticationError):
                    server.accept(headers | {name: changed})
    assert server.accept(headers) == KEY_ID


def test_signing_requests_bad_arguments_of_the_signer(server: Server) -> None:
    for change in ({"method": "post"}, {"url": "/v1/requests"}, {"url": "https://a b/"}):
        with pytest.raises(ValueError, match="cannot be signed"):
            signed(server, **change)


def test_signing_requests_library_defaults_accept_what_we_refuse(server: Server) -> None:
    """Why the wrapper exists: this fails if the library's defaults become safe."""
    now = datetime.now(UTC)
    resolver = MappingKeyResolver(
        public_keys={KEY_ID: KEY.cryptography_key.public_key()}, private_keys={}
    )
    verifier = HTTPMessageVerifier(signature_algorithm=algorithms.ED25519, key_resolver=resolver)
    old = signed_otherwise(
        server, covered_component_ids=("@method",), created=now - timedelta(hours=5)
    )
    assert verifier.verify(Message(old))
    assert verifier.verify(Message(old))
    with pytest.raises(AuthenticationError):
        server.accept(old)
