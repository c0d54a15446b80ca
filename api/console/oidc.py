"""Signing people in at an OpenID provider: authorization code with PKCE, one ID token, checked.

The provider's address comes from the operator's settings and nowhere else, so nobody can make the
server call an address. Its answers are bounded, redirects are not followed, and its documents may
only name https addresses (or loopback ones, for a provider on this machine).

Sources: OpenID Connect Core 1.0 section 3.1.3.7 (what to check), Discovery 1.0, RFC 7636 (PKCE).
"""

import base64
import hashlib
import ipaddress
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from clearinghouse.canonical import parse_strict
from clearinghouse.clock import Clock
from clearinghouse.errors import AuthenticationError, InputError, TryAgainError

ALGORITHMS = ("RS256", "PS256", "ES256")
"""Signatures that an ID token may carry: never `none`, never a shared secret."""

LEEWAY_S = 60
DISCOVERY_S = 300
MOST_BYTES = 2**20
TIMEOUT_S = 10.0

MakeClient = Callable[[], httpx.Client]


def plain_client(*, proxied: bool) -> httpx.Client:
    """A client that follows no redirect, through the environment's proxy if it may be."""
    return httpx.Client(timeout=TIMEOUT_S, follow_redirects=False, trust_env=proxied)


def random_text() -> str:
    """256 bits in URL-safe base64."""
    return secrets.token_urlsafe(32)


def challenge(verifier: str) -> str:
    """The S256 challenge of a PKCE verifier."""
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_address(address: object, what: str, *, loopback: bool = True) -> str:
    """The address, if it may be called: https, or http on this machine.

    Raises:
        InputError: It may not.
    """
    parts = urlsplit(address if isinstance(address, str) else "")
    host = parts.hostname or ""
    if parts.scheme == "http" and loopback and is_loopback(host):
        return str(address)
    if parts.scheme != "https" or not host or parts.username or parts.fragment:
        raise InputError(f"{what} must be an https address")
    return str(address)


@dataclass(frozen=True, slots=True)
class Login:
    """What a sign-in that has begun must remember: all of it is drawn fresh."""

    state: str = field(default_factory=random_text)
    nonce: str = field(default_factory=random_text)
    verifier: str = field(default_factory=random_text)


class Provider:
    """One OpenID provider.

    Args:
        issuer: Its address, from the settings.
        client_id: Ours there.
        secret: Ours there; empty for a public client.
        clock: For the times of ID tokens.
        make_client: Makes the HTTP client.

    Raises:
        InputError: The issuer is no address that may be called, or there is no client id.
    """

    def __init__(
        self,
        issuer: str,
        client_id: str,
        secret: str,
        clock: Clock,
        make_client: MakeClient | None = None,
    ) -> None:
        self.issuer = check_address(issuer, "CLEARINGHOUSE_OIDC_ISSUER")
        if not client_id:
            raise InputError("CLEARINGHOUSE_OIDC_CLIENT_ID is missing: the provider gave it to you")
        self._client_id, self._secret = client_id, secret
        self._clock = clock
        self._is_here = urlsplit(issuer).scheme == "http"
        self._make_client = make_client or partial(plain_client, proxied=not self._is_here)
        self._found: tuple[float, Mapping[str, Any]] = (0.0, {})

    def address(self, login: Login, redirect_uri: str) -> str:
        """Where to send a browser for this sign-in.

        Raises:
            TryAgainError: The provider is away or its description cannot be used.
        """
        query = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": redirect_uri,
            "scope": "openid email",
            "state": login.state,
            "nonce": login.nonce,
            "code_challenge": challenge(login.verifier),
            "code_challenge_method": "S256",
        }
        endpoint = self._endpoint("authorization_endpoint")
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"

    def email(self, login: Login, code: str, redirect_uri: str) -> str:
        """Trade a code for the verified address of the person who signed in, in lower case.

        Raises:
            AuthenticationError: The provider refuses, or its ID token does not hold.
            TryAgainError: It is away.
        """
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "client_id": self._client_id,
            "code_verifier": login.verifier,
        }
        auth = httpx.BasicAuth(self._client_id, self._secret) if self._secret else None
        answer = self._call("POST", self._endpoint("token_endpoint"), data=form, auth=auth)
        token = answer.get("id_token")
        if not isinstance(token, str) or len(token) > 16_384:
            raise AuthenticationError("the provider sent no ID token")
        return _email_of(self._claims(token, login.nonce))

    def _claims(self, token: str, nonce: str) -> Mapping[str, Any]:
        keys = self._call("GET", self._endpoint("jwks_uri")).get("keys")
        usable = [
            key
            for key in (keys if isinstance(keys, list) else [])
            if isinstance(key, dict) and key.get("kty") in ("RSA", "EC")
        ]
        rules = jwt.JWTClaimsRegistry(
            now=lambda: int(self._clock.now()),
            leeway=LEEWAY_S,
            iss={"essential": True, "value": self.issuer},
            sub={"essential": True},
            aud={"essential": True, "value": self._client_id},
            exp={"essential": True},
            iat={"essential": True},
            nonce={"essential": True, "value": nonce},
        )
        try:
            claims = jwt.decode(
                token, KeySet.import_key_set({"keys": usable}), algorithms=ALGORITHMS
            ).claims
            rules.validate(claims)
        except (JoseError, ValueError) as error:
            name = type(error).__name__
            raise AuthenticationError(f"the provider's ID token does not hold ({name})") from None
        several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
        if (several or "azp" in claims) and claims.get("azp") != self._client_id:
            raise AuthenticationError("the provider's ID token is meant for another client")
        if not isinstance(claims["nonce"], str):
            raise AuthenticationError("the provider's ID token does not hold (nonce)")
        return claims

    def _endpoint(self, name: str) -> str:
        read, found = self._found
        now = time.monotonic()
        if not found or now - read > DISCOVERY_S:
            address = self.issuer.rstrip("/") + "/.well-known/openid-configuration"
            found = self._call("GET", address)
            if found.get("issuer") != self.issuer:
                raise TryAgainError("the provider's description is of another issuer")
            self._found = (now, found)
        try:
            return check_address(found.get(name), name, loopback=self._is_here)
        except InputError as error:
            raise TryAgainError(f"the provider's description cannot be used: {error}") from None

    def _call(
        self,
        method: str,
        address: str,
        *,
        data: Mapping[str, str] | None = None,
        auth: httpx.BasicAuth | None = None,
    ) -> dict[str, Any]:
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        body = bytearray()
        try:
            with (
                self._make_client() as client,
                client.stream(method, address, data=data, auth=auth, headers=headers) as answer,
            ):
                if "content-encoding" in answer.headers:
                    raise TryAgainError("the provider's answer is packed, which nobody asked for")
                for part in answer.iter_bytes():
                    body += part
                    if len(body) > MOST_BYTES:
                        raise TryAgainError("the provider's answer is too long")
                status = answer.status_code
        except httpx.HTTPError as error:
            raise TryAgainError(f"the provider is away ({type(error).__name__})") from None
        if status >= 500:
            raise TryAgainError(f"the provider is out of order (status {status})")
        try:
            content = parse_strict(bytes(body), allow_floats=True, max_bytes=MOST_BYTES)
        except InputError:
            content = None
        if status != 200 or not isinstance(content, dict):
            raise AuthenticationError(f"the provider refused the sign-in (status {status})")
        return content


def _email_of(claims: Mapping[str, Any]) -> str:
    email = claims.get("email")
    if claims.get("email_verified") is not True or not isinstance(email, str) or "@" not in email:
        raise AuthenticationError("the provider does not vouch for an e-mail address")
    return email.lower()
