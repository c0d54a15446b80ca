"""An OpenID provider for tests that can be made to lie in one place at a time."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

ISSUER = "https://id.example.org"
CLIENT = "clearinghouse"
SECRET = "between us"
NOW = 1_800_000_000


@dataclass
class Issuer:
    """Answers a `Provider` without a network; every field that is set is a lie."""

    email: str = "ada@example.org"
    claims: dict[str, Any] = field(default_factory=dict)
    header: dict[str, Any] = field(default_factory=dict)
    document: dict[str, Any] = field(default_factory=dict)
    sign: Callable[["Issuer", dict[str, Any]], str] | None = None
    answer: Callable[[httpx.Request], httpx.Response | None] = lambda _request: None
    key: Any = field(default_factory=lambda: ECKey.generate_key("P-256", {"kid": "1"}))
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    def client(self) -> httpx.Client:
        return httpx.Client(transport=httpx.MockTransport(self._handle), follow_redirects=False)

    def visit(self, address: str) -> dict[str, str]:
        """What the person's browser brings back: state and code."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
        code = f"code{len(self.codes)}"
        self.codes[code] = query
        return {"state": query["state"], "code": code}

    def _handle(self, request: httpx.Request) -> httpx.Response:
        self.calls.append(str(request.url))
        told = self.answer(request)
        if told is not None:
            return told
        if request.url.path == "/.well-known/openid-configuration":
            return httpx.Response(200, json=self._document())
        if request.url.path == "/keys":
            return httpx.Response(200, json={"keys": [self.key.as_dict(private=False)]})
        assert request.url.path == "/token", request.url
        return self._token(request)

    def _document(self) -> dict[str, Any]:
        return {
            "issuer": ISSUER,
            "authorization_endpoint": f"{ISSUER}/authorize",
            "token_endpoint": f"{ISSUER}/token",
            "jwks_uri": f"{ISSUER}/keys",
            **self.document,
        }

    def _token(self, request: httpx.Request) -> httpx.Response:
        form = {name: values[0] for name, values in parse_qs(request.content.decode()).items()}
        basic = base64.b64encode(b"clearinghouse:between+us").decode()
        plain = base64.b64encode(b"clearinghouse:between us").decode()
        known = self.codes.pop(form["code"], None)
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        made = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if (
            known is None
            or known["code_challenge"] != made
            or known["redirect_uri"] != form["redirect_uri"]
            or request.headers.get("authorization") not in (f"Basic {basic}", f"Basic {plain}")
        ):
            return httpx.Response(400, json={"error": "invalid_grant"})
        claims = {
            "iss": ISSUER,
            "sub": "1",
            "aud": CLIENT,
            "exp": NOW + 300,
            "iat": NOW,
            "nonce": known["nonce"],
            "email": self.email,
            "email_verified": True,
            **self.claims,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        token = self.sign(self, claims) if self.sign else self._sign(claims)
        return httpx.Response(200, json={"access_token": "x", "id_token": token})

    def _sign(self, claims: dict[str, Any]) -> str:
        algorithm = "RS256" if isinstance(self.key, RSAKey) else "ES256"
        header = {"alg": algorithm, "kid": "1", **self.header}
        return jwt.encode(header, claims, self.key, algorithms=[algorithm])


def _part(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def unsigned(_issuer: Issuer, claims: dict[str, Any]) -> str:
    return f"{_part({'alg': 'none'})}.{_part(claims)}."


def by_public_key_as_secret(issuer: Issuer, claims: dict[str, Any]) -> str:
    """The classic confusion: HS256 under the bytes of the public key."""
    secret = issuer.key.as_pem(private=False)
    text = f"{_part({'alg': 'HS256', 'kid': '1'})}.{_part(claims)}"
    made = hmac.new(secret, text.encode(), hashlib.sha256).digest()
    return text + "." + base64.urlsafe_b64encode(made).decode().rstrip("=")


def by_another_key(_issuer: Issuer, claims: dict[str, Any]) -> str:
    key = ECKey.generate_key("P-256")
    return jwt.encode({"alg": "ES256", "kid": "1"}, claims, key, algorithms=["ES256"])


def by_the_key_it_brings(_issuer: Issuer, claims: dict[str, Any]) -> str:
    key = ECKey.generate_key("P-256")
    header = {"alg": "ES256", "jwk": key.as_dict(private=False)}
    return jwt.encode(header, claims, key, algorithms=["ES256"])


def with_other_claims(issuer: Issuer, claims: dict[str, Any]) -> str:
    head, _, signature = issuer._sign(claims).split(".")
    return f"{head}.{_part({**claims, 'email': 'eve@example.org'})}.{signature}"
